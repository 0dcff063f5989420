"""Turns a results folder into tables, figures, LaTeX and one page; needs no model and no torch."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench import program
from bench.interface import UsageError
from bench.records import Results, load, require_folder, require_unlinked, write_whole


def build(folder: Path, *, one_column: bool = False) -> str:
    """Write every artefact of a results folder into it and return the Markdown of its tables; see `report`."""
    return report([folder], one_column=one_column)


def report(folders: Sequence[Path], out: Path | None = None, *, one_column: bool = False) -> str:
    """Write every artefact of results folders into them, and what they reproduce of the paper into `out`.

    Each run gets `table.md`, `table.tex`, `references.bib`, `report.tex`, `report.html` and `figures/*.png`,
    `figures/*.pdf`; the same folder always gives the same bytes. A folder may hold the runs of several parts. The
    paper's tables and figures, in its own layout, are `paper.md`, `paper.tex` and `figures/figure*`; without `out` they
    go into the only folder, where a run of it reproduces some. Depoisoning runs that differ in the number of wrong
    labels make `figures/budgets` there. With `one_column` every figure is there in a version for one column too.

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
        from reports import pack

        if out or len(found) > 1 or pack.reproduces(*found.values()):
            pack.require_own(out or folders[0])
        for place in [*places.values(), out or folders[0]]:
            require_unlinked(place)
        texts = [_build(places[label], results, one_column=one_column) for label, results in found.items()]
        alone = len(folders) == 1 and folders[0] in places.values()
        if alone and out is None and not pack.reproduces(*found.values()):
            return texts[0]
        page = _together(found, out or folders[0], one_column=one_column)
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
            f"{', '.join(runs)}; {program.name()} --preset digits-table1 makes a small one"
        )
    require_folder(out, "the folder of the paper's tables", "--out")


def build_parts(folder: Path, parts: Sequence[str], *, one_column: bool = False) -> str:
    """Write what the runs in these folders below `folder` reproduce of the paper into it, and return the page.

    Raises UsageError where one of them is missing or damaged.
    """
    with _uncollected():
        return _together({part: load(folder / part) for part in parts}, folder, one_column=one_column)


def _together(runs: Mapping[str, Results], out: Path, *, one_column: bool) -> str:
    """Write what several runs show together into `out`, and return the page of the paper's tables."""
    from reports import figures, pack

    figures.write_parts(list(runs.values()), out / "figures", one_column=one_column)
    return pack.write(runs, out)


def typeset(folders: Sequence[Path], out: Path | None = None) -> list[Path]:
    """Make `report.pdf` of what `report` wrote into each run's folder, and `paper.pdf`; returns the PDF files.

    Raises `bench.interface.UsageError`, in one line, without a TeX system and where TeX finds an error.
    """
    from reports import pdf

    documents = [place / "report.tex" for folder in folders for place in _runs(folder, alone=True).values()]
    paper = (out or folders[0]) / "paper.tex"
    return [pdf.compile(one) for one in [*documents, *([paper] if paper.exists() else [])]]


def _build(folder: Path, results: Results, *, one_column: bool) -> str:
    # Imported here, so that `import reports` costs a command line that builds nothing next to nothing.
    from reports import against, document, figures, latex, markdown, page, tables

    rows = [*tables.build(results), *against.tables([results])]
    text = markdown.page(results, rows)
    write_whole(folder / "table.md", text.encode())
    write_whole(folder / "table.tex", latex.tables_file(results, rows).encode())
    write_whole(folder / "references.bib", latex.bibliography(results.run).encode())
    drawn = figures.write(results, folder / "figures", one_column=one_column)
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
