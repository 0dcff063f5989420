"""DELETE: distill the forget set from the original with the true class struck out of its answers."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field

from bench import loop
from bench.interface import Context, DataView, Need
from methods._layers import train_all_but_batch_norm
from methods._steps import Steps, require_forget

if TYPE_CHECKING:
    from torch import Tensor, nn


class Delete(Steps):
    """Decoupled distillation to erase (CVPR 2025): KL(q || p), q the original's answers without the true class.

    At the start the loss is -log(1 - p_y) and its gradient that of PGU's first term; q then keeps what the original
    knows of the other classes. Forget set only. Defaults are those of the authors' ResNet-18 on CIFAR-10.

    Deviations: BatchNorm keeps its running statistics, which batches of one class would spoil (the authors' code
    offers both); no augmentation, so that teacher and student see the same images.
    """

    needs: ClassVar[Need] = Need.FORGET
    cite: ClassVar[str] = "zhou2025delete"
    batch_norm: ClassVar[str] = "eval"
    cost: ClassVar[str] = "epochs x 4 n_forget F1"
    search: ClassVar[dict[str, tuple[Any, ...]]] = {
        "lr": (1e-5, 1e-4, 5e-4, 1e-3, 3e-3, 0.01),
        "epochs": (5, 10, 20),
        "batch_size": (16, 32, 128),
    }

    lr: float = Field(default=1e-4, gt=0, le=10, description="constant learning rate")
    epochs: int = Field(default=20, ge=0, le=10_000, description="passes over the forget set")
    batch_size: int = Field(default=128, ge=2, le=100_000, description="examples per step")
    mask_removed: bool = Field(default=True, description="strike out all removed classes, not the true one alone")

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> nn.Module:
        """Return `model` after the epochs. Raises ValueError for an empty forget set."""
        require_forget(data)
        teacher = copy.deepcopy(model).eval().requires_grad_(False)
        train_all_but_batch_norm(model)
        update = self.sgd(model)
        removed = ctx.removed_classes if self.mask_removed else ()
        for _ in range(self.epochs):
            for x, y in data.forget.batches(self.batch_size, ctx.generator):
                wanted = without(loop.forward(teacher, x, ctx.recipe), y, removed)
                erased(loop.forward(model, x, ctx.recipe), wanted).backward()
                update.step(self.lr)
        return model.eval()


def without(logits: Tensor, y: Tensor, removed: tuple[int, ...] = ()) -> Tensor:
    """Softmax of logits `[n, classes]` with the true class, and all removed ones, struck out: their share is 0."""
    struck = logits.scatter(1, y[:, None], -torch.inf)
    struck[:, list(removed)] = -torch.inf
    return torch.softmax(struck, 1)


def erased(logits: Tensor, wanted: Tensor) -> Tensor:
    """KL(wanted || softmax(logits)), mean over the batch; classes without a wanted share do not count."""
    return torch.nn.functional.kl_div(torch.log_softmax(logits, 1), wanted, reduction="batchmean")
