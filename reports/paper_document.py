"""The paper's tables and figures, and ours, as a LaTeX document in which they have the paper's numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from reports import latex

if TYPE_CHECKING:
    from reports.pack import Picture, Section


def text(title: str, sections: Sequence[Section], gaps: Sequence[str], notes: Sequence[str]) -> str:
    """The file `paper.tex`; it needs the PDF files of `figures/` beside it."""
    blocks = [rf"\section*{{{latex.escape(title)}}}"]
    for section in sections:
        if section.table is not None:
            number = int(section.table.name.removeprefix("table")) - 1
            blocks.append(rf"\setcounter{{table}}{{{number}}}")
            blocks.append(latex.table_environment(section.table, section.run, {}))
        blocks += map(_figure, section.pictures)
    lines = [line for section in sections for line in section.lines]
    blocks += [r"\clearpage", *_list("Runs", lines), *_list("Not run", gaps), *_list("How to read this", notes)]
    return latex.PREAMBLE + "\n\n".join(blocks) + "\n\\end{document}\n"


def _list(title: str, lines: Sequence[str]) -> list[str]:
    items = "\n".join(rf"\item {latex.escape(line.replace('`', ''))}" for line in lines)
    return [f"\\subsection*{{{title}}}\n\\begin{{itemize}}\\small\n{items}\n\\end{{itemize}}"] if lines else []


def _figure(picture: Picture) -> str:
    number = int(picture.name.removeprefix("figure")) - 1
    lines = [
        rf"\setcounter{{figure}}{{{number}}}",
        r"\begin{figure*}[htbp]",
        rf"\centering\includegraphics[width={picture.width:.2f}\textwidth]{{figures/{picture.name}.pdf}}",
        rf"\caption{{{latex.escape(picture.caption)}}}",
        rf"\label{{fig:{picture.name}}}",
        r"\end{figure*}",
    ]
    return "\n".join(lines)
