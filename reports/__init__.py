"""Turns a results folder into tables, figures, LaTeX and one page; needs no model and no torch."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.records import load, write_whole


def build(folder: Path) -> str:
    """Write every artefact of a results folder into it and return the Markdown of its tables.

    Writes `table.md`, `table.tex`, `report.html` and `figures/*.png`, `figures/*.pdf`; the same folder always
    gives the same bytes. Of a folder with the runs of several parts each is built, and `paper.md`. Raises
    `bench.interface.UsageError` if the folder is missing or damaged.
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
    from reports import against, markdown

    found = {part: load(folder / part) for part in parts}
    text = markdown.comparison(
        "The paper's numbers and ours", against.tables(list(found.values())), against.notes(found)
    )
    write_whole(folder / "paper.md", text.encode())
    return text


def _build(folder: Path) -> str:
    # Imported here, so that `import reports` costs a command line that builds nothing next to nothing.
    from reports import against, figures, latex, markdown, page, tables

    results = load(folder)
    rows = [*tables.build(results), *against.tables([results])]
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
