"""Reports on made-up runs of every scenario: their numbers, their escapes, and that they need no torch."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from bench.interface import SCENARIOS, Record, UsageError
from bench.records import load
from reports import build, curves, figures, findings, histograms, markdown, shift, tables, words
from reports.numbers import Numbers, alike, fixed, mean_sd, memory, significant, with_interval
from reports.tex import escape
from tests.fabricated import CLASSES, LOST, NASTY, TRUTH, fabricate
from tests.html_page import Page

ROOT = Path(__file__).parents[1]
WRITTEN = ("table.md", "table.tex", "references.bib", "report.tex", "report.html")
# Builds in a process of its own that cannot import what reports must do without.
ALONE = """
import sys
for name in ("torch", "torchvision", "xgboost", "sklearn"):
    sys.modules[name] = None
from pathlib import Path
from reports import build
build(Path(sys.argv[1]))
NEEDED = (
    "interface", "records", "run_file", "whole", "statistics", "verdict", "comparison", "references",
    "untrusted", "program",
)
bench = {name for name in sys.modules if name.startswith("bench.")}
assert bench <= {f"bench.{name}" for name in NEEDED}, bench
assert not any(name.split(".")[0] in ("methods", "attacks") for name in sys.modules)
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A results folder of every scenario with everything built in it."""
    made = {scenario: fabricate(tmp_path_factory.mktemp(scenario), scenario) for scenario in SCENARIOS}
    for folder in made.values():
        assert build(folder) == (folder / "table.md").read_text(encoding="utf-8")
    return made


@pytest.fixture(params=SCENARIOS)
def built(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Path:
    return folders[request.param]


@pytest.fixture
def classes(folders: dict[str, Path]) -> Path:
    """The class-removal run, whose class names are hostile."""
    return folders["class_removal"]


def grids(folder: Path) -> list[list[list[str]]]:
    """The tables of `table.md` as lists of rows of cells, heads first."""
    text = (folder / "table.md").read_text(encoding="utf-8")
    found = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    lines = [[re.split(r"(?<!\\)\|", line)[1:-1] for line in grid.splitlines()] for grid in found]
    return [[[cell.strip() for cell in cells] for number, cells in enumerate(grid) if number != 1] for grid in lines]


def test_table_shows_mean_deviation_and_gap_of_the_records(built: Path) -> None:
    results = load(built)
    numbers, last = Numbers(results.records), results.run["steps"] - 1
    metric = "error_unmasked" if results.run["scenario"] == "class_removal" else "error"
    [row] = [cells for cells in grids(built)[0] if cells[0] == "pgu †"]
    place = ("pgu", metric, "forget", last)
    values = [r.value for r in results.records if (r.method, r.metric, r.part, r.step) == place and r.seed != "all"]
    gap = numbers.summary("pgu", f"{metric}_gap", "forget", last)
    assert gap is not None
    assert row[1] == f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"
    assert row[2].startswith(f"{gap.value:+.2f} [{gap.low:+.2f}, {gap.high:+.2f}]".replace("-", "−"))


def test_table_has_every_row_and_no_empty_cell(built: Path) -> None:
    steps = load(built).run["steps"]
    for grid in grids(built):
        names = [cells[0] for cells in grid[1:]]
        lines = steps if grid[0][1] == "request" else 1
        for name in ("original", "retrain", "pgu †", "eu_k", "scrub"):
            assert names.count(name) == lines
        assert names.count("retrained pool (n=50)") == (0 if {"examples read ↓", "told by"} & set(grid[0]) else lines)
        assert len({len(cells) for cells in grid}) == 1
        assert all(all(cells) for cells in grid)


def test_failed_method_stays_with_its_reason(built: Path) -> None:
    found = grids(built)
    for grid in found:
        (row,) = [cells for cells in grid if cells[0] == "ntk"]
        if grid[0][-1] == "status":
            assert row[-1] == r"failed: out of memory in step 1 \| 80% & &lt;b>"
            assert set(row[2:-1]) <= {"n/a", "none"}
        else:
            assert row[-1] == "failed"
    first = found[0]
    assert first[0][-1] == "status"
    assert escape(LOST) in (built / "table.tex").read_text(encoding="utf-8")
    assert any("not converged in 1 of" in cells[-1] for cells in first if cells[0] == "scrub")


def test_ratio_reads_and_tuned_settings_are_shown(built: Path) -> None:
    numbers = Numbers(load(built).records)
    share = numbers.value("pgu", "seconds_request", None) / numbers.value("retrain", "seconds_request", None)
    row = next(cells for cells in grids(built)[-2] if cells[0] == "pgu †")
    steps = load(built).run["steps"]
    assert f"F {25_000 * steps:,} · R 0 · V 0 · S 600" in row
    if steps == 1:
        assert significant(share, 2) in row
    assert "† other than the method's defaults, by the preset or by hand: pgu: lr=0.05." in (
        built / "table.md"
    ).read_text("utf-8")


def test_star_marks_where_no_difference_is_shown() -> None:
    def gap(low: float, high: float) -> Record:
        return Record("pgu", "all", 0, "forget", "error_gap", (low + high) / 2, low, high, 5)

    assert alike(gap(-0.1, 0.4), 0.3)
    assert not alike(gap(-0.1, 0.4), 0.0)  # models that all agree leave no room for a gap
    assert not alike(dataclasses.replace(gap(-0.1, 0.4), status="3 of 5 collapsed"), 0.3)
    assert alike(gap(0.0, 0.0), 0.0)
    assert alike(gap(1e-14, 1e-14), 0.0)
    assert not alike(gap(0.1, 0.2), 0.3)
    assert not alike(gap(math.nan, math.nan), 9.0)


def test_numbers_are_written_without_traps() -> None:
    assert fixed(-0.001) == "0.00"
    assert fixed(-1.5, signed=True) == "−1.50"
    assert fixed(math.nan) == "n/a"
    assert mean_sd(9.283, 1.25) == "9.28 ± 1.25"
    assert mean_sd(9.283, math.nan) == "9.28 ± n/a"
    assert with_interval(Record("m", "all", 0, "p", "x", 0.5)) == "0.50 [n/a]"
    assert with_interval(None) == "n/a"
    assert fixed(16_188_174_354_298.76) == "1.62e13" and fixed(-2.5e6, signed=True) == "−2.50e6"
    assert fixed(999_999.0) == "999,999.00" and fixed(math.inf) == "inf"
    assert significant(1021.4) == "1,021"
    assert significant(0.0864, 2) == "0.086"
    assert significant(0.0) == "0.00"
    assert memory(3.5e6) == "3.34 MiB"
    assert memory(5 * 2.0**30) == "5.00 GiB"


def test_findings_follow_from_the_numbers(tmp_path: Path) -> None:
    text = " ".join(findings.sentences(load(fabricate(tmp_path, "sample_removal"))))
    assert "By forget error, no difference from retraining is shown for pgu (95 % intervals over 5 seeds" in text
    assert re.search(r"It takes 0\.0\d+ of the time that retraining takes", text)
    assert re.search(r"stays below that of retraining.* for eu_k \(−8", text)
    assert re.search(r"goes beyond that of retraining for scrub \(\+4", text)
    assert "ntk failed: out of memory" in text
    assert "Caution" not in text


def test_a_model_that_nothing_was_done_to_is_no_success(tmp_path: Path) -> None:
    folder = fabricate(tmp_path, "sample_removal")
    results = load(folder)
    plain = findings.sentences(results)
    entry = next(entry for entry in results.run["methods"] if entry["name"] == "pgu")
    for note in entry["notes"]:
        note["status"] = "refused and late"
    told = findings.sentences(results)
    assert "All models of pgu are the original, unchanged: a step was refused or there was none." in told
    assert not any("pgu" in sentence for sentence in told if "unchanged" not in sentence)
    assert any("pgu" in sentence for sentence in plain)


def test_with_undetected_poison_retraining_is_no_control(tmp_path: Path) -> None:
    """The fabricated retrain row is as good as the pool; it must still be judged as a method."""
    folder = fabricate(tmp_path, "depoisoning", missed=20)
    text = build(folder)
    assert "should look like the pool" not in text
    assert "it is no control here" in text
    assert "clean pool (n=50)" in text
    assert "retrained pool" not in text + (folder / "table.tex").read_text("utf-8")
    assert "wrong labels: 60 known, 20 undetected" in text
    assert "## What became of the undetected wrong labels" in text
    results = load(folder)
    said = " ".join(findings.sentences(results))
    assert re.search(r"no difference from clean training is shown for (retrain and pgu|pgu and retrain)", said)
    assert "true-label error stays higher for scrub" in said
    off = [
        dataclasses.replace(r, value=r.value + 20, low=r.low + 20, high=r.high + 20)
        if (r.method, r.metric) == ("retrain", "error_gap")
        else r
        for r in results.records
    ]
    said = " ".join(findings.sentences(dataclasses.replace(results, records=off)))
    assert "control row" not in said
    assert re.search(r"goes beyond that of clean training for .*retrain", said)
    known = {**results.run, "undetected_samples": [0]}
    assert "control row" in " ".join(findings.sentences(dataclasses.replace(results, run=known, records=off)))


def test_one_seed_claims_nothing(tmp_path: Path) -> None:
    results = load(fabricate(tmp_path, "sample_removal"))
    single = [dataclasses.replace(r, low=math.nan, high=math.nan) for r in results.records if r.seed in ("0", "all")]
    results = dataclasses.replace(results, run={**results.run, "seeds": [0]}, records=single)
    text = markdown.page(results, tables.build(results))
    assert "± n/a" in text
    assert "[n/a]" in text
    assert "]*" not in text
    said = findings.sentences(results)
    assert any("nothing is concluded" in sentence for sentence in said)
    assert not any("no difference" in sentence for sentence in said)


def test_histogram_loses_no_mass() -> None:
    values = np.array([-np.inf, -25.0, -19.0, -4.0, 0.99, 1.0, 1.6, np.inf, np.nan])
    edges = curves.bin_edges("sample_removal", 10_000)
    counts = curves.binned(values, edges)
    assert len(edges) == 101
    assert counts.sum() == 8
    assert counts[0] == 2
    assert counts[-1] == 2
    deep = curves.bin_edges("class_removal", 10_000, -13.0)
    assert deep[0] == -19
    assert len(deep) == 298
    assert deep[-1] == 2
    assert len(curves.bin_edges("class_removal", 10_000)) == 100
    assert len(curves.bin_edges("class_removal", 60)) == 26


def test_drawn_areas_add_up_to_one(built: Path) -> None:
    results = load(built)
    edges = curves.bin_edges(results.run["scenario"], 300)
    for shares in histograms.entropy_shares(results, ["pgu"], edges).values():
        area = sum(float(heights @ np.diff(borders)) for heights, borders in histograms.pieces(shares, edges))
        assert area == pytest.approx(1)
        assert shares[0] > 0


def test_roc_of_known_scores() -> None:
    grid = np.linspace(0, 1, 11)
    tied = curves.rates(np.zeros((2, 5)), np.zeros((2, 5)), grid)
    assert np.allclose(tied, grid)
    apart = curves.rates(np.ones((1, 5)), np.zeros((2, 5)), grid)
    assert np.allclose(apart, 1)
    draws = np.random.default_rng(0).normal(size=(2, 400))
    wins = (draws[0][:, None] + 1 > draws[1]).mean()
    [drawn] = curves.rates(draws[:1] + 1, draws[1:], np.linspace(0, 1, 4001))
    assert np.trapezoid(drawn, dx=1 / 4000) == pytest.approx(wins, abs=1e-3)
    assert curves.rates(np.full((2, 5), np.nan), draws[1:], grid).shape == (0, 11)
    assert curves.rates(draws[:1], np.full((2, 5), np.nan), grid).shape == (0, 11)


def test_figures_are_those_the_run_has_numbers_for(built: Path) -> None:
    names = {path.name for path in (built / "figures").iterdir()}
    expected = ["entropy_histograms", "forgetting_cost", "roc"]
    expected += ["class_shift", "class_shift_test"] if built.name.startswith("class") else []
    expected += ["gaps_by_request"] if built.name.startswith("incremental") else []
    assert names == {f"{name}.{kind}" for name in expected for kind in ("png", "pdf")}


def test_figures_without_samples_are_removed(tmp_path: Path) -> None:
    results = load(fabricate(tmp_path, "class_removal"))
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "roc.png").write_bytes(b"of an earlier run")
    kept = [r for r in results.records if not r.metric.startswith((shift.SHARE, "seconds_"))]
    bare = dataclasses.replace(results, samples={}, records=kept)
    assert figures.write(bare, tmp_path / "figures") == []
    assert not list((tmp_path / "figures").iterdir())


def test_page_is_self_contained_and_accessible(built: Path) -> None:
    text = (built / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert [attributes for tag, attributes in page.tags if tag in ("script", "link", "iframe")] == [{"type": "module"}]
    assert "default-src 'none'" in text
    assert not re.search(r"url\(|@import|https?://", text)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert images
    assert all((i["src"] or "").startswith("data:image/png;base64,") and i["alt"] for i in images)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert all("scope" in attributes for tag, attributes in page.tags if tag == "th")
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(names) == len(set(names))
    assert "python run_benchmark.py --preset digits" in page.text
    assert "torch" in page.text


def test_hostile_names_are_escaped(classes: Path) -> None:
    page = (classes / "report.html").read_text(encoding="utf-8")
    assert NASTY not in page
    assert "&lt;img src=x" in page
    assert NASTY in Page(page).text
    assert NASTY not in (classes / "table.md").read_text(encoding="utf-8")
    shown = shift.shown_classes(load(classes), Numbers(load(classes).records))
    assert shown == [name for name in CLASSES if name != NASTY]
    assert escape("a_b & 50% #1 ~^{x}\\ é ↓ 日") == (
        r"a\_b \& 50\% \#1 \textasciitilde{}\textasciicircum{}\{x\}\textbackslash{} é \ensuremath{\downarrow} ?"
    )


def test_citations_have_references() -> None:
    keys = re.findall(r"^@\w+{(\w+),$", (ROOT / "reports" / "references.bib").read_text(encoding="utf-8"), re.MULTILINE)
    cited = [key for path in (*(ROOT / "methods").glob("*.py"), *(ROOT / "attacks").glob("*.py"))
             for key in re.findall(r'cite: ClassVar\[str\] = "(\w+)"', path.read_text(encoding="utf-8"))]  # fmt: skip
    assert len(keys) == len(set(keys))
    assert set(cited) <= set(keys)


def test_build_needs_no_torch_and_repeats_to_the_byte(classes: Path, tmp_path: Path) -> None:
    fabricate(tmp_path, "class_removal")
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", ALONE, str(tmp_path)], check=True, env=environment, cwd=tmp_path)
    for path in [*WRITTEN, *(f"figures/{p.name}" for p in (classes / "figures").iterdir())]:
        assert (tmp_path / path).read_bytes() == (classes / path).read_bytes(), path


def test_key_explains_every_kind_of_column(built: Path) -> None:
    results = load(built)
    key = " ".join(words.key(results, tables.build(results)))
    assert all(word in key for word in ("gap", "*", "Entropy W1", "Attack AUC", "prepare", "÷ retrain", "F forget"))
    assert len(TRUTH) + 1 == len(results.run["methods"])


def test_missing_folder_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no results folder"):
        build(tmp_path / "nowhere")
