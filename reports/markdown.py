"""The tables as the Markdown page that a run prints and keeps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tabulate import tabulate  # type: ignore[import-untyped, unused-ignore]

from bench.records import Results
from reports import metrics, words
from reports.grid import Table
from reports.leagues import headed

if TYPE_CHECKING:
    from reports.pack import Section


def page(results: Results, tables: Sequence[Table]) -> str:
    """The page `table.md`: title, setting, tables and the key to them."""
    blocks = [f"# {_plain(results.run['title'])}", _plain(words.setting(results.run))]
    for place, table in enumerate(tables):
        blocks += [*_head(table), _grid(table, status=place == 0 or table.by_request)]
    notes = "\n".join(f"- {_plain(note)}" for note in words.key(results, tables))
    closing = [f"What every number means: {metrics.DOCUMENT}"] if results.run.get("audit") is not None else []
    return "\n\n".join([*blocks, f"## How to read this\n\n{notes}", *closing]) + "\n"


def comparison(title: str, tables: Sequence[Table], notes: Sequence[str]) -> str:
    """A page of tables of several runs, and a few lines."""
    blocks = [f"# {_plain(title)}"]
    for table in tables:
        blocks += [*_head(table), _grid(table, status=True)]
    return "\n\n".join([*blocks, *map(_plain, notes)]) + "\n"


def pack(title: str, sections: Sequence[Section], gaps: Sequence[str], notes: Sequence[str]) -> str:
    """The page `paper.md` of several runs: the paper's tables and figures, what was not run, and a few lines."""
    blocks = [f"# {_plain(title)}"]
    for section in sections:
        if section.table is None:
            blocks.append(f"## {section.title}")
        else:
            blocks += [*_head(section.table), _grid(section.table, status=True)]
        blocks += map(_plain, section.lines)
        for picture in section.pictures:
            blocks += [
                f"![{picture.title}](figures/{picture.name}.png)",
                f"**{picture.title}.** {_plain(picture.caption)}",
            ]
    lists = (("Not run", gaps), ("How to read this", notes))
    blocks += [f"## {head}\n\n" + "\n".join(f"- {_plain(line)}" for line in lines) for head, lines in lists if lines]
    return "\n\n".join(blocks) + "\n"


def _head(table: Table) -> list[str]:
    warning = [f"**{_plain(table.warning)}.**"] if table.warning else []
    return [f"## {table.caption}", *warning, f"{_plain(table.units)}."]


def _grid(table: Table, *, status: bool) -> str:
    """A table in Markdown; reasons are long, so not every table shows them and the others name the kind."""
    shown = status and any(row.remark != "ok" for row in table.rows)
    heads = [_plain(f"{head} {goal}".strip()) for head, goal in table.heads] + (["status"] if shown else [])
    lines = []
    for row, league in zip(table.rows, headed(table.rows), strict=True):
        if league:
            lines.append([f"*{league}*", *([""] * (len(heads) - 1))])
        cells = row.cells + ([row.remark if row.method else ""] if shown else [])
        if row.kind == "failed" and not shown:
            cells = [*cells[:-1], row.remark.split(":")[0]]
        lines.append([_plain(cell) for cell in cells])
    words, figures = ["left"] * table.labels, ["right"] * (len(table.heads) - table.labels)
    sides = [*words, *figures, "left"][: len(heads)]
    text: str = tabulate(lines, heads, tablefmt="github", disable_numparse=True, colalign=sides)
    return text


def _plain(text: str) -> str:
    """Text that breaks no Markdown table and is taken for no HTML or link; what reads well in a terminal stays."""
    text = re.sub(r"&(?=#?\w+;)", "&amp;", " ".join(text.split()))
    return re.sub(r"<(?=[a-zA-Z/!?])", "&lt;", text).replace("|", "\\|").replace("](", "]\\(")
