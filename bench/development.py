"""On which draws hyper-parameters are chosen: one rule a scenario, pure functions of the request that is reported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from bench import scenarios, seeds
from bench.interface import Request, UsageError
from bench.scenarios import Scenario

PATIENCE = 1000  # candidates in a row that bring nothing new


def draws(scenario: Scenario, labels: np.ndarray, classes: int, seed: int, count: int) -> list[Scenario]:
    """`count` scenarios that differ in their draw alone, none of which forgets what `scenario` does, or another does.

    Args:
        labels: training labels int64 `[n]`.
        seed: the root seed of the reported requests; that of the development requests is `root(seed)`.

    Raises UsageError when there are fewer, and for hard forget sets.
    """
    _require_like_validation(scenario)
    seen = {_forgets(scenario.requests(labels, classes, seed))}
    found: list[Scenario] = []
    idle = 0
    for candidate in candidates(scenario, labels, classes, root(seed)):
        forgets = _forgets(candidate.requests(labels, classes, root(seed)))
        idle = idle + 1 if forgets in seen else 0
        found += [] if idle else [candidate]
        seen.add(forgets)
        if len(found) == count or idle == PATIENCE:
            break
    if len(found) < count:
        what = f"{len(found)} other {'draw' if len(found) == 1 else 'draws'} to choose on"
        raise UsageError(f"this request leaves {what}, not {count}: change --draws or the scenario")
    return found


def _require_like_validation(scenario: Scenario) -> None:
    """Choosing takes forgotten samples for samples like any others, such as those of validation: hard ones are not."""
    if isinstance(scenario, scenarios.SampleRemoval) and (
        scenario.needs_hardness or scenario.draw in ("canaries", "listed")
    ):
        raise UsageError(
            f"validation data does not say what retraining does to scenario.draw={scenario.draw}; "
            "tune with --set scenario.draw=random and report the hard draw with the preset that comes out"
        )


def root(seed: int) -> int:
    """The root of every random stream of tuning: all originals and runs are other ones than those of `seed`."""
    return seeds.derive(seed, "development")


def candidates(scenario: Scenario, labels: np.ndarray, classes: int, seed: int) -> Iterator[Scenario]:
    """Scenarios like this one with other draws, in a random order that `seed` decides; perhaps endless."""
    generator = seeds.rng(seed, "draws")
    if isinstance(scenario, scenarios.ClassRemoval):
        return _class_removal(scenario, labels, generator)
    if isinstance(scenario, scenarios.SampleRemoval):
        return _sample_removal(scenario, labels, generator)
    if isinstance(scenario, scenarios.Incremental):
        return _other_seeds(scenario.model_copy(update={"draw": "random"}))  # the first in file order are reported
    if isinstance(scenario, scenarios.Depoisoning):
        return _other_seeds(scenario)
    raise UsageError(f"there is no rule for other draws of {type(scenario).__name__}")


def _class_removal(
    scenario: scenarios.ClassRemoval, labels: np.ndarray, generator: np.random.Generator
) -> Iterator[Scenario]:
    """As many classes, none of the reported ones; sets without a common class first."""
    others, size = np.setdiff1d(labels, scenario.removed), len(set(scenario.removed))
    while len(others) >= size:
        order = generator.permutation(others)
        for start in range(0, len(order) - size + 1, size):
            removed = tuple(sorted(int(c) for c in order[start : start + size]))
            yield scenario.model_copy(update={"removed": removed})


def _sample_removal(
    scenario: scenarios.SampleRemoval, labels: np.ndarray, generator: np.random.Generator
) -> Iterator[Scenario]:
    """Other samples of all; where they are of one class, samples of another class with enough of them."""
    if scenario.draw == "random":
        yield from _other_seeds(scenario)
        return
    present, sizes = np.unique(labels, return_counts=True)
    others = present[(sizes >= scenario.count) & (present != scenario.target_class)]
    for other in _other_seeds(scenario):
        for c in generator.permutation(others):
            yield other.model_copy(update={"target_class": int(c)})
        if not len(others):
            return


def _other_seeds(scenario: Scenario) -> Iterator[Scenario]:
    reported = scenario.model_dump()["draw_seed"]
    for step in range(1, 1_000_000):
        yield scenario.model_copy(update={"draw_seed": reported + step})


def _forgets(requests: Sequence[Request]) -> bytes:
    return b"|".join(request.forget.tobytes() for request in requests)
