"""First-order update: one gradient step that takes back what the forget set contributed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from bench.interface import Context, DataView, Method, Need, Unlearned
from methods import _influence
from methods._curvature import Linearized
from methods._steps import require_forget

if TYPE_CHECKING:
    from torch import nn


class FirstOrder(Method):
    """First-order update of Warnecke et al. (NDSS 2023), in closed form and without retained data.

    theta' = theta - tau (sum grad l(corrected samples) - sum grad l(samples as trained)). The sums are over the forget
    set, so that tau scales with its size. In depoisoning the corrected samples are the forget set with its true labels,
    which the authors assume known and which are read as a need of their own; `corrected = false` does without. In the
    other scenarios samples just go, and the update is one step of gradient ascent.

    Defaults are those of the authors' poisoning experiment, in code: tau = 2e-5, one step, and of the network only
    its last two weight layers with what runs between them (their dense layers and BatchNorm).

    Deviations: BatchNorm keeps its statistics. The authors' script takes, for every step, at most one batch of those
    samples that the model gets wrong, and the model's answers as their old labels; here all samples count, as trained.
    tau is not adapted: the gradients of a fitted model nearly vanish on clean samples, so that deletion needs a far
    larger one (`search`).
    """

    needs: ClassVar[Need] = Need.FORGET | Need.CORRECTED
    cite: ClassVar[str] = "warnecke2023features"
    batch_norm: ClassVar[str] = "eval"
    budget: ClassVar[str | None] = "steps"
    stochastic: ClassVar[bool] = False
    cost: ClassVar[str] = "steps × 3 n_forget F1, twice that with true labels; no backward pass below the tail"
    search: ClassVar[dict[str, tuple[Any, ...]]] = {
        "tau": (2e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1),
        "steps": (1, 3, 10),
        "k": (1, 2, None),
    }

    tau: float = Field(default=2e-5, gt=0, le=1e6, description="step size on the sum of gradients")
    steps: int = Field(default=1, ge=0, le=10_000, description="updates in a row, gradients computed anew")
    k: int | None = Field(default=2, ge=1, le=10_000, description="last weight layers that move; none: all")
    corrected: bool = Field(default=True, description="depoisoning: pull toward the true labels, which are read")

    def reads(self) -> Need:
        """True labels only where `corrected` asks for them."""
        return self.needs if self.corrected else Need.FORGET

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> Unlearned:
        """Return `model` after the steps; notes: |change| / |weights|. Raises ValueError for an empty forget set."""
        require_forget(data)
        if not self.steps:
            return Unlearned(model.eval())
        names = _influence.names_of_tail(model, data, ctx, self.k)
        start = Linearized(model, names).flat
        for _ in range(self.steps):
            line = Linearized(model, names)
            change = _influence.change(line, data, corrected=_influence.told(ctx, corrected=self.corrected))
            line.put(line.flat - self.tau * change)
        moved = Linearized(model, names).flat - start
        return Unlearned(model, notes={"relative_change": float(moved.norm() / start.norm())})
