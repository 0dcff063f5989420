"""The tables as one LaTeX document that compiles as it is and whose tables can be lifted into a paper."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

from bench.records import Results
from reports import words
from reports.grid import Row, Table

SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "[": "{[}", "]": "{]}", "*": r"\textsuperscript{*}", "−": r"\ensuremath{-}", "±": r"\ensuremath{\pm}",
    "→": r"\ensuremath{\rightarrow}", "↓": r"\ensuremath{\downarrow}", "÷": r"\ensuremath{\div}",
    "·": r"\ensuremath{\cdot}", "†": r"\textsuperscript{\dag}", '"': "''", "–": "--", "≠": r"\ensuremath{\neq}",
}  # fmt: skip

PREAMBLE = r"""% Keys of the citations: references.bib of the benchmark. To use a table elsewhere, take the
% lines between the marks and load booktabs there; with a bibliography, leave out the line that redefines \cite.
\documentclass{article}
\usepackage[T1]{fontenc}
\usepackage[a4paper,margin=15mm]{geometry}
\usepackage{booktabs}
\usepackage{graphicx}
\setlength{\belowcaptionskip}{4pt}
\renewcommand{\cite}[1]{}
\begin{document}
"""


def escape(text: str) -> str:
    """Any text as LaTeX that prints it; characters that standard fonts lack lose their accents or become `?`."""
    return "".join(SPECIAL.get(character) or _printable(character) for character in " ".join(text.split()))


def _printable(character: str) -> str:
    if character.isascii() or ("À" <= character <= "ÿ" and character not in "×÷"):
        return character if character.isprintable() else "?"
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return "".join(SPECIAL.get(letter, letter) for letter in plain) or "?"


def document(results: Results, tables: Sequence[Table]) -> str:
    """A complete document with one booktabs table per table and the key below; compiles without a bibliography."""
    citations = {name: rf"~\cite{{{key}}}" for name, key in _keys(results.run).items()}
    blocks = [table_environment(table, results.run, citations) for table in tables]
    keys = [f"{name} {key}" for name, key in _keys(results.run).items()]
    sources = [f"Methods in the bibliography: {', '.join(keys)}."] if keys else []
    notes = "\n".join(rf"\item {escape(note)}" for note in [*words.key(results, tables), *sources])
    key = f"\\begin{{itemize}}\\small\n{notes}\n\\end{{itemize}}"
    return PREAMBLE + "\n\n".join([*blocks, key]) + "\n\\end{document}\n"


def _keys(run: dict[str, Any]) -> dict[str, str]:
    """BibTeX keys of the methods that have one, without characters that a key cannot have."""
    keys = {entry["name"]: re.sub(r"[^A-Za-z0-9:_+./,-]", "", str(entry.get("cite", ""))) for entry in run["methods"]}
    return {name: key for name, key in keys.items() if key}


def table_environment(table: Table, run: dict[str, Any], citations: dict[str, str]) -> str:
    """One `table*` between marks, `% begin table` and `% end table`, that needs only booktabs."""
    lines = [
        f"% begin table {table.name}",
        r"\begin{table*}[htbp]",
        rf"\centering{_size(table, run)}",
        rf"\caption{{{_caption(table, run)}}}",
        rf"\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{@{{}}{'l' * table.labels}{'r' * (len(table.heads) - table.labels)}@{{}}}}",
        r"\toprule",
        *_heads(table),
        r"\midrule",
        *(_row(row, citations) for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table*}",
        f"% end table {table.name}",
    ]
    return "\n".join(lines)


def _size(table: Table, run: dict[str, Any]) -> str:
    """Type and space between columns with which a table fits the width of a page; those of an audit are the widest."""
    if len(table.heads) > 7 and run.get("audit") is not None:
        return r"\fontsize{6}{7.2}\selectfont\setlength{\tabcolsep}{2pt}"
    if len(table.heads) > 6:
        return r"\scriptsize\setlength{\tabcolsep}{2pt}"
    return r"\footnotesize\setlength{\tabcolsep}{5pt}"


def _caption(table: Table, run: dict[str, Any]) -> str:
    """What the table shows and where it comes from, so that a lifted table can be traced and read alone."""
    versions = ", ".join(f"{name} {version}" for name, version in run.get("versions", {}).items())
    remarks = dict.fromkeys(
        f"{row.method}: {row.remark}."
        for row in table.rows
        if row.kind != "failed" and row.remark != "ok" and not table.by_request  # the first table counts over requests
    )
    facts = [
        f"{table.caption}.",
        *([f"{table.warning}."] if table.warning else []),
        f"{table.units}.",
        f"{words.setting(run)}.",
        f"Made with {versions or 'unrecorded versions'}.",
    ]
    return escape(" ".join([*facts, *remarks]))


def _heads(table: Table) -> list[str]:
    """Two lines of heads: what, and which way is good."""
    lines = []
    for texts in zip(*table.heads, strict=True):
        sides = "l" * table.labels + "r" * (len(texts) - table.labels)
        cells = (rf"\multicolumn{{1}}{{{side}}}{{{escape(text)}}}" for side, text in zip(sides, texts, strict=True))
        lines.append(" & ".join(cells) + r" \\")
    return lines


def _row(row: Row, citations: dict[str, str]) -> str:
    """One line; a method that failed has its reason across the columns where its numbers would be."""
    cells = [escape(cell) for cell in row.cells]
    cells[0] += citations.get(row.method, "")
    if row.kind == "failed":
        cells = [cells[0], rf"\multicolumn{{{len(cells) - 1}}}{{l}}{{{escape(row.remark)}}}"]
    return " & ".join(cells) + r" \\"
