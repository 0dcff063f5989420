"""What tests of LaTeX share: whether this machine can typeset, what a log complains of, and pages of two columns."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from reports import pdf


def _style_files() -> bool:
    """Whether the TeX system, if any, has the packages that are not in every one."""
    if not shutil.which("pdflatex") or not shutil.which("kpsewhich"):
        return False
    return all(
        subprocess.run(["kpsewhich", name], capture_output=True).stdout for name in ("siunitx.sty", "ptmr8t.tfm")
    )


needs_tex = pytest.mark.skipif(not _style_files(), reason=f"needs a TeX system: apt-get install {pdf.PACKAGES}")
needs_poppler = pytest.mark.skipif(not shutil.which("pdffonts"), reason="needs poppler: apt-get install poppler-utils")
# Pages as in a journal, with TeX's own tolerance for what is too wide.
TWO_COLUMNS = r"""\documentclass[10pt,twocolumn]{article}
\usepackage[T1]{fontenc}\usepackage{mathptmx}
\usepackage[a4paper,textwidth=7in,textheight=9.6in,columnsep=0.3in]{geometry}
\usepackage{booktabs,siunitx}
\begin{document}
\input{table}
\end{document}
"""


def complaints(log: str) -> list[str]:
    """The lines of a log on boxes that are too wide or too tall, missing characters and what is undefined."""
    wrong = r"^(?:Overfull .*|Missing character.*|.*Float too large.*|.*[Uu]ndefined (?:ref|cit).*)$"
    return re.findall(wrong, log, re.MULTILINE)


def in_two_columns(table: Path, place: Path) -> list[str]:
    """What TeX complains of when the tables of a file are set on pages of two columns."""
    source, out = place / "source", place / "out"
    source.mkdir(parents=True)
    out.mkdir()
    (source / "table.tex").write_bytes(table.read_bytes())
    (source / "paper.tex").write_text(TWO_COLUMNS)
    log = pdf.typeset(source / "paper.tex", out)
    return [line for line in complaints(log) if "undefined" not in line]  # there is no bibliography here
