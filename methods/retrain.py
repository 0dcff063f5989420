"""Retraining from scratch without the forgotten data: what every method tries to imitate."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from bench import loop
from bench.interface import Context, DataView, Method, Need

if TYPE_CHECKING:
    from torch import nn


class Retrain(Method):
    """Trains a freshly drawn network on the retained data by the original's recipe; never reads the forget set.

    Everything is as the recipe says. The number of epochs stays that of the recipe, so the number of steps falls with
    the size of the retained set.
    As a method it is an independent draw, which must be indistinguishable from the reference models. Removed classes
    keep their outputs, which then nothing trains up; masking them is left to the evaluation.

    With `compute` below 1 it trains for that share of the recipe's epochs, rounded, at least one, and the schedule of
    the learning rate spans those: what the same time buys without a method, which an approximate one has to beat.

    No deviations: it comes from no paper.
    """

    needs: ClassVar[Need] = Need.RETAIN
    budget: ClassVar[str | None] = None
    cost: ClassVar[str] = "compute x the recipe's epochs x 3 n_retain F1"

    compute: float = Field(default=1.0, gt=0, le=1, description="share of the recipe's epochs that it trains for")

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> nn.Module:
        """Return a new network trained on `data.retain`; `model` is not used."""
        fresh = ctx.new_model().train()
        epochs = max(round(self.compute * ctx.recipe.epochs), 1)
        loop.fit(fresh, data.retain, ctx.recipe, ctx.generator, epochs=epochs)
        return fresh.eval()
