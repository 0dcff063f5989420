"""Label-only attack: how many shifted and flipped copies of an example does a model still classify as its label?

Source: Choquette-Choo, Tramer, Carlini, Papernot, "Label-Only Membership Inference Attacks", ICML 2021. It needs no
confidences, so that a method that flattens or masks them hides nothing from it. Scores are log-likelihood ratios of the
number of copies that get the label, under unlearned and under retrained models, beta-binomial per example.

Deviations: the paper feeds the answers of all copies to a network that it trains on shadow models; here their number is
enough, since 16 to 64 models do not train a network. The mean of an example is its share over models, with half a model
added to either answer; the spread of the shares between models is one for all examples of a side, by moments.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from attacks._outputs import for_fitting
from bench.attack import Attack, Known, Knows, Points, Seen
from bench.interface import UsageError


class LabelOnly(Attack):
    """Likelihood ratio of the number of views that get the label, one beta-binomial distribution per example."""

    cite: ClassVar[str] = "choquette2021labelonly"
    knows: ClassVar[Knows] = "unlearned"
    views: ClassVar[bool] = True

    def fit(self, known: Known, seed: int) -> dict[str, np.ndarray]:
        """The two parameters of the beta distribution on either side, `members` and `others`, float64 `[2, n]`.

        Raises UsageError for fewer than two models on a side, and where no views are kept.
        """
        members, others = for_fitting(known, "label_only")
        if not (members.views.size and others.views.size):
            raise UsageError("label_only needs predictions on shifted and flipped views of the forget set")
        return {"members": _beta(members), "others": _beta(others)}

    def score(self, fitted: Mapping[str, np.ndarray], seen: Seen, points: Points) -> np.ndarray:
        """Log-likelihood ratio float64 `[models, n]`, above 0 = rather unlearned; nan where a logit is not finite."""
        from scipy.special import betaln  # here, since an attack's file must load at once

        right = _right(points)
        wrong = points.views.shape[-1] - right
        member, other = (betaln(right + a, wrong + b) - betaln(a, b) for a, b in (fitted["members"], fitted["others"]))
        return np.where(np.isfinite(points.logits).all(-1), member - other, np.nan)


def _right(points: Points) -> np.ndarray:
    """Number of views that get the label, int64 `[models, n]`."""
    return np.asarray((points.views == points.labels[:, None]).sum(-1))


def _beta(points: Points) -> np.ndarray:
    """Parameters of the share of right views in a model, `[2, n]`; correlation of views within a model by moments."""
    views = points.views.shape[-1]
    share = _right(points) / views
    models = len(share)
    between = share.var(axis=0, ddof=1)
    whole = (share.mean(axis=0) * (1 - share.mean(axis=0)) + between / models).sum()
    excess = between.sum() / whole if whole > 0 else 1.0
    correlation = np.clip((excess - 1 / views) / (1 - 1 / views), 0.01, 0.99) if views > 1 else 0.5
    mean = (share.sum(axis=0) + 0.5) / (models + 1)
    return np.asarray([mean, 1 - mean]) * (1 / correlation - 1)
