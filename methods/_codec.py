"""CODEC, a coefficient of conditional dependence (Azadkia and Chatterjee 2021), and forward selection by it.

T is near 1 where y is a function of the features, near 0 where it is independent of them, and needs no model of either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


class Ranks:
    """A variable `y` `[m]` by its ranks, of which alone T depends."""

    def __init__(self, y: Tensor) -> None:
        self.below = (y[None] <= y[:, None]).sum(1)
        self.above = (y[None] >= y[:, None]).sum(1)

    def dependence(self, nearest: Tensor, given: Tensor | None = None) -> float:
        """T of `y` on features in which the point `nearest` `[m]` is next to each, beyond those in which `given` is.

        0 where there is nothing left to depend on: a constant `y`, or one that the given features determine.
        """
        m, r = len(self.below), self.below
        with_ = torch.minimum(r, r[nearest])
        if given is None:
            top, whole = (m * with_ - self.above.square()).sum(), (self.above * (m - self.above)).sum()
        else:
            without = torch.minimum(r, r[given])
            top, whole = (with_ - without).sum(), (r - without).sum()
        return float(top) / float(whole) if whole else 0.0


def select(y: Tensor, features: Tensor, most: int) -> list[int]:
    """Columns of `features` `[m, f]`, at most so many, in the order in which `y` depends on them given those before.

    Each is the one with the largest T; it ends where none has a positive one. Constant columns do not count.
    """
    spread, ranks = features.std(0), Ranks(y)
    z = ((features - features.mean(0)) / spread.clamp(min=torch.finfo(features.dtype).tiny)).T.contiguous()
    left = [at for at in range(len(z)) if float(spread[at]) > 0]
    chosen: list[int] = []
    distances = torch.zeros(len(y), len(y), dtype=z.dtype, device=z.device).fill_diagonal_(torch.inf)
    while left and len(chosen) < most:
        given = distances.argmin(1) if chosen else None
        values = [ranks.dependence(_with(distances, z[at]).argmin(1), given) for at in left]
        best = max(range(len(left)), key=values.__getitem__)
        if values[best] <= 0:
            break
        chosen.append(left.pop(best))
        distances = _with(distances, z[chosen[-1]])
    return chosen


def _with(distances: Tensor, column: Tensor) -> Tensor:
    """The squared distances `[m, m]` with one more coordinate `[m]`."""
    more = column[:, None] - column
    return torch.addcmul(distances, more, more)
