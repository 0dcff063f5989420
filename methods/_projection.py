"""From a Gram matrix to an update that spares its main directions: the core gradient space and what is left of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import Tensor

Update = Callable[["Tensor"], "Tensor"]


class Spectrum(NamedTuple):
    """Singular values float64 `[d]`, descending; their directions, the columns of `[d, d]`; the share clamped."""

    sigma: Tensor
    vectors: Tensor
    clamped: float


def spectrum(gram: Tensor) -> Spectrum:
    """Square roots of the eigenvalues of a symmetric `[d, d]`, negative ones set to zero.

    A retained Gram is a difference, so rounding, or a model that changed since, can leave small negative
    eigenvalues; `clamped` is their share of the absolute sum.
    """
    values, vectors = torch.linalg.eigh(gram)
    clamped = float(values.clamp(max=0).neg().sum() / values.abs().sum().clamp(min=torch.finfo(values.dtype).tiny))
    return Spectrum(values.clamp(min=0).sqrt().flip(0), vectors.flip(1), clamped)


def rank(sigma: Tensor, gamma: float, *, rule: str = "paper", power: int = 1) -> int:
    """How many directions to protect.

    "paper": the smallest k >= 1 whose first k values hold a share `gamma` of the sum of `sigma ** power`.
    "fewer": the number of k whose share is at most `gamma`, as the authors' code; it can be 0.
    """
    mass = (sigma**power).cumsum(0)
    if mass[-1] == 0:
        return 0  # nothing ever enters the layer: any update spares it
    share = mass / mass[-1]
    if rule == "fewer":
        return int((share <= gamma).sum())
    return min(int((share < gamma).sum()) + 1, len(sigma))


def outside(vectors: Tensor, k: int, like: Tensor) -> Update:
    """The part of a gradient `[out, d]` orthogonal to the first `k` columns of `vectors`, in the dtype of `like`.

    G (I - M M^T) = G N N^T with N the other columns; the thinner of M and N costs less.
    """
    if 2 * k < len(vectors):
        core = vectors[:, :k].to(like)
        return lambda gradient: gradient - (gradient @ core) @ core.T
    rest = vectors[:, k:].to(like)
    return lambda gradient: (gradient @ rest) @ rest.T


def trust_region(vectors: Tensor, k: int, weight: Tensor, tail: int | None, rate: float = 0.1) -> Update:
    """`outside`, and inside the core a step that scales the layer's inputs there (TRGP, Lin et al., ICLR 2022).

    The layer computes with W - W U U^T + W U S U^T, U the core `[d, k]`, S `[k, k]` the identity at the start and
    learned at `rate` times the learning rate. W U never moves, since W is updated outside U only; so a step on S
    along its gradient (W U)^T G U moves the effective weight by (W U) (W U)^T (G U) U^T. Plain gradient descent on
    the effective weight with this update thus *is* the scaled layer, already folded (held by a test).

    Args:
        weight: the layer's weight `[out, d]` before unlearning.
        tail: learn only the trailing `tail x tail` block of S (the weakest directions); None: all of it.
    """
    spare = outside(vectors, k, weight)
    used = k if tail is None else min(tail, k)
    core = vectors[:, k - used : k].to(weight)
    scaled = weight.detach() @ core
    return lambda gradient: spare(gradient) + rate * (scaled @ (scaled.T @ (gradient @ core))) @ core.T
