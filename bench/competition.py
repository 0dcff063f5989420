"""The forgetting score of the NeurIPS 2023 unlearning competition, from log-odds of two groups of models.

Counts of models on each side of a threshold are all that a decision rule leaves behind, so that sorted models and the
rules that the competition's grid can reach between them stand for the grid itself.
"""

from __future__ import annotations

import math

import numpy as np

PER_UNIT = 100  # thresholds per unit of log-odds
REACH = 2.0  # how far the edges of an interval move to either side
CAP = 50.0  # the largest epsilon
BUCKET = 0.5  # of epsilon: each halves the points
EDGES = round(2 * REACH * PER_UNIT)  # places of an interval's right edge, and of its left edge for each right one
CELLS = 2_000_000  # entries of the largest temporary array


def forgetting_score(unlearned: np.ndarray, retrained: np.ndarray, delta: float = 1e-5) -> float:
    """Forgetting score of the NeurIPS 2023 unlearning competition: mean of the samples' points, 0 to 1.

    A sample has 2^-floor(epsilon / .5) points, none where that bucket ends beyond ceil(ln(models - 1)). Exact
    retraining does not score 1 but about .18, whatever the number of models. nan for fewer than two models a side, no
    sample, or a value that is not finite. Source: google-deepmind/unlearning_evaluation at commit ffae0ff, whose
    `metric.py` stops with a ValueError; the factors for retained and test accuracy are left out.
    """
    found = epsilons(unlearned, retrained, delta)
    if not found.size or np.isnan(found).any():
        return math.nan
    bucket = np.floor(found / BUCKET)
    last = math.ceil(math.log(min(len(unlearned), len(retrained)) - 1))
    return float(np.where((bucket + 1) * BUCKET <= last, 2.0**-bucket, 0.0).mean())


def epsilons(unlearned: np.ndarray, retrained: np.ndarray, delta: float = 1e-5) -> np.ndarray:
    """How well the best decision rule tells the two groups of models apart per sample, float64 `[n]`, 0 to 50.

    The largest max{ln((1 - delta - FPR) / FNR), ln((1 - delta - FNR) / FPR)} over single thresholds (positive = the
    group with the larger median) and intervals (positive = the group with the smaller range, edges within 2 of where
    it ends), on the competition's grid of 100 a unit. Rules with one rate of exactly 0 are discarded, perfect ones give
    50, and so do ranges of which one is below a hundredth of the other. Where no rule is left, and where all models
    say the same, 0. nan for fewer than two models a side and where a value is not finite.
    """
    u, r = np.asarray(unlearned, np.float64).T, np.asarray(retrained, np.float64).T
    found = np.full(len(u), np.nan)
    if u.shape[1] < 2 or r.shape[1] < 2:
        return found
    rows = np.flatnonzero(np.isfinite(u).all(axis=1) & np.isfinite(r).all(axis=1))
    table = _rule_table(u.shape[1], r.shape[1], delta)
    block = max(1, CELLS // (u.shape[1] + r.shape[1] + 1) ** 2)
    for start in range(0, len(rows), block):
        some = rows[start : start + block]
        found[some] = _best_rule(u[some], r[some], table)
    return found


def _rule_table(m: int, k: int, delta: float) -> np.ndarray:
    """Epsilon by which group is positive, and how many of the m unlearned and k retrained models are called positive.

    float64 `[2, m + 1, k + 1]`, first with the unlearned, then with the retrained ones positive; -1 where discarded.
    """
    u, r = np.arange(m + 1)[:, None] / m, np.arange(k + 1)[None] / k
    tables = []
    for miss, false in ((np.arange(m, -1, -1)[:, None] / m, r), (np.arange(k, -1, -1)[None] / k, u)):
        miss, false = np.broadcast_arrays(miss, false)
        with np.errstate(divide="ignore", invalid="ignore"):
            table = np.fmax(np.log((1 - delta - false) / miss), np.log((1 - delta - miss) / false))
        table = np.where((miss == 0) | (false == 0) | np.isnan(table), -1.0, np.clip(table, 0.0, CAP))
        tables.append(np.where((miss == 0) & (false == 0), CAP, table))
    return np.stack(tables)


def _best_rule(u: np.ndarray, r: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Largest epsilon per sample for log-odds `[n, models]` of both groups: a rule is told by whom it takes."""
    both = np.concatenate([u, r], axis=1)
    order = np.argsort(both, axis=1, kind="stable")
    ordered = np.take_along_axis(both, order, axis=1)
    before = np.zeros((2, len(u), both.shape[1] + 1), dtype=np.int64)  # models of each group among the first so many
    np.cumsum(order < u.shape[1], axis=1, out=before[0, :, 1:])
    np.cumsum(order >= u.shape[1], axis=1, out=before[1, :, 1:])
    best = np.maximum(_best_threshold(u, r, ordered, before, table), _best_interval(u, r, ordered, before, table))
    small, large = np.sort([np.ptp(u, axis=1), np.ptp(r, axis=1)], axis=0)
    best = np.where(small < 0.01 * large, CAP, np.maximum(best, 0.0))
    return np.where(large == 0, np.where(u[:, 0] == r[:, 0], 0.0, CAP), best)


def _best_threshold(
    u: np.ndarray, r: np.ndarray, ordered: np.ndarray, before: np.ndarray, table: np.ndarray
) -> np.ndarray:
    low, width = ordered[:, :1], np.ptp(ordered, axis=1, keepdims=True)
    steps = np.ceil(width * PER_UNIT) - 1
    passed = np.floor(
        (ordered - low) / np.divide(width, steps, out=np.full_like(width, np.inf), where=steps > 0) + 1e-9
    )
    possible = passed[:, 1:] > passed[:, :-1]  # some threshold of the grid lies between these two
    above = before[:, :, -1:] - before[:, :, 1:-1]
    retrained_positive = (np.median(r, axis=1) > np.median(u, axis=1)).astype(np.int64)
    return np.asarray(np.where(possible, table[retrained_positive[:, None], above[0], above[1]], -1.0).max(axis=1))


def _best_interval(
    u: np.ndarray, r: np.ndarray, ordered: np.ndarray, before: np.ndarray, table: np.ndarray
) -> np.ndarray:
    """Right edges end at the group's maximum + 2, and each has left edges around where its width then begins."""
    retrained_peaky = np.ptp(r, axis=1) < np.ptp(u, axis=1)
    low = np.where(retrained_peaky, r.min(axis=1), u.min(axis=1))[:, None]
    high = np.where(retrained_peaky, r.max(axis=1), u.max(axis=1))[:, None]
    step = 2 * REACH / (EDGES - 1)
    # Right edge i is high - 2 + i step; its left edges are low - 4 + (i + j) step; both i and j go from 0 to 399.
    left = _edges(np.floor((ordered - low + 2 * REACH) / step + 1e-9) + 1, 2 * EDGES - 1)
    right = _edges(np.ceil((ordered - high + REACH) / step - 1e-9), EDGES)
    first, last = (
        left[:, :-1, None],
        left[:, 1:, None] - 1,
    )  # left edges that leave out exactly the first so many models
    start, stop = right[:, None, :-1], right[:, None, 1:] - 1
    possible = (first <= last) & (start <= stop) & (first - stop < EDGES) & (last >= start)
    inside = np.maximum(before[:, :, None, :] - before[:, :, :, None], 0)
    found = table[retrained_peaky.astype(np.int64)[:, None, None], inside[0], inside[1]]
    return np.asarray(np.where(possible, found, -1.0).max(axis=(1, 2)))


def _edges(passed: np.ndarray, number: int) -> np.ndarray:
    """How many of `number` edges come before each model, from none of them to all, int64 `[n, models + 2]`."""
    inner = np.clip(passed, 0, number).astype(np.int64)
    return np.concatenate([np.zeros_like(inner[:, :1]), inner, np.full_like(inner[:, :1], number)], axis=1)
