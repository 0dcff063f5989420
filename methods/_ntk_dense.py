"""The authors' form of NTK scrubbing: dense linear systems over the forget set and a sample of the retained data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from bench.interface import Part
    from methods._curvature import Linearized

COLUMNS = 4096  # of a tile converted to float64 at once


def examples(part: Part, generator: torch.Generator, most: int | None = None) -> tuple[Tensor, Tensor]:
    """Images and labels of a part, or of a random sample of `most` of them."""
    sampled = most is not None and most < len(part)
    order, left = generator if sampled else None, len(part) if most is None else most
    xs: list[Tensor] = []
    ys: list[Tensor] = []
    for x, y in part.batches(min(left, 250), order):
        xs, ys, left = [*xs, x[:left]], [*ys, y[:left]], left - len(y)
        if left <= 0:
            break
    return torch.cat(xs), torch.cat(ys)


def linear_solutions(
    linear: Linearized, x: Tensor, residuals: Tensor, kept: int, weight_decay: float, memory: int
) -> tuple[Tensor, Tensor]:
    """Where training the linearized network with squared loss ends: on the first `kept` examples, and on all.

    w(S) = -G (G^T G + n wd I)^-1 residuals = -(G G^T + n wd I)^-1 G residuals with G = [J_i^T] over the n examples of
    S (Golatkar et al., ECCV 2020). The first form is solved if C n <= P, else the second; both in float64.

    Args:
        x: images `[n, c, h, w]`.
        residuals: logits minus targets, or what stands for them, `[n, C]`.
        weight_decay: of the mean loss.
        memory: bytes that tiles of Jacobians may take; G as a whole is never stored.

    Returns two weight vectors `[P]`, relative to the point of linearization.
    """
    solve = _in_sample_space if residuals.numel() <= len(linear.flat) else _in_parameter_space
    first, second = solve(linear, x, residuals, (kept, len(x)), weight_decay, memory)
    return first, second


def trapezium(step: Tensor, error: Tensor) -> float:
    """The factor by which the authors lengthen `step` for the linearization's `error` at the retained solution.

    The predicted length is ||step|| + 2 |cos(step, error)| ||error||; both branches of the authors' code amount to it.
    """
    length = float(step.norm())
    return 1 + 2 * abs(float(torch.dot(step, error))) / length**2 if length else 1.0


def _in_sample_space(
    linear: Linearized, x: Tensor, residuals: Tensor, counts: tuple[int, ...], weight_decay: float, memory: int
) -> Iterator[Tensor]:
    width = residuals.shape[1]
    kernel = _kernel(linear, x, width, memory)
    for n in counts:
        block = kernel[: width * n, : width * n].clone()
        alpha = _solve(block, n * weight_decay, residuals[:n].double().flatten())
        yield -linear.pullback(x[:n], alpha.view(n, width).to(x.dtype))


def _in_parameter_space(
    linear: Linearized, x: Tensor, residuals: Tensor, counts: tuple[int, ...], weight_decay: float, memory: int
) -> Iterator[Tensor]:
    size = len(linear.flat)
    rows = max(1, memory // (residuals.shape[1] * size * (x.element_size() + 8)))  # a tile, and its copy in float64
    matrix = torch.zeros(size, size, dtype=torch.float64, device=x.device)
    done = 0
    for n in counts:
        for tile in x[done:n].split(rows) if n > done else ():
            jacobian = linear.jacobian(tile).flatten(0, 1).double()
            matrix.addmm_(jacobian.T, jacobian)
        done = n
        right = linear.pullback(x[:n], residuals[:n])
        yield -_solve(matrix.clone(), n * weight_decay, right.double()).to(x.dtype)


def _kernel(linear: Linearized, x: Tensor, width: int, memory: int) -> Tensor:
    """G^T G over all examples, float64 `[C n, C n]`, from products of two tiles of Jacobians at a time."""
    rows = max(1, memory // (2 * width * len(linear.flat) * x.element_size()))
    kernel = torch.zeros(width * len(x), width * len(x), dtype=torch.float64, device=x.device)
    starts = range(0, len(x), rows)
    for top in starts:
        left = linear.jacobian(x[top : top + rows]).flatten(0, 1)
        for start in (s for s in starts if s <= top):
            right = left if start == top else linear.jacobian(x[start : start + rows]).flatten(0, 1)
            block = kernel[width * top :, width * start :][: len(left), : len(right)]
            for a, b in zip(left.split(COLUMNS, 1), right.split(COLUMNS, 1), strict=True):
                block.addmm_(a.double(), b.double().T)
            kernel[width * start :, width * top :][: len(right), : len(left)] = block.T.clone()
    return kernel


def _solve(matrix: Tensor, ridge: float, b: Tensor) -> Tensor:
    matrix.diagonal().add_(ridge)
    factor, info = torch.linalg.cholesky_ex(matrix)
    if int(info):
        raise ValueError("the dense system is not positive definite: raise ntk.weight_decay")
    return torch.cholesky_solve(b[:, None], factor)[:, 0]
