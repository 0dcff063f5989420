"""CT: transpose the kernels of all convolutions and fine-tune on the retained data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field

from bench import loop
from bench.interface import Context, DataView, Need
from methods._steps import Steps

if TYPE_CHECKING:
    from torch import nn


class CT(Steps):
    """Convolution transpose, a winner of the NeurIPS 2023 unlearning contest (as Cadet et al. 2024 describe it).

    Every convolution with a square kernel has its two spatial axes swapped, which keeps what filters weigh but not
    where; then the network is trained on the retained data with a cosine schedule. Defaults are the contest's.

    Deviations: augmentation is the recipe's.
    """

    needs: ClassVar[Need] = Need.RETAIN
    cite: ClassVar[str] = "cadet2024deep"
    budget: ClassVar[str | None] = None
    cost: ClassVar[str] = "epochs x 3 n_retain F1"
    search: ClassVar[dict[str, tuple[Any, ...]]] = {
        "lr": (0.001, 0.003, 0.01, 0.03, 0.1),
        "epochs": (3, 5, 10),
        "batch_size": (32, 64, 256),
    }

    lr: float = Field(default=1e-3, gt=0, le=10, description="learning rate that the cosine starts from")
    epochs: int = Field(default=3, ge=0, le=10_000, description="passes over the retained data")
    batch_size: int = Field(default=64, ge=2, le=100_000, description="examples per step")

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> nn.Module:
        """Return `model` with transposed kernels after `epochs` epochs on the retained data."""
        transpose(model)
        own = self.model_dump(include={"lr", "batch_size", "momentum", "weight_decay"})
        fixed = {"optimizer": "sgd", "schedule": "cosine", "warmup": 0.0, "nesterov": False}
        recipe = ctx.recipe.model_copy(update=own | fixed)
        loop.fit(model.train(), data.retain, recipe, ctx.generator, epochs=self.epochs)
        return model.eval()


def transpose(model: nn.Module) -> None:
    """Swap height and width of every square convolution kernel, in place."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d) and module.kernel_size[0] == module.kernel_size[1]:
                module.weight.copy_(module.weight.transpose(2, 3).clone())
