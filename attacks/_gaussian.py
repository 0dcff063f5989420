"""Normal distributions of log-odds, one per example, fitted to few models: variances are shrunk to their mean.

Few models leave a variance of one example uncertain, and a single variance for all ignores that examples differ; a
weighted mean of both beats either. The idea is that of Bayesian variants of LiRA; the constants were chosen on made-up
worlds with known truth. No spread is taken for smaller than 1e-6, which is what float32 logits can tell, so that models
that all agree give a finite ratio.
"""

from __future__ import annotations

import math

import numpy as np
from pydantic import Field

from bench import statistics
from bench.attack import Attack

FLOOR = 1e-12  # of a variance, in squared nats
FEW = 16  # with fewer models the distribution of a next one is Student's, not normal


class Gaussian(Attack):
    """Base of the attacks by normal distributions."""

    prior: float = Field(
        default=4.0,
        ge=0,
        description="models that the mean variance over examples counts for (2 to 8 do alike on made-up models)",
    )


def shrunk(squares: np.ndarray, degrees: int, prior: float) -> np.ndarray:
    """Variance per example from sums of squared deviations `[n]`: a mean of its own and of all, by degrees of freedom.

    Args:
        degrees: degrees of freedom of `squares`.
        prior: the degrees of freedom that the mean over all examples counts for; 0 takes each example's own.
    """
    return np.asarray(np.maximum(statistics.shrunken(squares / degrees, degrees, prior), FLOOR))


def squares(phi: np.ndarray) -> np.ndarray:
    """Sum over models of squared deviations from their mean, `[n]`, from log-odds `[models, n]`."""
    return np.asarray(np.square(phi - phi.mean(axis=0)).sum(axis=0))


def predictive(models: int, variance: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Squared scale `[n]` and degrees of freedom, 0-d, of the log-odds of one model more.

    From `FEW` models on a normal distribution (infinite degrees); with fewer, Student's, widened by the error of the
    mean.
    """
    few = models < FEW
    return variance * (1 + 1 / models) if few else variance, np.asarray(degrees if few else math.inf)


def log_density(phi: np.ndarray, mean: np.ndarray, scale: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """Log density of log-odds `[models, n]` under one distribution per example, less half of log(2 pi)."""
    z = np.square(phi - mean) / scale
    nu = float(degrees)
    if math.isinf(nu):
        return np.asarray(-0.5 * (z + np.log(scale)))
    constant = math.lgamma((nu + 1) / 2) - math.lgamma(nu / 2) - 0.5 * math.log(nu / 2)
    return np.asarray(constant - 0.5 * np.log(scale) - (nu + 1) / 2 * np.log1p(z / nu))
