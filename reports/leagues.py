"""Leagues: methods that may read the same kind of thing. Across leagues a comparison is unfair, and tables say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from reports.quantities import ANCHORS

if TYPE_CHECKING:
    from reports.grid import Row

# By the last of these that a method needs; `Need` in `bench/interface.py` has the words.
NAMES = {
    "": "forget data only",
    "statistics": "training statistics, taken before any request",
    "retain": "retained data",
    "validation": "held-out data",
    "own_training": "control of the training",
}
CEILING = "upper bound, no method"


def of(entry: Mapping[str, Any]) -> str:
    """The league of a row of `run.json`; none for what returns the original, and for weights made elsewhere."""
    needs = entry.get("needs", ())
    if entry.get("ceiling"):
        return CEILING
    return next((name for need, name in reversed(NAMES.items()) if need in needs or (not need and needs)), "")


def ordered(run: Mapping[str, Any]) -> list[str]:
    """The names of a run's methods: controls first, then league by league, each in the run's order."""
    order = ["", *NAMES.values(), CEILING]
    entries = sorted(run["methods"], key=lambda entry: (entry["name"] not in ANCHORS, order.index(of(entry))))
    return [entry["name"] for entry in entries]


def headed(rows: Sequence[Row]) -> list[str]:
    """The league that begins with each row, empty where none does or where all rows are of one."""
    told = [row.league for row in rows]
    if len(set(told) - {""}) < 2:
        return [""] * len(rows)
    return [league if league != before else "" for league, before in zip(told, ["", *told], strict=False)]
