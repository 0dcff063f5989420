"""What a table of finished text is, and how its lines are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.interface import Record
from reports import leagues, words
from reports.numbers import MISSING, Numbers
from reports.quantities import ANCHORS

NONE = "none"

Heads = list[tuple[str, str]]


@dataclass(frozen=True)
class Place:
    """Where the records have the number that a cell is made of; `step` is None for all requests together.

    The records' number times `scale` is in the unit of the cell.
    """

    metric: str
    part: str | None
    step: int | None
    scale: float = 1.0


@dataclass(frozen=True)
class Row:
    """One line of a table.

    `kind` is reference, anchor, method or, for a line without any number, failed. `remark` is `ok`, the reason for
    which numbers are missing, or what was odd about some runs. `step` is set where a table has a line per request.
    `places` has one for every cell, None where it holds words, the number itself where no record holds it; it is empty
    where the numbers are not of the records. `league` says what the method may read, where tables go by that.
    """

    method: str
    kind: str
    cells: list[str]
    remark: str
    step: int | None = None
    places: tuple[Place | Record | None, ...] = ()
    league: str = ""


@dataclass(frozen=True)
class Table:
    """A table of finished text: `heads` holds one `(head, goal)` per column, the method's name first.

    `by_request` tells a table with a line per method and request, the number of the request second; `labels` is the
    number of columns, from the first, that hold words. `warning` says what a reader must know before any number.
    `metrics` names the metric of every column, empty where it has none or where nobody asks for them.
    """

    name: str
    caption: str
    units: str
    heads: Heads
    rows: list[Row]
    by_request: bool = False
    labels: int = 1
    warning: str = ""
    metrics: tuple[str, ...] = ()


def methods(run: dict[str, Any]) -> list[str]:
    """The names of the methods of a run: controls, then league by league, each in the run's order."""
    return leagues.ordered(run)


def line(
    run: dict[str, Any],
    numbers: Numbers,
    method: str,
    cells: Sequence[str],
    step: int | None = None,
    said: Sequence[str] = (),
    places: Sequence[Place | Record | None] = (),
) -> Row:
    """Numbers with the method's name before them, then the request's if `step` says which, and what is `said`.

    `places` are those of the `cells`.
    """
    entry = next((entry for entry in run["methods"] if entry["name"] == method), None)
    remark = "ok" if entry is None else words.status(run, entry, numbers, step)
    empty = set(cells) <= {MISSING, NONE} and remark != "ok"
    apart = method in (*ANCHORS, *words.ceilings(run))
    kind = "failed" if empty else "reference" if entry is None else "anchor" if apart else "method"
    request = [] if step is None else [str(step + 1)]
    before = [words.row_name(run, method), *request, *said]
    league = "" if entry is None or method in ANCHORS else leagues.of(entry, run["scenario"])
    return Row(method, kind, [*before, *cells], remark, step, (*(None for _ in before), *places), league)
