"""CODEC, a coefficient of conditional dependence, and the forward selection of features by it (Azadkia, Chatterjee 2021).

T is near 1 where y is a function of the features, near 0 where it is independent of them, and needs no model of either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def dependence(y: Tensor, neighbor: Tensor, given: Tensor | None = None) -> float:
    """T of `y` `[m]`: on the features in which `neighbor` `[m]` is nearest; given those in which `given` is, beyond.

    0 where there is nothing left to depend on: a constant `y`, or one that the given features determine.
    """
    r = (y[None] <= y[:, None]).sum(1)
    with_ = torch.minimum(r, r[neighbor])
    if given is None:
        above = (y[None] >= y[:, None]).sum(1)
        top, whole = (len(y) * with_ - above.square()).sum(), (above * (len(y) - above)).sum()
    else:
        without = torch.minimum(r, r[given])
        top, whole = (with_ - without).sum(), (r - without).sum()
    return float(top) / float(whole) if whole else 0.0


def nearest(distances: Tensor) -> Tensor:
    """Index of the nearest other point by squared distances `[m, m]`, whose diagonal is infinite."""
    return distances.argmin(1)


def select(y: Tensor, features: Tensor, most: int) -> list[int]:
    """Columns of `features` `[m, f]`, at most so many, in the order in which `y` depends on them given those before.

    Each is the one with the largest T; it ends where none has a positive one. Constant columns do not count.
    """
    spread = features.std(0)
    z = (features - features.mean(0)) / spread.clamp(min=torch.finfo(features.dtype).tiny)
    left = [at for at in range(z.shape[1]) if float(spread[at]) > 0]
    chosen: list[int] = []
    distances = torch.zeros(len(y), len(y), dtype=z.dtype, device=z.device).fill_diagonal_(torch.inf)
    while left and len(chosen) < most:
        given = nearest(distances) if chosen else None
        values = [dependence(y, nearest(_closer(distances, z[:, at])), given) for at in left]
        best = max(range(len(left)), key=values.__getitem__)
        if values[best] <= 0:
            break
        chosen.append(left.pop(best))
        distances = _closer(distances, z[:, chosen[-1]])
    return chosen


def _closer(distances: Tensor, column: Tensor) -> Tensor:
    """The squared distances with one more coordinate."""
    return distances + (column[:, None] - column[None]).square()
