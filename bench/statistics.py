"""Intervals, ROC curves and distances between samples: the arithmetic beneath every readout, on plain arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

LEVEL = 0.95  # of every interval in records and tables


def t_quantile(probability: float, degrees: float) -> float:
    """The quantile of Student's t at `probability` with `degrees` (not necessarily whole) degrees of freedom."""
    from scipy.special import stdtrit  # scipy.stats has the same quantiles and takes .6 s longer to import

    return float(stdtrit(degrees, probability))


def sd(values: ArrayLike) -> float:
    """Standard deviation (n - 1) of the finite values; nan for fewer than two."""
    finite = _finite(values)
    if len(finite) < 2:
        return math.nan
    # Rounding in the mean gives identical values a spread of 1e-17, which a test of "did it move" would believe.
    return 0.0 if finite.min() == finite.max() else float(np.std(finite, ddof=1))


def shrunken(variances: np.ndarray, degrees: int, prior: float) -> np.ndarray:
    """Variances float64 `[..., n]` drawn toward their mean over the last axis, which counts for `prior` degrees.

    Few models leave the variance of one example uncertain, and a single one for all ignores that examples differ; a
    mean of both, by degrees of freedom, beats either. 0 for `prior` leaves them as they are.
    """
    mean = variances.mean(axis=-1, keepdims=True) if variances.size else 0.0
    return np.asarray((degrees * variances + prior * mean) / (degrees + prior))


def mean_interval(values: ArrayLike) -> tuple[float, float, float, int]:
    """Mean, low and high end of the 95 % t-interval, and the number of finite values, which alone count.

    The ends are nan for fewer than two values; identical values have an interval of zero width. The values must be
    independent: one per model or per pair of models, never one per sample.
    """
    finite = _finite(values)
    n = len(finite)
    if not n:
        return math.nan, math.nan, math.nan, 0
    mean = float(finite[0]) if finite.min() == finite.max() else float(finite.mean())
    if n < 2:
        return mean, math.nan, math.nan, n
    half = t_quantile((1 + LEVEL) / 2, n - 1) * sd(finite) / math.sqrt(n)
    return mean, mean - half, mean + half, n


def interval_sd(low: float, high: float, n: int) -> float:
    """The standard deviation from which `mean_interval` made this interval over `n` values; nan where it made none."""
    if n < 2 or not math.isfinite(high - low):
        return math.nan
    return (high - low) / 2 * math.sqrt(n) / t_quantile((1 + LEVEL) / 2, n - 1)


def explained_difference(spreads: Sequence[tuple[float, int]], alpha: float) -> float:
    """The largest difference of two means that chance explains: Welch's t-test, two-sided, solved for the difference.

    Args:
        spreads: `(sd, n)` of every independent mean in the difference, with n of at least two.
        alpha: the share of false alarms.

    Returns:
        t quantile times standard error, in the units of the values; 0 when nothing varies.

    Source: B. L. Welch (1947), degrees of freedom after F. E. Satterthwaite (1946).
    """
    variances = [sd * sd / n for sd, n in spreads]
    total = math.fsum(variances)
    if total == 0:
        return 0.0
    shares = [v / total for v in variances]  # squares of the variances themselves would underflow
    degrees = 1 / math.fsum(s * s / (n - 1) for s, (_, n) in zip(shares, spreads, strict=True))
    return t_quantile(1 - alpha / 2, degrees) * math.sqrt(total)


def auc(positives: ArrayLike, negatives: ArrayLike) -> float:
    """Probability that a positive outscores a negative, ties counting half; constant scores give exactly 0.5.

    nan when a side is empty or holds a score that is not finite.
    """
    high, low = np.ravel(np.asarray(positives, np.float64)), np.sort(np.ravel(np.asarray(negatives, np.float64)))
    if not (high.size and low.size and np.isfinite(high).all() and np.isfinite(low).all()):
        return math.nan
    below, not_above = np.searchsorted(low, high, "left"), np.searchsorted(low, high, "right")
    return int(below.sum() + not_above.sum()) / (2 * high.size * low.size)


def roc_curve(positives: ArrayLike, negatives: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates, float64 `[points]` from (0, 0) to (1, 1), one point per distinct threshold.

    Tied scores make one slanted segment, so that the area under the polygon equals `auc`. Empty arrays when a side is
    empty or holds a score that is not finite.
    """
    scores = [np.ravel(np.asarray(side, np.float64)) for side in (positives, negatives)]
    if not all(side.size and np.isfinite(side).all() for side in scores):
        return np.empty(0), np.empty(0)
    thresholds = np.unique(np.concatenate(scores))
    tpr, fpr = (1 - np.searchsorted(np.sort(side), thresholds, "left") / side.size for side in scores)
    return np.append(fpr, 0.0)[::-1], np.append(tpr, 0.0)[::-1]


def wasserstein(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """First Wasserstein distance between samples along the last axis, in their units; leading axes broadcast.

    Exact for any two sizes. nan where a sample is empty or holds a value that is not finite.
    """
    x, y, valid = _samples(a, b)
    n, m = x.shape[-1], y.shape[-1]
    # Both quantile functions are steps on the union of the levels i/n and j/m; whole numbers keep the levels exact.
    levels = np.union1d(np.arange(n) * m, np.arange(m) * n)
    width = np.diff(np.append(levels, n * m)) / (n * m)
    gap = np.abs(np.sort(x)[..., levels // m] - np.sort(y)[..., levels // n])
    return np.where(valid, (gap * width).sum(-1), np.nan)


def ks_distance(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """Largest difference of the two empirical distribution functions, 0 to 1; shapes and nan as `wasserstein`."""
    x, y, valid = _samples(a, b)
    n, m = x.shape[-1], y.shape[-1]
    shape = np.broadcast_shapes(x.shape[:-1], y.shape[:-1])
    both = np.concatenate([np.broadcast_to(x, (*shape, n)), np.broadcast_to(y, (*shape, m))], axis=-1)
    order = np.argsort(both, axis=-1)
    height = np.cumsum(np.where(order < n, m, -n), axis=-1)
    ordered = np.take_along_axis(both, order, axis=-1)
    # Between tied values the functions are not defined: only the last of a tie counts.
    last = np.ones(ordered.shape, dtype=bool)
    last[..., :-1] = ordered[..., 1:] != ordered[..., :-1]
    return np.where(valid, (np.abs(height) * last).max(-1) / (n * m), np.nan)


def js_divergence(a: ArrayLike, b: ArrayLike, edges: ArrayLike) -> np.ndarray:
    """Jensen-Shannon divergence on fixed bins in units of ln 2 (0 equal, 1 disjoint); shapes and nan as `wasserstein`.

    Values outside the edges fall into an underflow and an overflow bin, so that no mass is lost.
    """
    x, y, valid = _samples(a, b)
    inner = np.asarray(edges, np.float64)
    p, q = _shares(x, inner), _shares(y, inner)
    middle = (p + q) / 2
    divergence = (_relative(p, middle) + _relative(q, middle)) / (2 * math.log(2))
    return np.where(valid, np.clip(divergence, 0.0, 1.0), np.nan)


def _shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Share of each sample's values per bin, float64 `[..., len(edges) + 1]`."""
    rows = values.reshape(-1, values.shape[-1])
    bins = len(edges) + 1
    place = np.searchsorted(edges, rows, "right") + bins * np.arange(len(rows))[:, None]
    counts = np.bincount(place.ravel(), minlength=bins * len(rows))
    shares: np.ndarray = counts.reshape(*values.shape[:-1], bins) / values.shape[-1]
    return shares


def _relative(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Kullback-Leibler divergence along the last axis in nats, with 0 log 0 = 0; q must cover p."""
    ratio = np.divide(p, q, out=np.ones(np.broadcast_shapes(p.shape, q.shape)), where=p > 0)
    total: np.ndarray = (p * np.log(ratio)).sum(-1)
    return total


def _samples(a: ArrayLike, b: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both samples as float64 arrays without a bad value, and where both were usable."""
    (x, x_valid), (y, y_valid) = _usable(a), _usable(b)
    return x, y, x_valid & y_valid


def _usable(values: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    array = np.asarray(values, np.float64)
    if not array.shape[-1]:
        return np.zeros((*array.shape[:-1], 1)), np.zeros(array.shape[:-1], dtype=bool)
    valid = np.asarray(np.isfinite(array).all(-1))
    return np.where(valid[..., None], array, 0.0), valid


def _finite(values: ArrayLike) -> np.ndarray:
    array = np.ravel(np.asarray(values, np.float64))
    return array[np.isfinite(array)]
