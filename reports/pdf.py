"""Typesets a LaTeX document with pdfTeX, in a folder of its own and without any program that the document asks for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from bench.interface import UsageError
from bench.records import write_whole

PACKAGES = "texlive-science"  # of Debian and Ubuntu; it brings all else that is needed
LIMIT = 120  # seconds for one program
LATEX = ("pdflatex", "-no-shell-escape", "-halt-on-error", "-interaction=nonstopmode", "-file-line-error")
ERROR = re.compile(r"^(?:! (.+)|\S+?:(\d+): (.+))$", re.MULTILINE)
# The same source gives the same bytes; nothing is read or written outside the folder; lines of the log stay whole.
ENVIRONMENT = {
    "SOURCE_DATE_EPOCH": "0", "FORCE_SOURCE_DATE": "1", "openin_any": "p", "openout_any": "p",
    "max_print_line": "10000",
}  # fmt: skip


def compile(tex: Path) -> Path:
    """Typeset a document and return the PDF, which is written beside it.

    Raises UsageError, in one line, where there is no TeX system, where TeX finds an error and where the PDF cannot be
    written; that of an earlier call then stays.
    """
    target = tex.with_suffix(".pdf")
    with tempfile.TemporaryDirectory() as name:
        typeset(tex, Path(name))
        made = (Path(name) / target.name).read_bytes()
    try:
        write_whole(target, made)
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error}") from error
    return target


def typeset(tex: Path, place: Path) -> str:
    """Typeset a document in the empty folder `place`, with what lies beside it, and return TeX's log.

    Copied are `*.tex`, `*.bib` and `figures/*.pdf`. Raises UsageError as `compile` does.
    """
    if shutil.which("pdflatex") is None:
        raise UsageError(
            f"there is no pdflatex, so {tex.with_suffix('.pdf').name} was not made, everything else was; install TeX "
            f"(Debian, Ubuntu: apt-get install {PACKAGES}) and run report again, or typeset {tex} elsewhere"
        )
    for pattern in ("*.tex", "*.bib", "figures/*.pdf"):
        for path in tex.parent.glob(pattern):
            (place / path.relative_to(tex.parent)).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, place / path.relative_to(tex.parent))
    _call([*LATEX, tex.name], tex, place)
    if r"\bibdata" in (place / tex.with_suffix(".aux").name).read_text(encoding="utf-8", errors="replace"):
        _call(["bibtex", tex.stem], tex, place)
        _call([*LATEX, tex.name], tex, place)
    _call([*LATEX, tex.name], tex, place)  # for the references that are now known
    return (place / tex.with_suffix(".log").name).read_text(encoding="latin-1")


def _call(command: list[str], tex: Path, place: Path) -> None:
    """Run one program; raises UsageError with the first error that it tells."""
    try:
        done = subprocess.run(  # nosec B603 # no shell, and the names of files are ours
            command, cwd=place, env=os.environ | ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=LIMIT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise UsageError(f"{command[0]} was stopped after {LIMIT} s on {tex}; everything else was written") from error
    except OSError as error:
        raise UsageError(f"cannot run {command[0]} on {tex}: {error}; everything else was written") from error
    if done.returncode:
        raise UsageError(f"{command[0]} fails on {tex}: {_first_error(done.stdout.decode('latin-1'))}")


def _first_error(printed: str) -> str:
    """The first error in what TeX or BibTeX printed, with what to install where it is a missing file."""
    found = ERROR.search(printed)
    told = (
        (found[1] or f"line {found[2]}: {found[3]}") if found else (printed.strip().splitlines() or ["no output"])[-1]
    )
    return f"{told} (Debian, Ubuntu: apt-get install {PACKAGES})" if "not found" in told else told
