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
    "corrected": "the true labels of forgotten data",
    "initial_weights": "the weights that training began from",
    "statistics": "training statistics, taken before any request",
    "retain": "retained data",
    "validation": "held-out data",
    "own_training": "control of the training",
}
CEILING = "a model retrained for the request, no method"


def of(entry: Mapping[str, Any], scenario: str) -> str:
    """The league of a row of `run.json`; none for what returns the original, and for weights made elsewhere."""
    # Elsewhere there are no labels to be corrected.
    needs = [need for need in entry.get("needs", ()) if need != "corrected" or scenario == "depoisoning"]
    if entry.get("ceiling"):
        return CEILING
    return next((name for need, name in reversed(NAMES.items()) if need in needs or (not need and needs)), "")


def ordered(run: Mapping[str, Any]) -> list[str]:
    """The names of a run's methods: controls first, then league by league, each in the run's order."""
    order = ["", *NAMES.values(), CEILING]

    def place(entry: Mapping[str, Any]) -> tuple[bool, int]:
        return entry["name"] not in ANCHORS, order.index(of(entry, run["scenario"]))

    return [entry["name"] for entry in sorted(run["methods"], key=place)]


def headed(rows: Sequence[Row]) -> list[str]:
    """The league that begins with each row, empty where none does or where all rows are of one."""
    told = [row.league for row in rows]
    if len(set(told) - {""}) < 2:
        return [""] * len(rows)
    return [league if league != before else "" for league, before in zip(told, ["", *told], strict=False)]
