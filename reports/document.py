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


def text(results: Results, tables: Sequence[Table], figures: Sequence[Drawn]) -> str:
    """The file `report.tex`; it needs table.tex, references.bib and the PDF files of `figures/` beside it."""
    run = results.run
    cited = bool(latex.citations(run))
    return "\n".join([
        PREAMBLE + rf"\pdfinfo{{/Title ({_ascii(run['title'])})}}",
        r"\begin{document}",
        rf"\twocolumn[\begin{{center}}{{\Large\bfseries {escape(run['title'])}\par}}\end{{center}}\vspace{{1em}}]",
        *_section("Findings", _points(findings.sentences(results))),
        *_section("Setting", _points(_setting(run))),
        *_section("How to read the tables", "{\\small\n" + _points(words.key(results, tables)) + "}"),
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


def _points(sentences: Iterable[str]) -> str:
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
