"""The published numbers as printed, and what a report says of a run beside them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import pytest

from bench import preset
from bench.records import load, save
from bench.statistics import mean_interval
from reports import against, build, published, tables
from reports.departures import departures
from reports.legend import PUBLISHED
from reports.numbers import REFERENCE, Numbers
from reports.published import Estimate, difference
from reports.tex import escape
from tests.fabricated import fabricate

# Typed from the paper, not from reports/paper.toml: mean and standard deviation, tables 1 to 3 over five runs.
TABLE1 = {
    # method: retain, forget, test error in percent, seconds
    "Retrained": "0.04±0.01 9.28±1.25 9.78±0.19 1021±18",
    "EU-k": "0.06±0.01 0.12±0.16 10.13±0.15 821±22",
    "NTK": "3.49±0.98 11.05±1.83 12.68±0.74 -",
    "SCRUB": "0.01±0.00 10.45±1.61 10.26±0.44 321±43",
    "PGU": "0.05±0.01 9.92±0.45 9.86±0.15 88.45±4.12",
}
TABLE2 = {
    # method: retained test error, retain error in percent, seconds
    "Original": "52.78±0.36 0.56±0.04 -",
    "Retrained": "52.58±0.17 0.56±0.05 3846±118",
    "EU-k": "53.15±0.28 1.84±0.08 2318±97",
    "SCRUB": "51.80±0.37 0.20±0.00 1693±65",
    "PGU": "53.03±0.43 0.74±0.06 765±45",
}
TABLE3 = {
    # quantity: the requests 1 to 4, of the retrained model and of PGU
    "test_error": ("9.62±0.52 9.55±0.44 9.38±0.32 9.84±0.43", "9.84±1.08 9.86±0.99 9.78±0.95 9.80±1.11"),
    "retain_error": ("0.00±0.00 0.00±0.00 0.00±0.00 0.00±0.00", "0.00±0.00 0.00±0.00 0.01±0.00 0.01±0.00"),
    "forget_error": ("9.61±0.53 9.51±0.43 9.59±0.30 9.69±0.26", "10.02±0.97 9.93±1.10 10.02±1.24 11.30±1.37"),
    "seconds": ("1030±19 1020±20 1009±21 995±22", "156±21 161±19 178±29 172±24"),
}
TABLE4 = {
    # method: test accuracy in percent with 5,000 to 25,000 wrong labels
    "Poisoned": "86.07 79.32 69.69 56.78 45.36",
    "Clean": "89.81 88.89 88.69 87.68 86.86",
    "PGU": "87.95 86.87 85.46 85.13 83.12",
    "First order": "86.56 83.77 79.68 74.11 67.98",
    "Second order": "87.43 84.13 79.80 74.28 68.28",
}
AUCS = {"Original": 0.6403, "PGU": 0.5340}  # Figure 2, in the text


def cells(line: str) -> list[list[float]]:
    """`9.28±1.25 -` as lists of numbers, an empty one for a dash."""
    return [[float(number) for number in re.findall(r"[\d.]+", cell)] for cell in line.split()]


def kept(table: str, method: str, quantity: str) -> list[list[float]]:
    found: list[list[float]] = published.paper()[table]["rows"][method].get(quantity, [[]])
    return found


@pytest.mark.parametrize(
    ("table", "typed", "quantities"),
    [
        ("table1", TABLE1, ("retain_error", "forget_error", "test_error", "seconds")),
        ("table2", TABLE2, ("retained_test_error", "retain_error", "seconds")),
    ],
)
def test_tables_1_and_2_are_as_printed(table: str, typed: dict[str, str], quantities: tuple[str, ...]) -> None:
    for method, line in typed.items():
        assert [kept(table, method, quantity)[0] for quantity in quantities] == cells(line), method
    extra = {"Original"} if table == "table1" else set()
    assert set(published.paper()[table]["rows"]) == set(typed) | extra


def test_table_3_is_as_printed() -> None:
    for quantity, lines in TABLE3.items():
        assert [kept("table3", method, quantity) for method in ("Retrained", "PGU")] == list(map(cells, lines))


def test_table_4_is_as_printed() -> None:
    assert {method: kept("table4", method, "test_accuracy") for method in TABLE4} == {
        method: cells(line) for method, line in TABLE4.items()
    }
    assert "90.16" in published.paper()["table4"]["words"]


def test_the_areas_under_the_curve_are_as_printed() -> None:
    rows = published.paper()["table1"]["rows"]
    assert {name: row["attack_auc"][0][0] for name, row in rows.items() if "attack_auc" in row} == AUCS


def test_every_published_table_that_a_preset_may_name_is_there() -> None:
    for name in filter(None, get_args(preset.Published)):
        table, _, column = name.partition(".")
        assert column in {one["name"] for one in published.paper()[table]["columns"]} or not column
        assert bool(column) == published.paper()[table].get("runs_apart", False)


def test_every_row_holds_a_cell_for_every_column_and_known_quantities_only() -> None:
    for table in [value for value in published.paper().values() if isinstance(value, dict)]:
        assert any(row["ours"] == "retrain" for row in table["rows"].values())
        for row in table["rows"].values():
            found = {name: value for name, value in row.items() if name != "ours"}
            assert set(found) <= set(published.QUANTITIES)
            assert all(len(value) == len(table["columns"]) for value in found.values())


def made(folder: Path, scenario: str, **changes: Any) -> Path:
    """A made-up results folder whose `run.json` has these values too."""
    results = load(fabricate(folder, scenario))
    save(folder, type(results)(results.run | changes, results.records, results.samples))
    return folder


PAPERS: dict[str, Any] = {
    "dataset": "cifar10",
    "architecture": "allcnn",
    "recipe": {"name": "allcnn_code"},
    "published": "table1",
    "config": {
        "attack": "shadow_xgboost",
        "scenario_settings": {"draw": "class_first", "count": 500, "target_class": 0, "draw_seed": 0},
    },
}


@pytest.fixture
def table1(tmp_path: Path) -> Path:
    return made(tmp_path / "run", "sample_removal", **PAPERS)


def lines(folder: Path) -> dict[tuple[str, str], list[str]]:
    """The rows of the comparison by method and quantity."""
    [table] = against.tables([load(folder)])
    return {(row.method, row.cells[1]): row.cells[2:] for row in table.rows}


def test_ours_stands_beside_the_published_with_a_difference(table1: Path) -> None:
    numbers, found = Numbers(load(table1).records), lines(table1)
    theirs, ours, gap = found["PGU", "forget error, %"]
    values = [record.value for record in numbers.repeats("pgu", "error", "forget")]
    mean, *_, n = mean_interval(values)
    assert (theirs, ours.split()[0], ours.split()[-1]) == ("9.92 ± 0.45", f"{mean:.2f}", f"({n})")
    assert gap.startswith(f"{mean - 9.92:+.2f} [".replace("-", "−"))
    pool = numbers.value(REFERENCE, "error", "test")
    assert found["Retrained", "test error, %"][1].startswith(f"{pool:.2f} ± ")
    assert found["Retrained", "test error, %"][1].endswith("(50)")


def test_seconds_are_compared_as_shares_of_retraining(table1: Path) -> None:
    found = lines(table1)
    assert found["PGU", "time, s"][0] == "88.45 ± 4.12"
    assert found["PGU", "time, s"][2] == "not compared"
    assert found["Retrained", "time, s"][0] == "1,021 ± 18"
    theirs, _, gap = found["PGU", "time ÷ retraining"]
    assert theirs == "0.087 ± 0.004"
    assert gap.startswith(("+", "−", "0"))
    assert ("Retrained", "time ÷ retraining") not in found
    assert ("NTK", "time, s") not in found


def test_what_was_not_run_says_so(table1: Path, tmp_path: Path) -> None:
    assert lines(table1)["NTK", "forget error, %"] == ["11.05 ± 1.83", "not run", "n/a"]
    results = load(table1)
    bare = [record for record in results.records if record.metric != "attack_auc"]
    save(tmp_path / "bare", type(results)(results.run, bare, results.samples))
    assert lines(tmp_path / "bare")["PGU", "attack AUC"] == ["0.5340", "not run", "n/a"]
    [entry] = [entry for entry in results.run["methods"] if entry["name"] == "ntk"]
    entry["name"] = "ntk+form=dense"  # which failed
    save(tmp_path / "lost", results)
    assert lines(tmp_path / "lost")["NTK", "forget error, %"][1] == "failed"


def test_what_was_odd_about_a_method_stands_at_its_first_line(table1: Path) -> None:
    [table] = against.tables([load(table1)])
    remarks = {(row.method, row.remark) for row in table.rows}
    first = [row for row in table.rows if row.method == "SCRUB"]
    assert first[0].remark == "not converged in 1 of 5 runs"
    assert {row.remark for row in first[1:]} == {"ok"}
    assert ("NTK", "not among the methods of this run") in remarks


def test_a_number_without_a_deviation_has_a_difference_only() -> None:
    single, alone = Estimate(86.07, float("nan"), 5), Estimate(86.5, 0.3, 5)
    assert difference(alone, single, 2, 0.005) == "+0.43"
    assert difference(Estimate(86.5, float("nan"), 1), Estimate(86.07, 0.1, 5), 2, 0.005) == "+0.43"


def test_a_difference_is_marked_where_its_interval_holds_no_zero() -> None:
    ours, theirs = Estimate(10.0, 1.0, 5), Estimate(9.0, 1.0, 5)
    # Welch with equal spreads and numbers: 8 degrees of freedom, t = 2.306, standard error sqrt(2 / 5).
    assert difference(ours, theirs, 2, 0.0) == "+1.00 [−0.46, +2.46]"
    assert difference(Estimate(12.0, 1.0, 5), theirs, 2, 0.0) == "+3.00 [+1.54, +4.46] ≠"
    printed = Estimate(0.0, 0.0, 5)  # 0.004 is printed as 0.00
    assert "≠" not in difference(Estimate(0.004, 0.0, 5), printed, 2, 0.005)
    assert "≠" in difference(Estimate(0.02, 0.0, 5), printed, 2, 0.005)


def test_a_ratio_has_the_deviation_of_both_times() -> None:
    ratio = Estimate(10.0, 3.0, 5).over(Estimate(100.0, 40.0, 4))
    assert (ratio.mean, ratio.sd, ratio.n) == (pytest.approx(0.1), pytest.approx(0.05), 4)


def test_the_papers_setting_is_called_that(table1: Path) -> None:
    results = load(table1)
    [table] = against.tables([results])
    assert results.run["shadow"]["train"] + results.run["shadow"]["validation"] == 45
    assert table.units.startswith("Published: Hoang et al., WACV 2024, Table 1 (5 runs).")
    assert table.units.endswith("This is the paper's setting, with the recipe allcnn_code")
    assert table.warning == ""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dataset": "digits"}, "data set digits"),
        ({"dataset": "cifar10+train=2500"}, "the first 2,500 training images"),
        ({"dataset": "cifar10+classes=5"}, "the first 5 classes"),
        ({"architecture": "allcnn+width=0.25"}, "width 0.25"),
        ({"architecture": "smallvgg"}, "architecture smallvgg"),
        ({"recipe": {"name": "allcnn_fast"}}, "recipe allcnn_fast"),
        ({"recipe_changes": {"epochs": 3}}, "recipe allcnn_code with epochs=3"),
        ({"seeds": [0, 1]}, "2 seeds instead of 5"),
        ({"shadow": {"train": 4, "validation": 2}}, "an attack that learned from 6 pairs of models instead of 45"),
        ({"config": {"scenario_settings": {"count": 30}}}, "count 30 instead of 500"),
        ({"config": {"preset": "mine.toml"}}, "the preset mine.toml and what it sets"),
        ({"config": {"preset": "paper-table1", "time_limit": 2.5}}, "a time limit of 2.5 s"),
        ({"changes": ["pgu.gamma=0.5", "recipe.epochs=3"]}, "pgu.gamma=0.5 by hand"),
    ],
)
def test_what_differs_from_the_papers_setting_is_said(table1: Path, changes: dict[str, Any], said: str) -> None:
    run, paper = load(table1).run | changes, published.paper()["table1"]
    assert list(departures(run, paper, {"name": ""}, 5)) == [said]


def test_a_copy_of_fewer_classes_is_not_the_papers_data(table1: Path) -> None:
    run = load(table1).run | {"dataset": "tinyimagenet", "class_names": ["cat", "dog"]}
    paper = published.paper()["table1"]
    paper = paper | {"setting": paper["setting"] | {"dataset": "tinyimagenet"}}
    assert list(departures(run, paper, {"name": ""}, 5)) == ["a copy of 2 of 200 classes"]


def test_the_comparison_is_in_every_artefact(table1: Path) -> None:
    text = build(table1)
    assert "## Against the paper: Table 1" in text
    assert "11.05 ± 1.83" in text
    assert "**Not the paper's setting" not in text
    assert PUBLISHED in text
    assert "Against the paper: Table 1" in (table1 / "report.html").read_text(encoding="utf-8")
    tex = (table1 / "table.tex").read_text(encoding="utf-8")
    assert "% begin table paper" in tex
    assert r"PGU & retain error, \% & 0.05 & ~\ensuremath{\pm} \num{0.01} & " in tex
    assert escape("≠") == r"\ensuremath{\neq}"


@pytest.mark.parametrize("name", ["", "table2", "table9", "table4", "table4.5k", "source", "table1.5k"])
def test_a_run_of_another_kind_has_no_comparison(tmp_path: Path, name: str) -> None:
    """Of a preset's table only what fits the scenario: `--scenario` may have made another run of it."""
    results = load(made(tmp_path, "sample_removal", published=name))
    assert against.tables([results]) == []
    assert [table.name for table in tables.build(results)] == ["forgotten", "accuracy", "cost", "tradeoff"]


def test_an_incremental_run_is_compared_request_by_request(tmp_path: Path) -> None:
    found = lines(made(tmp_path, "incremental", published="table3"))
    numbers = Numbers(load(tmp_path).records)
    for step, theirs in enumerate(cells(TABLE3["forget_error"][1])):
        line = found["PGU", f"request {step + 1}: forget error, %"]
        assert line[0] == f"{theirs[0]:.2f} ± {theirs[1]:.2f}"
        assert line[1].startswith(f"{numbers.value('pgu', 'error', 'forget', step):.2f} ± ")
    shares = [float(found["PGU", f"request {step}: time ÷ retraining"][0].split()[0]) for step in range(1, 5)]
    assert shares == [round(ours / whole, 3) for ours, whole in ((156, 1030), (161, 1020), (178, 1009), (172, 995))]
