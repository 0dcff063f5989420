"""Gradient ascent on the forget set until the model is no better there than on held-out data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field

from bench import loop
from bench.interface import Context, DataView, Method, Need, Unlearned
from methods._steps import require_forget

if TYPE_CHECKING:
    from torch import nn


class NegGrad(Method):
    """Climbs the mean cross-entropy of the forget set; the crudest method that reads no retained data.

    Golatkar et al., "Eternal Sunshine of the Spotless Net" (CVPR 2020), name it; defaults are those of Jia et al.
    (NeurIPS 2023) for CIFAR-10 and ResNet-18.

    Deviations: the loss has no bound, so the gradient's norm is clipped and the ascent ends after the first epoch in
    which the forget accuracy is at most the validation accuracy (theirs runs all epochs, unclipped); BatchNorm keeps
    its running statistics, which a forget set of one class would spoil; no augmentation.

    Status `not_converged`: the forget accuracy stayed above the validation accuracy through the last epoch.
    """

    needs: ClassVar[Need] = Need.FORGET | Need.VALIDATION
    cite: ClassVar[str] = "golatkar2020eternal"
    batch_norm: ClassVar[str] = "eval"
    cost: ClassVar[str] = "at most epochs x (4 n_forget + n_validation) F1"
    search: ClassVar[dict[str, tuple[Any, ...]]] = {
        "lr": (1e-4, 1e-3, 0.003, 0.01, 0.03, 0.1),
        "epochs": (5, 10, 20),
        "batch_size": (10, 32, 256),
    }

    lr: float = Field(default=1e-4, gt=0, le=10, description="constant learning rate")
    epochs: int = Field(default=5, ge=0, le=10_000, description="most passes over the forget set")
    batch_size: int = Field(default=256, ge=1, le=100_000, description="examples per step")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="momentum of SGD, not Nesterov's")
    weight_decay: float = Field(default=5e-4, ge=0, le=1, description="L2 weight decay")
    clip: float | None = Field(default=1.0, gt=0, description="largest norm of the whole gradient; none: no limit")

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> Unlearned:
        """Return `model` after the ascent. Raises ValueError for an empty forget set."""
        require_forget(data)
        model.eval()
        update = loop.SGD(model.parameters(), momentum=self.momentum, weight_decay=self.weight_decay)
        for epoch in range(1, self.epochs + 1):
            for x, y in data.forget.batches(self.batch_size, ctx.generator):
                (-loop.cross_entropy(loop.forward(model, x, ctx.recipe), y)).backward()
                if self.clip is not None:
                    torch.nn.utils.clip_grad_norm_(model.parameters(), self.clip)
                update.step(self.lr)
            if loop.error_rate(model, data.forget) >= loop.error_rate(model, data.validation):
                return Unlearned(model, notes={"epochs": epoch})
        return Unlearned(model, status="not_converged" if self.epochs else "ok", notes={"epochs": self.epochs})
