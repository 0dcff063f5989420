"""RMIA: how many never-seen examples does a forget example beat in probability, each relative to retrained models?

Source: Zarifzadeh, Liu, Shokri, "Low-Cost High-Power Membership Inference Attacks", ICML 2024, the offline attack, and
the authors' Privacy Meter. With p of the judged model and q the mean of p over models that never saw the example, both
of the label, score(x) = share of population examples z with (p(x) / q(x)) / (p(z) / q(z)) >= gamma. Made for few
reference models. Population: validation data, never test data.

Deviations: the references are retrained models; unlearned ones are not learned from, so that the attack is one-sided.
Ratios are logs in float64 and ties count half, since saturated models have p = 1 exactly. Scores are multiples of
1 / (2 x population): false positive rates below 1 / population do not exist. `a` is a setting, where Privacy Meter
tries 0, .1, ... 1 on a reference model: 0 to .3 do best on made-up models, where 1 has 5 points less area.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from pydantic import Field

from attacks._outputs import log_p
from bench.attack import Attack, Known, Knows, Points, Seen
from bench.interface import UsageError


class Rmia(Attack):
    """Relative likelihood against a population, with retrained models for reference."""

    cite: ClassVar[str] = "zarifzadeh2024rmia"
    knows: ClassVar[Knows] = "unlearned"
    gamma: float = Field(default=1.0, gt=0, description="ratio from which an example beats another (authors' code)")
    a: float = Field(
        default=0.3, ge=0, le=1, description="mean over models in and out = (1 + a) / 2 x mean over out + (1 - a) / 2"
    )

    def fit(self, known: Known, seed: int) -> dict[str, np.ndarray]:
        """Log of the reference probability of the forget examples, `forget`, and of the population, `population`.

        Raises UsageError where there is no population or no retrained model.
        """
        others = known.others.only(slice(None, len(known.others) - known.validation))
        if not len(others) or not len(others.validation.labels):
            raise UsageError("rmia needs at least 1 retrained model and validation data for its population")
        return {"forget": self._reference(others.forget), "population": self._reference(others.validation)}

    def score(self, fitted: Mapping[str, np.ndarray], seen: Seen, points: Points) -> np.ndarray:
        """Share of the population that is beaten, float64 `[models, n]` 0 to 1; nan where a logit is not finite."""
        gains = log_p(points) - fitted["forget"] - math.log(self.gamma)
        population = np.sort(log_p(seen.validation) - fitted["population"], axis=-1)  # nan comes last
        scores = np.full(gains.shape, np.nan)
        for score, gain, rivals in zip(scores, gains, population, strict=True):
            rivals = rivals[~np.isnan(rivals)]
            if len(rivals):
                below, upto = (np.searchsorted(rivals, gain, side) for side in ("left", "right"))
                score[:] = np.where(np.isnan(gain), np.nan, (below + upto) / (2 * len(rivals)))
        return scores

    def _reference(self, out: Points) -> np.ndarray:
        """Log of the mean probability over models in and out, `[n]`, as the offline attack has it."""
        every = log_p(out)
        mean = np.logaddexp.reduce(every, axis=0) - math.log(len(every))
        inside = math.log((1 - self.a) / 2) if self.a < 1 else -math.inf
        return np.asarray(np.logaddexp(mean + math.log((1 + self.a) / 2), inside))
