"""Fine-tuning on the retained data, in the hope that the rest is forgotten by interference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from bench import loop
from bench.interface import Context, DataView, Method, Need

if TYPE_CHECKING:
    from torch import nn


class FineTune(Method):
    """Continues training on the retained data with mean cross-entropy and a constant learning rate.

    The baseline of every unlearning paper. Defaults are those of Jia et al., "Model Sparsity Can Simplify Machine
    Unlearning" (NeurIPS 2023), for CIFAR-10 and ResNet-18; their decay at epochs 91 and 136 is never reached in ten.

    Deviations: augmentation is the recipe's, theirs is crop and flip always.
    """

    needs: ClassVar[Need] = Need.RETAIN
    cite: ClassVar[str] = "jia2023sparse"
    cost: ClassVar[str] = "epochs x 3 n_retain F1"
    search: ClassVar[dict[str, tuple[Any, ...]]] = {
        "lr": (0.003, 0.01, 0.03, 0.1, 0.3),
        "epochs": (5, 10, 20),
        "batch_size": (32, 256),
    }

    lr: float = Field(default=0.01, gt=0, le=10, description="constant learning rate")
    epochs: int = Field(default=10, ge=0, le=10_000, description="passes over the retained data")
    batch_size: int = Field(default=256, ge=2, le=100_000, description="examples per step")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="momentum of SGD, not Nesterov's")
    weight_decay: float = Field(default=5e-4, ge=0, le=1, description="L2 weight decay of the mean loss")

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> nn.Module:
        """Return `model` after `epochs` more epochs on `data.retain`."""
        own = {
            "optimizer": "sgd",
            "schedule": "constant",
            "lr": self.lr,
            "batch_size": self.batch_size,
            "momentum": self.momentum,
            "nesterov": False,
            "weight_decay": self.weight_decay,
        }
        recipe = ctx.recipe.model_copy(update=own)
        loop.fit(model.train(), data.retain, recipe, ctx.generator, epochs=self.epochs)
        return model.eval()
