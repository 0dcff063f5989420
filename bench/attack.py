"""What the author of an attack reads: what an attacker sees of some models, and the class that an attack extends.

Importing this module loads neither torch nor any other heavy library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from bench.interface import Plugin

# What an attack learns from: originals against retrained models, a method's own models against retrained ones, or
# nothing but the one model that it judges.
Knows = Literal["original", "unlearned", "model"]
Models = slice | np.ndarray  # which models: a range, or their places


@dataclass(frozen=True)
class Points:
    """What several models say about the same examples.

    Attributes:
        logits: raw, unmasked float32 logits `[models, n, classes]`.
        labels: int64 `[n]`, those of training where the examples are of the training set.
        views: predicted classes int64 `[models, n, views]` of shifted and flipped copies; no views where none are kept.
    """

    logits: np.ndarray
    labels: np.ndarray
    views: np.ndarray = field(default_factory=lambda: np.empty((0, 0, 0), dtype=np.int64))

    def only(self, models: Models) -> Points:
        """The same examples as some of the models see them."""
        return Points(self.logits[models], self.labels, self.views[models] if self.views.size else self.views)


@dataclass(frozen=True)
class Seen:
    """What an attacker sees of several models, all on the same examples in the order of the data set.

    Attributes:
        forget: the forget set.
        retain: a fixed random part of the retained training data: members.
        validation: never trained on; for fitting an attack.
        unseen: test samples of the classes that the forget set has: never trained on; what a population attack
            compares the forget set with, and fits nothing on.
    """

    forget: Points
    retain: Points
    validation: Points
    unseen: Points

    @classmethod
    def of(cls, logits: np.ndarray, labels: np.ndarray) -> Seen:
        """Models of which only the forget set is seen: logits `[models, n, classes]`, labels `[n]`."""
        nothing = Points(logits[:, :0], labels[:0])
        return cls(Points(logits, labels), nothing, nothing, nothing)

    def __len__(self) -> int:
        return len(self.forget.logits)

    def only(self, models: Models) -> Seen:
        """What some of the models show."""
        parts = (self.forget, self.retain, self.validation, self.unseen)
        return Seen(*(part.only(models) for part in parts))

    def finite(self) -> np.ndarray:
        """Which models have finite outputs everywhere, bool `[models]`."""
        parts = (self.forget, self.retain, self.validation, self.unseen)
        return np.asarray(np.all([np.isfinite(part.logits).all(axis=(1, 2)) for part in parts], axis=0))


@dataclass(frozen=True)
class Known:
    """Models of known membership, which an attack learns from; all of their outputs are finite.

    `members` are originals or a method's unlearned models (what the attack `knows`), `others` retrained models.
    The last `validation` of each side are for choosing settings, not for fitting.
    """

    members: Seen
    others: Seen
    validation: int = 0


class Attack(Plugin):
    """A membership-inference attack: arrays in, scores out; larger = more like "this data was used".

    An attack that learns is judged by how well its scores on the forget set tell models that it has not seen from
    retrained ones. One that `knows` only the model it judges is told by its scores on the forget set against those on
    unseen data of the same model, 0 being where it calls an example a member; `fit` is then not called.

    Its class attributes say what it is.

    Attributes:
        cite: BibTeX key in `reports/references.bib`.
        knows: what it learns from, see `Knows`.
        views: whether it needs `Points.views`, and reads labels only.
        headline: the attack whose result decides the verdict; one registered attack is.
    """

    cite: ClassVar[str] = ""
    knows: ClassVar[Knows] = "original"
    views: ClassVar[bool] = False
    headline: ClassVar[bool] = False

    def fit(self, known: Known, seed: int) -> dict[str, np.ndarray]:
        """Learn from models of known membership; returns arrays that can be stored and carry no code."""
        return {}

    def score(self, fitted: Mapping[str, np.ndarray], seen: Seen, points: Points) -> np.ndarray:
        """Scores float64 `[models, n]` of `points`, which belong to the same models as `seen`; nan where not finite.

        The score of an example does not depend on which other examples or models are scored with it. Attacks that
        learn are given the forget set, as a whole and in the order in which they learned it.
        """
        raise NotImplementedError
