"""From attack scores to areas and rates: the one place where they are turned into numbers with intervals.

The unit is the model, never the row: samples of one model go up and down together, so that an interval over pooled rows
is far too narrow. Scores are float64 `[models, n]`, larger = more like a member; ties count half in an area.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr

from bench import statistics

SUPPORT = 10  # negatives that must lie above a threshold before a rate at it means something
DRAWS = 1000  # resamples of the models for the interval of a rate


@dataclass(frozen=True)
class Area:
    """An area under the ROC curve over models.

    Attributes:
        value: mean over pairs of models; `low` and `high` bound its 95 % interval.
        error: its standard error, with `degrees` of freedom; nan where a side has fewer than two models.
        models: area of each positive model, averaged over the negative ones, float64 `[models]`.
    """

    value: float
    low: float
    high: float
    error: float
    degrees: float
    models: np.ndarray

    def p(self, chance: float = 0.5) -> float:
        """Two-sided p-value of an area that is `chance` in truth (t-test); nan where there is no error to go by."""
        return 2 * min(self._below(chance), 1 - self._below(chance)) if self._below(chance) >= 0 else math.nan

    def p_equivalent(self, margin: float, chance: float = 0.5) -> float:
        """p-value of an area that is `margin` or more away from `chance`: small means equivalent (TOST).

        nan where the models do not differ at all within the margin: an attack that learned nothing proves nothing.
        """
        if self.error == 0 and abs(self.value - chance) < margin:
            return math.nan
        return max(1 - self._below(chance - margin), self._below(chance + margin))

    def _below(self, level: float) -> float:
        """Probability, under a true area of `level`, of one as small as the found one or smaller."""
        if math.isnan(self.error):
            return math.nan
        gap = self.value - level
        if self.error == 0:
            return 0.5 if gap == 0 else float(gap > 0)
        return float(stdtr(self.degrees, gap / self.error))


NOTHING = Area(math.nan, math.nan, math.nan, math.nan, math.nan, np.empty(0))


def between(positives: np.ndarray, negatives: np.ndarray) -> Area:
    """The area of some models' scores `[models, n]` against those of others `[others, n]`, both drawn independently.

    A two-sample U-statistic over all pairs of models: its variance is that of the row means plus that of the column
    means (E. R. DeLong et al. 1988, with models for samples), its degrees of freedom Welch's. nan where a score is not
    finite or a side is empty.
    """
    positives, negatives = np.asarray(positives, np.float64), np.asarray(negatives, np.float64)
    if not (positives.size and negatives.size and np.isfinite(positives).all() and np.isfinite(negatives).all()):
        return NOTHING
    # The mean over pairs is the area against all models of the other side together, which takes one sort.
    rows, columns = _won(positives, negatives), 1 - _won(negatives, positives)
    return _area(float(rows.mean()), rows, [rows, columns])


def _won(scores: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Share of all `others` below the scores of each model, ties counting half, float64 `[models]`."""
    ranked = np.sort(others, axis=None)
    below, upto = (np.searchsorted(ranked, scores, side).sum(axis=1) for side in ("left", "right"))
    return np.asarray((below + upto) / (2 * scores.shape[1] * ranked.size))


def within(positives: np.ndarray, negatives: np.ndarray) -> Area:
    """The area of each model's scores `[models, n]` against the same model's on other examples `[models, others]`."""
    return of_models(np.array([statistics.auc(p, n) for p, n in zip(positives, negatives, strict=True)]))


def of_models(own: np.ndarray) -> Area:
    """The mean of the areas of single models, float64 `[models]`; nan where one is not finite, or there is none."""
    if not own.size or not np.isfinite(own).all():
        return NOTHING
    return _area(float(own.mean()), own, [own])


def areas(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """Area of every model's scores against every other's, float64 `[models, others]`; nan where one is not finite."""
    positives, negatives = np.asarray(positives, np.float64), np.sort(np.asarray(negatives, np.float64), axis=-1)
    found = np.full((len(positives), len(negatives)), math.nan)
    if not positives.size or not negatives.size:
        return found
    for at in np.flatnonzero(np.isfinite(positives).all(-1)):
        for to in np.flatnonzero(np.isfinite(negatives).all(-1)):
            below, upto = (np.searchsorted(negatives[to], positives[at], side) for side in ("left", "right"))
            found[at, to] = int(below.sum() + upto.sum()) / (2 * positives.shape[1] * negatives.shape[1])
    return found


def _area(value: float, models: np.ndarray, means: list[np.ndarray]) -> Area:
    error, degrees = standard_error(means)
    half = half_width(means)
    return Area(value, max(value - half, 0.0), min(value + half, 1.0), error, degrees, models)


def interval(pairs: np.ndarray) -> tuple[float, float, float]:
    """Mean and ends of its 95 % interval of one number per pair of models, float64 `[models, others]`, as in `between`.

    The models of both sides are drawn independently. The ends are nan for fewer than two models a side.
    """
    pairs = np.asarray(pairs, np.float64)
    if not pairs.size:
        return math.nan, math.nan, math.nan
    value = float(pairs[0, 0] if pairs.min() == pairs.max() else pairs.mean())
    half = half_width([pairs.mean(axis=1), pairs.mean(axis=0)])
    return value, value - half, value + half


def half_width(means: list[np.ndarray]) -> float:
    """Half of the 95 % interval of a sum of independent means of these values (Welch); nan for too few."""
    error, degrees = standard_error(means)
    return statistics.t_quantile((1 + statistics.LEVEL) / 2, degrees) * error if error > 0 else error


def standard_error(means: list[np.ndarray]) -> tuple[float, float]:
    """Standard error and Welch's degrees of freedom of a sum of independent means of these values; nan for too few."""
    if any(len(values) < 2 for values in means):
        return math.nan, math.nan
    parts = [statistics.sd(values) ** 2 / len(values) for values in means]
    total = math.fsum(parts)
    if total == 0:
        return 0.0, math.inf
    shares = zip(parts, means, strict=True)
    return math.sqrt(total), 1 / math.fsum((part / total) ** 2 / (len(values) - 1) for part, values in shares)


@dataclass(frozen=True)
class Rate:
    """A true positive rate at a false positive rate, its 95 % interval over models, and why it has none (`reason`)."""

    value: float
    low: float
    high: float
    reason: str = "ok"


def rate(positives: np.ndarray, negatives: np.ndarray, false: float, seed: int = 0) -> Rate:
    """True positive rate at a false positive rate of at most `false`, thresholds on all negatives together.

    Conservative with ties: the threshold is the smallest negative's score that at most that share of the negatives
    reaches; where too many share even the largest, just above it, so that perfect separation has a rate of 1. The
    interval resamples models on both sides (percentile bootstrap). Refused, with the reason, where fewer than
    `SUPPORT / false` negatives leave the threshold to a handful of rows, where a side has fewer than two models, and
    where a score is not finite.
    """
    if reason := _refused(positives, negatives, false):
        return Rate(math.nan, math.nan, math.nan, reason)
    ranked = np.sort(np.asarray(positives, np.float64), axis=-1)
    value = float(_reached(ranked, _thresholds(negatives, np.ones((1, len(negatives))), false)).mean())
    generator = np.random.default_rng(seed)
    draws = []
    for weights in _resamples(generator, len(negatives), negatives.size):
        reached = _reached(ranked, _thresholds(negatives, weights, false))  # [models, draws]
        chosen = generator.multinomial(len(ranked), np.full(len(ranked), 1 / len(ranked)), size=len(weights))
        draws.append((chosen.T * reached).sum(axis=0) / len(ranked))
    tail = (1 - statistics.LEVEL) / 2
    low, high = np.quantile(np.concatenate(draws), [tail, 1 - tail])
    return Rate(value, float(low), float(high))


def _refused(positives: np.ndarray, negatives: np.ndarray, false: float) -> str:
    if len(positives) < 2 or len(negatives) < 2:
        return "too_few_models"
    if not (np.isfinite(positives).all() and np.isfinite(negatives).all()):
        return "diverged"
    wanted = math.ceil(SUPPORT / false - 1e-9)
    return f"needs {wanted} negatives and has {negatives.size}" if negatives.size < wanted else ""


def _resamples(generator: np.random.Generator, models: int, rows: int) -> Iterator[np.ndarray]:
    """How often each model is drawn, int64 `[draws, models]`, in blocks that fit into memory."""
    block = max(1, min(DRAWS, 10_000_000 // rows))
    for start in range(0, DRAWS, block):
        yield generator.multinomial(models, np.full(models, 1 / models), size=min(block, DRAWS - start))


def _thresholds(negatives: np.ndarray, weights: np.ndarray, false: float) -> np.ndarray:
    """Per resample the smallest negative's score that at most a share `false` of them reaches, float64 `[draws]`."""
    flat = np.ravel(np.asarray(negatives, np.float64))
    owner = np.repeat(np.arange(len(negatives)), negatives.shape[1])
    order = np.argsort(-flat, kind="stable")
    ordered = flat[order]
    reached = np.cumsum(weights[:, owner[order]], axis=1)
    allowed = false * weights.sum(axis=1, keepdims=True) * negatives.shape[1] * (1 + 1e-12)
    last = np.append(ordered[1:] != ordered[:-1], True)  # a threshold takes all of a tie or none
    steps = np.where((reached <= allowed) & last, np.arange(len(flat)), -1).max(axis=1)
    return np.asarray(np.where(steps >= 0, ordered[steps], np.nextafter(ordered[0], np.inf)))


def _reached(ranked: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Share of every model's sorted scores at or above each threshold, float64 `[models, thresholds]`."""
    return np.array([1 - np.searchsorted(own, thresholds, "left") / len(own) for own in ranked])
