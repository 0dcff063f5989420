"""The shadow-model attack by one who knows the method: boosted trees tell unlearned from retrained models.

Source: the PGU paper's attack (see shadow_xgboost), whose classifier learns from originals and is thus blind to methods
that forget too much. Here it learns from models that the method itself made. Score: log-odds of "unlearned".

Deviations: besides softmax and one-hot label two features, the label's log-odds and the log-entropy, which do not
saturate. Where no models are set aside for choosing a setting, an eighth of them (at least one of each side) is. Three
settings are tried, since this attack is fitted anew for every method; the rest is as in shadow_xgboost.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from attacks._outputs import log_entropy, log_odds
from attacks.shadow_xgboost import GRID, ShadowXGBoost
from bench.attack import Known, Knows, Points
from bench.interface import UsageError

LARGEST = 1e30  # of a feature, since XGBoost keeps float32


class AdaptiveXGBoost(ShadowXGBoost):
    """Gradient-boosted trees on the outputs of a method's own models."""

    cite: ClassVar[str] = "hoang2024pgu"
    knows: ClassVar[Knows] = "unlearned"
    candidates: int = Field(default=3, ge=1, le=len(GRID), description="settings to try, the authors' first")

    def fit(self, known: Known, seed: int) -> dict[str, np.ndarray]:
        """As `ShadowXGBoost.fit`, with an eighth of the models to choose on where the harness keeps none for it."""
        fewest = min(len(known.members), len(known.others))
        if fewest < 2:
            raise UsageError(f"adaptive_xgboost needs at least 2 models on each side to learn from and has {fewest}")
        return super().fit(replace(known, validation=known.validation or max(1, fewest // 8)), seed)

    def features(self, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Those of `ShadowXGBoost`, log-odds and log-entropy, float64 `[rows, 2 C + 2]`, from logits `[rows, C]`."""
        points = Points(logits[None], labels)
        added = np.stack([log_odds(points)[0], log_entropy(points)[0]], axis=-1)
        return np.concatenate([super().features(logits, labels), np.clip(added, -LARGEST, LARGEST)], axis=-1)
