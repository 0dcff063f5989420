"""Turns a results folder into tables, figures, LaTeX and one page; needs no model and no torch."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.records import load, write_whole


def build(folder: Path) -> str:
    """Write every artefact of a results folder into it and return the Markdown of its tables.

    Writes `table.md`, `table.tex`, `report.html` and `figures/*.png`, `figures/*.pdf`; the same folder always
    gives the same bytes. Raises `bench.interface.UsageError` if the folder is missing or damaged.
    """
    with _uncollected():
        return _build(folder)


def _build(folder: Path) -> str:
    # Imported here, so that `import reports` costs a command line that builds nothing next to nothing.
    from reports import figures, latex, markdown, page, tables

    results = load(folder)
    rows = tables.build(results)
    text = markdown.page(results, rows)
    write_whole(folder / "table.md", text.encode())
    write_whole(folder / "table.tex", latex.document(results, rows).encode())
    drawn = figures.write(results, folder / "figures")
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
