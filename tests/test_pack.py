"""The paper's tables and figures in its own layout: what stands where, gaps, several folders, and the small presets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from command import FinishedRun, Place
from matplotlib.figure import Figure

from bench import config, parts, preset
from bench.interface import UsageError
from bench.records import Results, load, save
from reports import build, build_parts, layout, pack, paper_figures, published, report, style
from reports.grid import Table
from reports.numbers import REFERENCE, Numbers
from tests.fabricated import fabricate
from tests.test_published import TABLE1, TABLE2, TABLE3, TABLE4, cells

SCENARIOS = {
    "table1": "sample_removal",
    "table2": "class_removal",
    "table3": "incremental",
    "table4.5k": "depoisoning",
    "figure4": "class_removal",
}
SMALL = ["digits-table1", "digits-table2", "digits-table3", "digits-table4", "digits-figure4"]


def made(folder: Path, name: str, **changes: Any) -> Path:
    """A made-up results folder of a run that stands for a table of the paper, or for a column of one."""
    results = load(fabricate(folder, SCENARIOS.get(name, "depoisoning")))
    save(folder, Results(results.run | {"published": name} | changes, results.records, results.samples))
    return folder


def laid_out(name: str, *folders: Path) -> Table:
    runs = [load(folder) for folder in folders]
    return layout.table(name, {published.stands_for(one.run)[1]: one for one in runs})


def grid(table: Table) -> dict[tuple[str, str, str], list[str]]:
    """The cells by quantity (empty where a table has one), method and side: ours, paper or difference."""
    found, above = {}, [""] * table.labels
    for row in table.rows:
        labels = row.cells[: table.labels]
        above = [
            own or (old if not any(labels[:place]) else "")
            for place, (own, old) in enumerate(zip(labels, above, strict=True))
        ]
        quantity, method, side = above if table.labels == 3 else ["", *above]
        found[quantity, method, side] = row.cells[table.labels :]
    return found


@pytest.mark.parametrize(
    ("name", "typed", "heads"),
    [
        ("table1", TABLE1, ["retain error, %", "forget error, %", "test error, %", "time, s", "time ÷ retraining"]),
        ("table2", TABLE2, ["retained test error, %", "retain error, %", "time, s", "time ÷ retraining"]),
    ],
)
def test_a_table_has_the_papers_rows_and_columns(
    tmp_path: Path, name: str, typed: dict[str, str], heads: list[str]
) -> None:
    table = laid_out(name, made(tmp_path, name))
    assert [head for head, _ in table.heads] == ["method", "", *heads]
    found = grid(table)
    assert list(dict.fromkeys(method for _, method, _ in found)) == list(typed)
    for method, line in typed.items():
        printed = [
            [float(x.replace(",", "")) for x in cell.split(" ± ")]
            for cell in found["", method, "paper"][:-1]
            if cell != "–"
        ]
        assert printed == [cell for cell in cells(line) if cell], method


def test_ours_and_the_difference_stand_above_and_below_the_published_value(tmp_path: Path) -> None:
    folder = made(tmp_path, "table1")
    numbers, found = Numbers(load(folder).records), grid(laid_out("table1", folder))
    ours, paper, gap = (found["", "PGU", side][1] for side in ("ours", "paper", "difference"))
    mean = numbers.value("pgu", "error", "forget")
    assert (ours.split()[0], paper) == (f"{mean:.2f}", "9.92 ± 0.45")
    assert gap.startswith(f"{mean - 9.92:+.2f} [".replace("-", "−"))
    assert found["", "Retrained", "ours"][2].startswith(f"{numbers.value(REFERENCE, 'error', 'test'):.2f} ± ")
    assert found["", "PGU", "difference"][3] == "not compared"  # seconds of two machines


def test_a_row_that_was_not_run_says_so_in_every_cell(tmp_path: Path) -> None:
    found = grid(laid_out("table1", made(tmp_path, "table1")))
    assert set(found["", "NTK", "ours"]) == {"not run"}
    assert found["", "NTK", "paper"] == ["3.49 ± 0.98", "11.05 ± 1.83", "12.68 ± 0.74", "–", "–"]
    assert ("", "NTK", "difference") not in found


def test_table_3_goes_by_request(tmp_path: Path) -> None:
    folder = made(tmp_path, "table3")
    table, numbers = laid_out("table3", folder), Numbers(load(folder).records)
    assert [head for head, _ in table.heads[3:]] == [f"request {number}" for number in (1, 2, 3, 4)]
    found = grid(table)
    for quantity, title in (
        ("test_error", "test error, %"),
        ("retain_error", "retain error, %"),
        ("forget_error", "forget error, %"),
    ):
        for method, line in zip(("Retrained", "PGU"), TABLE3[quantity], strict=True):
            printed = [[float(x) for x in cell.split(" ± ")] for cell in found[title, method, "paper"]]
            assert printed == cells(line)
    ours = [numbers.value("pgu", "error", "forget", step) for step in range(4)]
    assert [cell.split()[0] for cell in found["forget error, %", "PGU", "ours"]] == [f"{one:.2f}" for one in ours]


def test_table_4_is_put_together_from_runs_and_has_gaps(tmp_path: Path) -> None:
    folders = {column: made(tmp_path / column, f"table4.{column}") for column in ("20k", "5k")}
    found = grid(laid_out("table4", *folders.values()))
    for method, line in TABLE4.items():
        assert [[float(cell)] for cell in found["", method, "paper"]] == cells(line)
    own = found["", "PGU", "ours"]
    assert [cell == "not run" for cell in own] == [False, True, True, False, True]
    assert own[0].split()[0] == f"{100 - Numbers(load(folders['5k']).records).value('pgu', 'error', 'test'):.2f}"
    assert found["", "PGU", "difference"][1] == "n/a"


@pytest.mark.parametrize("name", sorted(paper_figures.FIGURES))
def test_every_figure_is_drawn_from_a_run_of_its_table(tmp_path: Path, name: str) -> None:
    results = load(made(tmp_path, paper_figures.FIGURES[name].table))
    with mpl.rc_context(style.STYLE):
        figure = paper_figures.FIGURES[name].draw(results)
    assert isinstance(figure, Figure)
    panels = {"figure1": 3, "figure2": 1, "figure3": 4, "figure4": 2, "figure5": 4, "figure6": 1}
    assert sum(ax.get_visible() for ax in figure.axes) == panels[name]
    assert style.encode(figure, "png") == style.encode(figure, "png")


def test_a_figure_shows_the_papers_methods_only_and_names_those_it_lacks(tmp_path: Path) -> None:
    results = load(made(tmp_path, "table1"))
    with mpl.rc_context(style.STYLE):
        figure = paper_figures.figure1(results)
    assert figure is not None
    assert [ax.get_title("left").split(" · ")[0] for ax in figure.axes if ax.get_visible()] == ["EU-k", "SCRUB", "PGU"]
    assert paper_figures.caption("figure1", results).endswith("Missing: NTK (not run).")
    area = Numbers(results.records).value("pgu", "attack_auc", "forget") - 0.5340
    told = f"{area:+.4f}".replace("-", "−")
    assert f"PGU 0.5340 (ours {told})" in paper_figures.caption("figure2", results)


def test_the_curves_carry_the_papers_names_and_our_areas(tmp_path: Path) -> None:
    results = load(made(tmp_path, "table3"))
    with mpl.rc_context(style.STYLE):
        figure = paper_figures.figure2(results)
    assert figure is not None
    named = [text.get_text().splitlines() for text in figure.legends[0].get_texts()]
    area = Numbers(results.records).value("pgu", "attack_auc", "forget", 3)
    assert [name for name, _ in named] == ["Original", "PGU"]
    assert named[1][1].startswith(f"{area:.2f} [")


def test_a_method_looks_the_same_in_every_figure() -> None:
    looks = {name: paper_figures.look(name) for name in ("original", "pgu", "eu_k", "scrub", "ntk+form=dense")}
    assert len({color for color, _ in looks.values()}) == len(looks)


def test_the_pack_of_one_run_names_what_was_not_run(tmp_path: Path) -> None:
    text = build(made(tmp_path, "table1"))
    page, tex = ((tmp_path / name).read_text(encoding="utf-8") for name in ("paper.md", "paper.tex"))
    assert "# The paper's tables" not in text  # the run's own tables are what is printed
    assert "## Table 1 of the paper, and ours" in page
    assert "**Not the paper's setting: data set digits" in page
    assert "![Figure 2](figures/figure2.png)" in page
    for name, title in (("table2", "Table 2 and Figure 3"), ("figure4", "Figure 4"), ("table4", "Table 4")):
        command = f"`python run_benchmark.py --preset paper-{name}`, in small on the digits `--preset digits-{name}`"
        assert f"- {title}: {command}" in page
    assert r"\includegraphics[width=0.70\textwidth]{figures/figure2.pdf}" in tex
    assert r"\setcounter{table}{0}" in tex
    assert sorted(path.stem for path in (tmp_path / "figures").glob("figure*.pdf")) == ["figure1", "figure2"]


def test_a_figure_without_its_attack_is_a_gap_and_an_old_one_goes_away(tmp_path: Path) -> None:
    build(made(tmp_path, "table1"))
    results = load(tmp_path)
    bare = {name: own for name, own in results.samples.items() if not name.startswith("score")}
    save(tmp_path, Results(results.run, results.records, bare))
    build(tmp_path)
    assert not (tmp_path / "figures" / "figure2.png").exists()
    assert "Figure 2 is not drawn, since it needs the attack shadow_xgboost" in (tmp_path / "paper.md").read_text()


def test_several_folders_are_rebuilt_and_packed_together(tmp_path: Path) -> None:
    folders = [made(tmp_path / name, name) for name in ("table2", "table3")]
    made(tmp_path / "table4" / "5k", "table4.5k")
    text = report([*folders, tmp_path / "table4"], tmp_path / "pack")
    assert text == (tmp_path / "pack" / "paper.md").read_text(encoding="utf-8")
    heads = [line for line in text.splitlines() if line.startswith("## ")]
    assert [head.split(" of ")[0] for head in heads] == [
        "## Table 2",
        "## Table 3",
        "## Table 4",
        "## Not run",
        "## How to read this",
    ]
    assert (tmp_path / "table4" / "5k" / "report.html").exists()
    assert (tmp_path / "pack" / "figures" / "figure6.pdf").exists()
    with pytest.raises(UsageError, match="say where with --out FOLDER"):
        report(folders)


def test_of_two_runs_of_one_table_the_last_is_shown_and_both_are_named(tmp_path: Path) -> None:
    runs = {name: load(made(tmp_path / name, "table1", config_hash=name)) for name in ("first", "second")}
    text = pack.write(runs, tmp_path)
    assert text.count("## Table 1 of the paper") == 1
    line = next(line for line in text.splitlines() if line.startswith("Table 1 is from"))
    assert line.startswith("Table 1 is from second: ")
    assert "configuration second" in line
    assert line.endswith("Also given, and not shown since the last one counts: first.")


def test_runs_of_no_table_are_named_or_refused(tmp_path: Path) -> None:
    fabricate(tmp_path / "a", "depoisoning")
    made(tmp_path / "b", "table1")
    text = build_parts(tmp_path, ["a", "b"])
    assert text.rstrip().endswith("Of no table of the paper, see their own tables and figures: a.")
    assert "## " not in build_parts(tmp_path, ["a"]).split("## How to read this")[0]
    with pytest.raises(UsageError, match="nothing to write into"):
        report([tmp_path / "a"], tmp_path / "pack")
    assert not (tmp_path / "pack").exists()
    build(tmp_path / "a")
    assert not (tmp_path / "a" / "paper.md").exists()


def test_a_damaged_folder_is_one_line_and_nothing_is_written(tmp_path: Path, run: Place) -> None:
    whole, broken = made(tmp_path / "whole", "table1"), made(tmp_path / "broken", "table3")
    (broken / "samples.npz").write_bytes(b"no archive")
    finished = run.call("report", str(whole), str(broken), "--out", str(tmp_path / "pack"))
    assert finished.code == 2
    assert f"results folder {broken} is incomplete or damaged" in finished.error
    assert not (whole / "table.md").exists()
    assert not (tmp_path / "pack").exists()


@pytest.mark.slow
def test_report_takes_several_folders_on_the_command_line(tmp_path: Path, run: Place, tiny: FinishedRun) -> None:
    finished = run.call(
        "report", str(made(tmp_path / "a", "table1")), str(made(tmp_path / "b", "figure4")), "--out", "pack"
    )
    assert finished.code == 0, finished.err
    assert "## Table 1 of the paper, and ours" in finished.out
    assert "pack/paper.md and paper.tex" in finished.err
    refused = run.call("report", str(tiny.out), "--out", "pack2")
    assert refused.code == 2
    assert "none of these runs is of a table of the paper" in refused.error


@pytest.mark.parametrize("name", SMALL)
def test_a_small_preset_has_the_papers_rows(name: str) -> None:
    cells_of = parts.resolve(name, {}) if preset.parts(name) else {"": config.resolve(name, {})}
    for one in cells_of.values():
        table, column = published.stands_for({"published": one.published, "scenario": one.scenario})
        assert table == name.removeprefix("digits-")
        assert bool(column) == (table == "table4")
        wanted = {row["ours"] for row in published.paper()[table]["rows"].values()}
        assert wanted <= set(one.rows())
        assert set(one.rows()) <= wanted | {"original", "retrain"}
        assert one.dataset == "digits"


def test_the_small_paper_is_all_of_them() -> None:
    assert [part.preset for part in preset.parts("digits-paper")] == SMALL
    whole = {cell.folder for cell in parts.cells("paper-all")}
    assert {cell.folder for cell in parts.cells("digits-paper")} == whole


QUICK = ("--seeds", "2", "--set", "shadow.train=3", "--set", "shadow.validation=1", "--set", "recipe.epochs=3")


def test_one_command_makes_a_table_in_small(run: Place) -> None:
    finished = run.benchmark("--preset", "digits-table2", *QUICK, "--set", "pgu.epochs=3")
    assert finished.code == 0, finished.err
    page = (run.out / "paper.md").read_text(encoding="utf-8")
    assert "## Table 2 of the paper, and ours" in page
    assert "53.03 ± 0.43" in page
    assert (run.out / "figures" / "figure3.png").stat().st_size > 10_000
    assert "paper.md and paper.tex" in finished.err


@pytest.mark.slow
def test_one_command_makes_the_whole_paper_in_small(run: Place) -> None:
    finished = run.benchmark("--preset", "digits-paper", "--seeds", "2", "--set", "shadow.train=3",
                             "--set", "shadow.validation=1")  # fmt: skip
    assert finished.code == 0, finished.err
    page = (run.out / "paper.md").read_text(encoding="utf-8")
    assert all(f"## Table {number} of the paper" in page for number in (1, 2, 3, 4))
    assert all((run.out / "figures" / f"figure{number}.pdf").exists() for number in (1, 2, 3, 4, 5, 6))
    assert "## Not run" not in page
    assert "not run" not in page
