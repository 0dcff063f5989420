"""The published numbers and ours, one line for each number: the table at the end of a run's report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.records import Results
from reports import published
from reports.grid import Heads, Row, Table
from reports.numbers import Numbers
from reports.published import Ours

HEADS: Heads = [("method", ""), ("quantity", ""), ("published", "mean ± sd"), ("ours", "mean ± sd (n)"),
                ("difference", "ours − published")]  # fmt: skip


def tables(runs: Sequence[Results]) -> list[Table]:
    """One table for each published table that some of the runs reproduce; [] where none does."""
    found: dict[str, list[Results]] = {}
    for results in runs:
        if name := published.stands_for(results.run)[0]:
            found.setdefault(name, []).append(results)
    made = [_table(published.paper()[name], found[name]) for name in sorted(found)]
    return [table for table in made if table.rows]  # a figure has no numbers


def _table(paper: Mapping[str, Any], runs: Sequence[Results]) -> Table:
    order, runs = list(paper["rows"]), sorted(runs, key=lambda one: published.columns(paper, one.run)[0][0])
    rows = [row for results in runs for row in _rows(paper, results)]
    rows.sort(key=lambda row: order.index(row.method))  # a method's rows together, also where runs are several
    caption, warning = f"Against the paper: {paper['name']}", published.setting(paper, runs)
    return Table("paper", caption, published.credit(paper, runs), HEADS, rows, labels=2, warning=warning)


def _rows(paper: Mapping[str, Any], results: Results) -> Iterator[Row]:
    """A line for each method of the paper, quantity and column; the first of a method tells what was odd."""
    run, numbers = results.run, Numbers(results.records)
    columns = published.columns(paper, run)
    for method, row in paper["rows"].items():
        remark = published.odd(run, numbers, row["ours"])
        for quantity in published.reported(row):
            for place, step, column in columns:
                what = f"{column['name']}: {published.title(quantity)}" if column["name"] else published.title(quantity)
                cells = published.beside(paper, method, quantity, place, Ours(run, numbers, step))
                yield Row(method, "method", [_label(method, row), what, *cells], remark)
                remark = "ok"


def _label(method: str, row: Mapping[str, Any]) -> str:
    same = row["ours"] == "retrain" or _letters(row["ours"]) == _letters(method)
    return method if same else f"{method} ({row['ours']})"


def _letters(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())
