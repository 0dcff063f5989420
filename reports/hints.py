"""What the page tells of a number that one points at, and the value by which it sorts the column."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.interface import Record
from reports import metrics
from reports.grid import Place, Row, Table
from reports.numbers import MISSING, REFERENCE, Numbers, chance, count, memory, significant
from reports.tables import READ, TOLD

PARTS = {"forget": "forget", "retain": "retain", "validation": "validation", "train": "training set (statistics)",
         "corrected": "true labels of forget"}  # fmt: skip
DIGITS = 4  # more than the tables show
FOLLOWING = ("gap", "p", "members")  # heads of columns that go with one before
UNITS = {"seconds_request": " s", "seconds_prepare": " s"}


@dataclass(frozen=True)
class Hint:
    """The value of a cell in the cell's unit, NaN where it has none, and what is told of it, empty for nothing."""

    value: float = math.nan
    text: str = ""


def of(run: Mapping[str, Any], numbers: Numbers, row: Row) -> list[Hint]:
    """A hint for every cell of a row; one without a number has none to sort by."""
    places = row.places or (None,) * len(row.cells)
    hints = [_hint(run, numbers, row.method, place) if place else Hint() for place in places]
    if row.step is not None:
        hints[1] = Hint(row.step + 1.0)  # the number of the request
    return [
        Hint(text=hint.text) if cell.startswith(MISSING) else hint for cell, hint in zip(row.cells, hints, strict=True)
    ]


def titles(table: Table) -> list[str]:
    """The heads as they read on their own: `forget error: gap`."""
    found, main = [], ""
    for head, goal in table.heads:
        main = main if head in FOLLOWING else head
        found.append(main if main == head else f"{main}: {head} {goal}" if head == "p" else f"{main}: {head}")
    return found


def good(table: Table) -> list[str]:
    """Which way is good, for every column; empty for words."""
    columns = zip(*(row.places for row in table.rows if row.places), strict=True)
    named = [next((place.metric for place in column if place), "") for column in columns]
    entries = [metrics.entry(metric) for metric in named or [""] * len(table.heads)]
    return [dict(entry.lines)["good"] if entry else "" for entry in entries]


def _hint(run: Mapping[str, Any], numbers: Numbers, method: str, place: Place | Record) -> Hint:
    if isinstance(place, Record):
        own = Place(place.metric, place.part, place.step)
        return Hint() if math.isnan(place.value) else Hint(place.value, _measured(place, own))
    if place.metric == "samples_read":
        return _read(run, numbers, method, place)
    if place.step is None:
        return _sum(run, numbers, method, place)
    record = numbers.summary(method, place.metric, place.part, place.step)
    if record is None:
        return Hint(text=_spread(numbers, place) if method == REFERENCE else "")
    if math.isnan(record.value):
        return Hint(text="" if record.status == "ok" else record.status)
    said = [_measured(record, place), *_besides(numbers, method, place)]
    said += [record.status] if record.status != "ok" else []
    return Hint(place.scale * record.value, "; ".join(said))


def _measured(record: Record, place: Place) -> str:
    """`95.33, 95 % interval [91.93, 98.73], n = 5`."""
    value, *ends = (_shown(place.metric, place.scale * number) for number in (record.value, record.low, record.high))
    inside = "" if MISSING in ends else f", 95 % interval [{', '.join(ends)}]"
    return f"{value}{UNITS.get(place.metric, '')}{inside}, n = {record.n}"


def _besides(numbers: Numbers, method: str, place: Place) -> list[str]:
    """What other records say of the same number: its spread, its gap to the pool, its p-values."""
    base, colon, name = place.metric.partition(":")
    assert place.step is not None
    at = (place.part, place.step)
    told = []
    if method == REFERENCE and not math.isnan(sd := numbers.deviation(method, place.metric, *at)):
        told.append(f"standard deviation {_shown(place.metric, place.scale * sd)}")
    gap = numbers.summary(method, f"{base}_gap{colon}{name}", *at)
    if gap is not None and not math.isnan(gap.value):
        told.append(f"gap to the pool {_measured(gap, place)}")
    for metric, question in (("attack_p", "p if chance"), ("attack_equivalence_p", "p if beyond the margin")):
        p = numbers.value(method, f"{metric}:{name}", *at) if base == "attack_auc" else math.nan
        told += [] if math.isnan(p) else [f"{question} {chance(p)}"]
    return told


def _spread(numbers: Numbers, place: Place) -> str:
    """What stands for the gap of the pool to itself: how far its models lie apart."""
    assert place.step is not None
    sd = numbers.deviation(REFERENCE, place.metric.removesuffix("_gap"), place.part, place.step)
    return "" if math.isnan(sd) else f"standard deviation of its models {significant(sd, DIGITS)}"


def _sum(run: Mapping[str, Any], numbers: Numbers, method: str, place: Place) -> Hint:
    """A number that the requests add up to; the records have intervals of single requests only."""
    mean, sd = numbers.total(method, place.metric, place.part, range(run["steps"]))
    if math.isnan(mean):
        return Hint()
    spread = "" if math.isnan(sd) else f", standard deviation {significant(sd, DIGITS)}"
    return Hint(mean, f"{significant(mean, DIGITS)}{UNITS.get(place.metric, '')}, all requests together{spread}")


def _read(run: Mapping[str, Any], numbers: Numbers, method: str, place: Place) -> Hint:
    """All examples together, and the parts that some were read of."""
    steps = range(run["steps"]) if place.step is None else [place.step]
    read = {part: numbers.total(method, "samples_read", part, steps) for part in (*READ, TOLD)}
    known = {part: both for part, both in read.items() if not math.isnan(both[0])}
    if not known:
        return Hint()
    total = sum(mean for mean, _ in known.values())
    spread = {part: f" ± {significant(sd, DIGITS)}" if sd > 0 else "" for part, (_, sd) in known.items()}
    named = [f"{count(mean)}{spread[part]} {PARTS[part]}" for part, (mean, _) in known.items() if mean]
    return Hint(total, f"{', '.join(named) or 'no'} examples")


def _shown(metric: str, number: float) -> str:
    return memory(number) if metric == "peak_bytes" else significant(number, DIGITS)
