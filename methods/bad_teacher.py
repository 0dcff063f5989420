"""Bad teacher: a student learns the forget set from a network that knows nothing, the rest from the original."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field

from bench import loop
from bench.interface import Context, DataView, Method, Need
from methods._steps import mixed, require_forget
from methods.scrub import divergence

if TYPE_CHECKING:
    from torch import nn


class BadTeacher(Method):
    """Competent and incompetent teachers (Chundawat et al., AAAI 2023, equation 1).

    The incompetent teacher is a freshly drawn network, whose answers are near uniform, so that samples which
    retrained models get right are unlearned too far. Defaults are those of the authors' CIFAR runs.

    Deviations: the divergence is the mean over samples (theirs also divides by the number of classes, which only
    scales what Adam makes independent of scale); the share of the retained data is drawn anew every epoch; every batch
    holds the forget and the retained data in their proportion instead of at random. Augmentation is the recipe's.
    """

    needs: ClassVar[Need] = Need.FORGET | Need.RETAIN
    cite: ClassVar[str] = "chundawat2023badteacher"
    cost: ClassVar[str] = "epochs x 4 (n_forget + share n_retain) F1"
    search: ClassVar[dict[str, tuple[Any, ...]]] = {
        "lr": (1e-5, 3e-5, 1e-4, 3e-4, 1e-3),
        "epochs": (1, 2, 5),
        "temperature": (1.0, 2.0, 4.0),
        "batch_size": (32, 256),
    }

    lr: float = Field(default=1e-4, gt=0, le=10, description="learning rate of Adam")
    epochs: int = Field(default=1, ge=0, le=10_000, description="passes over the forget set")
    batch_size: int = Field(default=256, ge=4, le=100_000, description="examples per step, of both sets together")
    share: float = Field(default=0.3, gt=0, le=1, description="share of the retained data that is read in an epoch")
    temperature: float = Field(default=1.0, gt=0, le=1_000, description="of the softmax of teachers and student")

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> nn.Module:
        """Return the student. Raises ValueError for an empty forget set."""
        require_forget(data)
        good, bad = (teacher.eval().requires_grad_(False) for teacher in (copy.deepcopy(model), ctx.new_model()))
        update = loop.Adam(model.train().parameters())
        for _ in range(self.epochs):
            for forget, retain in mixed(data, self.batch_size, ctx.generator, share=self.share):
                taught = [(pair[0], teacher) for pair, teacher in ((forget, bad), (retain, good)) if pair is not None]
                with torch.no_grad():
                    targets = torch.cat([loop.forward(teacher, x, ctx.recipe) for x, teacher in taught])
                answers = loop.forward(model, torch.cat([x for x, _ in taught]), ctx.recipe)
                (divergence(answers, targets, self.temperature) / self.temperature**2).backward()
                update.step(self.lr)
        return model.eval()
