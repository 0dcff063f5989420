"""LiRA on the originals: per example, is a model's log-odds more like those of models trained with it or without?

Source: Carlini, Chien, Nasr, Song, Terzis, Tramer, "Membership Inference Attacks From First Principles", IEEE S&P 2022,
the online attack. It learns from originals (in) and retrained models (out), so that on the row `original` it says how
much there was to forget. On other rows it is blind to whatever does not look like an original: forgetting too much
scores low and passes for private.

Deviations: all forget examples are out together, where the paper draws half of the data for every model. One view per
example, without the paper's shifted copies. The variance of an example is common to in and out (the paper has two, or
one for all examples) and shrunk to its mean over examples; with fewer than 16 models the distributions are Student's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from attacks import _gaussian as gaussian
from attacks._outputs import for_fitting, log_odds
from bench.attack import Known, Knows, Points, Seen


class Lira(gaussian.Gaussian):
    """Likelihood ratio of originals and retrained models, two normal distributions of one variance per example."""

    cite: ClassVar[str] = "carlini2022lira"
    knows: ClassVar[Knows] = "original"

    def fit(self, known: Known, seed: int) -> dict[str, np.ndarray]:
        """Means of the log-odds in and out, their common squared scale `[n]` and its degrees of freedom.

        Raises UsageError for fewer than two models on a side.
        """
        inside, outside = (log_odds(points) for points in for_fitting(known, "lira"))
        degrees = len(inside) + len(outside) - 2
        variance = gaussian.shrunk(gaussian.squares(inside) + gaussian.squares(outside), degrees, self.prior)
        scale, nu = gaussian.predictive(min(len(inside), len(outside)), variance, degrees + self.prior)
        return {"inside": inside.mean(axis=0), "outside": outside.mean(axis=0), "scale": scale, "degrees": nu}

    def score(self, fitted: Mapping[str, np.ndarray], seen: Seen, points: Points) -> np.ndarray:
        """Log-likelihood ratio float64 `[models, n]`, above 0 = rather trained on; nan where a logit is not finite."""
        phi = log_odds(points)
        shared = fitted["scale"], fitted["degrees"]
        inside, outside = (gaussian.log_density(phi, fitted[side], *shared) for side in ("inside", "outside"))
        return np.asarray(inside - outside)
