"""How hyper-parameters are chosen: which settings are tried, what a trial scores and which one wins; pure functions.

Choosing sees training and validation data of other draws and originals than those that are reported. It never sees
test data or a retrained model: they are no argument of anything here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from pydantic import ValidationError

from bench.interface import Method, Request

SWAPS = 10_000  # attempts to part equal trials without unbalancing them


def check_search(cls: type[Method]) -> None:
    """Raise ValueError, with what is wrong, for a `search` that names no field or a value that its field refuses."""
    for name, values in cls.search.items():
        if name not in cls.model_fields:
            raise ValueError(f"search names {name!r}, which is no field")
        if not isinstance(values, tuple) or not values:
            raise ValueError(f"search must give {name} a tuple of values, got {values!r}")
        for place, value in enumerate(values):
            if value in values[:place]:
                raise ValueError(f"search gives {name} the value {value!r} twice")
            try:
                cls(**{name: value})
            except ValidationError as error:
                fault = error.errors()[0]["msg"]
                raise ValueError(
                    f"search gives {name} the value {value!r}, which its field refuses: {fault}"
                ) from error


def trials(
    search: Mapping[str, Sequence[Any]], defaults: Method, count: int, generator: np.random.Generator
) -> list[dict[str, Any]]:
    """What each trial changes: nothing in the first, then a Latin hypercube over `search`, all of them different.

    Each value of a field is used as often as any other, give or take one. A search of fewer settings than trials is
    tried whole, which takes fewer.
    """
    names, values = list(search), [list(search[name]) for name in search]
    if not names:
        return [{}]
    given = tuple(_place(options, getattr(defaults, name)) for name, options in zip(names, values, strict=True))
    rows = latin([len(options) for options in values], count - 1, given, generator)
    drawn = [{name: values[f][row[f]] for f, name in enumerate(names)} for row in rows]
    return [{}, *drawn]


def _place(options: Sequence[Any], value: Any) -> int:
    """Where a value is among the options; -1 if it is none of them."""
    return options.index(value) if value in options else -1


def latin(sizes: Sequence[int], count: int, without: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """`count` different points int64 `[count, fields]` of a grid, or all that there are but `without`, if fewer."""
    total = math.prod(sizes) - (min(without) >= 0)
    if total <= count:
        every = [point for point in product(*map(range, sizes)) if point != without]
        return generator.permutation(np.array(every, dtype=np.int64).reshape(-1, len(sizes)))
    rows = np.stack([_balanced(size, count, generator) for size in sizes], axis=1)
    for _ in range(SWAPS):
        clashing = _clashing(rows, without)
        if not len(clashing):
            return rows
        swapped = rows.copy()
        at, other, column = clashing[0], generator.integers(count), generator.integers(len(sizes))
        swapped[[at, other], column] = swapped[[other, at], column]
        if len(_clashing(swapped, without)) <= len(clashing):
            rows = swapped
    return _parted(rows, sizes, without, generator)


def _balanced(size: int, count: int, generator: np.random.Generator) -> np.ndarray:
    """`count` numbers below `size` in random order, each as often as any other, give or take one."""
    rounds = [generator.permutation(size) for _ in range(-(-count // size))]
    return generator.permutation(np.concatenate([*rounds, np.empty(0, dtype=np.int64)])[:count])


def _clashing(rows: np.ndarray, without: tuple[int, ...]) -> np.ndarray:
    """Places of rows that are `without`, or equal to an earlier row."""
    seen = {without}
    places = []
    for place, row in enumerate(map(tuple, rows)):
        places += [place] if row in seen else []
        seen.add(row)
    return np.array(places, dtype=np.int64)


def _parted(
    rows: np.ndarray, sizes: Sequence[int], without: tuple[int, ...], generator: np.random.Generator
) -> np.ndarray:
    """The rows with points that are still free in place of those that clash: different before balanced."""
    rows, seen = rows.copy(), {without, *map(tuple, rows)}
    for place in _clashing(rows, without):
        while (point := tuple(generator.integers(sizes))) in seen:
            pass
        rows[place] = point
        seen.add(point)
    return rows


@dataclass(frozen=True)
class Judged:
    """One request served, in points: the score, of which lower is better, and what it is made of."""

    score: float
    forget_error: float
    validation_error: float
    original_error: float
    status: str


@dataclass(frozen=True)
class Trial:
    """One configuration: what it changes, every request that it served, and why it failed, if it did."""

    changes: dict[str, Any]
    judged: list[Judged] = field(default_factory=list)
    failure: str = ""

    @property
    def score(self) -> float:
        """Mean score over draws, originals and requests; infinite if a run failed or diverged."""
        return math.inf if self.failure else self.mean("score")

    def mean(self, what: str) -> float:
        """Mean of one number over everything that was served."""
        return float(np.mean([getattr(one, what) for one in self.judged])) if self.judged else math.inf


def choose(tried: Sequence[Trial]) -> int:
    """The place of the best trial; of equal ones the earliest, so that the defaults need to be beaten."""
    scores = [round(trial.score, 6) for trial in tried]
    return scores.index(min(scores))


def judge(
    scenario: str, request: Request, truth: np.ndarray, held_out: np.ndarray,
    train: np.ndarray, validation: np.ndarray, before: np.ndarray, status: str,
) -> Judged:  # fmt: skip
    """Score a model after a request, in points of accuracy.

    |accuracy on everything forgotten so far - validation accuracy on its mix of classes| + validation accuracy lost.
    In class removal the first target is 0 and validation holds the retained classes only. In depoisoning the labels
    of the forget set were wrong and say nothing about forgetting: the score is the validation error.

    Args:
        truth, held_out: labels int64 of the training and validation samples, those of training without any poison.
        train, validation: the model's raw logits on them; `before`: the original's on validation data.
    """
    classes = train.shape[1]
    kept = ~np.isin(held_out, request.removed_classes)
    right, right_before = validation.argmax(1) == held_out, before.argmax(1) == held_out
    error, error_before = (100 * (1 - float(hits[kept].mean())) for hits in (right, right_before))
    labels = truth[request.forgotten]
    forget_error = 100 * float(np.mean(train[request.forgotten].argmax(1) != labels))
    target = 100.0 if request.removed_classes else _mixed(100.0 * ~right, held_out, labels, classes)
    score = abs(forget_error - target) + max(0.0, error - error_before)
    score = error if scenario == "depoisoning" else score
    if not (np.isfinite(train).all() and np.isfinite(validation).all()):
        score, status = math.inf, "diverged"
    return Judged(score, forget_error, error, error_before, status)


def _mixed(values: np.ndarray, held_out: np.ndarray, labels: np.ndarray, classes: int) -> float:
    """Mean over validation samples, weighted to the classes of `labels`; a class without any has no weight."""
    have = np.bincount(held_out, minlength=classes)
    means = np.bincount(held_out, values, minlength=classes) / np.maximum(have, 1)
    weights = np.bincount(labels, minlength=classes) * (have > 0)
    return float(weights @ means / weights.sum()) if weights.sum() else float(values.mean())
