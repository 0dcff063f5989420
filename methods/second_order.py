"""Second-order update: one Newton step that takes back what the forget set contributed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field

from bench import loop
from bench.interface import Context, DataView, Method, Need, Part, Unlearned
from methods import _influence, _solvers
from methods._curvature import Linearized
from methods._steps import require_forget

if TYPE_CHECKING:
    from torch import Tensor, nn


class SecondOrder(Method):
    """Second-order update of Warnecke et al. (NDSS 2023), in closed form.

    theta' = theta - (H + damping I)^-1 (sum grad l(corrected samples) - sum grad l(samples as trained)), with H the
    Hessian of the summed loss over the data that stay: the retained set and, where true labels are read, the corrected
    samples. For a model at the minimum of a convex loss this is one Newton step toward the retrained one. What is read
    in depoisoning, and `corrected = false`, are as in `first_order`.

    Three solvers: "cg" (conjugate gradients over all the data that stay), "lissa" (the authors' recursion on
    minibatches, averaged over `repetitions`) and "exact" (a factorization, for some thousand parameters at most). The
    "hessian" of a network may be indefinite, which wrong labels make likely; "ggn" (Gauss-Newton) is not.

    Status `indefinite`: conjugate gradients met a direction of no or negative curvature and stopped there; `unsettled`:
    the solver ran out of iterations, or of time (the deadline), or LiSSA's steps had begun to grow; `shortened`: the
    step was longer than `max_change` and was scaled back to it.

    Defaults: the last two weight layers, and for LiSSA scale 2e5, batch 1,024 and patience 20, are those of the
    authors' poisoning experiment, in code. Their damping 1e-4 acts through the scale: the fixed point of their
    recursion has a ridge of 1e-4 * 2e5 = 20 on the summed Hessian, which is `damping` here, for every solver.

    Deviations: conjugate gradients on Gauss-Newton curvature are the default, since LiSSA with the authors' scale is
    some thousand minibatches away from its fixed point, many times the cost of retraining on small data (`solver =
    "lissa"` restores it, with the Hessian); a minibatch's Hessian is scaled up to all the data that stay (theirs stands
    for 1,024 samples, which is another ridge); H is over the data that stay, whose Newton step this is; LiSSA ends
    after `iterations` at the latest; BatchNorm keeps its statistics; which forget samples count, as in `first_order`.
    """

    needs: ClassVar[Need] = Need.FORGET | Need.RETAIN | Need.CORRECTED
    cite: ClassVar[str] = "warnecke2023features"
    batch_norm: ClassVar[str] = "eval"
    budget: ClassVar[str | None] = "iterations"
    cost: ClassVar[str] = "3 n_forget F1 + products × 5 n_retain F1; lissa: products × 6 batch_size F1 instead"
    search: ClassVar[dict[str, tuple[Any, ...]]] = {
        "damping": (1.0, 5.0, 20.0, 100.0, 500.0),
        "k": (1, 2, None),
        "max_change": (None, 0.1, 0.3),
    }

    solver: Literal["cg", "lissa", "exact"] = Field(default="cg", description="how the inverse is applied")
    curvature: Literal["hessian", "ggn"] | None = Field(
        default=None, description="second derivatives, or Gauss-Newton; none: ggn for cg, hessian for the others"
    )
    damping: float = Field(default=20.0, ge=0, le=1e9, description="ridge on the summed curvature")
    k: int | None = Field(default=2, ge=1, le=10_000, description="last weight layers that move; none: all")
    corrected: bool = Field(default=True, description="depoisoning: pull toward the true labels, which are read")
    iterations: int = Field(default=1000, ge=0, le=1_000_000, description="most products of the solver; 0: no update")
    tolerance: float = Field(default=1e-3, ge=0, lt=1, description="cg: relative residual at which it ends")
    scale: float = Field(default=2e5, gt=0, description="lissa: must exceed half the largest eigenvalue")
    batch_size: int = Field(default=1024, ge=1, le=100_000, description="lissa: examples per product")
    patience: int = Field(default=20, ge=1, le=100_000, description="lissa: iterations without a smaller step")
    repetitions: int = Field(default=1, ge=1, le=1_000, description="lissa: runs that are averaged")
    max_change: float | None = Field(
        default=None, gt=0, le=100, description="longest step as a share of the weights' norm; none: as long as it is"
    )

    def reads(self) -> Need:
        """True labels only where `corrected` asks for them."""
        return self.needs if self.corrected else Need.FORGET | Need.RETAIN

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> Unlearned:
        """Return `model` after the step; notes: products, |step| / |weights| before any shortening.

        Raises ValueError for an empty forget set, a recursion that diverges, and a matrix that cannot be factorized.
        """
        require_forget(data)
        if not self.iterations:
            return Unlearned(model.eval())
        line = Linearized(model, _influence.names_of_tail(model, data, ctx, self.k))
        corrected = _influence.told(ctx, corrected=self.corrected)
        stay = _influence.staying(data, corrected=corrected)
        step, status, done = self._solve(line, -_influence.change(line, data, corrected=corrected), stay, ctx)
        relative = float(step.norm() / line.flat.norm())
        if self.max_change is not None and relative > self.max_change:
            step, status = step * (self.max_change / relative), "shortened"
        line.put(line.flat + step)
        return Unlearned(model, status=status, notes={"products": done, "relative_change": relative})

    def _solve(self, line: Linearized, b: Tensor, stay: list[Part], ctx: Context) -> tuple[Tensor, str, int]:
        """The step, its status, and the number of products."""
        if self.solver == "lissa":
            return self._lissa(line, b, stay, ctx)

        def product(v: Tensor) -> Tensor:
            return torch.stack([line.product(part, v, self._kind) for part in stay]).sum(0)

        if self.solver == "exact":
            return _solvers.exact(product, b, self.damping), "ok", len(b)
        found = _solvers.conjugate_gradients(
            product, b, (self.damping,), self.tolerance, self.iterations, lambda done, residual: _late(ctx)
        )
        status = "indefinite" if found.indefinite else "ok" if found.residual <= self.tolerance else "unsettled"
        return found.solutions[0], status, found.iterations

    @property
    def _kind(self) -> Literal["hessian", "ggn"]:
        return self.curvature or ("ggn" if self.solver == "cg" else "hessian")

    def _lissa(self, line: Linearized, b: Tensor, stay: list[Part], ctx: Context) -> tuple[Tensor, str, int]:
        runs = [
            _solvers.lissa(
                itertools.takewhile(lambda _: not _late(ctx), self._minibatches(line, stay, ctx.generator)),
                b,
                damping=self.damping,
                scale=self.scale,
                patience=self.patience,
                iterations=self.iterations,
            )
            for _ in range(self.repetitions)
        ]
        step = torch.stack([run.solution for run in runs]).mean(0)
        return step, "ok" if all(run.settled for run in runs) else "unsettled", sum(run.iterations for run in runs)

    def _minibatches(
        self, line: Linearized, stay: list[Part], generator: torch.Generator
    ) -> Iterator[_solvers.Product]:
        """Products of one minibatch after the other, for ever; their mean over a pass is the product of all data."""
        count = sum(len(loop.batch_bounds(len(part), self.batch_size)) for part in stay)
        for part in itertools.cycle(stay):
            for x, y in part.batches(self.batch_size, generator):
                yield partial(self._minibatch, line, x, y, count)

    def _minibatch(self, line: Linearized, x: Tensor, y: Tensor, count: int, v: Tensor) -> Tensor:
        return count * line.batch_product(x, y, v, self._kind)


def _late(ctx: Context) -> bool:
    return ctx.deadline is not None and time.perf_counter() > ctx.deadline
