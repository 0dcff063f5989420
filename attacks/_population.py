"""What population attacks share: members and non-members of one model, and a classifier of one feature."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bench.attack import Points, Seen

Decision = Callable[[np.ndarray], np.ndarray]  # features of any rows -> decision values, above 0 = member
Learner = Callable[[np.ndarray, np.ndarray], Decision]  # features of members, of others -> a decision


def judge(values: Callable[[Points], np.ndarray], learn: Learner, seen: Seen, points: Points) -> np.ndarray:
    """Decision values float64 `[models, n]`, above 0 = called a member; nan where a feature is not finite.

    For every model a classifier of its own: retained training data are members, validation data of the same classes
    are not. A model without a usable row of either kind gets nan.

    Args:
        values: features `[models, n]` or `[models, n, d]` of points.
        learn: makes a decision from the features of one model's members and others, `[rows]` or `[rows, d]`.
    """
    others = of_classes(seen.validation, seen.retain.labels)
    scores = np.full(points.logits.shape[:2], np.nan)
    every = zip(values(seen.retain), values(others), values(points), strict=True)
    for score, (member, other, told) in zip(scores, every, strict=True):
        member, other, usable = member[_usable(member)], other[_usable(other)], _usable(told)
        if len(member) and len(other) and usable.any():
            score[usable] = learn(member, other)(told[usable])
    return scores


def of_classes(points: Points, labels: np.ndarray) -> Points:
    """The points whose label is among the labels: a removed class would tell itself, not membership."""
    kept = np.isin(points.labels, labels)
    return Points(points.logits[:, kept], points.labels[kept])


def logistic(member: np.ndarray, other: np.ndarray) -> Decision:
    """Balanced logistic regression on one feature `[rows]`: scikit-learn's, on the feature at zero mean and unit sd."""
    from sklearn.linear_model import LogisticRegression

    x = np.concatenate([member, other])
    mean, sd = x.mean(), x.std()
    sd = sd if sd > 1e-12 * abs(mean) else 1.0
    target = np.repeat([1, 0], [len(member), len(other)])
    model = LogisticRegression(class_weight="balanced").fit((x - mean)[:, None] / sd, target)
    slope, intercept = model.coef_[0, 0], model.intercept_[0]
    return lambda told: np.asarray((told - mean) / sd * slope + intercept)


def _usable(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.isfinite(values).all(axis=tuple(range(1, values.ndim))))
