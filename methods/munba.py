"""MUNBa: every step is the Nash bargaining solution between keeping and forgetting."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field

from bench import loop
from bench.interface import Context, DataView, Need
from methods._labels import random_labels
from methods._steps import Steps, paired, require_forget

if TYPE_CHECKING:
    from torch import Tensor, nn

OPPOSED = 1e-6  # 1 + cosine below which the two gradients leave nothing to bargain for


class MUNBa(Steps):
    """Machine unlearning via Nash bargaining (Wu and Harandi 2024): a step that both losses gain from alike.

    With the gradients g_r of the retained and g_u of the forgetting loss (cross-entropy with random labels) at an angle
    of cosine c, the step is along g_r / |g_r| + g_u / |g_u|, divided by sqrt(1 + c). It is clipped to norm 1, as in the
    authors' code, before momentum and weight decay, so that all steps are of one length. Where the gradients oppose
    each other it is that of g_r + 0.1 g_u.

    Deviations: the closed form instead of the authors' expression, which divides by the inner product; wrong labels are
    drawn among the other classes that stay; every retained batch meets a forget batch (theirs ends some epochs with
    retained batches alone). Augmentation is the recipe's.
    """

    needs: ClassVar[Need] = Need.FORGET | Need.RETAIN
    cite: ClassVar[str] = "wu2024munba"
    random_by_class: ClassVar[bool] = True
    cost: ClassVar[str] = "epochs x 6 n_retain F1"
    search: ClassVar[dict[str, tuple[Any, ...]]] = {
        "lr": (0.001, 0.003, 0.01, 0.03, 0.1),
        "epochs": (2, 5, 10),
        "batch_size": (32, 256),
    }

    lr: float = Field(default=0.013, gt=0, le=10, description="constant learning rate")

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> nn.Module:
        """Return `model` after the epochs. Raises ValueError for an empty forget set, and where no class is left."""
        require_forget(data)
        update = self.sgd(model.train())
        moving = update.parameters
        for _ in range(self.epochs):
            for (x, y), (x_f, y_f) in paired(data, self.batch_size, ctx.generator):
                keep = loop.cross_entropy(loop.forward(model, x, ctx.recipe), y)
                kept = torch.autograd.grad(keep, moving)
                forget = loop.cross_entropy(loop.forward(model, x_f, ctx.recipe), random_labels(y_f, ctx))
                forgot = torch.autograd.grad(forget, moving)
                a, b = bargain(_flat(kept), _flat(forgot))
                for p, one, other in zip(moving, kept, forgot, strict=True):
                    p.grad = a * one + b * other
                torch.nn.utils.clip_grad_norm_(moving, 1.0)
                update.step(self.lr)
        return model.eval()


def bargain(kept: Tensor, forgot: Tensor) -> tuple[float, float]:
    """Weights of the two gradients `[P]` in the Nash solution: a = 1 / (|g| sqrt(1 + c)) each."""
    one, other = float(kept.norm()), float(forgot.norm())
    if not (one > 0 and other > 0):
        return 1.0, 1.0
    gain = 1 + float(kept @ forgot) / (one * other)
    if gain < OPPOSED:
        return 1.0, 0.1
    return 1 / (one * math.sqrt(gain)), 1 / (other * math.sqrt(gain))


def _flat(gradients: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([g.flatten() for g in gradients])
