"""CF-k: fine-tune the last k layers on the retained data, the rest frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from bench.interface import Context, DataView, Method, Need
from methods import _layers

if TYPE_CHECKING:
    from torch import nn


class CFk(Method):
    """Catastrophic forgetting of the last k layers (Goel et al. 2022): EU-k without the redraw.

    Layers are counted as in `eu_k`. k = 3 and training by the original's recipe follow the PGU paper's EU-k.

    Deviations: Goel et al. train 30 epochs at learning rate 0.1 with warm restarts, batches of 64 and gradient
    clipping; they let BatchNorm statistics of the frozen layers drift, here they are frozen.
    """

    needs: ClassVar[Need] = Need.RETAIN
    cite: ClassVar[str] = "goel2022eval"
    budget: ClassVar[str | None] = "k"
    cost: ClassVar[str] = "epochs x (1 + 2t) n_retain F1, with t the share of a forward pass that the tail takes"

    k: int = Field(default=3, ge=0, le=10_000, description="weight layers trained, from the last; at most all")
    epochs: int | None = Field(default=None, ge=0, le=10_000, description="epochs of training; none: the recipe's")

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> nn.Module:
        """Return `model` with its tail trained further."""
        if self.k == 0:
            return model.eval()
        x, _ = next(iter(data.retain.batches(1)))
        return _layers.train_tail(model, _layers.tail(model, x, self.k, ctx.layers), data, ctx, self.epochs)
