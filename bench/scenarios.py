"""Which data must go: pure functions of the training labels and a seed to a list of requests."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from bench import registry, seeds
from bench.interface import Request, UsageError
from bench.recipe import describe


class Scenario(BaseModel):
    """Base of the scenarios; fields are their parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    cite: ClassVar[str] = "hoang2024pgu"

    def requests(self, labels: np.ndarray, classes: int, seed: int) -> list[Request]:
        """The requests for training labels int64 `[n]`; the same arguments give the same requests.

        Raises UsageError when the data cannot serve them.
        """
        raise NotImplementedError


class SampleRemoval(Scenario):
    """Some training samples must go: of one class, as in the paper's Table 1, or drawn from all."""

    cite: ClassVar[str] = "hoang2024pgu"
    draw: Literal["random", "class_random", "class_first"] = Field(
        default="random", description="from all samples, from one class, or the first of one class in file order"
    )
    count: int = Field(default=60, ge=1, description="samples to forget")
    target_class: int = Field(default=0, ge=0, description="the class for class_random and class_first")
    draw_seed: int = Field(default=0, ge=0, description="another value draws other samples")

    def requests(self, labels: np.ndarray, classes: int, seed: int) -> list[Request]:
        """One request of `count` samples."""
        _require_classes((self.target_class,), classes)
        pool = np.arange(len(labels)) if self.draw == "random" else np.flatnonzero(labels == self.target_class)
        _require_count(self.count, len(pool), len(labels))
        if self.draw != "class_first":
            pool = seeds.rng(seed, "sample_removal", self.draw_seed).permutation(pool)
        return [_request(labels, np.sort(pool[: self.count]))]


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

    def requests(self, labels: np.ndarray, classes: int, seed: int) -> list[Request]:
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

    def requests(self, labels: np.ndarray, classes: int, seed: int) -> list[Request]:
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
    """Some samples carried the label of a paired class in training; a larger budget contains the smaller ones."""

    flips: int = Field(default=12, ge=1, description="samples of every paired class that carry the partner's label")
    pairing: Literal["random", "mirror"] = Field(
        default="random", description="pairs drawn at random as in PGU's code, or class i with C-1-i as Warnecke et al."
    )
    draw_seed: int = Field(default=0, ge=0, description="another value draws other pairs and samples")

    def pairs(self, classes: int, seed: int) -> list[tuple[int, int]]:
        """Disjoint pairs of classes; of an odd number of classes one stays alone."""
        if self.pairing == "mirror":
            return [(c, classes - 1 - c) for c in range(classes // 2)]
        order = seeds.rng(seed, "depoisoning", "pairs", self.draw_seed).permutation(classes)
        return [(int(a), int(b)) for a, b in zip(order[0::2], order[1::2], strict=False)]

    def requests(self, labels: np.ndarray, classes: int, seed: int) -> list[Request]:
        """One request: the flipped samples, with the labels they carried."""
        chosen: list[np.ndarray] = []
        wrong: list[np.ndarray] = []
        for pair in self.pairs(classes, seed):
            for source, target in (pair, pair[::-1]):
                # One stream a class: the draw does not depend on the budget, so budgets are nested.
                generator = seeds.rng(seed, "depoisoning", "flips", self.draw_seed, source)
                members = generator.permutation(np.flatnonzero(labels == source))
                if self.flips >= len(members):
                    raise UsageError(
                        f"depoisoning.flips is {self.flips}, but class {source} has {len(members)} samples; flip fewer"
                    )
                chosen.append(members[: self.flips])
                wrong.append(np.full(self.flips, target, dtype=np.int64))
        forget, target_labels = np.concatenate(chosen), np.concatenate(wrong)
        order = np.argsort(forget)
        return [_request(labels, forget[order], wrong_labels=target_labels[order])]


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


def _require_classes(chosen: tuple[int, ...], classes: int) -> None:
    if strange := [c for c in chosen if not 0 <= c < classes]:
        hint = "choose others with --set scenario.removed=0 or scenario.target_class=0"
        raise UsageError(f"there is no class {strange[0]}: the data set has classes 0 to {classes - 1}; {hint}")


def _require_count(wanted: int, available: int, total: int) -> None:
    if wanted < 1:
        raise UsageError("the forget set is empty: no training sample matches the request")
    if wanted > available or wanted >= total:
        raise UsageError(f"cannot forget {wanted} samples: there are {available} to choose from and some must stay")
