"""Retraining from scratch without the forgotten data: what every method tries to imitate."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from bench import loop
from bench.interface import Context, DataView, Method, Need

if TYPE_CHECKING:
    from torch import nn


class Retrain(Method):
    """Trains a freshly drawn network on the retained data by the original's recipe; never reads the forget set.

    Everything is as the recipe says, so there are no hyper-parameters. The number of epochs stays that of the recipe,
    so the number of steps falls with the size of the retained set.
    As a method it is an independent draw, which must be indistinguishable from the reference models. Removed classes
    keep their outputs, which then nothing trains up; masking them is left to the evaluation.

    No deviations: it comes from no paper.
    """

    needs: ClassVar[Need] = Need.RETAIN
    budget: ClassVar[str | None] = None
    cost: ClassVar[str] = "the recipe's epochs x 3 n_retain F1"

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> nn.Module:
        """Return a new network trained on `data.retain`; `model` is not used."""
        fresh = ctx.new_model().train()
        loop.fit(fresh, data.retain, ctx.recipe, ctx.generator)
        return fresh.eval()
