"""The original model, unchanged: the row that every method must beat."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from bench.interface import Context, DataView, Method

if TYPE_CHECKING:
    from torch import nn


class Original(Method):
    """Returns the original model: forgets nothing, costs nothing, reads nothing.

    No deviations: it comes from no paper.
    """

    batch_norm: ClassVar[str] = "frozen"
    budget: ClassVar[str | None] = None
    stochastic: ClassVar[bool] = False
    identity: ClassVar[bool] = True
    cost: ClassVar[str] = "nothing"

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> nn.Module:
        """Return `model` in evaluation mode."""
        return model.eval()
