"""Every figure at both widths: there where the run has its data, as wide as it should be, with its fonts."""

from __future__ import annotations

import dataclasses
import math
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from command import FinishedRun
from matplotlib.figure import Figure

from bench.interface import SCENARIOS, Record
from bench.records import Results, load, save
from reports import budgets, build, build_parts, figures, roc, style
from tests.fabricated import fabricate

WIDTHS = (style.TWO_COLUMNS, style.ONE_COLUMN)
# The figures of a made-up run with an audit, by scenario.
OF_ALL = {"roc_deciding", "roc", "entropy_histograms", "forgetting_cost"}
MORE = {"class_removal": {"class_shift", "class_shift_test"}, "incremental": {"gaps_by_request"}}


@pytest.fixture(autouse=True)
def journal() -> Iterator[None]:
    """The look of all figures."""
    with mpl.rc_context(style.STYLE):
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Results]:
    return {one: load(fabricate(tmp_path_factory.mktemp(one), one, audit=True)) for one in SCENARIOS}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_figure_is_there_where_the_run_has_its_data(runs: dict[str, Results], scenario: str) -> None:
    expected = OF_ALL | MORE.get(scenario, set())
    for width in WIDTHS:
        drawn = {name: draw(runs[scenario], width=width) for name, draw in figures.FIGURES.items()}
        assert {name for name, figure in drawn.items() if figure is not None} == expected
        for figure in drawn.values():
            assert figure is None or isinstance(figure, Figure)
            assert figure is None or figure.get_figwidth() == width
    empty = dataclasses.replace(runs[scenario], records=[], samples={})
    assert all(draw(empty, width=width) is None for draw in figures.FIGURES.values() for width in WIDTHS)


def texts_outside(figure: Figure) -> list[str]:
    """Titles, labels and legends that leave the page."""
    figure.canvas.draw()
    found: list[Any] = [*figure.legends]
    for ax in figure.axes:
        if ax.get_visible():
            found += [ax.title, ax.xaxis.label, ax.yaxis.label, *ax.get_yticklabels()]
    boxes = [(one, one.get_window_extent()) for one in found if not hasattr(one, "get_text") or one.get_text()]
    page = figure.bbox
    return [
        str(one) for one, box in boxes if box.x0 < -1 or box.x1 > page.x1 + 1 or box.y0 < -1 or box.y1 > page.y1 + 1
    ]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scenario", MORE)
def test_nothing_written_leaves_the_page(runs: dict[str, Results], scenario: str, width: float) -> None:
    for name, draw in figures.FIGURES.items():
        figure = draw(runs[scenario], width=width)
        assert figure is None or texts_outside(figure) == [], name


def test_methods_keep_their_look_and_none_shares_it() -> None:
    names = ["original", "retrain", *(f"retrain+compute=0.{k}" for k in range(1, 5)), *(f"m{k}" for k in range(12))]
    run = {"methods": [{"name": name} for name in names]}
    assert len({str(style.look(run, name)) for name in names}) == len(names)
    others = names[6:]
    assert len({style.marker(run, name) for name in others}) == len(others)
    assert len({style.look(run, name)[0] for name in others[:9]}) == 9


def test_a_name_is_cut_where_it_does_not_differ() -> None:
    assert style.shortened("retrain+compute=0.05", 14) != style.shortened("retrain+compute=0.25", 14)
    assert style.shortened("pgu", 14) == "pgu"
    assert all(len(style.shortened("x" * 40, room)) == room for room in range(6, 30))


def test_the_same_run_gives_the_same_bytes_and_fonts_are_embedded(runs: dict[str, Results], tmp_path: Path) -> None:
    for folder in ("first", "second"):
        figures.write(runs["sample_removal"], tmp_path / folder, one_column=True)
    written = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert {"roc-column.pdf", "forgetting_cost-column.pdf", "entropy_histograms-column.pdf"} <= set(written)
    for name in written:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name
    if shutil.which("pdffonts") is None:
        pytest.skip("no pdffonts: poppler-utils is not installed")
    for path in (tmp_path / "first").glob("*.pdf"):
        told = subprocess.run(["pdffonts", str(path)], capture_output=True, text=True, check=True).stdout.splitlines()
        assert len(told) > 2, f"{path.name} has no text"
        for line in told[2:]:
            assert "TrueType" in line, line
            assert line.split()[-5] == "yes", f"not embedded: {line}"


def test_one_column_is_written_only_when_asked_for_and_no_higher_than_a_page(
    runs: dict[str, Results], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "FIGURES", {"class_shift": figures.FIGURES["class_shift"]})
    narrow = tmp_path / "class_shift-column.pdf"
    figures.write(runs["class_removal"], tmp_path, one_column=True)
    assert narrow.exists()
    figures.write(runs["class_removal"], tmp_path)
    assert not narrow.exists()
    assert (tmp_path / "class_shift.pdf").exists()
    monkeypatch.setattr(style, "PAGE", 1.0)
    figures.write(runs["class_removal"], tmp_path, one_column=True)
    assert not narrow.exists()


def test_the_curves_legend_tells_area_and_interval(runs: dict[str, Results]) -> None:
    figure = roc.deciding(runs["sample_removal"])
    assert figure is not None
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "pgu\n0.51 [0.49, 0.53]" in labels
    linear, tails = figure.axes
    assert (linear.get_xscale(), tails.get_xscale(), tails.get_yscale()) == ("linear", "log", "log")
    assert linear.collections, "bands"


# Budgets


def poisoned(results: Results, count: int, shift: float = 0.0) -> Results:
    """The run with so many wrong labels and other errors."""
    moved = [
        dataclasses.replace(r, value=r.value + shift, low=r.low + shift, high=r.high + shift)
        if (r.metric, r.part) == ("error", "test") else r
        for r in results.records
    ]  # fmt: skip
    return dataclasses.replace(results, run=results.run | {"forget_samples": [count]}, records=moved)


def test_runs_with_other_budgets_are_alike(runs: dict[str, Results]) -> None:
    one = runs["depoisoning"]
    many = [poisoned(one, count) for count in (500, 100, 300)]
    (group,) = budgets.alike([runs["sample_removal"], *many, many[0]])
    assert [budgets.wrong_labels(results.run) for results in group] == [100, 300, 500]
    other = dataclasses.replace(many[0], run=many[0].run | {"architecture": "allcnn"})
    assert budgets.alike([one, other]) == []


def test_lines_over_budgets_are_the_records(runs: dict[str, Results]) -> None:
    many = [poisoned(runs["depoisoning"], count, shift=count / 100) for count in (100, 300)]
    figure = budgets.budgets(many)
    assert figure is not None
    errors = figure.axes[0]
    drawn = {one.get_label(): one.lines[0].get_ydata() for one in errors.containers}
    for method in ("original", "pgu"):
        wanted = [summary(results, method).value for results in many]
        assert np.allclose(np.asarray(drawn[method], float), wanted)
    assert [tick.get_text() for tick in errors.get_xticklabels()] == ["100", "300"]
    assert budgets.budgets([dataclasses.replace(one, records=[]) for one in many]) is None
    assert math.isfinite(figure.get_figheight())


def summary(results: Results, method: str) -> Record:
    (found,) = (r for r in results.records if (r.method, r.metric, r.part, r.seed) == (method, "error", "test", "all"))
    return found


def test_parts_of_a_depoisoning_have_the_figure(runs: dict[str, Results], tmp_path: Path) -> None:
    for count in (100, 300):
        save(tmp_path / f"{count}", poisoned(runs["depoisoning"], count))
    build_parts(tmp_path, ["100", "300"], one_column=True)
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert names == {"budgets.png", "budgets.pdf", "budgets-column.pdf"}
    save(tmp_path / "alone" / "1", runs["sample_removal"])
    build_parts(tmp_path / "alone", ["1"])
    assert not (tmp_path / "alone" / "figures").exists()


# The command line


@pytest.mark.slow
def test_report_writes_one_column_figures_when_asked(tiny: FinishedRun, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(tiny.out, folder)
    before = {path.name for path in (folder / "figures").iterdir()}
    assert "forgetting_cost.pdf" in before
    assert not [name for name in before if "-column" in name]
    finished = tiny.call("report", str(folder), "--one-column")
    assert finished.code == 0, finished.err
    assert "## What forgetting costs" in finished.out
    added = {path.name for path in (folder / "figures").iterdir()} - before
    assert {"forgetting_cost-column.pdf", "roc-column.pdf"} <= added
    assert all(name.endswith("-column.pdf") for name in added)
    assert build(folder) == finished.out.removesuffix("\n")
