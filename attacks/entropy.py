"""Entropy attack: one threshold on the entropy of the output tells members from non-members of one model.

Source: the membership attack of Foster, Schoepf, Brintrup, "Fast Machine Unlearning without Retraining through
Selective Synaptic Dampening", AAAI 2024: balanced logistic regression on the entropy of retained training data against
test data. The paper prints the share of the forget set that is called a member. Kept for comparison: a population
attack is blind to leaks of single examples and to leaks in both directions.

Deviations: the feature is the log of the entropy, which does not vanish for confident models. Non-members are
validation data of the retained classes, never test data. scikit-learn's logistic regression with its defaults, on the
standardized feature.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from attacks._outputs import log_entropy
from attacks._population import judge, logistic
from bench.attack import Attack, Knows, Points, Seen


class Entropy(Attack):
    """Balanced logistic regression on the log-entropy."""

    cite: ClassVar[str] = "foster2024ssd"
    knows: ClassVar[Knows] = "model"

    def score(self, fitted: Mapping[str, np.ndarray], seen: Seen, points: Points) -> np.ndarray:
        """Decision values float64 `[models, n]`, above 0 = called a member; nan where a logit is not finite."""
        return judge(log_entropy, logistic, seen, points)
