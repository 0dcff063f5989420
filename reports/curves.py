"""Histograms without lost mass and ROC curves over repeats: arrays in, arrays out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.statistics import roc_curve

Array = NDArray[np.float64]

# The ranges of the paper's figures in nats, with the paper's number of bins.
PAPER_BINS = {"class_removal": (-5.0, 2.0, 99)}
SAMPLE_BINS = (-19.0, 1.0, 100)


def bin_edges(scenario: str, count: int, tail: float = np.inf) -> Array:
    """Edges shared by every panel: the paper's range, and its bins where `count` values per panel can fill them.

    Where the values go on below the range (`tail` is one that should be inside), the range is repeated downward: a
    network that is sure of its training data is far surer than the paper's axis for class removal can show.
    """
    low, high, bins = PAPER_BINS.get(scenario, SAMPLE_BINS)
    if count < 5000:
        bins = 50 if count >= 1000 else 25
    repeats = 1 + int(np.clip(np.ceil((low - tail) / (high - low)), 0, 3))
    bins *= repeats if count >= 5000 else 1
    return np.linspace(high - repeats * (high - low), high, bins + 1)


def binned(values: Array, edges: Array) -> NDArray[np.int64]:
    """Counts `[bins + 2]`: below the first edge, each bin, above the last edge. They add up to all that is not NaN."""
    known = values[~np.isnan(values)]
    inside, _ = np.histogram(known, edges)
    below, above = int((known < edges[0]).sum()), int((known > edges[-1]).sum())
    return np.concatenate([[below], inside, [above]]).astype(np.int64)


def rates(positives: Array, negatives: Array, grid: Array) -> Array:
    """True positive rates `[repeats, grid]` of each repeat's scores against the scores of all retrained models."""
    pooled = negatives[np.isfinite(negatives)]
    curves = (roc_curve(own[np.isfinite(own)], pooled) for own in positives)
    drawn = [np.interp(grid, false, true) for false, true in curves if len(false)]
    return np.array(drawn).reshape(-1, len(grid))


def lowest_rate(negatives: Array) -> float:
    """The smallest false positive rate that ten negatives support: below it a curve is the luck of a few samples."""
    return min(10 / max(int(np.isfinite(negatives).sum()), 1), 0.1)
