"""Unrolling SGD: add back, to first order, what the forget set took off the weights in training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field

from bench import loop
from bench.interface import Context, DataView, Method, Need, Unlearned
from methods._gradients import summed
from methods._steps import require_forget

if TYPE_CHECKING:
    from torch import nn

STEPS = 100  # of an epoch, over which the schedule is averaged; how many there were does not matter


class UnrollingSGD(Method):
    """Single-gradient unlearning (Thudi et al., EuroS&P 2022, section 4): one gradient at the initial weights.

    To first order in the learning rate training is a sum of gradients at the weights it started from, of which every
    sample gave one an epoch, divided by the batch size: w' = w + (sum of the epochs' learning rates / b) sum grad
    l(w_0, x). It is good for short trainings and poor for long ones. The initial weights must have been kept.

    Deviations: learning rates are those of the recipe's schedule, and momentum m counts as a learning rate 1 / (1 - m)
    times as large; both are constant and zero in the authors' text. A recipe with Adam has no such sum (ValueError).
    Class removal is served, though poorly: a whole class is far more than the expansion to first order bears. The
    original is trained by the recipe, without the paper's SD loss (a penalty on the spread of the logits, which makes
    the expansion better), and the paper's formula for the unlearning error, which needs the largest singular value of
    the Hessian along the training, is not computed.
    """

    needs: ClassVar[Need] = Need.FORGET | Need.INITIAL_WEIGHTS
    cite: ClassVar[str] = "thudi2022unrolling"
    batch_norm: ClassVar[str] = "eval"
    budget: ClassVar[str | None] = "scale"
    stochastic: ClassVar[bool] = False
    cost: ClassVar[str] = "3 n_forget F1"
    search: ClassVar[dict[str, tuple[Any, ...]]] = {"scale": (1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0)}

    scale: float = Field(default=1.0, ge=0, le=1e6, description="factor on the step; 1 is the authors'")

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> Unlearned:
        """Return `model` after the step; notes: |change| / |weights|.

        Raises ValueError for an empty forget set and for training that was not by SGD.
        """
        require_forget(data)
        if not self.scale:
            return Unlearned(model.eval())
        if ctx.recipe.optimizer != "sgd":
            raise ValueError(f"training by {ctx.recipe.optimizer} is no sum of gradients that one could add back")
        gradients = summed(ctx.initial_model().eval(), data.forget)
        size = self.scale * _learned(ctx) / ctx.recipe.batch_size
        with torch.no_grad():
            length = torch.stack([p.norm() for p in model.parameters()]).norm()
            for p, g in zip(model.parameters(), gradients, strict=True):
                p.add_(g, alpha=size)
        change = size * torch.stack([g.norm() for g in gradients]).norm()
        return Unlearned(model.eval(), notes={"relative_change": float(change / length)})


def _learned(ctx: Context) -> float:
    """The sum over epochs of the learning rate that a gradient was taken with, momentum included."""
    rates = loop.learning_rates(ctx.recipe, STEPS)
    return sum(rates) / STEPS / (1 - ctx.recipe.momentum)
