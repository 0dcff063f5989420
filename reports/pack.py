"""The paper's tables and figures in its own layout, of all runs that reproduce some, as a page and a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.interface import UsageError
from bench.records import Results, write_whole
from reports import latex, layout, legend, markdown, paper_document, paper_figures, published, style, words
from reports.grid import Table
from reports.paper_figures import FIGURES

TITLE = "The paper's tables and figures, and ours"
GAP = "{title}: `python run_benchmark.py --preset paper-{name}`, in small on the digits `--preset digits-{name}`"
Found = dict[str, dict[str, list[str]]]  # labels of runs by the table of the paper and its column


@dataclass(frozen=True)
class Picture:
    """A figure that was written as `figures/<name>.png` and `.pdf`; `width` is its share of a page's text."""

    name: str
    title: str
    caption: str
    width: float


@dataclass(frozen=True)
class Section:
    """A table of the paper and the figures of the same experiment.

    `lines` say which runs these are and what is missing. `run` is what the table's runs have in common, for the
    provenance in a caption.
    """

    title: str
    lines: list[str]
    table: Table | None
    pictures: list[Picture]
    run: dict[str, Any]


def reproduces(results: Results) -> bool:
    """Whether a run stands for a table of the paper, for a column of one, or for a figure."""
    return bool(published.stands_for(results.run)[0])


def require_own(out: Path) -> None:
    """Raise UsageError where `write` would overwrite or remove what no earlier report has written.

    An earlier pack is known by the title of its page; in a results folder everything but that page is a run's own.
    """
    page = out / "paper.md"
    if page.exists():
        ours = page.read_text(encoding="utf-8", errors="replace").startswith(f"# {TITLE}\n")
        others = [] if ours else [page]
    elif (out / "run.json").exists():
        others = []
    else:
        drawn = [out / "figures" / f"{name}.{kind}" for name in FIGURES for kind in ("png", "pdf")]
        others = [path for path in (out / "paper.tex", out / "references.bib", *drawn) if path.exists()]
    if others:
        raise UsageError(
            f"{others[0]} is not of an earlier report and would be overwritten; write the paper's tables elsewhere "
            "with --out FOLDER"
        )


def write(runs: Mapping[str, Results], out: Path) -> str:
    """Write `paper.md`, `paper.tex` and `figures/figure*` of these runs, by label, into `out`; returns the page.

    What no run reproduces is a gap with the command that fills it. Of several runs of one table the last is shown.
    """
    require_own(out)
    found = _found(runs)
    with style.drawing():
        sections = [_section(name, found[name], runs, out / "figures") for name in _experiments() if name in found]
    gaps = [GAP.format(title=_heading(name), name=name) for name in _experiments() if name not in found]
    _clear(out / "figures", {picture.name for section in sections for picture in section.pictures})
    bare = [label for label, results in runs.items() if not reproduces(results)]
    notes = [legend.PUBLISHED, legend.LAYOUT] if len(bare) < len(runs) else []
    notes += [f"Of no table of the paper, see their own tables and figures: {', '.join(bare)}."] if bare else []
    text = markdown.pack(TITLE, sections, gaps if found else [], notes)
    write_whole(out / "paper.md", text.encode())
    if found:
        run = {"methods": [entry for section in sections for entry in section.run["methods"]]}
        write_whole(out / "references.bib", latex.bibliography(run).encode())
        write_whole(out / "paper.tex", paper_document.text(TITLE, sections, gaps, notes).encode())
    return text


def _experiments() -> list[str]:
    return [name for name, value in published.paper().items() if isinstance(value, dict)]


def _found(runs: Mapping[str, Results]) -> Found:
    found: Found = {}
    for label, results in runs.items():
        name, column = published.stands_for(results.run)
        if name:
            found.setdefault(name, {}).setdefault(column, []).append(label)
    return found


def _heading(name: str) -> str:
    """`Table 1, Figure 1 and Figure 2`: what one run makes."""
    return words.listed(list(dict.fromkeys([published.paper()[name]["name"], *map(_title, _figures(name))])))


def _figures(name: str) -> list[str]:
    return [figure for figure, shown in FIGURES.items() if shown.table == name]


def _section(name: str, found: Mapping[str, list[str]], runs: Mapping[str, Results], folder: Path) -> Section:
    paper = published.paper()[name]
    columns = ["", *(column["name"] for column in paper["columns"])]
    shown = {column: runs[found[column][-1]] for column in columns if column in found}
    made = layout.table(name, shown)
    lines = [_whose(paper, column, found[column], results) for column, results in shown.items()]
    results, pictures = next(iter(shown.values())), []
    for figure in _figures(name):
        if picture := _picture(figure, results, folder):
            pictures.append(picture)
        else:
            lines.append(f"{_title(figure)} is not drawn, {FIGURES[figure].needs}.")
    hashes = words.listed([one.run["config_hash"] for one in shown.values()])
    run = results.run | {"config_hash": hashes}
    return Section(_heading(name), lines, made if made.rows else None, pictures, run)


def _title(figure: str) -> str:
    return figure.replace("figure", "Figure ")


def _whose(paper: Mapping[str, Any], column: str, labels: Sequence[str], results: Results) -> str:
    """Which run a table or a column of it is from, and which others there are."""
    what, others = f"{paper['name']}{f', {column}' if column else ''}", labels[:-1]
    told = f" Also given, and not shown since the last one counts: {words.listed(others)}." if others else ""
    return f"{what} is from {labels[-1]}: {words.setting(results.run)}.{told}"


def _picture(name: str, results: Results, folder: Path) -> Picture | None:
    figure = FIGURES[name].draw(results)
    if figure is None:
        return None
    for kind in ("png", "pdf"):
        write_whole(folder / f"{name}.{kind}", style.encode(figure, kind))
    width = min(figure.get_figwidth() / style.TWO_COLUMNS, 1.0)
    return Picture(name, _title(name), paper_figures.caption(name, results), width)


def _clear(folder: Path, drawn: set[str]) -> None:
    """Remove what an earlier build drew and this one did not."""
    for name in FIGURES.keys() - drawn:
        for kind in ("png", "pdf"):
            (folder / f"{name}.{kind}").unlink(missing_ok=True)
