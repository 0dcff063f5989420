"""A run as a complete LaTeX document: findings, setting, key, tables, figures and bibliography."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.records import Results
from reports import findings, latex, words
from reports.figures import Drawn
from reports.grid import Table
from reports.tex import escape


def text(results: Results, tables: Sequence[Table], figures: Sequence[Drawn]) -> str:
    """The file `report.tex`; it needs table.tex, references.bib and the PDF files of `figures/` beside it."""
    run = results.run
    cited = bool(latex.citations(run))
    return "\n".join([
        latex.PREAMBLE + rf"\pdfinfo{{/Title ({_ascii(run['title'])})}}",
        r"\begin{document}",
        rf"\twocolumn[\begin{{center}}{{\Large\bfseries {escape(run['title'])}\par}}\end{{center}}\vspace{{1em}}]",
        *_section("Findings", points(findings.sentences(results))),
        *_section("Setting", points(_setting(run))),
        *_section("How to read the tables", "{\\small\n" + points(words.key(results, tables)) + "}"),
        *([r"{\small\bibliographystyle{plain}", r"\bibliography{references}}"] if cited else []),
        r"\onecolumn",
        r"\input{table}",
        *map(_figure, figures),
        r"\end{document}",
        "",
    ])  # fmt: skip


def _ascii(title: str) -> str:
    """A title that a PDF's description can hold as it is."""
    return re.sub(r"[^A-Za-z0-9 _.,:+=-]+", "-", title)


def _section(head: str, body: str) -> list[str]:
    return [rf"\section*{{{head}}}", body]


def points(sentences: Iterable[str]) -> str:
    """Sentences as a list in TeX, escaped; nothing of none."""
    items = [rf"\item {escape(sentence)}" for sentence in sentences]
    return "\n".join([r"\begin{points}", *items, r"\end{points}"]) if items else ""


def _setting(run: Mapping[str, Any]) -> list[str]:
    """What was run, a fact a line, then how to run it again and what ran it."""
    listed = (run.get("versions", {}), run.get("hardware", {}))
    versions, hardware = (", ".join(f"{name} {value}" for name, value in pairs.items()) for pairs in listed)
    told = {
        "Command": run.get("command"), "Started": str(run.get("started", ""))[:10], "Code version": run.get("git"),
        "Versions": versions, "Hardware": hardware,
    }  # fmt: skip
    facts = [fact[0].upper() + fact[1:] for fact in words.setting(run).split(" · ") if fact]
    return [*facts, *(f"{name}: {value}" for name, value in told.items() if value)]


def _figure(figure: Drawn) -> str:
    return "\n".join([
        r"\begin{figure}[tbp]",
        r"\centering",
        rf"\includegraphics[width=\textwidth,height=0.85\textheight,keepaspectratio]{{figures/{figure.name}.pdf}}",
        rf"\caption{{{escape(figure.caption)}}}",
        rf"\label{{fig:{figure.name}}}",
        r"\end{figure}",
    ])  # fmt: skip
