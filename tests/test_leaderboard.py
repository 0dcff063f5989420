"""Leaderboards of made-up runs: ranks by hand, who counts where, what is refused, and what is written."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from command import ROOT, FinishedRun, Place
from hypothesis import given
from hypothesis import strategies as st

from bench import arguments, comparison
from bench.cli import main
from bench.interface import Record, UsageError
from bench.records import Results, save
from bench.verdict import INDISTINGUISHABLE, LEAKS
from reports import leaderboard, standings
from reports.cells import MEASURES, Cell, Entry, collect, read
from reports.rank_diagram import rank_diagram
from reports.ranking import rank

NASTY = "<b>data|100%_&"
Values = Mapping[str, tuple[float, float, float, float]]  # attack's area, forget gap, test gap, seconds


def found_in(folders: list[Path]) -> dict[str, list[Cell]]:
    """The cells of the runs among and below these folders."""
    return collect(read(folders)[0])


def write(folder: Path, values: Values, scenario: str = "sample_removal", **told: Any) -> Path:
    """Save a run with these values; `told` goes over what it says of itself."""
    values = {"original": (0.9, -9.0, 0.1, 0.001), "retrain": (0.5, 0.1, 0.1, 10.0), **values}
    made = [record for name, row in values.items() for record in numbers(name, *row)]
    methods = [
        {"name": name, "needs": ["forget"], "settings": {}, "tuned": {}, "status": "ok", "notes": []} for name in values
    ]
    run = {
        "title": "made up", "config_hash": "ab12cd34", "dataset": "digits", "architecture": "digits_cnn",
        "scenario": scenario, "steps": 1, "methods": methods, "reference_models": 10, "seeds": [0, 1],
        "config": {"seed": 0, "scenario_settings": {"draw_seed": 0}}, "recipe": {"name": "digits", "epochs": 10},
        "audit": {"headline": "per_example", "family": ["per_example"], "margin": 0.05}, "started": "2026-01-01",
        "removed_classes": [],
    }  # fmt: skip
    save(folder, Results(run | told, made, {}))
    return folder


def numbers(method: str, area: float, forget: float, test: float, seconds: float) -> list[Record]:
    near, metric = abs(area - 0.5) < 0.05, "attack_auc:per_example"
    return [
        Record(method, "all", 0, "forget", metric, area, area - 0.01, area + 0.01, 8),
        Record(method, "all", 0, "forget", "attack_p:per_example", 0.6 if near else 0.001, n=8),
        Record(method, "all", 0, "forget", "attack_equivalence_p:per_example", 0.01 if near else 1.0, n=8),
        Record(method, "all", 0, "forget", "error_gap", forget, n=2),
        Record(method, "all", 0, "test", "error_gap", test, n=2),
        *(Record(method, str(seed), 0, "all", "seconds_request", seconds, n=1) for seed in range(2)),
    ]


def request(number: int) -> dict[str, Any]:
    """What a run on another draw says of itself."""
    return {"config": {"seed": 0, "scenario_settings": {"draw_seed": number}}}


BEST, MIDDLE, WORST = (0.51, -0.5, 0.2, 3.0), (0.4, 2.0, -0.1, 2.0), (0.8, 5.0, 4.0, 1.0)


@pytest.fixture
def five(tmp_path: Path) -> Path:
    """Five cells in which three methods rank alike, b before a before c by the attack."""
    for number in range(5):
        write(tmp_path / f"run{number}", {"a": MIDDLE, "b": BEST, "c": WORST}, **request(number))
    return tmp_path


def change(folder: Path, **told: Any) -> None:
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | told))


def say(folder: Path, method: str, **told: Any) -> None:
    """Change what a run says of one method."""
    run = json.loads((folder / "run.json").read_text())
    change(folder, methods=[one | told if one["name"] == method else one for one in run["methods"]])


def test_ranks_by_hand(five: Path) -> None:
    ranking = rank(found_in([five])["sample_removal"], "attack")
    assert ranking.rows == ("b", "a", "c") and ranking.cells == (0, 1, 2, 3, 4)
    assert {name: dict(found.average) for name, found in ranking.ranks.items()} == {
        "attack": {"b": 1, "a": 2, "c": 3}, "forget": {"b": 1, "a": 2, "c": 3},
        "test": {"a": 1, "b": 2, "c": 3}, "cost": {"c": 1, "a": 2, "b": 3},
    }  # fmt: skip
    assert ranking.difference == pytest.approx(2.343 * math.sqrt(3 * 4 / 30), abs=0.001)
    assert ranking.ranks["attack"].p == pytest.approx(math.exp(-5))  # chi square of 10 with two degrees
    assert [ranking.letters(row) for row in ranking.rows] == ["a", "ab", "b"]
    assert rank(found_in([five])["sample_removal"], "cost").rows == ("c", "a", "b")


def test_the_table_says_who_reads_what_and_how_often_a_method_is_indistinguishable(five: Path, tmp_path: Path) -> None:
    say(five / "run0", "b", needs=["retain", "forget"])
    text, _ = leaderboard.build([five], tmp_path / "board")
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    assert lines[1] == ["b", "F R", "a", "1.00", "1.00", "2.00", "3.00", "5 of 5", "0 of 5", "0 of 5"]
    assert lines[4] == ["original", "F", "control", *"––––", "0 of 5", "5 of 5", "0 of 5"]
    assert "critical difference 1.48 ranks (Nemenyi, 5 %); p of equal ranks (Friedman): attack 0.007" in text
    assert ["c", "1", "leaks", "0.30", "5.00", "4.00", "0.10"] in lines


def test_a_failure_ranks_last_and_is_counted(five: Path) -> None:
    say(five / "run0", "b", status="failed: out of memory")
    say(five / "run1", "b", lost_for_attacks={"runs": 1, "of": 9, "reason": "failed: x"})
    cells = found_in([five])["sample_removal"]
    ranking = rank(cells, "attack")
    assert ranking.ranks["attack"].average["b"] == pytest.approx((3 + 3 + 1 + 1 + 1) / 5)
    line = next(row for row in standings.tables("sample_removal", cells, ranking)[0].rows if row.method == "b")
    assert line.cells[-1] == "2 of 5"


def test_where_all_failed_nobody_is_before_another(five: Path) -> None:
    for number, name in itertools.product(range(5), "abc"):
        say(five / f"run{number}", name, status="failed: out of memory")
    ranking = rank(found_in([five])["sample_removal"], "attack")
    assert set(ranking.ranks["attack"].average.values()) == {2} and ranking.groups == ((0, 1, 2),)


def test_only_cells_that_hold_all_ranked_methods_count(five: Path) -> None:
    say(five / "run4", "c", status="skipped: not for this scenario")
    write(five / "more", {"d": BEST}, started="2026-01-02")  # the cell of run0
    cells = found_in([five])["sample_removal"]
    ranking = rank(cells, "attack")
    assert (sorted(ranking.rows), ranking.cells) == (["a", "b", "c"], (0, 1, 2, 3))
    table = standings.tables("sample_removal", cells, ranking)[0]
    (alone,) = [row for row in table.rows if row.method == "d"]
    assert alone.cells[3:7] == ["–"] * 4 and alone.remark.startswith("not ranked: in 1 of 5 cells")
    assert cells[0].folders == (str(five / "run0"), str(five / "more"))


def test_two_cells_tell_nothing_apart(five: Path, tmp_path: Path) -> None:
    for number in range(2, 5):
        shutil.rmtree(five / f"run{number}")
    text, _ = leaderboard.build([five], tmp_path / "board")
    assert "**2 cells: nothing can be told apart, since average ranks of 3 methods differ by at most 2" in text
    assert "| a        | F          | –       |" in text and "1.00" not in text.split("## sample_removal: what")[0]
    assert not (tmp_path / "board" / "figures").exists()


def test_of_several_runs_of_a_cell_most_models_count_then_the_latest(tmp_path: Path) -> None:
    write(tmp_path / "few", {"a": WORST, "b": WORST}, seeds=[0], started="2026-03-01")
    write(tmp_path / "old", {"a": WORST, "c": MIDDLE}, started="2026-01-01")
    write(tmp_path / "new", {"a": BEST}, started="2026-02-01")
    (cell,) = found_in([tmp_path])["sample_removal"]
    areas = {one.row: one.values["attack"] for one in cell.entries if not one.control}
    assert areas == {"a": pytest.approx(0.01), "c": pytest.approx(0.1)}
    assert (cell.folders, cell.unused) == ((str(tmp_path / "old"), str(tmp_path / "new")), (str(tmp_path / "few"),))
    assert (
        f"do not count, since others of their cell do: {tmp_path / 'few'}"
        in leaderboard.build([tmp_path], tmp_path / "board")[0]
    )


def test_a_method_with_other_settings_is_another_row(tmp_path: Path) -> None:
    for number, tuned in enumerate([{}, {"lr": 0.1}, {"lr": 0.2}]):
        say(write(tmp_path / str(number), {"a": BEST}), "a", tuned=tuned)
    say(write(tmp_path / "hand", {"a": BEST}, changes=["a.lr=0.3"]), "a", tuned={"lr": 0.3, "epochs": 2})
    say(write(tmp_path / "named", {"a+lr=0.4": BEST}), "a+lr=0.4", tuned={"lr": 0.4})
    (cell,) = found_in([tmp_path])["sample_removal"]
    rows = {one.row for one in cell.entries if not one.control}
    assert rows == {"a", "a † (lr=0.1)", "a † (lr=0.2)", "a (lr=0.3) †", "a+lr=0.4"}
    shutil.rmtree(tmp_path / "2")
    (cell,) = found_in([tmp_path])["sample_removal"]
    assert "a †" in {one.row for one in cell.entries}


def test_without_an_attack_that_decides_there_are_no_ranks_by_it(five: Path, tmp_path: Path) -> None:
    for number in range(5):
        change(five / f"run{number}", audit={})
    assert (
        "**No cell has a number for attack, so there are no ranks" in leaderboard.build([five], tmp_path / "board")[0]
    )
    ranking = rank(found_in([five])["sample_removal"], "forget")
    assert ranking.rows == ("b", "a", "c") and set(ranking.ranks) == {"forget", "test", "cost"}


def test_scenarios_are_ranked_apart_and_folders_read_once(five: Path) -> None:
    write(five / "poison", {"a": BEST}, scenario="depoisoning")
    found = found_in([five, five / "run0", five / "poison"])
    assert {scenario: len(cells) for scenario, cells in found.items()} == {"sample_removal": 5, "depoisoning": 1}


def cells_of(values: list[list[float]], names: str = "abcdef") -> list[Cell]:
    """Cells with these values of the attack, one list a cell; nan is a failure."""
    return [
        Cell({}, tuple(_entry(name, value) for name, value in zip(names, own, strict=False)), (str(at),))
        for at, own in enumerate(values)
    ]


def _entry(row: str, value: float) -> Entry:
    word = INDISTINGUISHABLE if value < 1 else LEAKS
    return Entry(row, "", (), False, math.isnan(value), word, dict.fromkeys(MEASURES, value))


grids = st.integers(2, 5).flatmap(
    lambda methods: st.lists(
        st.lists(st.integers(0, 9) | st.just(math.nan), min_size=methods, max_size=methods), min_size=3, max_size=8
    )
)


@given(grids, st.randoms())
def test_ranks_depend_on_the_order_of_values_alone(grid: list[list[float]], random: Any) -> None:
    first = rank(cells_of(grid), "attack")
    shuffled = [[math.exp(value) for value in own] for own in grid]
    random.shuffle(shuffled)
    second = rank(cells_of(shuffled), "attack")
    assert (first.rows, first.groups, first.difference) == (second.rows, second.groups, second.difference)
    if first.ranks:
        assert dict(first.ranks["attack"].average) == pytest.approx(dict(second.ranks["attack"].average))
        assert sum(first.ranks["attack"].average.values()) == pytest.approx(sum(range(1, len(grid[0]) + 1)))


@given(st.lists(st.sets(st.sampled_from("abcdef"), min_size=1), min_size=1, max_size=7))
def test_ranked_methods_are_in_all_ranked_cells_and_no_choice_compares_more(held: list[set[str]]) -> None:
    cells = [Cell({}, tuple(_entry(name, 1.0) for name in sorted(own)), ()) for own in held]
    ranking = rank(cells, "attack")
    assert all(set(ranking.rows) <= held[at] for at in ranking.cells)
    assert all(at in ranking.cells for at, own in enumerate(held) if set(ranking.rows) <= own)

    def worth(rows: tuple[str, ...]) -> tuple[bool, int]:
        count = sum(set(rows) <= own for own in held)
        tells = comparison.critical_difference(len(rows), count) < len(rows) - 1
        return tells, count * len(rows) * (len(rows) - 1)

    every = itertools.chain.from_iterable(itertools.combinations("abcdef", size) for size in range(1, 7))
    assert worth(ranking.rows) == max(worth(rows) for rows in every if any(set(rows) <= own for own in held))


def test_the_diagram_shows_every_method_and_a_bar_for_each_group() -> None:
    ranking = rank(cells_of([[1, 2, 3, 4, 5, 6]] * 6), "attack")
    figure = rank_diagram(ranking)
    assert figure is not None
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert {f"{name} ({place}.00)" for place, name in enumerate("abcdef", start=1)} <= set(texts)
    bars = [line for line in figure.axes[0].lines if line.get_linewidth() == 3]
    assert [tuple(line.get_xdata()) for line in bars] == [(1, 4), (2, 5), (3, 6)]
    assert f"critical difference {ranking.difference:.2f}" in texts and 3 < ranking.difference < 4
    assert rank_diagram(rank(cells_of([[1, 2, 3]] * 2), "attack")) is None


def test_the_same_folders_give_the_same_bytes_and_nothing_is_injected(five: Path, tmp_path: Path) -> None:
    for number in range(5):
        change(five / f"run{number}", dataset=NASTY)
    for out in ("one", "two"):
        leaderboard.build([five], tmp_path / out)
    written = [sorted(path for path in (tmp_path / out).rglob("*") if path.is_file()) for out in ("one", "two")]
    assert [path.name for path in written[0]] == [
        "ranks_sample_removal.pdf", "ranks_sample_removal.png", "leaderboard.html", "leaderboard.md", "leaderboard.tex",
    ]  # fmt: skip
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(*written, strict=True))
    page, tex = ((tmp_path / "one" / f"leaderboard.{kind}").read_text() for kind in ("html", "tex"))
    assert NASTY not in page and "&lt;b&gt;data|100%_&amp;" in page and "http:" not in page and "https:" not in page
    assert r"\textless{}b\textgreater{}data|100\%\_\&" in tex


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")
def test_the_latex_compiles(five: Path, tmp_path: Path) -> None:
    leaderboard.build([five], tmp_path / "board")
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "leaderboard.tex"]
    done = subprocess.run(words, cwd=tmp_path / "board", capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "Overfull" not in done.stdout, done.stdout


def test_the_command_line_offers_every_criterion() -> None:
    assert tuple(MEASURES) == arguments.CRITERIA and set(standings.HEADS) == set(MEASURES)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "no folder at"),
        (lambda folder: [path.unlink() for path in folder.iterdir()], "no results in or below"),
        (lambda folder: (folder / "records.csv").unlink(), "has no records.csv"),
        (lambda folder: (folder / "run.json").write_text("{"), "is incomplete or damaged"),
    ],
)
def test_missing_and_damaged_folders_are_refused_in_one_line(tmp_path: Path, spoil: Any, message: str) -> None:
    folder = write(tmp_path / "run", {"a": BEST})
    spoil(folder)
    with pytest.raises(UsageError) as caught:
        leaderboard.build([folder], tmp_path / "board")
    assert message in str(caught.value) and str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_a_damaged_run_is_told_and_the_others_are_ranked(
    five: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, _ = leaderboard.build([five], tmp_path / "whole")
    folder = write(tmp_path / "run", {"a": BEST})
    (folder / "run.json").write_text("{")
    assert main(["leaderboard", str(five), str(folder), "--out", str(tmp_path / "board")]) == 1
    out, err = capsys.readouterr()
    told = next(line for line in err.splitlines() if line.startswith("left out: "))
    assert str(folder) in told and "damaged" in told
    note = f"- Left out: {told.removeprefix('left out: ')}."
    assert note in out.splitlines() and out.replace(f"{note}\n", "").strip() == whole.strip()


def test_a_finished_run_on_the_command_line(tiny: FinishedRun, run: Place) -> None:
    finished = run.call("leaderboard", str(tiny.out), "--out", "board", "--by", "forget")
    assert finished.code == 0, finished.err
    assert finished.out.rstrip() == (run.folder / "board" / "leaderboard.md").read_text().rstrip()
    assert "## class_removal: methods ranked" in finished.out and "**1 cell: nothing can be told apart" in finished.out
    refused = run.call("leaderboard", "nowhere")
    assert refused.code == 2 and "no folder at nowhere" in refused.error
    assert run.call("leaderboard", str(tiny.out), "--by", "luck").code == 2


ALONE = """
import sys
class Absent:
    def find_spec(name, path=None, target=None):
        if name in ("torch", "xgboost", "sklearn", "pandas"):
            raise ImportError(name)
sys.meta_path.insert(0, Absent)
from bench.cli import main
sys.exit(main(["leaderboard", sys.argv[1], "--out", sys.argv[2]]))
"""


def test_no_torch_is_needed(five: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-c", ALONE, str(five), str(tmp_path / "board")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "board" / "figures" / "ranks_sample_removal.pdf").exists()
