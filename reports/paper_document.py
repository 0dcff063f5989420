"""The paper's tables and figures, and ours, as a LaTeX document in which they have the paper's numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from reports import document, latex
from reports.tex import escape

if TYPE_CHECKING:
    from reports.pack import Picture, Section


def text(title: str, sections: Sequence[Section], gaps: Sequence[str], notes: Sequence[str]) -> str:
    """The file `paper.tex`; it needs references.bib and the PDF files of `figures/` beside it."""
    head = rf"\twocolumn[\begin{{center}}{{\Large\bfseries {escape(title)}\par}}\end{{center}}\vspace{{1em}}]"
    lines = [line for section in sections for line in section.lines]
    blocks = [head, *_list("Runs", lines), *_list("Not run", gaps), *_list("How to read this", notes)]
    cited = any(latex.citations(section.run) for section in sections)
    blocks += [r"{\small\bibliographystyle{plain}\bibliography{references}}"] if cited else []
    blocks.append(r"\onecolumn")
    for section in sections:
        if section.table is not None:
            number = int(section.table.name.removeprefix("table")) - 1
            blocks.append(rf"\setcounter{{table}}{{{number}}}")
            blocks.append(latex.table_environment(section.table, section.run, latex.citations(section.run)))
        blocks += map(_figure, section.pictures)
    return "\n\n".join([latex.PREAMBLE + "\n\\begin{document}", *blocks]) + "\n\\end{document}\n"


def _list(title: str, lines: Sequence[str]) -> list[str]:
    told = document.points(line.replace("`", "") for line in lines)
    return [f"\\section*{{{title}}}\n{{\\small\n{told}}}"] if lines else []


def _figure(picture: Picture) -> str:
    number = int(picture.name.removeprefix("figure")) - 1
    lines = [
        rf"\setcounter{{figure}}{{{number}}}",
        r"\begin{figure*}[htbp]",
        rf"\centering\includegraphics[width={picture.width:.2f}\textwidth]{{figures/{picture.name}.pdf}}",
        rf"\caption{{{escape(picture.caption)}}}",
        rf"\label{{fig:{picture.name}}}",
        r"\end{figure*}",
    ]
    return "\n".join(lines)
