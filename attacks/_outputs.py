"""What the attacks read off raw outputs: log-odds and log-entropies in float64, nan for rows that are not finite."""

from __future__ import annotations

import numpy as np

from bench import logits
from bench.attack import Known, Points
from bench.interface import UsageError


def log_odds(points: Points) -> np.ndarray:
    """log(p / (1 - p)) of the label, float64 `[models, n]`; nan where a logit is not finite."""
    z = centered(points.logits)
    return _where_finite(points.logits, logits.phi(z, points.labels))


def log_entropy(points: Points) -> np.ndarray:
    """Log of the softmax's entropy in nats, float64 `[models, n]`; nan where a logit is not finite."""
    return _where_finite(points.logits, logits.log_entropy(centered(points.logits)))


def log_p(points: Points) -> np.ndarray:
    """Log of the label's probability, float64 `[models, n]`; nan where a logit is not finite."""
    return -softplus(-log_odds(points))


def softplus(x: np.ndarray) -> np.ndarray:
    """log(1 + exp(x)), which is -log(1 - p) of log-odds x; nan for nan, without a warning."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.logaddexp(0.0, x))


def centered(raw: np.ndarray) -> np.ndarray:
    """Logits in float64 less the row's largest, contiguous; rows that are not finite become zeros.

    A constant added to all logits of a row thus leaves no trace, not even in rounding.
    """
    finite = np.isfinite(raw).all(-1, keepdims=True)
    z = np.where(finite, raw, 0.0).astype(np.float64, order="C")
    return np.asarray(z - z.max(-1, keepdims=True, initial=-np.inf))


def for_fitting(known: Known, attack: str) -> tuple[Points, Points]:
    """The forget set as members and others show it, without the models that are for choosing settings.

    Raises UsageError where a side is left with fewer than two models, which have no spread.
    """
    sides = [side.only(slice(None, len(side) - known.validation)).forget for side in (known.members, known.others)]
    if fewest := [len(side.logits) for side in sides if len(side.logits) < 2]:
        raise UsageError(f"{attack} needs at least 2 models on each side to learn from and has {fewest[0]}")
    return sides[0], sides[1]


def _where_finite(raw: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(raw).all(-1), values, np.nan)
