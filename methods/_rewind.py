"""SCRUB+R: from a run's checkpoints, the one whose forget error is what held-out data of the same classes shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.interface import Part


class Checkpoint(NamedTuple):
    """A model after one epoch: wrong predictions and samples of each class of the forget set, and its tensors."""

    wrong: Tensor
    samples: Tensor
    state: dict[str, Tensor]

    @property
    def error(self) -> float:
        """Error on the forget set, in [0, 1]."""
        return float(self.wrong.sum() / self.samples.sum())


def checkpoint(model: nn.Module, forget: Part, classes: int) -> Checkpoint:
    """What there is to know of `model`, in evaluation mode, after an epoch."""
    wrong, count = class_errors(model, forget, classes)
    return Checkpoint(wrong, count, {name: value.clone() for name, value in model.state_dict().items()})


def rewind(model: nn.Module, checkpoints: list[Checkpoint], validation: Part, classes: int) -> dict[str, float]:
    """Put the chosen checkpoint into `model`; its epoch and the reference error.

    The reference is the final model's error on validation data, each class weighted by its share of the forget set;
    a class without validation samples has no weight. The checkpoint with the nearest forget error is chosen (of equals
    the latest), and the final one if it is not above the reference: then nothing is to be taken back.
    """
    final = checkpoints[-1]
    wrong, count = class_errors(model, validation, classes)
    weight = final.samples * (count > 0)
    reference = float((weight * wrong / count.clamp(min=1)).sum() / weight.sum().clamp(min=1))
    chosen = len(checkpoints) - 1
    if final.error > reference:
        chosen = min(range(len(checkpoints)), key=lambda at: (abs(checkpoints[at].error - reference), -at))
    model.load_state_dict(checkpoints[chosen].state)
    return {"epoch": chosen + 1, "reference_error": reference}


def class_errors(model: nn.Module, part: Part, classes: int) -> tuple[Tensor, Tensor]:
    """Wrong predictions and samples of every class, float64 `[classes]` each."""
    wrong, count = torch.zeros(classes, dtype=torch.float64), torch.zeros(classes, dtype=torch.float64)
    with torch.no_grad():
        for x, y in part.batches(1024):
            missed = (model(x).argmax(1) != y).double()
            wrong += torch.bincount(y, missed, minlength=classes).cpu()
            count += torch.bincount(y, minlength=classes).cpu()
    return wrong, count
