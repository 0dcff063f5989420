"""Comparing methods that were measured on the same originals: a paired test, Holm's correction, ranks over settings.

Values of methods are float64 `[models]`, paired by position, one per original; nan is a run that failed, and a failure
is worse than any number.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import chdtrc

from bench import statistics

ALPHA = 0.05
TIE = 1e-12  # differences closer than this share of the largest value are rounding

Best = Literal["smallest", "largest"]


@dataclass(frozen=True)
class Comparison:
    """A method among others.

    Attributes:
        method: its name.
        mean: mean of the values that are there; `n` counts them.
        rank: average over the originals of its rank among the methods, 1 the best.
        p: Wilcoxon p-value against the best method, adjusted by Holm over all pairs of methods; nan for the best.
        not_worse: whether it is not shown to be worse than the best, at .05. Not the same as shown to be as good.
    """

    method: str
    mean: float
    rank: float
    p: float
    n: int
    not_worse: bool


def compare(values: Mapping[str, ArrayLike], best: Best = "smallest") -> list[Comparison]:
    """The methods, best mean first, each tested against the best one; methods with failures come after all others.

    Failures take part in the tests, as values worse than all others. The best is picked from the same values, so that
    the correction is for all pairs: for the pairs with the best alone, 13 to 16 % of comparisons of 12 equal methods
    called one worse. With fewer than six originals no p-value reaches .05 whatever the values; among 12 methods, none
    does with fewer than twelve.

    Raises:
        ValueError: methods have different numbers of values.
    """
    names, columns = list(values), [np.asarray(column, np.float64) for column in values.values()]
    if len({column.shape for column in columns}) > 1:
        raise ValueError("methods to compare have one value per original each: " + ", ".join(names))
    if not names:
        return []
    sign = 1.0 if best == "smallest" else -1.0
    costs = sign * np.stack(columns, axis=1)
    counts = np.isfinite(costs).sum(axis=0)
    means = [statistics.mean_interval(column)[0] for column in costs.T]
    order = sorted(range(len(names)), key=lambda at: (-counts[at], means[at] if counts[at] else 0.0, names[at]))
    filled = _failures_last(costs)
    pairs = itertools.combinations(order, 2)  # those with the best come first
    p = holm([signed_rank(filled[:, one], filled[:, other]) for one, other in pairs])[: len(order) - 1]
    ranks = average_ranks(costs)
    return [
        Comparison(names[at], sign * means[at], float(ranks[at]), float(q), int(n), bool(n > 0 and not q < ALPHA))
        for at, q, n in zip(order, [math.nan, *p], counts[order], strict=True)
    ]


def smallest_p(methods: int, originals: int) -> float:
    """The smallest p-value that `compare` can give: that of a signed-rank test where all signs agree, over all pairs.

    1 for five methods on four originals: where this is not below `ALPHA`, no difference could be shown.
    """
    return min(1.0, math.comb(methods, 2) * 2.0 ** (1 - originals))


def _failures_last(costs: np.ndarray) -> np.ndarray:
    """Failures as one cost, farther from every value than any two values are from each other."""
    finite = costs[np.isfinite(costs)]
    if not finite.size:
        return np.zeros_like(costs)
    return np.where(np.isfinite(costs), costs, finite.max() + 2 * (np.ptp(finite) or 1.0))


def signed_rank(a: ArrayLike, b: ArrayLike) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test of paired values, exact also with ties.

    Equal pairs are left out, tied differences share their mid-rank, pairs with a value that is not finite do not
    count. The smallest p-value of n pairs is 2^(1-n): .0625 of five, so that fewer than six can never reach .05. 1
    where all pairs are equal, nan without a pair.
    """
    x, y = _pairs(a, b)
    if not x.size:
        return math.nan
    scale = max(np.abs(x).max(), np.abs(y).max())
    gaps = np.round((x - y) / scale / TIE) if scale > 0 else np.zeros_like(x)
    gaps = gaps[gaps != 0]
    doubled = np.round(2 * _midranks(np.abs(gaps)[None])[0]).astype(int)
    chances = np.zeros(doubled.sum() + 1)  # of every sum of doubled ranks, each counted in or not by a fair coin
    chances[0] = 1.0
    for rank in doubled:
        chances = chances / 2 + np.roll(chances, rank) / 2
    found = int(doubled[gaps > 0].sum())
    return min(1.0, 2 * float(min(chances[: found + 1].sum(), chances[found:].sum())))


def _pairs(a: ArrayLike, b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if x.shape != y.shape:
        raise ValueError(f"{x.size} and {y.size} values are not pairs")
    both = np.isfinite(x) & np.isfinite(y)
    return x[both], y[both]


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """p-values adjusted for being several, by S. Holm (1979): below alpha where the family's error is below alpha.

    Monotone in the given ones, at most 1; nan stays nan and does not count.
    """
    given = np.asarray(p, np.float64)
    adjusted = np.full(given.shape, np.nan)
    places = np.flatnonzero(~np.isnan(given))
    order = places[np.argsort(given[places], kind="stable")]
    scaled = given[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted


def average_ranks(values: np.ndarray, best: Best = "smallest") -> np.ndarray:
    """Average over blocks of each method's rank, 1 the best, float64 `[methods]` from `[blocks, methods]`.

    Ties share their mid-rank, and so do failures (not finite), which come last. A block is a setting, or an original;
    several seeds of a setting are averaged before. nan without a block.
    """
    costs = _costs(values, best)
    return _midranks(costs).mean(axis=0) if len(costs) else np.full(costs.shape[1], np.nan)


def friedman(values: np.ndarray, best: Best = "smallest") -> float:
    """p-value of all methods having equal ranks, by M. Friedman's test (1937) with ties.

    `values` as in `average_ranks`. By the chi-square distribution, which is rough below ten blocks. nan for fewer than
    two blocks or methods; 1 where all are tied.
    """
    ranks = _midranks(_costs(values, best))
    blocks, methods = ranks.shape
    if blocks < 2 or methods < 2:
        return math.nan
    spread = float(((ranks - (methods + 1) / 2) ** 2).sum())
    if spread == 0:
        return 1.0
    sums = ((ranks.sum(axis=0) - blocks * (methods + 1) / 2) ** 2).sum()
    return float(chdtrc(methods - 1, (methods - 1) * sums / spread))


def critical_difference(methods: int, blocks: int, alpha: float = ALPHA) -> float:
    """The difference of two average ranks that P. Nemenyi's test (1963) needs: q sqrt(k (k + 1) / 6 N).

    q is the studentized range over sqrt 2: 3.73 ranks for 12 methods in 20 blocks. With two blocks it is more than
    average ranks can differ, k - 1, whatever the number of methods. nan for fewer than two methods or without a block.
    """
    if methods < 2 or blocks < 1:
        return math.nan
    return _studentized_range(methods, alpha) / math.sqrt(2) * math.sqrt(methods * (methods + 1) / (6 * blocks))


@functools.cache
def _studentized_range(methods: int, alpha: float) -> float:
    from scipy.stats import studentized_range  # takes .6 s to import

    return float(studentized_range.ppf(1 - alpha, methods, np.inf))


def not_told_apart(ranks: Sequence[float] | np.ndarray, difference: float) -> list[list[int]]:
    """Groups of methods whose average ranks are all less than the critical difference apart, best group first.

    Positions in `ranks`, best first; every method is in one group at least, and no group lies within another.
    """
    order = [int(at) for at in np.argsort(ranks, kind="stable")]
    groups: list[list[int]] = []
    reach = 0
    for start, first in enumerate(order):
        near = [at for at in order[start:] if at == first or ranks[at] - ranks[first] < difference]
        if start + len(near) > reach:
            groups.append(near)
            reach = start + len(near)
    return groups


def _costs(values: np.ndarray, best: Best) -> np.ndarray:
    """Values of which the smallest is the best, failures infinite."""
    array = np.asarray(values, np.float64)
    return np.where(np.isfinite(array), array if best == "smallest" else -array, np.inf)


def _midranks(values: np.ndarray) -> np.ndarray:
    """Rank of each value in its row from 1 up, tied ones at their mean, float64 like `values`."""
    below, upto = ((values[:, None, :] < values[:, :, None]), (values[:, None, :] <= values[:, :, None]))
    return np.asarray((below.sum(axis=2) + upto.sum(axis=2) + 1) / 2)
