"""What a request changes in the summed training loss, and which parameters answer to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from methods import _layers

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.interface import Context, DataView, Part
    from methods._curvature import Linearized


def names_of_tail(model: nn.Module, data: DataView, ctx: Context, k: int | None) -> list[str] | None:
    """Names of the parameters of the last `k` layers and of what runs after the first of them; None: all."""
    if k is None:
        return None
    x, _ = next(iter(data.forget.batches(1)))
    own = {id(p) for module in _layers.tail(model, x, k, ctx.layers) for p in module.parameters()}
    return [name for name, p in model.named_parameters() if id(p) in own]


def told(ctx: Context, *, corrected: bool) -> bool:
    """Whether there are true labels to pull toward: in depoisoning, and where the method asks for them."""
    return corrected and ctx.scenario == "depoisoning"


def staying(data: DataView, *, corrected: bool) -> list[Part]:
    """The data that stay: the retained set and, where there are true labels, the corrected samples."""
    return [data.retain, data.corrected] if corrected else [data.retain]


def change(line: Linearized, data: DataView, *, corrected: bool) -> Tensor:
    """Sum of the gradients of the corrected samples minus that of the samples as trained, flat `[P]`.

    Without corrections the samples go: what is left is minus their gradients.
    """
    pushed = line.gradient(data.forget)
    return line.gradient(data.corrected) - pushed if corrected else -pushed
