"""NTK scrubbing: the step that a linearized network would take if it were trained without the forget set."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field

from bench.interface import Context, DataView, Method, Need, Part, Unlearned
from methods import _influence, _ntk_dense, _safeguard
from methods._curvature import Linearized
from methods._solvers import conjugate_gradients

if TYPE_CHECKING:
    from torch import Tensor, nn

MULTIPLIERS = Annotated[tuple[Annotated[float, Field(gt=0, le=1e9)], ...], Field(min_length=1)]
GIB = 1 << 30
UNSOLVED = 0.1  # on the digits, residuals of .05 and .3 went with errors of 3 and 10 % of the step


class NTK(Method):
    """NTK scrubbing (Golatkar et al., "Forgetting Outside the Box", ECCV 2020) in a form that scales, and in theirs.

    `matrix_free`, the default, solves (sum of J^T L J over the whole retained set + damping I) step = right-hand side
    by conjugate gradients, without storing a Jacobian: its memory is some copies of the weights and one batch, however
    many the examples. `dense` is the authors' algorithm: the weights that training a linearized network would reach on
    a sample of the retained data, minus those reached with the forget set added, both by dense solves, lengthened by
    the "trapezium" rule; residuals are those of cross-entropy, the curvature is squared error's, as in their code.
    docs/ntk.md measures both.

    Deviations of `matrix_free`: all retained data (the PGU paper's row has 1,500 of 49,500; what a sample does not see,
    the step does not spare); the Gauss-Newton curvature of cross-entropy instead of J^T J; undoing the pull of the
    forget set on a model that training has brought to rest (`rhs`), instead of the difference of two solutions, which
    is exact only around the initial weights; no trapezium rule, no noise.
    BatchNorm's statistics are constants. In class removal the linearization is much less accurate.

    Safeguard: dampings are multiples of (examples x weight decay); the smallest whose step loses less than `max_drop`
    points of accuracy on at most 2,000 retained examples is taken. The multiples, 30 iterations and half a point are
    ours; none was chosen on the benchmark's numbers. The dense form looks neither at them nor at the deadline.

    The safeguard goes by the labels that it sees: where poison was not found, undoing it costs accuracy on wrong
    labels, and a sound step may be refused; `max_drop = none` goes without.

    Status `shortened`: only a part of the step with the largest damping passes; `refused`: not even a quarter does, the
    model is unchanged; `unsettled`: the system of the step taken is left with more than a tenth of its right-hand
    side (that of squared error needs over a thousand iterations); `late`: the deadline passed, the step of the
    iterations so far; `wrecked`: the dense form, which has no safeguard, lost `max_drop` points or more. Notes: the
    damping, the share of its step, points lost, iterations, relative residual, the step's length in lengths of the
    weights.
    """

    needs: ClassVar[Need] = Need.FORGET | Need.RETAIN
    cite: ClassVar[str] = "golatkar2020ntk"
    batch_norm: ClassVar[str] = "eval"
    budget: ClassVar[str | None] = "iterations"
    cost: ClassVar[str] = (
        "at most iterations x 5 n_retain F1 + 3 n_forget F1 + 8 x 2,000 F1 for the safeguard; dense, with C classes: "
        "C x 2 (samples + n_forget) F1 and two factorizations of matrices of C x (samples + n_forget) rows"
    )
    search: ClassVar[dict[str, tuple[Any, ...]]] = {
        "damping": ((2.0, 3.0, 5.0, 10.0), (1.0,), (2.0,), (3.0,), (5.0,), (10.0,), (20.0,), (50.0,)),
        "iterations": (10, 30, 100),
    }

    form: Literal["matrix_free", "dense"] = Field(default="matrix_free", description="this or the authors' algorithm")
    curvature: Literal["ggn", "identity"] = Field(
        default="ggn", description="matrix_free: of cross-entropy (Gauss-Newton), or of squared error (the kernel's)"
    )
    rhs: Literal["forget", "residual"] = Field(
        default="forget",
        description="matrix_free: undo the gradient of the forget set, or descend that of the retained data",
    )
    corrected: bool = Field(
        default=False, description="matrix_free, depoisoning: pull toward the true labels of the forget set as well"
    )
    damping: MULTIPLIERS = Field(
        default=(2.0, 3.0, 5.0, 10.0), description="matrix_free: times retained examples x weight decay"
    )
    weight_decay: float | None = Field(default=None, gt=0, le=1e6, description="of the mean loss; none: the recipe's")
    per_sample_decay: bool = Field(
        default=False, description="matrix_free: fewer examples are worth less decay, so undo the forget set's share"
    )
    iterations: int = Field(default=30, ge=0, le=100_000, description="most conjugate-gradient steps; 0: do nothing")
    tolerance: float = Field(default=1e-2, ge=0, lt=1, description="matrix_free: relative residual that ends them")
    batch_size: int = Field(default=256, ge=1, le=100_000, description="examples differentiated at once")
    max_drop: float | None = Field(
        default=0.5, gt=0, le=100, description="points of retained accuracy that a step must not lose; none: no check"
    )
    samples: int = Field(default=1500, ge=1, le=1_000_000, description="dense: retained examples, drawn at random")
    rescale: bool = Field(default=True, description="dense: the trapezium rule, which needs the initial weights")
    memory: float = Field(default=1.0, gt=0, le=10_000, description="dense: GiB for tiles of Jacobians")

    def reads(self) -> Need:
        """The dense form reads initial weights to rescale; `residual` has no use for the forget set."""
        if self.form == "dense":
            return self.needs | Need.INITIAL_WEIGHTS if self.rescale else self.needs
        reads = Need.RETAIN if self.rhs == "residual" else self.needs
        return reads | Need.CORRECTED if self.corrected else reads

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> Unlearned:
        """Return `model` after the step. Raises ValueError where no weight decay is known."""
        decay = ctx.recipe.weight_decay if self.weight_decay is None else self.weight_decay
        if not decay:
            raise ValueError("the recipe has no weight decay, which damps the system: set ntk.weight_decay")
        if not self.iterations:
            return Unlearned(model.eval())
        linear = Linearized(model)
        return (self._dense if self.form == "dense" else self._matrix_free)(linear, data, ctx, decay)

    def _matrix_free(self, linear: Linearized, data: DataView, ctx: Context, decay: float) -> Unlearned:
        kept = _influence.staying(data, corrected=_influence.told(ctx, corrected=self.corrected))
        ridge = decay * sum(map(len, kept))
        shifts = [ridge * multiplier for multiplier in sorted(self.damping)]
        late = False

        def product(v: Tensor) -> Tensor:
            products = [linear.product(part, v, self.curvature, self.batch_size) for part in kept]
            return torch.stack(products).sum(0)

        def watch(done: int, residual: float) -> bool:
            nonlocal late
            ctx.progress(f"iteration {done} of at most {self.iterations}, relative residual {residual:.2g}")
            late = ctx.deadline is not None and time.perf_counter() > ctx.deadline
            return late

        b = self._right_hand_side(linear, data, kept, decay)
        found = conjugate_gradients(product, b, shifts, self.tolerance, self.iterations, watch)
        if found.indefinite:
            raise RuntimeError("the curvature came out negative; is the network deterministic in evaluation mode?")
        taken = _safeguard.take(linear, found.solutions, data.retain, self.max_drop)
        residual = found.residuals[taken.at]
        rough = residual > max(UNSOLVED, self.tolerance)
        said = [taken.status, "late" if late else "ok", "unsettled" if rough and taken.scale else "ok"]
        notes = {"damping": shifts[taken.at] / ridge, "step": taken.scale}
        notes |= {"iterations": found.iterations, "residual": residual}
        notes["relative_change"] = taken.scale * float(found.solutions[taken.at].norm() / linear.flat.norm())
        notes |= {} if self.max_drop is None else {"drop": taken.drop}
        return Unlearned(linear.model, status=" and ".join(w for w in said if w != "ok") or "ok", notes=notes)

    def _right_hand_side(self, linear: Linearized, data: DataView, kept: list[Part], decay: float) -> Tensor:
        """b of the system, `[P]`; weight decay pulls toward 0."""
        if self.rhs == "residual":
            pull = sum((linear.gradient(part, self.batch_size) for part in kept), torch.zeros_like(linear.flat))
            return -(pull + decay * sum(map(len, kept)) * linear.flat)
        b = linear.gradient(data.forget, self.batch_size)
        if kept[1:]:  # the forget set stays, with its true labels, and so does its share of the decay
            return b - linear.gradient(kept[1], self.batch_size)
        return b + decay * len(data.forget) * linear.flat if self.per_sample_decay else b

    def _dense(self, linear: Linearized, data: DataView, ctx: Context, decay: float) -> Unlearned:
        model, before = linear.model, _safeguard.accuracy(linear.model, data.retain)
        parts = [_ntk_dense.examples(data.retain, ctx.generator, self.samples)]
        parts += [_ntk_dense.examples(data.forget, ctx.generator)] if len(data.forget) else []
        x, y = (torch.cat(columns) for columns in zip(*parts, strict=True))
        with torch.no_grad():
            p = torch.cat([model(images).softmax(1) for images in x.split(self.batch_size)])
        residuals, n = p - torch.nn.functional.one_hot(y, p.shape[1]), len(parts[0][1])
        kept, whole = _ntk_dense.linear_solutions(linear, x, residuals, n, decay, int(self.memory * GIB))
        step = kept - whole
        if self.rescale:
            initial = Linearized(ctx.initial_model(), linear.names).flat.to(step)
            step = _ntk_dense.trapezium(step, linear.flat - initial - kept) * step
        linear.put(linear.flat + step)
        drop = before - _safeguard.accuracy(model, data.retain)
        wrecked = self.max_drop is not None and not drop < self.max_drop
        notes = {"samples": n, "relative_change": float(step.norm() / linear.flat.norm()), "drop": drop}
        return Unlearned(model, status="wrecked" if wrecked else "ok", notes=notes)
