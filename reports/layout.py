"""The paper's tables in its own layout: in each row ours, the published values, the differences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.records import Results
from reports import published
from reports.grid import Heads, Row, Table
from reports.numbers import MISSING, Numbers
from reports.published import Ours

IN_FIGURES = ("attack_auc",)  # what the paper tells beside a figure
Triple = tuple[str, str, str]


def table(name: str, runs: Mapping[str, Results]) -> Table:
    """The published table of this `name` with `runs`, by the column each stands for; `""` for one with all columns."""
    paper = published.paper()[name]
    ours = list(_ours(paper, runs))
    quantities = _quantities(paper)
    shown = [runs[column["name"]] for column in paper["columns"] if column["name"] in runs] or list(runs.values())
    if len(ours) == 1:
        heads, labels = [published.title(quantity) for quantity in quantities], ["method", ""]
        rows = [row for method in _methods(paper) for row in _across_quantities(paper, method, quantities, ours[0])]
    else:
        heads = [column["name"] for column in paper["columns"]]
        several = len(quantities) > 1
        labels = [*(["quantity"] if several else []), "method", ""]
        rows = []
        for quantity in quantities:
            named = [published.title(quantity)] if several else []
            rows += _across_columns(paper, quantity, ours, named, told=bool(rows))
    titles: Heads = [(text, "") for text in [*labels, *heads]]
    what = f": {published.title(quantities[0])}" if len(quantities) == 1 else ""
    caption, setting = f"{paper['name']} of the paper, and ours{what}", published.setting(paper, shown)
    units = f"Mean ± standard deviation (number of runs or models). {published.credit(paper, shown)}"
    return Table(name, caption, units, titles, rows, labels=len(labels), warning=setting)


def _ours(paper: Mapping[str, Any], runs: Mapping[str, Results]) -> Iterator[Ours | None]:
    """What stands beside each of the paper's columns."""
    numbers = {column: Numbers(results.records) for column, results in runs.items()}
    for place, column in enumerate(paper["columns"]):
        key, step = (column["name"], 0) if paper.get("runs_apart") else ("", place)
        yield Ours(runs[key].run, numbers[key], step) if key in runs else None


def _quantities(paper: Mapping[str, Any]) -> list[str]:
    """The columns of errors, then the time and its share, in the order of the first row that has them."""
    found = dict.fromkeys(name for row in paper["rows"].values() for name in published.reported(row))
    return sorted((name for name in found if name not in IN_FIGURES), key=("seconds", published.RATIO).__contains__)


def _methods(paper: Mapping[str, Any]) -> list[str]:
    """The paper's rows; one that it has a figure for only is none."""
    return [name for name, row in paper["rows"].items() if set(published.reported(row)) - set(IN_FIGURES)]


def _across_quantities(
    paper: Mapping[str, Any], method: str, quantities: Sequence[str], ours: Ours | None
) -> Iterator[Row]:
    cells = [published.beside(paper, method, quantity, 0, ours) for quantity in quantities]
    yield from _block([method], cells, *_entry(paper, method, [ours]))


def _across_columns(
    paper: Mapping[str, Any], quantity: str, ours: Sequence[Ours | None], labels: Sequence[str], *, told: bool
) -> Iterator[Row]:
    for method in _methods(paper):
        if quantity in published.reported(paper["rows"][method]):
            cells = [published.beside(paper, method, quantity, place, one) for place, one in enumerate(ours)]
            name, remark = _entry(paper, method, ours)
            yield from _block([*labels, method], cells, name, "ok" if told else remark)
            labels = [""] * len(labels)


def _entry(paper: Mapping[str, Any], method: str, ours: Sequence[Ours | None]) -> tuple[str, str]:
    """Our name of one of the paper's methods, and what was odd about its runs, once for runs of several columns."""
    name = str(paper["rows"][method]["ours"])
    told = dict.fromkeys(published.odd(one.run, one.numbers, name) for one in ours if one is not None)
    return name, "; ".join(one for one in told if one != "ok") or "ok"


def _block(labels: Sequence[str], cells: Sequence[Triple], ours: str, remark: str) -> list[Row]:
    """Ours, the published values and, where there is any, the differences, below each other."""
    published_, own, gaps = zip(*cells, strict=True)
    blank = [""] * len(labels)
    rows = [
        Row(ours, "method", [*labels, "ours", *own], remark),
        Row("", "method", [*blank, "paper", *published_], "ok"),
    ]
    if set(gaps) - {MISSING, published.UNPRINTED}:
        rows.append(Row("", "method", [*blank, "difference", *gaps], "ok"))
    return rows
