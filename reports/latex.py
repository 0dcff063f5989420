"""The tables as LaTeX for a paper: booktabs and siunitx, in one column or two, with a caption that can be traced."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import Any

from bench import references
from bench.records import Results
from reports import captions, columns
from reports.grid import Row, Table
from reports.leagues import headed
from reports.tex import escape, width

HEADER = r"""% The tables of one run. \input this file, or take the lines between the marks; either needs
%   \usepackage{booktabs,siunitx}
% in the preamble and, for the citations, the entries of references.bib, which lies beside this file. The tables are
% made for Times on pages of two columns, 3.35 in and 7 in wide.
"""
# Of a complete document on pages of those measures, in two columns of text.
PREAMBLE = r"""\documentclass[10pt,twocolumn]{article}
\usepackage[T1]{fontenc}
\usepackage{mathptmx}  % Times, as most conferences have it
\usepackage[a4paper,textwidth=7in,textheight=9.6in,columnsep=0.3in,centering]{geometry}
\usepackage{booktabs,siunitx}
\usepackage{graphicx}
\usepackage[font=small,labelfont=bf,skip=4pt]{caption}
% The same source gives the same bytes.
\pdfinfoomitdate=1 \pdftrailerid{} \pdfsuppressptexinfo=-1
% Tables and figures follow the text in their order, from the top of pages that are as full as can be.
\renewcommand{\topfraction}{0.99}\renewcommand{\floatpagefraction}{0.5}\setcounter{topnumber}{99}
\setcounter{totalnumber}{99}\setlength{\floatsep}{22pt}
\makeatletter\setlength{\@fptop}{0pt}\setlength{\@fpsep}{22pt}\setlength{\@fpbot}{0pt plus 1fil}\makeatother
\newenvironment{points}{\begin{list}{\textbullet}{\setlength{\leftmargin}{1em}\setlength{\itemsep}{2pt}%
\setlength{\parsep}{0pt}\setlength{\topsep}{2pt}}\raggedright}{\end{list}}
"""
COLUMN, TEXT = 240.0, 500.0  # points that a table may be wide, in one column and across both
NAME = 16  # em: a longer name is broken into lines
HEAD = 5.5  # em that the head of a column may take, however narrow its numbers are
LINES = 68  # of small type on one page
LETTERS = {"table": 44, "table*": 87}  # of a caption in as much room as a line of the table
RULES = 3  # lines that the rules of a panel and the space around it take
TIED = ("gap", "members", "p")  # heads of columns that belong to the one before
ONCE = ("verdict",)  # heads of columns of words that are not set again in every panel
CITED = 1.4  # em of a citation


@dataclass(frozen=True)
class Field:
    """A column with the lines of its head; `width` in em is that of the wider of the two."""

    heads: list[str]
    column: columns.Column
    width: float


@dataclass(frozen=True)
class Layout:
    """How a table is set: its environment, size of type, space beside columns in points, and fields of every panel."""

    environment: str
    size: str
    space: int
    panels: list[list[Field]]
    leagues: list[str]  # the one that begins with each row, if any


def tables_file(results: Results, tables: Sequence[Table]) -> str:
    """The file `table.tex`: every table, ready for `\\input`."""
    cited = citations(results.run)
    blocks = [table_environment(table, results.run, cited) for table in tables]
    return HEADER + "\n" + "\n\n".join(blocks) + "\n"


def citations(run: Mapping[str, Any]) -> dict[str, str]:
    """What is put after the names of methods and attacks that have an entry in the bibliography."""
    known = references.load()
    named = [*run["methods"], *((run.get("audit") or {}).get("attacks") or ())]
    return {one["name"]: rf"~\cite{{{one['cite']}}}" for one in named if one.get("cite") in known}


def bibliography(run: Mapping[str, Any]) -> str:
    """The file `references.bib` of a run: the entries that its methods and attacks cite, no others."""
    keys = {cite.removeprefix(r"~\cite{").removesuffix("}") for cite in citations(run).values()}
    return references.source(keys)


def table_environment(table: Table, run: Mapping[str, Any], cited: Mapping[str, str]) -> str:
    """A table of a run between marks, with a caption that says where it comes from, and what is `cited` after names."""
    caption, label = captions.caption(table, run, cited), f"{table.name}-{run['config_hash']}"
    return marked(table.name, [*captions.provenance(run), floats(table, caption, label, cited)])


def marked(name: str, lines: Sequence[str]) -> str:
    """Lines between the marks `% begin table` and `% end table`, by which a table is found and lifted."""
    return "\n".join([f"% begin table {name}", *lines, f"% end table {name}"])


def floats(table: Table, caption: str, label: str, cited: Mapping[str, str]) -> str:
    """A table that needs only booktabs and siunitx, under a caption in TeX.

    It takes one column of a page if it fits, else both; one that is too wide for both is set in panels, one below
    another, and one that is too long for a page in several floats, of which the first has the caption and the label.
    """
    layout = _layout(table, cited)
    first = [rf"\caption{{{caption}}}", rf"\label{{tab:{re.sub('[^A-Za-z0-9]+', '-', label)}}}"]
    later = [r"\addtocounter{table}{-1}", rf"\caption{{{escape(table.caption)} (continued).}}"]
    parts = _pages(layout, [_height(row, table.labels) for row in table.rows], len(caption))
    return "\n".join(_float(layout, later if lines.start else first, lines) for lines in parts)


def _pages(layout: Layout, heights: Sequence[int], letters: int) -> list[range]:
    """The rows that each page takes, at least one; the first has a caption of so many letters."""
    room = LINES - sum(len(panel[0].heads) + RULES for panel in layout.panels)
    left, starts = room - letters // LETTERS[layout.environment], [0]
    for line, height in enumerate(heights):
        needed = (height + bool(layout.leagues[line])) * len(layout.panels)
        if needed > left and line > starts[-1]:
            starts.append(line)
            left = room - (any(layout.leagues) and not layout.leagues[line]) * len(layout.panels)
        left -= needed
    return [range(*ends) for ends in pairwise([*starts, len(heights)])]


def _height(row: Row, labels: int) -> int:
    """Lines that a row takes: long names are broken."""
    return max(len(_lines(cell, NAME)) for cell in row.cells[:labels])


def _float(layout: Layout, head: Sequence[str], lines: range) -> str:
    leagues = [*layout.leagues]
    leagues[lines.start] = next(filter(None, reversed(leagues[: lines.start + 1])), "")  # said again on a new page
    return "\n".join([
        rf"\begin{{{layout.environment}}}[tbp]",
        rf"\centering{layout.size}\setlength{{\tabcolsep}}{{{layout.space}pt}}",
        columns.SETUP + r"\setlength{\belowcaptionskip}{4pt}",  # the classes' own is often 0
        *head,
        "\n\n\\medskip\n".join(_tabular(panel, lines, leagues) for panel in layout.panels),
        rf"\end{{{layout.environment}}}",
    ])  # fmt: skip


def _tabular(fields: Sequence[Field], lines: range, leagues: Sequence[str]) -> str:
    """The rows of one panel, under heads that may take several lines each."""
    heads = [
        " & ".join(_head(one, line, last=one is fields[-1]) for one in fields) for line in range(len(fields[0].heads))
    ]
    names = fields[0].column.cells
    spaced = "" in names  # a row without a name goes on with the one above: a method takes several
    rows = [
        _league(leagues[line], sum(one.column.span for one in fields))
        + (r"\addlinespace " if spaced and names[line] and line != lines.start else "")
        + " & ".join(one.column.cells[line] for one in fields)
        for line in lines
    ]
    return "\n".join([
        rf"\begin{{tabular}}{{@{{}}{''.join(one.column.spec for one in fields)}@{{}}}}",
        r"\toprule",
        *(rf"{line} \\" for line in heads),
        r"\midrule",
        *(rf"{line} \\" for line in rows),
        r"\bottomrule",
        r"\end{tabular}",
    ])  # fmt: skip


def _league(name: str, span: int) -> str:
    """A line over the rows of a league, if one begins here."""
    return rf"\addlinespace \multicolumn{{{span}}}{{@{{}}l}}{{\itshape {escape(name)}}} \\" + "\n" if name else ""


def _head(field: Field, line: int, *, last: bool) -> str:
    """A line of a head, centered over numbers and all that belongs to them."""
    text, spec = field.heads[line], field.column.spec
    if not spec.startswith("S"):
        return text
    return rf"\multicolumn{{{field.column.span}}}{{c{'@{}' if last else ''}}}{{{text}}}"


def _layout(table: Table, cited: Mapping[str, str]) -> Layout:
    """The narrowest environment and the largest type in which a table fits, in panels where it fits in none."""
    fields, labels, leagues = _fields(table, cited), table.labels, headed(table.rows)
    for environment, room, size, points, space in (
        ("table", COLUMN, r"\footnotesize", 8, 4),
        ("table*", TEXT, r"\footnotesize", 8, 4),
        ("table*", TEXT, r"\scriptsize", 7, 3),
    ):
        if _width(fields, points, space) <= room:
            return Layout(environment, size, space, [fields], leagues)
    return Layout("table*", r"\footnotesize", 4, _panels(fields, labels), leagues)


def _width(fields: Sequence[Field], points: int, space: int) -> float:
    return sum(one.width * points + 2 * space for one in fields)


def _panels(fields: list[Field], labels: int) -> list[list[Field]]:
    """As few panels as fit the page, about equally many columns in each; all begin with what a row is about."""
    names = [one for one in fields[:labels] if _first(one) not in ONCE]
    groups = _groups([one for one in fields if one not in names])
    for count in range(2, len(groups) + 1):
        ends = [round(len(groups) * place / count) for place in range(count + 1)]
        panels = [[*names, *chain(*groups[start:end])] for start, end in pairwise(ends)]
        if all(_width(panel, 8, 4) <= TEXT for panel in panels):
            return panels
    return [names + group for group in groups]


def _groups(fields: Sequence[Field]) -> list[list[Field]]:
    """Columns that must stay together: a quantity and what its gap is."""
    groups: list[list[Field]] = []
    for one in fields:
        if groups and _first(one) in TIED:
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups


def _first(field: Field) -> str:
    """The first line of a head."""
    return next((line for line in field.heads if line), "")


def _fields(table: Table, cited: Mapping[str, str]) -> list[Field]:
    """Every column with its head, all heads of the same number of lines."""
    found = []
    for place, (head, goal) in enumerate(table.heads):
        column = _column(table.rows, place, table.labels, cited)
        room = max(column.width, HEAD)
        lines = [*_lines(head, room), *(_lines(goal, room) if any(goal for _, goal in table.heads) else [])]
        found.append(Field([escape(line) for line in lines], column, max(column.width, *map(width, lines))))
    most = max(len(one.heads) for one in found)
    return [replace(one, heads=[""] * (most - len(one.heads)) + one.heads) for one in found]


def _column(rows: Sequence[Row], place: int, labels: int, cited: Mapping[str, str]) -> columns.Column:
    written = [row.cells[place] for row in rows]
    if place >= labels:
        return columns.column(written)
    column = columns.words(written)
    if place == 0 and any(row.method in cited for row in rows):
        shown = [cell + cited.get(row.method, "") for cell, row in zip(column.cells, rows, strict=True)]
        column = replace(column, cells=shown, width=column.width + CITED)
    if column.width <= NAME:
        return column
    return replace(column, spec=rf">{{\raggedright\arraybackslash}}p{{{NAME}em}}", width=NAME)


def _lines(text: str, room: float) -> list[str]:
    """A head as lines that are no wider than the column, as far as its words allow; at least one line."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and width(longer) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
