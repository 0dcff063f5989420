"""SVC attack ("MIA-efficacy"): a support vector machine on confidence tells members from non-members of one model.

Source: the code of Jia et al., "Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023, which SalUn (Fan et al.,
2024) shares: SVC(C=3, gamma="auto", RBF kernel), one for each of five features: correctness, confidence (probability of
the label), entropy, modified entropy (Song, Mittal, 2021) and all probabilities. Their papers print the share of the
forget set that is called a non-member with the feature confidence, times 100. Kept for comparison.

Deviations: modified entropy is as defined, -(1 - p) log p - sum over the other classes of q log(1 - q); the authors'
code overwrites whole columns, so that a score depends on its batch. Non-members are validation data of the retained
classes, never test data; members as many retained examples, drawn at random, where the code takes the first. At most
`rows` of each, for speed. Features are not scaled, as in the code; "all" puts the five side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from attacks._outputs import centered, log_entropy, log_odds, log_p, softplus
from attacks._population import Decision, judge
from bench import logits
from bench.attack import Attack, Knows, Points, Seen

FEATURES = ("correctness", "confidence", "entropy", "modified_entropy", "probabilities")


class Svc(Attack):
    """Support vector classifier with an RBF kernel on one feature of the output."""

    cite: ClassVar[str] = "jia2023sparse"
    knows: ClassVar[Knows] = "model"
    feature: Literal["correctness", "confidence", "entropy", "modified_entropy", "probabilities", "all"] = Field(
        default="confidence", description="what of the output it reads (the papers print confidence)"
    )
    penalty: float = Field(default=3.0, gt=0, description="C of the classifier (authors' code)")
    rows: int = Field(default=500, ge=1, description="learn from at most so many members, and as many non-members")

    def score(self, fitted: Mapping[str, np.ndarray], seen: Seen, points: Points) -> np.ndarray:
        """Decision values float64 `[models, n]`, above 0 = called a member; nan where a logit is not finite."""
        return judge(self._values, self._learn, seen, points)

    def _values(self, points: Points) -> np.ndarray:
        wanted = FEATURES if self.feature == "all" else (self.feature,)
        return np.concatenate([features(points, name) for name in wanted], axis=-1)

    def _learn(self, member: np.ndarray, other: np.ndarray) -> Decision:
        from sklearn.svm import SVC

        generator = np.random.default_rng(0)
        size = min(len(member), len(other), self.rows)
        chosen = [rows[np.sort(generator.choice(len(rows), size, replace=False))] for rows in (member, other)]
        model = SVC(C=self.penalty, gamma="auto", random_state=0).fit(np.concatenate(chosen), np.repeat([1, 0], size))
        return lambda told: np.asarray(model.decision_function(told))


def features(points: Points, name: str) -> np.ndarray:
    """One of `FEATURES`, float64 `[models, n, d]`; nan where a logit is not finite."""
    if name == "entropy":
        return np.asarray(np.exp(log_entropy(points))[..., None])
    if name == "confidence":
        return np.asarray(np.exp(log_p(points))[..., None])
    z, phi = centered(points.logits), log_odds(points)[..., None]
    if name == "correctness":
        own = np.take_along_axis(z, np.broadcast_to(points.labels, z.shape[:-1])[..., None], -1)
        return np.where(np.isnan(phi), np.nan, ((z >= own).sum(-1, keepdims=True) == 1) & (own == 0))
    p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
    if name == "probabilities":
        return np.where(np.isnan(phi), np.nan, p)
    return _modified_entropy(z, p, phi, points.labels)


def _modified_entropy(z: np.ndarray, p: np.ndarray, phi: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """-(1 - p) log p of the label - sum of q log(1 - q) over the other classes, in nats; 0 for a perfect prediction."""
    top = z.argmax(-1)[..., None]
    rest = -softplus(logits.phi(z, top[..., 0]))[..., None]  # log(1 - q) of the largest, which rounds to 1
    log_rest = np.log1p(-np.where(p < 0.75, p, 0.0))
    np.put_along_axis(log_rest, top, rest, axis=-1)
    np.put_along_axis(log_rest, np.broadcast_to(labels, z.shape[:-1])[..., None], 0.0, axis=-1)
    own = np.exp(-softplus(phi)) * softplus(-phi)
    return np.asarray(own - (p * log_rest).sum(-1, keepdims=True))
