"""What forgetting costs: the gap that is left, the accuracy lost and the time, each 0 or 1 at a known row.

Three axes and no total: a method is better than another where it is on all three. Source: the axes are those on which
approximate methods are said to trade one for the other; the curve of shorter retraining is after EasyDUB.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from bench.interface import Record
from bench.records import Results
from bench.statistics import LEVEL, explained_difference, sd
from reports import words
from reports.numbers import REFERENCE, Numbers, fixed
from reports.quantities import ACCURACY, FORGOTTEN, KEPT

POINT = 1.0  # percentage points of accuracy that count as a whole loss where no short retraining loses more
SHORTEST = 0.05  # the share of the compute whose loss counts as a whole one


@dataclass(frozen=True)
class Signal:
    """A number that tells how much was forgotten, by its distance from `center` on either side.

    `floor` is that distance for retrained models and `top` for the original.
    """

    name: str
    metric: str
    center: float
    floor: float
    top: float

    def place(self, record: Record) -> Record:
        """The record on a scale with retrained models at 0 and the original at 1; these two are taken as given."""
        low, high = distance(record.low, record.high, self.center)
        value = abs(record.value - self.center)
        value, low, high = (normalized(one, self.floor, self.top) for one in (value, low, high))
        return replace(record, metric="forgetting_gap", value=value, low=low, high=high)


@dataclass(frozen=True)
class Point:
    """A method on the three axes.

    `told_by` is the signal that tells the most, empty without one; `prepared` is the cost with preparation; `compute`
    the share of a retraining, NaN for any other method.
    """

    method: str
    forgetting: Record
    told_by: str
    loss: Record
    cost: Record
    prepared: float
    compute: float = math.nan

    @property
    def axes(self) -> tuple[float, float, float]:
        """What is compared: nothing is better than retrained models, nor than losing nothing."""
        return max(self.forgetting.value, 0.0), self.loss.value, self.cost.value


@dataclass(frozen=True)
class Tradeoff:
    """The methods of a run, what forgetting is told by, which signals were left out and why, and who beats whom.

    `forgetting` of the points is NaN where nothing tells the original from retrained models.
    """

    points: tuple[Point, ...]
    signals: tuple[str, ...]
    silent: tuple[str, ...] = ()
    whole_loss: float = POINT
    dominated: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def told_by(found: Tradeoff) -> str:
    """What forgetting is told by, in words."""
    one = found.signals[0] if len(found.signals) == 1 else f"the largest of {words.listed(found.signals)}"
    return f"{one} as a distance from retrained models"


def whole_loss(found: Tradeoff) -> str:
    """What a loss of 1 is, in words."""
    if found.whole_loss > POINT:
        return f"what retraining with {100 * SHORTEST:g} % of the epochs loses (at least a point)"
    return "a percentage point"


def normalized(value: float, floor: float, top: float) -> float:
    """0 at the floor, 1 at the top, more beyond it."""
    return (value - floor) / (top - floor)


def distance(low: float, high: float, center: float) -> tuple[float, float]:
    """The least and the largest distance from `center` within an interval; NaN where there is none."""
    ends = sorted((abs(low - center), abs(high - center)))
    return (0.0 if low <= center <= high else ends[0]), ends[1]


def dominance(axes: ArrayLike) -> np.ndarray:
    """Which rows are better than which, bool `[n, n]`: no worse on any axis and better on one; lower is better.

    Args:
        axes: float `[n, axes]`; a row that is not finite neither beats nor is beaten.
    """
    values = np.asarray(axes, np.float64)
    known = np.asarray(np.isfinite(values).all(-1))
    no_worse = (values[:, None] <= values[None]).all(-1)
    better = (values[:, None] < values[None]).any(-1)
    return np.asarray(no_worse & better & known[:, None] & known[None])


def measure(results: Results) -> Tradeoff:
    """Every method on the three axes, after the last request and over the cost of all."""
    run, numbers = results.run, Numbers(results.records)
    usable, silent = signals(run, numbers)
    whole = _whole_losses(run, numbers)
    points = []
    for entry in run["methods"]:
        name = entry["name"]
        loss, (cost, prepared) = _loss(run, numbers, whole, name), _cost(run, numbers, name)
        if loss and math.isfinite(cost.value):
            forgetting, told = _forgetting(run, numbers, usable, name)
            points.append(Point(name, forgetting, told, loss, cost, prepared, compute(entry)))
    better = dominance(np.array([point.axes for point in points]).reshape(-1, 3))
    better[[point.method in words.ceilings(run) for point in points]] = False  # they compete with nobody
    beaten = {
        point.method: tuple(points[row].method for row in np.flatnonzero(better[:, column]))
        for column, point in enumerate(points)
    }
    return Tradeoff(tuple(points), tuple(one.name for one in usable), tuple(silent), max(whole.values()), beaten)


def compute(entry: Mapping[str, Any]) -> float:
    """The share of the compute of a row that retrains, 1 for all of it; NaN for any other method."""
    if entry["name"].partition("+")[0] != "retrain":
        return math.nan
    return float(entry.get("settings", {}).get("compute", 1.0))


def signals(run: Mapping[str, Any], numbers: Numbers) -> tuple[list[Signal], list[str]]:
    """What tells the original from retrained models, and what does not and is left out, with its numbers.

    With an audit these are the attack that decides, KLoM and, from weights, what comes back; where none of them is
    usable, as without an audit, the error on the forget set. A signal is usable where the original is beyond the floor
    by the half of its 95 % interval, about two standard deviations.
    """
    usable, silent = _parted(_audited(run, numbers))
    if not usable:
        error = FORGOTTEN[run["scenario"]][0]
        usable, more = _parted([_gap(run, numbers, error.head, error.metric)])
        silent += more
    return usable, silent


def _parted(candidates: Sequence[tuple[Signal, float] | None]) -> tuple[list[Signal], list[str]]:
    """The usable ones of the signals that have numbers, each with the noise of its floor, and the others in words."""
    known = [one for one in candidates if one is not None]
    usable = [signal for signal, noise in known if signal.top - signal.floor > noise]
    silent = [signal for signal, _ in known if signal not in usable]
    return usable, [f"{one.name} ({fixed(one.top)} for the original, {fixed(one.floor)} retrained)" for one in silent]


def _audited(run: Mapping[str, Any], numbers: Numbers) -> list[tuple[Signal, float] | None]:
    """The signals of the audit; none without one."""
    headline = (run.get("audit") or {}).get("headline")
    if not headline:
        return []
    return [
        _measured(run, numbers, f"AUC of {headline}", f"attack_auc:{headline}", 0.5),
        _measured(run, numbers, "KLoM", "klom_quantile", 0.0),
        _gap(run, numbers, "error after fine-tuning", "recovered_error"),
    ]


def _measured(
    run: Mapping[str, Any], numbers: Numbers, name: str, metric: str, center: float
) -> tuple[Signal, float] | None:
    """A signal whose floor is the pool's own number, and the half of that number's interval."""
    last = run["steps"] - 1
    floor, top = (numbers.summary(method, metric, "forget", last) for method in (REFERENCE, "original"))
    if floor is None or top is None or not math.isfinite(top.value + floor.high - floor.low):
        return None
    signal = Signal(name, metric, center, abs(floor.value - center), abs(top.value - center))
    return signal, (floor.high - floor.low) / 2


def _gap(run: Mapping[str, Any], numbers: Numbers, name: str, metric: str) -> tuple[Signal, float] | None:
    """A signal that is a gap to the pool's mean, so that its floor is 0, and two deviations of the pool."""
    last = run["steps"] - 1
    top = numbers.value("original", f"{metric}_gap", "forget", last)
    noise = 2 * numbers.deviation(REFERENCE, metric, "forget", last)
    return (Signal(name, f"{metric}_gap", 0.0, 0.0, abs(top)), noise) if math.isfinite(top + noise) else None


def _forgetting(run: Mapping[str, Any], numbers: Numbers, usable: Sequence[Signal], method: str) -> tuple[Record, str]:
    """The largest of all signals of a method, and its name.

    NaN without any, and where one is missing, as the rest would flatter the method.
    """
    found = [numbers.summary(method, signal.metric, "forget", run["steps"] - 1) for signal in usable]
    placed = {
        signal.name: signal.place(one)
        for signal, one in zip(usable, found, strict=True)
        if one and math.isfinite(one.value)
    }
    if not placed or len(placed) < len(usable):
        return Record(method, "all", run["steps"] - 1, "forget", "forgetting_gap", math.nan), ""
    name = max(placed, key=lambda name: placed[name].value)
    return placed[name], name


def _kept(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Metric and part of the errors that should not rise."""
    return [(one.metric, one.part) for one in ACCURACY.get(run["scenario"], KEPT)[:2]]


def _whole_losses(run: Mapping[str, Any], numbers: Numbers) -> dict[tuple[str, str], float]:
    """By error, the loss that counts as 1: that of the shortest retraining, at least a point."""
    short = [entry["name"] for entry in run["methods"] if math.isclose(compute(entry), SHORTEST)]
    found = {}
    for metric, part in _kept(run):
        gaps = [numbers.value(method, f"{metric}_gap", part, run["steps"] - 1) for method in short]
        found[metric, part] = max([POINT, *(gap for gap in gaps if math.isfinite(gap))])
    return found


def _loss(
    run: Mapping[str, Any], numbers: Numbers, whole: Mapping[tuple[str, str], float], method: str
) -> Record | None:
    """The larger of the accuracy lost on retained and on test data, as a share of a whole loss."""
    last, found = run["steps"] - 1, []
    for (metric, part), one in whole.items():
        gap = numbers.summary(method, f"{metric}_gap", part, last)
        if gap is None or not math.isfinite(gap.value):
            return None
        value, low, high = (float(np.maximum(end, 0.0)) / one for end in (gap.value, gap.low, gap.high))
        found.append(replace(gap, metric="accuracy_lost", value=value, low=low, high=high))
    return max(found, key=lambda record: record.value)


def _cost(run: Mapping[str, Any], numbers: Numbers, method: str) -> tuple[Record, float]:
    """Seconds of all requests over those of retraining, and the same with preparation.

    The interval is Welch's on the logarithms; one repeat, and retraining over itself, have none.
    """
    steps = range(run["steps"])
    own, retrain = (numbers.sums(name, "seconds_request", None, steps) for name in (method, "retrain"))
    place = (method, "all", run["steps"] - 1, "all", "cost")
    if not own or not retrain or not np.mean(retrain) > 0:
        return Record(*place, math.nan), math.nan
    base = float(np.mean(retrain))
    value = float(np.mean(own)) / base
    prepare = numbers.sums(method, "seconds_prepare", None, steps[:1])
    prepared = value + (float(np.mean(prepare)) / base if prepare else 0.0)
    if method == "retrain" or min(len(own), len(retrain)) < 2 or not min(*own, *retrain) > 0:
        return Record(*place, value, n=len(own)), prepared
    spreads = [(sd(np.log(side)), len(side)) for side in (own, retrain)]
    factor = math.exp(explained_difference(spreads, 1 - LEVEL))
    return Record(*place, value, value / factor, value * factor, len(own)), prepared
