"""Amnesiac unlearning, the form without a training log: go on training with wrong labels on the forget set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field

from bench import loop
from bench.interface import Context, DataView, Method, Need
from methods._labels import random_labels
from methods._steps import require_forget, shuffled

if TYPE_CHECKING:
    from torch import Tensor, nn


class Amnesiac(Method):
    """Unlearning by relabeling (Graves et al., AAAI 2021, section 4.1): each sample gets one wrong label for good.

    The relabeled samples go through training together with the retained ones. The paper's second form, subtracting the
    updates of batches that held the samples, needs a log of the whole training and is not here. Optimizer and defaults
    are those of the port of Foster et al. (2024).

    Deviations: a batch of the forget set goes with every batch of the retained one, in proportion. Augmentation is the
    recipe's on the retained data; the forget set has none, since its labels stay with its images.
    """

    needs: ClassVar[Need] = Need.FORGET | Need.RETAIN
    cite: ClassVar[str] = "graves2021amnesiac"
    random_by_class: ClassVar[bool] = True
    cost: ClassVar[str] = "n_forget + epochs x 3 (n_forget + n_retain) F1"
    search: ClassVar[dict[str, tuple[Any, ...]]] = {
        "lr": (1e-5, 1e-4, 3e-4, 1e-3, 3e-3),
        "epochs": (1, 3, 10),
        "batch_size": (32, 128),
    }

    lr: float = Field(default=1e-4, gt=0, le=10, description="learning rate of Adam")
    epochs: int = Field(default=3, ge=0, le=10_000, description="passes over both sets")
    batch_size: int = Field(default=128, ge=4, le=100_000, description="examples of the retained data per step")

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> nn.Module:
        """Return `model` after the epochs. Raises ValueError for an empty forget set, and where no class is left."""
        require_forget(data)
        if not self.epochs:
            return model.eval()
        images, labels = _relabeled(data, ctx)
        update, steps = loop.Adam(model.train().parameters()), len(loop.batch_bounds(len(data.retain), self.batch_size))
        for _ in range(self.epochs):
            wrong = shuffled(images, labels, steps, ctx.generator)
            kept = data.retain.batches(self.batch_size, ctx.generator, augment=True)
            for parts in zip(kept, wrong, strict=True):
                both, targets = (torch.cat(side) for side in zip(*parts, strict=True))
                loop.cross_entropy(loop.forward(model, both, ctx.recipe), targets).backward()
                update.step(self.lr)
        return model.eval()


def _relabeled(data: DataView, ctx: Context) -> tuple[Tensor, Tensor]:
    """The forget set with its wrong labels: images `[n, c, h, w]`, labels `[n]`."""
    pairs = [(x, random_labels(y, ctx)) for x, y in data.forget.batches(1024)]
    return torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])
