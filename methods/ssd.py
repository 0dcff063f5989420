"""Selective synaptic dampening: shrink the weights that matter far more for the forget set than for all data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field

from bench.interface import Context, DataView, Method, Need, State, Unlearned
from methods._importance import importances, prepared
from methods._steps import require_forget

if TYPE_CHECKING:
    from torch import nn


class SSD(Method):
    """Foster et al. (AAAI 2024, equations 5 and 6): theta <- min(lambda I_D / I_f, 1) theta where I_f > alpha I_D.

    The importance I of a weight is the mean over batches of its squared gradient; that of the whole training set is
    computed before any request. One shot, no retained data and no training. Defaults are those of the authors'
    ResNet-18 on CIFAR. Batches of one (`batch_size = 1`) give the empirical Fisher information, sample by sample.

    Deviations: batches are in the order of the file and of nearly the same size, at most half of the training set. The
    square of a mean falls with the size of the batch, and the authors compare batches of the training set with the
    smaller ones of a small forget set, so that it looks important by its size. Here I_D is brought to the sizes of the
    forget set's batches: among n samples the squares of mean gradients of b have the mean m^2 + v (n - b) / b, with m
    and v read off the training set's batches (a file sorted by class overstates v). Later requests keep the
    importances of the original.
    """

    needs: ClassVar[Need] = Need.FORGET | Need.STATISTICS
    cite: ClassVar[str] = "foster2024ssd"
    batch_norm: ClassVar[str] = "eval"
    budget: ClassVar[str | None] = None
    stochastic: ClassVar[bool] = False
    prepares_with: ClassVar[tuple[str, ...] | None] = ("batch_size",)
    cost: ClassVar[str] = "3 n_forget F1; before any request: 3 n F1"
    search: ClassVar[dict[str, tuple[Any, ...]]] = {
        "alpha": (1.0, 2.0, 5.0, 10.0, 25.0, 50.0),
        "dampening": (0.1, 0.5, 1.0),
    }

    alpha: float = Field(default=10.0, ge=0, description="how many times as important a weight must be to be dampened")
    dampening: float = Field(default=1.0, ge=0, le=1_000, description="lambda: how much of it stays")
    batch_size: int = Field(default=64, ge=1, le=100_000, description="examples whose mean gradient is squared")

    def prepare(self, model: nn.Module, data: DataView, ctx: Context) -> State:
        """Mean gradients and importances of all training data, and how many samples there are, in batches of which."""
        return prepared(model.eval(), data.train, self.batch_size)

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> Unlearned:
        """Return `model` with weights dampened; notes: their share. Raises ValueError for an empty forget set."""
        require_forget(data)
        own, known = importances(model.eval(), data.forget, ctx.state)
        chosen = total = 0
        with torch.no_grad():
            for p, mine, all_ in zip(model.parameters(), own, known, strict=True):
                mask = mine > self.alpha * all_
                factor = torch.where(mask, self.dampening * all_ / mine.clamp(min=1e-38), 1.0).clamp(max=1.0)
                p.mul_(factor)
                chosen, total = chosen + int(mask.sum()), total + mask.numel()
        return Unlearned(model, notes={"dampened_share": chosen / total})
