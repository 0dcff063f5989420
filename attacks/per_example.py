"""Per example, is a model's log-odds more like those of unlearned or of retrained models? The headline attack.

Source: the U-LiRA of Hayes, Shumailov, Triantafillou, Khalifa, Papernot, "Inexact Unlearning Needs More Careful
Evaluations to Avoid a False Sense of Privacy", 2024, after LiRA (Carlini et al., 2022). The attacker knows the method:
it runs the method itself, fits one normal distribution per forget example to the log-odds log(p / (1 - p)) of its own
unlearned models and one to those of retrained ones, and scores by the log-likelihood ratio. Larger is more like
unlearned, so that forgetting too much, in both directions, or with too little spread is found as well.

Deviations: the forget set is fixed and not drawn per model, so that the ratio tells how near to retraining the method
comes on this forget set. Variances are separate for both sides and shrunk to their mean over examples; with fewer than
16 models the distributions are Student's. The log-odds come from raw logits in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from attacks import _gaussian as gaussian
from attacks._outputs import for_fitting, log_odds
from bench.attack import Known, Knows, Points, Seen


class PerExample(gaussian.Gaussian):
    """Likelihood ratio of unlearned and retrained models, one normal distribution per example and side."""

    cite: ClassVar[str] = "hayes2024inexact"
    knows: ClassVar[Knows] = "unlearned"
    headline: ClassVar[bool] = True

    def fit(self, known: Known, seed: int) -> dict[str, np.ndarray]:
        """Mean, squared scale `[n]` and degrees of freedom of the log-odds on either side.

        Raises UsageError for fewer than two models on a side.
        """
        fitted: dict[str, np.ndarray] = {}
        for side, points in zip(("members", "others"), for_fitting(known, "per_example"), strict=True):
            phi = log_odds(points)
            variance = gaussian.shrunk(gaussian.squares(phi), len(phi) - 1, self.prior)
            scale, degrees = gaussian.predictive(len(phi), variance, len(phi) - 1 + self.prior)
            fitted |= {f"{side}_mean": phi.mean(axis=0), f"{side}_scale": scale, f"{side}_degrees": degrees}
        return fitted

    def score(self, fitted: Mapping[str, np.ndarray], seen: Seen, points: Points) -> np.ndarray:
        """Log-likelihood ratio float64 `[models, n]`, above 0 = rather unlearned; nan where a logit is not finite."""
        phi = log_odds(points)
        member, other = (
            gaussian.log_density(phi, *(fitted[f"{side}_{name}"] for name in ("mean", "scale", "degrees")))
            for side in ("members", "others")
        )
        return np.asarray(member - other)
