"""Boundary shrink: give every forget sample the class that lies nearest across the decision boundary."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field

from bench import loop
from bench.interface import Context, DataView, Need, Unlearned
from methods._adversarial import fgsm
from methods._labels import answers
from methods._layers import train_all_but_batch_norm
from methods._steps import Steps, require_forget

if TYPE_CHECKING:
    from torch import Tensor, nn


class BoundaryShrink(Steps):
    """Boundary unlearning (Chen et al., CVPR 2023, section 4.2): train on the label that one FGSM step leads to.

    Forget set only. A sample that the step does not carry across the boundary keeps its label; notes say how many.
    Defaults are the authors', whose learning rate is for the 5,000 samples of a CIFAR-10 class.

    Deviations: the step is in units of the pixel range (theirs un-normalizes with other constants than it normalizes
    with); BatchNorm keeps its running statistics, which batches of one class would spoil; no augmentation.
    """

    needs: ClassVar[Need] = Need.FORGET
    cite: ClassVar[str] = "chen2023boundary"
    batch_norm: ClassVar[str] = "eval"
    cost: ClassVar[str] = "epochs x 7 n_forget F1"
    search: ClassVar[dict[str, tuple[Any, ...]]] = {
        "bound": (0.05, 0.1, 0.3),
        "lr": (1e-5, 1e-4, 1e-3, 0.01),
        "epochs": (5, 10, 20),
    }

    lr: float = Field(default=1e-5, gt=0, le=10, description="constant learning rate")
    batch_size: int = Field(default=64, ge=2, le=100_000, description="examples per step")
    weight_decay: float = Field(default=0.0, ge=0, le=1, description="L2 weight decay of the mean loss")
    bound: float = Field(default=0.1, gt=0, le=1, description="size of the step in each pixel, of the pixel range")

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> Unlearned:
        """Return `model` after the epochs; notes: share that kept its label. Raises ValueError without a forget set."""
        require_forget(data)
        original = copy.deepcopy(model).eval().requires_grad_(False)
        train_all_but_batch_norm(model)
        update, kept, seen = self.sgd(model), 0, 0
        for _ in range(self.epochs):
            for x, y in data.forget.batches(self.batch_size, ctx.generator):
                near = self._nearest(original, x, y, ctx)
                loop.cross_entropy(loop.forward(model, x, ctx.recipe), near).backward()
                update.step(self.lr)
                kept, seen = kept + int((near == y).sum()), seen + len(y)
        return Unlearned(model.eval(), notes={"kept_share": kept / max(seen, 1)})

    def _nearest(self, original: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        """The classes that stay, or the sample's own, that the original takes the moved samples for."""
        moved = fgsm(original, x, y, self.bound, ctx)
        with torch.no_grad():
            return answers(original(moved), y, ctx)
