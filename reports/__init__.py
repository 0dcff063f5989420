"""Turns a results folder into tables, figures, LaTeX and one page; needs no model and no torch."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.interface import UsageError
from bench.records import Results, load, require_folder, write_whole


def build(folder: Path) -> str:
    """Write every artefact of a results folder into it and return the Markdown of its tables; see `report`."""
    return report([folder])


def report(folders: Sequence[Path], out: Path | None = None) -> str:
    """Write every artefact of results folders into them, and what they reproduce of the paper into `out`.

    Each run gets `table.md`, `table.tex`, `references.bib`, `report.tex`, `report.html` and `figures/*.png`,
    `figures/*.pdf`; the same folder always gives the same bytes. A folder may hold the runs of several parts. The
    paper's tables and figures, in its own layout, are `paper.md`, `paper.tex` and `figures/figure*`; without `out` they
    go into the only folder, where a run of it reproduces some.

    Returns:
        The tables of the only run, or the page of the paper's tables. Raises `bench.interface.UsageError`, before
        anything is written, if a folder is missing or damaged, or there is nothing of the paper to write into `out`.
    """
    if len(folders) > 1 and out is None:
        raise UsageError("several results folders make one set of the paper's tables; say where with --out FOLDER")
    with _uncollected():
        places = {label: place for folder in folders for label, place in _runs(folder, alone=len(folders) == 1).items()}
        found = {label: load(place) for label, place in places.items()}
        if out is not None:
            _require_paper(found, out)
        texts = [_build(places[label], results) for label, results in found.items()]
        alone = len(folders) == 1 and folders[0] in places.values()
        from reports import pack

        if alone and out is None and not pack.reproduces(*found.values()):
            return texts[0]
        page = pack.write(found, out or folders[0])
        return texts[0] if alone and out is None else page


def _runs(folder: Path, *, alone: bool) -> dict[str, Path]:
    """The runs of a results folder by what they are called: itself, or those of its parts, such as `table4/5k`."""
    parts = [] if (folder / "records.csv").exists() else sorted(path.parent for path in folder.rglob("records.csv"))
    if not parts:
        return {folder.name if alone else str(folder): folder}
    return {part.relative_to(folder).as_posix() if alone else str(part): part for part in parts}


def _require_paper(runs: Mapping[str, Results], out: Path) -> None:
    from reports import pack

    if not any(map(pack.reproduces, runs.values())):
        raise UsageError(
            f"none of these runs is of a table of the paper, so there is nothing to write into {out}: "
            f"{', '.join(runs)}; run_benchmark.py --preset digits-table1 makes a small one"
        )
    require_folder(out, "the folder of the paper's tables", "--out")


def build_parts(folder: Path, parts: Sequence[str]) -> str:
    """Write what the runs in these folders below `folder` reproduce of the paper into it, and return the page.

    Raises UsageError where one of them is missing or damaged.
    """
    from reports import pack

    with _uncollected():
        return pack.write({part: load(folder / part) for part in parts}, folder)


def typeset(folders: Sequence[Path], out: Path | None = None) -> list[Path]:
    """Make `report.pdf` of what `report` wrote into each run's folder, and `paper.pdf`; returns the PDF files.

    Raises `bench.interface.UsageError`, in one line, without a TeX system and where TeX finds an error.
    """
    from reports import pdf

    documents = [place / "report.tex" for folder in folders for place in _runs(folder, alone=True).values()]
    paper = (out or folders[0]) / "paper.tex"
    return [pdf.compile(one) for one in [*documents, *([paper] if paper.exists() else [])]]


def _build(folder: Path, results: Results) -> str:
    # Imported here, so that `import reports` costs a command line that builds nothing next to nothing.
    from reports import against, document, figures, latex, markdown, page, tables

    rows = [*tables.build(results), *against.tables([results])]
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
