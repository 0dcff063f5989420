"""EU-k: redraw the last k layers and train them on the retained data, the rest frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field

from bench.interface import Context, DataView, Method, Need
from methods import _layers

if TYPE_CHECKING:
    from torch import nn


class EUk(Method):
    """Exact unlearning of the last k layers (Goel et al. 2022, "Towards Adversarial Evaluations ...", section 3).

    The layers that the architecture publishes count, or else all its convolutions and linear layers in the order they
    run; whatever runs after the first of the last k (one retained example is read to see it), BatchNorm and shortcuts
    included, is redrawn and trained too. k = 3 and training by the original's recipe are the choices of the PGU paper.

    Deviations: Goel et al. train 62 epochs at learning rate 0.1 with warm restarts, batches of 64 and gradient
    clipping, draw Kaiming normal weights and zero biases (`init = "kaiming"`), and leave BatchNorm of the tail as
    trained (`keep_tail_bn`), with what it knows of the forget set; they let statistics of the frozen layers drift, here
    they are frozen.
    """

    needs: ClassVar[Need] = Need.RETAIN
    cite: ClassVar[str] = "goel2022eval"
    budget: ClassVar[str | None] = "k"
    cost: ClassVar[str] = "epochs x (1 + 2t) n_retain F1, with t the share of a forward pass that the tail takes"

    k: int = Field(default=3, ge=0, le=10_000, description="weight layers redrawn, from the last; at most all")
    epochs: int | None = Field(default=None, ge=0, le=10_000, description="epochs of training; none: the recipe's")
    init: Literal["draw", "kaiming"] = Field(
        default="draw", description="as the architecture draws its weights, or Kaiming normal with zero biases"
    )
    keep_tail_bn: bool = Field(default=False, description="leave BatchNorm in the tail as trained at the start")

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> nn.Module:
        """Return `model` with a new tail."""
        if self.k == 0:
            return model.eval()
        x, _ = next(iter(data.retain.batches(1)))
        tail = _layers.tail(model, x, self.k, ctx.layers)
        self._redraw(model, tail, ctx)
        return _layers.train_tail(model, tail, data, ctx, self.epochs)

    def _redraw(self, model: nn.Module, tail: list[nn.Module], ctx: Context) -> None:
        fresh = dict(ctx.new_model().named_modules())
        chosen = set(tail)
        with torch.no_grad():
            for name, module in model.named_modules():
                if module not in chosen or (self.keep_tail_bn and _layers.is_batch_norm(module)):
                    continue
                # Only what the module holds itself: its children are in the tail, or kept, on their own account.
                for kind in ("named_parameters", "named_buffers"):
                    drawn = dict(getattr(fresh[name], kind)(recurse=False))
                    for field, value in getattr(module, kind)(recurse=False):
                        value.copy_(drawn[field])
                if self.init == "kaiming" and _layers.is_weight_layer(module):
                    self._kaiming(module, ctx)

    def _kaiming(self, layer: nn.Module, ctx: Context) -> None:
        """Draw on the CPU, where `ctx.generator` lives."""
        assert isinstance(layer.weight, torch.Tensor)
        weight = torch.empty(layer.weight.shape, dtype=layer.weight.dtype)
        layer.weight.copy_(torch.nn.init.kaiming_normal_(weight, generator=ctx.generator))
        if isinstance(layer.bias, torch.Tensor):
            layer.bias.zero_()
