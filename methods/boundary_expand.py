"""Boundary expand: send the forget set to a class of its own, which is then cut off."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field

from bench import loop
from bench.interface import Context, DataView, Need
from methods import _layers
from methods._steps import Steps, require_forget

if TYPE_CHECKING:
    from torch import nn


class BoundaryExpand(Steps):
    """Boundary unlearning (Chen et al., CVPR 2023, section 4.3): a further output takes the forget set.

    The last layer gets a row more, drawn as the architecture draws its weights; the network is trained to give that
    class to every forget sample, and the row is cut off at the end. Forget set only. Defaults are the authors', whose
    learning rate is for the 5,000 samples of a CIFAR-10 class.

    Deviations: BatchNorm keeps its running statistics, which batches of one class would spoil; no augmentation.
    """

    needs: ClassVar[Need] = Need.FORGET
    cite: ClassVar[str] = "chen2023boundary"
    batch_norm: ClassVar[str] = "eval"
    cost: ClassVar[str] = "epochs x 3 n_forget F1"
    search: ClassVar[dict[str, tuple[Any, ...]]] = {
        "lr": (1e-5, 1e-4, 1e-3, 0.003, 0.01),
        "epochs": (5, 10, 20),
        "batch_size": (16, 64),
    }

    lr: float = Field(default=1e-5, gt=0, le=10, description="constant learning rate")
    batch_size: int = Field(default=64, ge=2, le=100_000, description="examples per step")
    weight_decay: float = Field(default=0.0, ge=0, le=1, description="L2 weight decay of the mean loss")

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> nn.Module:
        """Return `model` after the epochs, with its own number of outputs.

        Raises ValueError for an empty forget set, and for a network whose last layer does not give the logits.
        """
        require_forget(data)
        if not self.epochs:
            return model.eval()
        x, _ = next(iter(data.forget.batches(1)))
        layer = _layers.head(model, x, ctx.classes)
        name = next(name for name, module in model.named_modules() if module is layer)
        model.set_submodule(name, _widened(layer, ctx))
        _layers.train_all_but_batch_norm(model)
        update = self.sgd(model)
        for _ in range(self.epochs):
            for x, y in data.forget.batches(self.batch_size, ctx.generator):
                target = torch.full_like(y, ctx.classes)
                loop.cross_entropy(loop.forward(model, x, ctx.recipe), target).backward()
                update.step(self.lr)
        _cut(layer, model.get_submodule(name))
        model.set_submodule(name, layer)
        return model.eval()


def _widened(layer: nn.Conv2d | nn.Linear, ctx: Context) -> nn.Conv2d | nn.Linear:
    """The layer with one output more, whose weights are drawn uniformly as torch draws them."""
    wide, bound = copy.deepcopy(layer), layer.weight[0].numel() ** -0.5
    for name, value in layer.named_parameters():
        drawn = (torch.rand(1, *value.shape[1:], generator=ctx.generator) * 2 - 1) * bound
        setattr(wide, name, torch.nn.Parameter(torch.cat([value.detach(), drawn.to(value)])))
    return wide


def _cut(layer: nn.Conv2d | nn.Linear, wide: nn.Module) -> None:
    """Copy all outputs but the added one back."""
    trained = dict(wide.named_parameters())
    with torch.no_grad():
        for name, value in layer.named_parameters():
            value.copy_(trained[name][: len(value)])
