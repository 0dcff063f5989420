"""L1-sparse: fine-tuning on the retained data with a penalty on the size of all weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from bench import loop
from bench.interface import Context, DataView, Need
from methods._steps import Steps

if TYPE_CHECKING:
    from torch import nn


class L1Sparse(Steps):
    """CE + gamma |theta|_1 on the retained data, gamma falling to zero (Jia et al., NeurIPS 2023, section 4).

    Defaults are those of the authors' CIFAR-10 runs; gamma falls linearly over the epochs, of which the last
    `free_epochs` go without. The penalty is on every parameter, and steps along its sign leave no exact zeros.

    Deviations: augmentation is the recipe's.
    """

    needs: ClassVar[Need] = Need.RETAIN
    cite: ClassVar[str] = "jia2023sparse"
    cost: ClassVar[str] = "epochs x 3 n_retain F1"
    search: ClassVar[dict[str, tuple[Any, ...]]] = {
        "gamma": (1e-6, 1e-5, 1e-4, 5e-4, 1e-3),
        "lr": (0.003, 0.01, 0.03, 0.1),
        "epochs": (5, 10, 20),
        "batch_size": (32, 256),
    }

    gamma: float = Field(default=5e-4, ge=0, le=10, description="weight of the penalty in the first epoch")
    free_epochs: int = Field(default=0, ge=0, le=10_000, description="last epochs without penalty")

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> nn.Module:
        """Return `model` after `epochs` more epochs on the retained data."""
        update = self.sgd(model.train())
        for epoch in range(self.epochs):
            weight = self.gamma * max(0.0, 1 - epoch / max(1, self.epochs - self.free_epochs))
            for x, y in data.retain.batches(self.batch_size, ctx.generator, augment=True):
                loss = loop.cross_entropy(loop.forward(model, x, ctx.recipe), y)
                if weight:
                    loss = loss + weight * sum(p.abs().sum() for p in update.parameters)
                loss.backward()
                update.step(self.lr)
        return model.eval()
