"""Turns a results folder into tables, figures, LaTeX and one page; needs no model and no torch."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.records import load, write_whole


def build(folder: Path) -> str:
    """Write every artefact of a results folder into it and return the Markdown of its tables.

    Writes `table.md`, `table.tex`, `references.bib`, `report.tex`, `report.html` and `figures/*.png`, `figures/*.pdf`;
    the same folder always gives the same bytes. Of a folder with the runs of several parts each is built, and
    `paper.md`. Raises `bench.interface.UsageError` if the folder is missing or damaged.
    """
    with _uncollected():
        if (folder / "records.csv").exists() or not (parts := _parts(folder)):
            return _build(folder)
        for part in parts:
            _build(folder / part)
        return build_parts(folder, parts)


def _parts(folder: Path) -> list[str]:
    """The folders below with results, such as `table1` and `table4/5k`."""
    return sorted(path.parent.relative_to(folder).as_posix() for path in folder.rglob("records.csv"))


def build_parts(folder: Path, parts: Sequence[str]) -> str:
    """Write `paper.md`, which holds the runs in these folders below `folder` against the paper, and return it.

    Raises UsageError where one of them is missing or damaged.
    """
    from reports import markdown, published

    found = {part: load(folder / part) for part in parts}
    text = markdown.comparison(
        "The paper's numbers and ours", published.tables(list(found.values())), published.notes(found)
    )
    write_whole(folder / "paper.md", text.encode())
    return text


def typeset(folder: Path) -> list[Path]:
    """Make `report.pdf` of what `build` wrote into a folder, or into those of its parts, `paper.pdf` of `paper.tex`.

    Returns the PDF files. Raises `bench.interface.UsageError`, in one line, without a TeX system and where TeX finds an
    error.
    """
    from reports import pdf

    parts = ["."] if (folder / "records.csv").exists() else _parts(folder)
    sources = [*(folder / part / "report.tex" for part in parts), folder / "paper.tex"]
    return [pdf.compile(tex) for tex in sources if tex.exists()]


def _build(folder: Path) -> str:
    # Imported here, so that `import reports` costs a command line that builds nothing next to nothing.
    from reports import document, figures, latex, markdown, page, published, tables

    results = load(folder)
    rows = [*tables.build(results), *published.tables([results])]
    text = markdown.page(results, rows)
    write_whole(folder / "table.md", text.encode())
    write_whole(folder / "table.tex", latex.tables_file(results, rows).encode())
    write_whole(folder / "references.bib", latex.bibliography(results.run).encode())
    drawn = figures.write(results, folder / "figures")
    write_whole(folder / "report.tex", document.text(results, rows, drawn).encode())
    write_whole(folder / "report.html", page.render(results, rows, drawn).encode())
    return text


@contextmanager
def _uncollected() -> Iterator[None]:
    """Pause garbage collection: it takes a quarter of the time to walk over the plotting library and finds little."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
