"""Many results folders as one leaderboard: a ranked table per scenario in Markdown, LaTeX, HTML, and its diagrams."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from bench.records import require_unlinked, write_whole
from reports import latex, markdown, standings
from reports.cells import TUNED, Cell, collect, read
from reports.grid import Row, Table
from reports.numbers import fixed
from reports.ranking import Ranking, rank
from reports.standings import UNRANKED
from reports.tex import escape

TITLE = "Leaderboard"
TEMPLATE = Path(__file__).with_name("leaderboard.html.j2")
CAPTION = (
    "Average ranks by {by} over {cells} cells. A bar joins methods that are not told apart: they are less than the "
    "critical difference apart, or no test finds any difference."
)
NOTES = (
    "A cell is one data set, network, recipe and request. Methods are ranked in every cell, 1 the best, by the mean "
    "over repeats; ties share a rank; ranks are averaged over cells.",
    "attack: how far the area of the attack that decides the verdict is from 0.5. forget error, test error: size of "
    "the gap to the retrained pool. time: seconds of the requests as a share of retraining in the same run.",
    "Methods that share a letter under group are not told apart: their ranks are less than the critical difference "
    "apart, or the test of all ranks (Friedman) finds none. Its p-value is rough below ten cells.",
    "Only cells that hold all ranked methods count, so that none is ranked on easier cells. Where a run of a method "
    "failed, those for the attacks too, or a number is missing, it ranks last in that cell.",
    "may read: F forget set, R retained data, V validation data, S statistics of the training set from before the "
    "request, C true labels, I initial weights, T its own training. Who reads less solves a harder task: compare "
    "within the same letters.",
    "indistinguishable; leaks or over-forgets; failed: in how many of the cells that count for the row; "
    "the other verdicts are not enough data.",
    f"{UNRANKED}: no rank. original and retrain are controls with a known answer and take none.",
    f"{TUNED}: values that a preset chose, which may differ between cells. What was changed by hand is in the row's "
    "name, and so are a preset's values where one cell has several.",
    "Of several runs of one cell those judged on the most models count, and of each row the latest.",
)


@dataclass(frozen=True)
class Diagram:
    """A diagram of ranks that was written: the name of its files, its PNG bytes, and the words that go with it."""

    name: str
    png: bytes
    caption: str
    alternative: str


def build(folders: Sequence[Path], out: Path, by: str = "attack") -> tuple[str, list[str]]:
    """Write the leaderboard of all results among and below these folders into `out`.

    Writes `leaderboard.md`, `leaderboard.tex`, `leaderboard.html`, and `figures/ranks_SCENARIO.png` and `.pdf` where
    the cells can tell methods apart. `by` is the criterion of the order: `attack`, `forget`, `test` or `cost`.

    Returns:
        Its Markdown, and a line for each run that is damaged and left out, which its notes tell too. Raises
        `bench.interface.UsageError` where a folder holds no results, or none that are whole.
    """
    require_unlinked(out)
    runs, faults = read(folders)
    found = {scenario: (cells, rank(cells, by)) for scenario, cells in collect(runs).items()}
    tables = {scenario: standings.tables(scenario, *one) for scenario, one in found.items()}
    notes = [*NOTES, *_unused([cell for cells, _ in found.values() for cell in cells])]
    notes += [f"Left out: {fault}." for fault in faults]
    every = [table for own in tables.values() for table in own]
    text = markdown.comparison(TITLE, every, ["## How to read this", *(f"- {note}" for note in notes)])
    drawn = {scenario: _draw(scenario, ranking, out / "figures") for scenario, (_, ranking) in found.items()}
    write_whole(out / "leaderboard.md", text.encode())
    write_whole(out / "leaderboard.tex", _latex(tables, notes).encode())
    write_whole(out / "leaderboard.html", _page(tables, drawn, notes).encode())
    return text, faults


def _unused(cells: Sequence[Cell]) -> list[str]:
    unused = sorted(folder for cell in cells for folder in cell.unused)
    return [f"Runs that do not count, since others of their cell do: {', '.join(unused)}."] if unused else []


def _draw(scenario: str, ranking: Ranking, folder: Path) -> Diagram | None:
    """Write the diagram of a scenario, or remove that of an earlier build where there is none."""
    from reports import style  # here, so that a folder without results is refused at once
    from reports.rank_diagram import rank_diagram

    name = f"ranks_{scenario}"
    with style.drawing():
        figure = rank_diagram(ranking)
        if figure is None:
            for kind in ("png", "pdf"):
                (folder / f"{name}.{kind}").unlink(missing_ok=True)
            return None
        png = style.encode(figure, "png")
        write_whole(folder / f"{name}.png", png)
        write_whole(folder / f"{name}.pdf", style.encode(figure, "pdf"))
    average = ranking.ranks[ranking.by].average
    told = ", ".join(f"{row} {fixed(average[row])}" for row in ranking.rows)
    by = standings.HEADS[ranking.by]
    caption = CAPTION.format(by=by, cells=len(ranking.cells))
    return Diagram(name, png, caption, f"Average ranks by {by}: {told}; critical difference {ranking.difference:.2f}.")


def _latex(tables: Mapping[str, Sequence[Table]], notes: Sequence[str]) -> str:
    """A document with the ranked tables; the cells are a list, and what was found in each is too long for a page."""
    blocks = []
    for scenario, (standing, _, cells) in tables.items():
        lines = [_in_words(cells, row) for row in cells.rows]
        blocks += [_environment(standing), rf"\paragraph{{Cells of {escape(scenario)}}}", _items(lines)]
    return (
        latex.PREAMBLE
        + "\\begin{document}\\onecolumn\n"
        + "\n\n".join([*blocks, _items(notes)])
        + "\n\\end{document}\n"
    )


def _in_words(table: Table, row: Row) -> str:
    return "; ".join(f"{head} {cell}" for (head, _), cell in zip(table.heads, row.cells, strict=True))


def _items(lines: Sequence[str]) -> str:
    items = "\n".join(rf"\item {escape(line)}" for line in lines)
    return f"\\begin{{itemize}}\\small\\raggedright\n{items}\n\\end{{itemize}}"


def _environment(table: Table) -> str:
    """A table between marks, as in the report of a run, but with a caption that tells of many runs."""
    remarks = [f"{row.method}: {row.remark}" for row in table.rows if row.remark != "ok"]
    caption = ". ".join([table.caption, *([table.warning] if table.warning else []), table.units, *remarks])
    return latex.marked(table.name, [latex.floats(table, f"{escape(caption)}.", f"leaderboard-{table.name}", {})])


def _page(tables: Mapping[str, Sequence[Table]], drawn: Mapping[str, Diagram | None], notes: Sequence[str]) -> str:
    """The page as HTML text; it asks for nothing from outside, and every text from a run is escaped."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    pictures = {name: base64.b64encode(one.png).decode() for name, one in drawn.items() if one}
    return template.render(title=TITLE, scenarios=tables, drawn=drawn, pictures=pictures, notes=notes) + "\n"
