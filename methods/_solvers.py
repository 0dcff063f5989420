"""Solvers of (A + damping I) x = b for a symmetric A that exists only as a function, its product with a vector."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import Tensor

Product = Callable[["Tensor"], "Tensor"]
Watch = Callable[[int, float], bool]  # iterations done, relative residual -> whether to stop here


class Solution(NamedTuple):
    """What conjugate gradients found.

    Attributes:
        solutions: one row per shift, in the order asked, `[shifts, P]`.
        iterations: products taken that led to a step.
        residuals: ||b - (A + s I) x|| / ||b|| for each shift s, by the recurrence; 0 for b = 0. The smallest shift has
            the largest; they do not fall at every iteration.
        indefinite: it stopped at a direction v with v^T (A + s I) v <= 0 (or not a number): the matrix is not positive
            definite, the solutions are those before that direction, and are not solutions.
    """

    solutions: Tensor
    iterations: int
    residuals: tuple[float, ...]
    indefinite: bool

    @property
    def residual(self) -> float:
        """The largest relative residual, that of the smallest shift."""
        return max(self.residuals)


def conjugate_gradients(
    product: Product,
    b: Tensor,
    shifts: Sequence[float],
    tolerance: float,
    iterations: int,
    watch: Watch = lambda done, residual: False,
) -> Solution:
    """Solve (A + shift_j I) x_j = b for all shifts with the same products, one an iteration.

    Conjugate gradients from x = 0 for the smallest shift; the residuals of the other systems stay parallel to its own,
    so their steps follow from two scalars each (multi-shift CG; Frommer and Maass, SIAM J. Sci. Comput. 1999). Vectors
    keep the type of `b`, dot products are summed in float64. Memory: 2 `[P]` vectors a shift and 3 more.

    Args:
        product: v -> A v.
        b: right-hand side `[P]`.
        shifts: what is added to the diagonal, at least one.
        tolerance: stop at a relative residual of the smallest shift no larger than this.
        iterations: most products.
        watch: called before each product; its true answer stops.

    Raises ValueError for a right-hand side that is not finite.
    """
    sigma = torch.tensor(shifts, dtype=torch.float64, device=b.device)
    seed, lowest = int(sigma.argmin()), float(sigma.min())
    sigma = sigma - lowest
    x, p, r = b.new_zeros(len(sigma), len(b)), b.repeat(len(sigma), 1), b.clone()
    zeta = ratio = torch.ones_like(sigma)  # residual j = zeta_j r, and how zeta changed in the last step
    start = square = _dot(b, b)
    if not math.isfinite(start):
        raise ValueError("the right-hand side of the linear system is not finite")
    step, momentum, done = 1.0, 0.0, 0
    while square > tolerance**2 * start and done < iterations and not watch(done, (square / start) ** 0.5):
        q = product(p[seed]).add(p[seed], alpha=lowest)
        curvature = _dot(p[seed], q)
        if not curvature > 0:
            return Solution(x, done, _residuals(zeta, square, start), indefinite=True)
        before, step = step, square / curvature
        ratio = 1 / (1 + step * sigma + (step * momentum / before) * (1 - ratio))
        zeta = zeta * ratio
        x.addcmul_(p, (step * ratio).to(b.dtype)[:, None])
        r.sub_(q, alpha=step)
        square, last = _dot(r, r), square
        momentum = square / last
        p.mul_((momentum * ratio**2).to(b.dtype)[:, None]).addr_(zeta.to(b.dtype), r)
        done += 1
    return Solution(x, done, _residuals(zeta, square, start), indefinite=False)


def _residuals(zeta: Tensor, square: float, start: float) -> tuple[float, ...]:
    return tuple((zeta.abs() * ((square / start) ** 0.5 if start else 0.0)).tolist())


def exact(product: Product, b: Tensor, damping: float) -> Tensor:
    """The solution of (A + damping I) x = b, `[P]`, by a Cholesky factorization of A assembled from P products.

    For small P: P passes over the data and P^2 numbers, in float64. Raises ValueError if the matrix is not positive
    definite.
    """
    basis = torch.eye(len(b), dtype=b.dtype, device=b.device)
    matrix = torch.stack([product(column).double() for column in basis])
    matrix = (matrix + matrix.T) / 2
    matrix.diagonal().add_(damping)
    factor, info = torch.linalg.cholesky_ex(matrix)
    if int(info):
        raise ValueError(f"the curvature with damping {damping:g} is not positive definite; raise the damping")
    return torch.cholesky_solve(b.double()[:, None], factor)[:, 0].to(b.dtype)


class Recursion(NamedTuple):
    """What LiSSA found: the estimate `[P]`, its iterations, and whether its steps had stopped falling but not grown."""

    solution: Tensor
    iterations: int
    settled: bool


def lissa(
    products: Iterator[Product], b: Tensor, *, damping: float, scale: float, patience: int, iterations: int
) -> Recursion:
    """Estimate (A + damping I)^-1 b from noisy products (LiSSA; Agarwal et al., JMLR 2017; Koh and Liang, ICML 2017).

    v <- b + (1 - damping / scale) v - A v / scale, from v = b; the answer is v / scale. The fixed point is exact; the
    recursion contracts if `scale` exceeds half the largest eigenvalue of A + damping I. It ends once ||change of v||
    has not fallen below its lowest for `patience` iterations, or after `iterations`.

    Args:
        products: one product v -> A v an iteration, such as that of a minibatch, scaled up; its mean must be A v.

    Raises ValueError when it diverges.
    """
    v, lowest, waited, done = b.clone(), math.inf, 0, 0
    for done, product in enumerate(itertools.islice(products, iterations), 1):
        change = b - product(v) / scale - v * (damping / scale)
        v = v + change
        size = float(change.norm())
        if not size <= 1e6 * float(b.norm()):
            raise ValueError(f"LiSSA diverges with scale {scale:g}; raise it above half the largest eigenvalue")
        waited = 0 if size < lowest else waited + 1
        lowest = min(lowest, size)
        if waited >= patience:
            return Recursion(v / scale, done, settled=size < 2 * lowest)  # steps that grow are on their way out
    return Recursion(v / scale, done, settled=False)


def _dot(a: Tensor, b: Tensor) -> float:
    return float(torch.dot(a.double(), b.double()))
