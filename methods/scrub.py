"""SCRUB: move away from the original's answers on the forget set while staying near them on the rest."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field

from bench import loop
from bench.interface import Context, DataView, Method, Need, Unlearned
from methods import _rewind
from methods._steps import require_forget

if TYPE_CHECKING:
    from torch import Tensor, nn


class Scrub(Method):
    """A student leaves its frozen teacher, the original (Kurmanji et al., NeurIPS 2023, equations 3 and 4).

    d = T^2 KL(teacher || student), at temperature T. Each of the first `msteps` epochs begins with one pass over the
    forget set that climbs d; every epoch passes over the retained set and descends gamma CE + alpha d. `rewind` is
    SCRUB+R. Defaults are those of the authors' CIFAR-10 runs; their decay epochs lie beyond the three epochs.

    With BatchNorm in evaluation mode the gradient of d is zero at the start; it is the student's training mode that
    starts the motion (`order = "min_first"` avoids the question).

    Deviations: augmentation is the recipe's on both sets (the authors use none). The reference error of `rewind`
    weights validation classes by their share of the forget set instead of drawing a subset; classes without validation
    samples have no weight. `rewind` is refused in depoisoning, where the forget labels are wrong.
    """

    needs: ClassVar[Need] = Need.FORGET | Need.RETAIN
    cite: ClassVar[str] = "kurmanji2023scrub"
    cost: ClassVar[str] = (
        "epochs x 4 n_retain F1 + msteps x 4 n_forget F1; rewind: + epochs x n_forget F1 + n_validation F1"
    )
    search: ClassVar[dict[str, tuple[Any, ...]]] = {
        "temperature": (2.0, 4.0),  # 2 in the authors' small-scale runs
        "alpha": (0.001, 0.1, 0.5),
        "msteps": (1, 2, 3),
        "lr": (5e-4, 0.005, 0.01, 0.02),
        "forget_batch": (16, 64, 512),
        "retain_batch": (32, 128),
    }

    temperature: float = Field(default=4.0, gt=0, le=1_000, description="T")
    alpha: float = Field(
        default=0.001, ge=0, le=1_000, description="weight of staying near the teacher on retained data"
    )
    gamma: float = Field(default=0.99, ge=0, le=1_000, description="weight of cross-entropy on retained data")
    msteps: int = Field(default=2, ge=0, le=10_000, description="epochs that also pass over the forget set")
    epochs: int = Field(default=3, ge=0, le=10_000, description="passes over the retained data")
    order: Literal["max_first", "min_first"] = Field(default="max_first", description="which pass begins an epoch")
    optimizer: Literal["sgd", "adam"] = Field(default="sgd", description="one optimizer for both passes")
    lr: float = Field(default=5e-4, gt=0, le=10, description="learning rate before any decay")
    decay_epochs: tuple[int, ...] = Field(default=(3, 5, 9), description="epochs after which the learning rate falls")
    decay: float = Field(default=0.1, gt=0, le=1, description="factor by which it falls")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="momentum of SGD, not Nesterov's")
    weight_decay: float = Field(default=5e-4, ge=0, le=1, description="L2 weight decay")
    forget_batch: int = Field(default=512, ge=1, le=100_000, description="examples per step on the forget set")
    retain_batch: int = Field(default=256, ge=1, le=100_000, description="examples per step on the retained set")
    rewind: bool = Field(default=False, description="SCRUB+R: return the epoch whose forget error suits held-out data")

    def reads(self) -> Need:
        """Rewinding also reads validation data."""
        return self.needs | Need.VALIDATION if self.rewind else self.needs

    def refuses(self, scenario: str) -> str:
        """Rewinding compares errors by label, and depoisoning forgets wrong labels."""
        if not self.rewind or scenario != "depoisoning":
            return ""
        return "scrub.rewind compares errors by label, but depoisoning forgets wrong labels; turn it off"

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> Unlearned:
        """Return the student. Raises ValueError for an empty forget set."""
        require_forget(data)
        teacher = copy.deepcopy(model).eval().requires_grad_(False)
        update = self._optimizer(model)
        checkpoints = []
        for epoch in range(1, self.epochs + 1):
            self._epoch(epoch, model.train(), teacher, data, ctx, update)
            if self.rewind:
                checkpoints.append(_rewind.checkpoint(model.eval(), data.forget, ctx.classes))
        model.eval()
        notes = _rewind.rewind(model, checkpoints, data.validation, ctx.classes) if checkpoints else {}
        return Unlearned(model, notes=notes)

    def _optimizer(self, model: nn.Module) -> loop.SGD | loop.Adam:
        if self.optimizer == "adam":
            return loop.Adam(model.parameters(), weight_decay=self.weight_decay)
        return loop.SGD(model.parameters(), momentum=self.momentum, weight_decay=self.weight_decay)

    def _epoch(
        self,
        epoch: int,
        student: nn.Module,
        teacher: nn.Module,
        data: DataView,
        ctx: Context,
        update: loop.SGD | loop.Adam,
    ) -> None:
        lr = self.lr * self.decay ** sum(epoch > at for at in self.decay_epochs)
        passes = ["max", "min"] if epoch <= self.msteps else ["min"]
        for direction in passes if self.order == "max_first" else reversed(passes):
            part, size = (data.forget, self.forget_batch) if direction == "max" else (data.retain, self.retain_batch)
            for x, y in part.batches(size, ctx.generator, augment=True):
                self._loss(direction, student, teacher, x, y, ctx).backward()
                update.step(lr)

    def _loss(
        self, direction: str, student: nn.Module, teacher: nn.Module, x: Tensor, y: Tensor, ctx: Context
    ) -> Tensor:
        logits = loop.forward(student, x, ctx.recipe)
        if direction == "max":
            return -divergence(logits, loop.forward(teacher, x, ctx.recipe), self.temperature)
        loss = self.gamma * loop.cross_entropy(logits, y)
        if self.alpha:
            loss = loss + self.alpha * divergence(logits, loop.forward(teacher, x, ctx.recipe), self.temperature)
        return loss


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)) of logits `[n, classes]`, mean over the batch."""
    log_student = torch.log_softmax(student / temperature, 1)
    log_teacher = torch.log_softmax(teacher / temperature, 1)
    kl = torch.nn.functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
    return kl * temperature**2
