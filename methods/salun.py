"""SalUn: random labels, but only the weights that matter most for the forget set may move."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field

from bench.interface import Context, DataView
from methods._gradients import summed
from methods.random_labels import RandomLabels

if TYPE_CHECKING:
    from torch import Tensor, nn


class SalUn(RandomLabels):
    """Saliency unlearning (Fan et al., ICLR 2024, equations 3 to 5): random labels under a mask of weights.

    The mask holds the share `density` of all parameters with the largest absolute gradient of the forget loss at the
    original. After every step the others are put back, since momentum and weight decay would move them. Defaults are
    those of the authors' CIFAR-10 runs at a tenth of the data.

    Deviations: those of `random_labels`; the gradient is summed over samples, not over means of batches.
    """

    cite: ClassVar[str] = "fan2024salun"
    cost: ClassVar[str] = "3 n_forget F1 + epochs x 3 (n_forget + n_retain) F1"
    search: ClassVar[dict[str, tuple[Any, ...]]] = {
        "density": (0.3, 0.5, 0.7),
        "lr": (0.001, 0.003, 0.013, 0.03, 0.1),
        "epochs": (2, 5, 10),
        "batch_size": (32, 256),
    }

    density: float = Field(default=0.5, gt=0, le=1, description="share of the parameters that may move")

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> nn.Module:
        """Return `model` after the epochs. Raises ValueError for an empty forget set, and where no class is left."""
        masks = salient(summed(model.eval(), data.forget), self.density)
        held = [(p, ~mask, p.detach().clone()) for p, mask in zip(model.parameters(), masks, strict=True)]
        return self.relabel(model, data, ctx, held)


def salient(gradients: list[Tensor], density: float) -> list[Tensor]:
    """Masks, bool like each gradient, of the share `density` of all entries with the largest absolute value."""
    sizes = torch.cat([g.abs().flatten() for g in gradients])
    kept = max(1, round(density * len(sizes)))
    chosen = torch.zeros(len(sizes), dtype=torch.bool, device=sizes.device)
    chosen[sizes.argsort(descending=True, stable=True)[:kept]] = True
    return [part.view_as(g) for part, g in zip(chosen.split([g.numel() for g in gradients]), gradients, strict=True)]
