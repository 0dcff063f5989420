"""Loss attack: one threshold on the cross-entropy loss tells members from non-members of one model.

Source: Yeom, Giacomelli, Fredrikson, Jha, "Privacy Risk in Machine Learning: Analyzing the Connection to Overfitting",
CSF 2018: who has the smaller loss is a member. In unlearning it is the attack of the NeurIPS 2023 challenge's starting
kit and of SCRUB (Kurmanji et al., 2023), which fit a logistic regression on the losses of forget set and test data and
print its accuracy. Kept for comparison: a population attack is blind to leaks of single examples and in both
directions.

Deviations: the threshold has the best balanced accuracy on retained training data against validation data of the same
classes (Yeom et al. take the mean loss of members), never on the forget set or on test data, so that scores of either
can be compared. The score is in log-odds, which are one to one with the loss and do not saturate. No logistic
regression: a few misclassified examples with large losses decide its slope, even the sign.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from attacks._outputs import log_odds
from attacks._population import Decision, judge
from bench.attack import Attack, Knows, Points, Seen


class Loss(Attack):
    """A threshold on the cross-entropy loss."""

    cite: ClassVar[str] = "yeom2018privacy"
    knows: ClassVar[Knows] = "model"

    def score(self, fitted: Mapping[str, np.ndarray], seen: Seen, points: Points) -> np.ndarray:
        """Log-odds less their threshold, float64 `[models, n]`, above 0 = called a member; nan where not finite."""
        return judge(log_odds, _threshold, seen, points)


def _threshold(member: np.ndarray, other: np.ndarray) -> Decision:
    """Midway below the log-odds from which on calling everything a member has the best balanced accuracy."""
    values = np.unique(np.concatenate([member, other]))
    below = [np.searchsorted(np.sort(side), values) / len(side) for side in (member, other)]
    best = int(np.argmax(below[1] - below[0]))
    threshold = (values[best] + values[max(best - 1, 0)]) / 2
    return lambda told: np.asarray(told - threshold)
