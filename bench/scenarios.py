"""Which data must go: pure functions of the training labels and a seed to a list of requests."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
)

from bench import registry, seeds
from bench.interface import Request, UsageError
from bench.recipe import describe

Scores = np.ndarray | None  # of memorization, float64 [n, 2], where a draw needs them


class Scenario(BaseModel):
    """Base of the scenarios; fields are their parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    cite: ClassVar[str] = "hoang2024pgu"

    @property
    def needs_hardness(self) -> bool:
        """Whether memorization scores decide which samples must go."""
        return False

    def requests(self, labels: np.ndarray, classes: int, seed: int, hardness: Scores = None) -> list[Request]:
        """The requests for training labels int64 `[n]`; the same arguments give the same requests.

        Args:
            hardness: float64 `[n, 2]` of `bench.memorization`, read where `needs_hardness` only.

        Raises UsageError when the data cannot serve them.
        """
        raise NotImplementedError


class SampleRemoval(Scenario):
    """Some training samples must go: drawn from all, of one class as in the paper's Table 1, or hard ones.

    The memorized ones are picked by how much the models' answer to a sample depends on having been trained on it.
    Canaries carry a wrong label in training, which only a model that was trained on them can know: the draw `random`
    takes the same samples, with their own labels.
    """

    cite: ClassVar[str] = "hoang2024pgu"
    draw: Literal[
        "random", "class_random", "class_first", "most_memorized", "least_memorized", "canaries", "listed"
    ] = Field(
        default="random",
        description="from all samples; from one class, at random or the first in file order; those with the highest "
        "or lowest memorization score of all; random ones with a wrong label in training; or those `listed`",
    )
    count: int = Field(default=60, ge=1, description="samples to forget")
    target_class: int = Field(default=0, ge=0, description="the class for class_random and class_first")
    draw_seed: int = Field(default=0, ge=0, description="another value draws other samples")
    listed: tuple[int, ...] = Field(default=(), description="places in the training set, for the draw listed")
    half_models: int = Field(
        default=32, ge=4, le=4096, multiple_of=2, description="models on random halves that memorization is told from"
    )

    @model_serializer(mode="wrap")
    def _what_counts(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The fields without those that decide no number with this draw."""
        values: dict[str, Any] = plain(self)
        listed = self.draw == "listed"
        idle = dict.fromkeys(("count", "target_class", "draw_seed"), listed)
        idle |= {"half_models": not self.needs_hardness, "listed": not listed}
        return {name: value for name, value in values.items() if not idle.get(name)}

    @property
    def needs_hardness(self) -> bool:
        """Whether memorization scores decide which samples must go."""
        return self.draw in ("most_memorized", "least_memorized")

    def requests(self, labels: np.ndarray, classes: int, seed: int, hardness: Scores = None) -> list[Request]:
        """One request of `count` samples, or of those listed; all of them are poisoned where they are canaries."""
        if self.draw == "listed":
            return [_request(labels, _require_places(self.listed, len(labels)))]
        _require_classes((self.target_class,), classes)
        order = self._order(labels, seed, hardness)
        _require_count(self.count, len(order), len(labels))
        forget = np.sort(order[: self.count])
        if self.draw != "canaries":
            return [_request(labels, forget)]
        # One number a training sample: a larger count keeps the wrong labels of a smaller one.
        steps = seeds.rng(seed, "canaries", self.draw_seed).integers(1, classes, len(labels))
        wrong = (labels + steps) % classes
        return [_request(labels, forget, poisoned=forget, wrong_labels=wrong[forget])]

    def _order(self, labels: np.ndarray, seed: int, hardness: np.ndarray | None) -> np.ndarray:
        """The samples to choose from, those that go first."""
        if self.needs_hardness:
            if hardness is None:
                raise UsageError(f"scenario.draw={self.draw} needs memorization scores, which only a run obtains")
            ranked = np.lexsort((-hardness[:, 1], -hardness[:, 0]))  # equal ones in file order
            return ranked if self.draw == "most_memorized" else ranked[::-1]
        of_class = self.draw in ("class_random", "class_first")
        pool = np.flatnonzero(labels == self.target_class) if of_class else np.arange(len(labels))
        if self.draw == "class_first":
            return pool
        return seeds.rng(seed, "sample_removal", self.draw_seed).permutation(pool)


class ClassRemoval(Scenario):
    """Every sample of one or several classes must go."""

    removed: tuple[int, ...] = Field(default=(0,), min_length=1, description="classes to remove")

    @field_validator("removed", mode="before")
    @classmethod
    def _one_or_a_list(cls, value: Any) -> Any:
        """`3` and `3,8` on the command line stand for lists."""
        if isinstance(value, str):
            return [part.strip() for part in value.split(",")]
        return (value,) if isinstance(value, int) else value

    def requests(self, labels: np.ndarray, classes: int, seed: int, hardness: Scores = None) -> list[Request]:
        """One request with all samples of the removed classes."""
        gone = tuple(sorted(set(self.removed)))
        _require_classes(gone, classes)
        if len(gone) > classes - 2:
            raise UsageError(f"class_removal of {len(gone)} of {classes} classes leaves fewer than two; remove fewer")
        forget = np.flatnonzero(np.isin(labels, gone))
        _require_count(len(forget), len(labels), len(labels))
        return [_request(labels, forget, removed_classes=gone)]


class Incremental(Scenario):
    """Requests arrive one after another; what an earlier one took is in neither set of a later one."""

    steps: int = Field(default=4, ge=1, le=100, description="number of requests")
    per_class: int = Field(default=3, ge=1, description="samples of every class that each request takes")
    draw: Literal["random", "first"] = Field(default="random", description="random, or in file order as the authors")
    draw_seed: int = Field(default=0, ge=0, description="another value draws other samples")

    def requests(self, labels: np.ndarray, classes: int, seed: int, hardness: Scores = None) -> list[Request]:
        """`steps` requests of `per_class` samples of each class; `forgotten` accumulates."""
        generator = seeds.rng(seed, "incremental", self.draw_seed)
        members = [np.flatnonzero(labels == c) for c in range(classes)]
        for c, pool in enumerate(members):
            if self.steps * self.per_class >= len(pool):
                wanted = f"{self.steps} steps of {self.per_class} per class"
                raise UsageError(f"incremental: {wanted} leave nothing of class {c}, which has {len(pool)} samples")
        if self.draw == "random":
            members = [generator.permutation(pool) for pool in members]
        taken = [np.concatenate([pool[: (t + 1) * self.per_class] for pool in members]) for t in range(self.steps)]
        earlier = np.empty(0, dtype=np.int64)
        requests = []
        for step, sofar in enumerate(taken):
            requests.append(_request(labels, np.setdiff1d(sofar, earlier), forgotten=np.sort(sofar), step=step))
            earlier = sofar
        return requests


class Depoisoning(Scenario):
    """Some samples carried the label of a paired class in training, and a share of them is known.

    A larger budget contains the smaller ones, and so does a larger share.
    """

    flips: int = Field(default=12, ge=1, description="samples of every paired class that carry the partner's label")
    known_fraction: float = Field(
        default=1.0, gt=0, le=1, description="share of every class's flipped samples that is found and must go"
    )
    pairing: Literal["random", "mirror", "pgu"] = Field(
        default="random",
        description="pairs drawn at random, class i with C-1-i as Warnecke et al., or pairs and samples of PGU's code",
    )
    draw_seed: int = Field(default=0, ge=0, description="another value draws other pairs and samples")

    def pairs(self, classes: int, seed: int) -> list[tuple[int, int]]:
        """Disjoint pairs of classes; of an odd number of classes one stays alone."""
        if self.pairing == "mirror":
            return [(c, classes - 1 - c) for c in range(classes // 2)]
        if self.pairing == "pgu":
            order = _shuffled(random.Random(self.draw_seed), range(classes))
        else:
            order = seeds.rng(seed, "depoisoning", "pairs", self.draw_seed).permutation(classes)
        return [(int(a), int(b)) for a, b in zip(order[0::2], order[1::2], strict=False)]

    def requests(self, labels: np.ndarray, classes: int, seed: int, hardness: Scores = None) -> list[Request]:
        """One request: the known ones of the flipped samples; the others stay, with the labels that they carried."""
        known = round(self.known_fraction * self.flips)
        if not known:
            raise UsageError(
                f"depoisoning.known_fraction is {self.known_fraction:g}, which is none of the {self.flips} flipped "
                f"samples of a class; know at least {1 / self.flips:.2g}"
            )
        partner = np.arange(classes)
        for a, b in self.pairs(classes, seed):
            partner[[a, b]] = b, a
        flipped = self._flipped(labels, classes, seed)
        poisoned = np.sort(np.concatenate(flipped))
        forget = np.sort(np.concatenate([members[:known] for members in flipped]))
        return [_request(labels, forget, poisoned=poisoned, wrong_labels=partner[labels[poisoned]])]

    def _flipped(self, labels: np.ndarray, classes: int, seed: int) -> list[np.ndarray]:
        """The flipped samples of every paired class, in the order in which they become known."""
        paired = [c for pair in self.pairs(classes, seed) for c in pair]
        members = {c: np.flatnonzero(labels == c) for c in sorted(paired)}
        for c, own in members.items():
            if self.flips >= len(own):
                raise UsageError(f"depoisoning.flips is {self.flips}, but class {c} has {len(own)} samples; flip fewer")
        if self.pairing == "pgu":  # one stream goes on from the draw of the pairs, pair by pair
            stream = random.Random(self.draw_seed)
            _shuffled(stream, range(classes))
            drawn = [_shuffled(stream, members[c]) for c in paired]
        else:  # one stream a class
            drawn = [
                seeds.rng(seed, "depoisoning", "flips", self.draw_seed, c).permutation(m) for c, m in members.items()
            ]
        # A stream is read from its start: the draw depends on neither budget nor share, so both are nested.
        return [own[: self.flips] for own in drawn]


def _shuffled(stream: random.Random, values: Iterable[int]) -> np.ndarray:
    """The values in the order that Python's own generator shuffles them into, int64."""
    order = list(values)
    stream.shuffle(order)
    return np.array(order, dtype=np.int64)


def training_labels(requests: Iterable[Request], true: np.ndarray) -> np.ndarray:
    """The labels int64 `[n]` that the originals are trained with: the true ones but where a sample is poisoned."""
    labels = true.copy()
    for request in requests:
        labels[request.poisoned] = request.wrong_labels
    return labels


def undetected(request: Request) -> np.ndarray:
    """Sorted training indices of the poisoned samples that are not known and stay in the retain set."""
    return np.setdiff1d(request.poisoned, request.forget)


def reference_data(request: Request) -> np.ndarray:
    """Sorted training indices that the reference models see: the retain set without any poison, known or not."""
    return np.setdiff1d(request.retain, request.poisoned)


KINDS: dict[str, type[Scenario]] = {
    "sample_removal": SampleRemoval,
    "class_removal": ClassRemoval,
    "incremental": Incremental,
    "depoisoning": Depoisoning,
}


def create(name: str, settings: dict[str, Any]) -> Scenario:
    """The scenario of this name with these parameters; raises UsageError for an unknown name or a bad value."""
    if name not in KINDS:
        raise registry.unknown("scenario", name, KINDS)
    try:
        return KINDS[name](**settings)
    except ValidationError as error:
        raise UsageError(describe(error, "scenario", KINDS[name])) from error


def _request(labels: np.ndarray, forget: np.ndarray, forgotten: np.ndarray | None = None, **rest: Any) -> Request:
    forgotten = forget if forgotten is None else forgotten
    retain = np.setdiff1d(np.arange(len(labels)), forgotten)
    return Request(forget=forget, retain=retain, forgotten=forgotten, **rest)


def _require_places(listed: tuple[int, ...], total: int) -> np.ndarray:
    """The places, sorted; raises UsageError for one that does not exist or comes twice."""
    if strange := [place for place in listed if not 0 <= place < total]:
        raise UsageError(f"there is no training sample {strange[0]}: the data set has samples 0 to {total - 1}")
    if not listed:
        raise UsageError("the draw listed needs the samples: --set scenario.listed=[12,7] by their place in the data")
    places = np.unique(np.array(listed, dtype=np.int64))
    if len(places) < len(listed):
        raise UsageError(f"the request lists {len(listed) - len(places)} of its samples twice; list each once")
    _require_count(len(places), total, total)
    return places


def _require_classes(chosen: tuple[int, ...], classes: int) -> None:
    if strange := [c for c in chosen if not 0 <= c < classes]:
        hint = "choose others with --set scenario.removed=0 or scenario.target_class=0"
        raise UsageError(f"there is no class {strange[0]}: the data set has classes 0 to {classes - 1}; {hint}")


def _require_count(wanted: int, available: int, total: int) -> None:
    if wanted < 1:
        raise UsageError("the forget set is empty: no training sample matches the request")
    if wanted > available or wanted >= total:
        raise UsageError(f"cannot forget {wanted} samples: there are {available} to choose from and some must stay")
