"""Random labels: train on the forget set with wrong labels, drawn anew every epoch, and on the retained data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field

from bench import loop
from bench.interface import Context, DataView, Need
from methods._labels import random_labels
from methods._steps import Steps, require_forget

if TYPE_CHECKING:
    from torch import Tensor, nn


class RandomLabels(Steps):
    """Every epoch passes over the forget set with fresh wrong labels, then over the retained set with the true ones.

    Golatkar et al. (CVPR 2020) name it; order and defaults are those of the code of Fan et al. (ICLR 2024) for
    CIFAR-10. It teaches confident wrong answers, which an attacker sees as clearly as right ones.

    Deviations: labels are drawn among the other classes that stay; theirs may be the true one (`include_true`).
    Augmentation is the recipe's.
    """

    needs: ClassVar[Need] = Need.FORGET | Need.RETAIN
    cite: ClassVar[str] = "golatkar2020eternal"
    random_by_class: ClassVar[bool] = True
    cost: ClassVar[str] = "epochs x 3 (n_forget + n_retain) F1"
    search: ClassVar[dict[str, tuple[Any, ...]]] = {
        "lr": (0.001, 0.003, 0.01, 0.03, 0.1),
        "epochs": (2, 5, 10),
        "batch_size": (32, 256),
    }

    lr: float = Field(default=0.013, gt=0, le=10, description="constant learning rate")
    include_true: bool = Field(default=False, description="a drawn label may be the true one")

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> nn.Module:
        """Return `model` after the epochs. Raises ValueError for an empty forget set, and where no class is left."""
        return self.relabel(model, data, ctx)

    def relabel(
        self, model: nn.Module, data: DataView, ctx: Context, held: Sequence[tuple[Tensor, Tensor, Tensor]] = ()
    ) -> nn.Module:
        """The same, with weights held back: of a tensor in `held`, where the mask is true, the values given."""
        require_forget(data)
        update = self.sgd(model.train())
        for _ in range(self.epochs):
            for part, wrong in ((data.forget, True), (data.retain, False)):
                for x, y in part.batches(self.batch_size, ctx.generator, augment=True):
                    target = random_labels(y, ctx, include_true=self.include_true) if wrong else y
                    loop.cross_entropy(loop.forward(model, x, ctx.recipe), target).backward()
                    update.step(self.lr)
                    with torch.no_grad():
                        for weights, mask, values in held:
                            weights[mask] = values[mask]
        return model.eval()
