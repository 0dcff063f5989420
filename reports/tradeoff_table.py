"""The table of what forgetting costs: three axes, and which rows are better on all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from bench.interface import Record
from bench.records import Results
from reports import tradeoff, words
from reports.grid import NONE, Heads, Table, line, methods
from reports.numbers import MISSING, Numbers, significant, with_interval
from reports.tradeoff import Point, Tradeoff

HEADS: Heads = [
    ("method", ""), ("forgetting gap", "→ 0"), ("told by", ""), ("accuracy lost", "→ 0"), ("÷ retrain", "↓"),
    ("with preparation", "↓"), ("better on all three", ""),
]  # fmt: skip
NAMED = 2  # rows that a cell names


def table(results: Results) -> Table:
    """The three axes of every method, and which rows are better on all of them."""
    run, numbers, found = results.run, Numbers(results.records), tradeoff.measure(results)
    points = {point.method: point for point in found.points}
    rows = []
    for method in methods(run):
        point = points.get(method)
        rows.append(line(run, numbers, method, _cells(point, found), places=_places(point)))
    units = (
        f"Forgetting gap: {tradeoff.told_by(found)}, 0 retrained, 1 the original; accuracy lost: the larger of "
        f"retained and test, 1 is {tradeoff.whole_loss(found)}; 95 % intervals"
    )
    return Table("tradeoff", "What forgetting costs", units, HEADS, rows, warning=_warning(found))


def _warning(found: Tradeoff) -> str:
    """What does not tell the original from retrained models."""
    if not found.silent:
        return ""
    said = f"does not tell the original from retrained models beyond chance: {'; '.join(found.silent)}"
    return (
        f"Left out, since it {said}" if found.signals else f"No signal to forget, so no gap and no ranking: it {said}"
    )


def _cells(point: Point | None, found: Tradeoff) -> list[str]:
    if point is None:
        return [MISSING] * (len(HEADS) - 1)
    return [
        with_interval(point.forgetting),
        point.told_by or MISSING,
        with_interval(point.loss),
        _share(point.cost.value),
        _share(point.prepared),
        _better(found.dominated[point.method]) if math.isfinite(point.forgetting.value) else MISSING,
    ]


def _places(point: Point | None) -> list[Record | None]:
    """The number behind every cell, None for words."""
    if point is None:
        return [None] * (len(HEADS) - 1)
    prepared = replace(point.cost, value=point.prepared, low=math.nan, high=math.nan)
    return [point.forgetting, None, point.loss, point.cost, prepared, None]


def _share(value: float) -> str:
    return "< 0.001" if value < 0.001 else significant(value, 2)


def _better(names: Sequence[str]) -> str:
    """`pgu`, `pgu, scrub and 3 more`."""
    more = [f"{len(names) - NAMED} more"] if len(names) > NAMED else []
    return words.listed([*names[:NAMED], *more]) or NONE
