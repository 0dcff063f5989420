"""Reports on several requests, and the figure of predicted classes: where it is drawn and what it shows."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from bench.records import Results, load
from reports import findings, sequence, shift, tables
from reports.numbers import Numbers, alike, fixed, significant
from tests.fabricated import CLASSES, fabricate


def with_values(results: Results, changes: dict[tuple[str, str, str, int], float]) -> Results:
    """The results with other values and tight intervals for the summaries of (method, metric, part, step)."""
    records = []
    for r in results.records:
        place = (r.method, r.metric, r.part, r.step)
        if place in changes and r.seed == "all":
            r = dataclasses.replace(r, value=changes[place], low=changes[place] - 0.1, high=changes[place] + 0.1)
        records.append(r)
    return dataclasses.replace(results, records=records)


@pytest.fixture
def four(tmp_path: Path) -> Results:
    """The fabricated run of four requests."""
    return load(fabricate(tmp_path, "incremental"))


def test_request_by_request_shows_values_gaps_and_times(four: Results) -> None:
    numbers = Numbers(four.records)
    [table] = [table for table in tables.build(four) if table.by_request]
    lines = [row for row in table.rows if row.method == "scrub"]
    assert [row.cells[1] for row in lines] == ["1", "2", "3", "4"]
    for step, row in enumerate(lines):
        for place, part in ((2, "forget"), (3, f"chunk{step + 1}"), (5, "retain"), (6, "test")):
            gap = numbers.summary("scrub", "error_gap", part, step)
            assert gap is not None
            star = "*" if alike(gap, numbers.deviation("reference", "error", part, step)) else ""
            value = numbers.value("scrub", "error", part, step)
            assert row.cells[place] == f"{fixed(value)} ({fixed(gap.value, signed=True)}{star})"
        assert row.cells[7].startswith(significant(numbers.value("scrub", "seconds_request", None, step)))
    assert lines[1].remark == "ok"
    assert lines[0].remark == "not converged in 1 of 5 runs"


def test_an_earlier_request_that_comes_back_is_in_the_table_and_in_the_findings(four: Results) -> None:
    assert not any("recognized again" in sentence for sentence in findings.sentences(four))
    planted = with_values(four, {("pgu", "error_gap", "chunk2", 3): -6.5, ("pgu", "error", "chunk2", 3): 2.8})
    numbers = Numbers(planted.records)
    assert numbers.value("pgu", "error_gap", "forget", 3) > -1, "the mean over everything does not show it"
    [table] = [table for table in tables.build(planted) if table.by_request]
    rows = [row for row in table.rows if row.method == "pgu"]
    assert rows[0].cells[4] == "none"
    assert rows[3].cells[4] == "no. 2: 2.80 (−6.50)"
    [said] = [sentence for sentence in findings.sentences(planted) if "recognized again" in sentence]
    assert "pgu (request 2: −6.50 [−6.60, −6.40] points)" in said
    # Where the pool moved and the method did not, nothing came back.
    then = numbers.value("pgu", "error", "chunk2", 1)
    still = with_values(four, {("pgu", "error_gap", "chunk2", 3): -6.5, ("pgu", "error", "chunk2", 3): then})
    assert not any("recognized again" in sentence for sentence in findings.sentences(still))


def test_a_single_request_that_is_forgotten_too_well_is_told(four: Results) -> None:
    planted = with_values(four, {("pgu", "error_gap", "chunk2", 3): 6.5})
    [said] = [sentence for sentence in findings.sentences(planted) if "goes beyond the pool's" in sentence]
    assert "pgu (request 2: +6.50 [+6.40, +6.60] points)" in said


def test_what_came_back_of_poisoned_accuracy_is_told(tmp_path: Path) -> None:
    said = " ".join(findings.sentences(load(fabricate(tmp_path, "depoisoning"))))
    assert "Of the accuracy that wrong labels cost came back, as a share: " in said


def test_costs_of_several_requests_are_sums_over_the_requests_of_each_seed(four: Results) -> None:
    numbers = Numbers(four.records)
    seeds = [
        sum(
            next(r.value for r in numbers.repeats("pgu", "seconds_request", None, s) if r.seed == str(seed))
            for s in range(4)
        )
        for seed in range(5)
    ]
    row = next(row for row in tables.build(four)[-2].rows if row.method == "pgu")
    assert numbers.total("pgu", "seconds_request", None, range(4)) == (
        pytest.approx(np.mean(seeds)),
        pytest.approx(np.std(seeds, ddof=1)),
    )
    assert row.cells[1].startswith(significant(float(np.mean(seeds))))
    lost = [r for r in four.records if (r.method, r.metric, r.seed, r.step) != ("pgu", "seconds_request", "4", 3)]
    assert Numbers(lost).total("pgu", "seconds_request", None, range(4))[0] == pytest.approx(np.mean(seeds[:4]))


def test_a_wrecked_method_does_not_flatten_the_curves(four: Results) -> None:
    def limits(results: Results) -> tuple[float, float]:
        figure = sequence.gaps_by_request(results)
        assert figure is not None
        low, high = figure.axes[0].get_ylim()
        return low, high

    far = with_values(four, {("scrub", "error_gap", "forget", step): 80.0 for step in range(4)})
    assert limits(far)[1] > 80
    records = [dataclasses.replace(r, status="collapsed") if r.method == "scrub" else r for r in far.records]
    assert limits(dataclasses.replace(far, records=records))[1] < 20


def test_the_class_shift_is_drawn_where_it_informs(four: Results) -> None:
    assert shift.class_shift(four) is None, "a forget set of all classes repeats its mix"
    moved = with_values(four, {("eu_k", shift.TV, "forget", 3): 0.5})
    assert shift.class_shift(moved) is not None
    assert "after the last request" in shift.caption(moved.run, "forget")
    assert shift.class_shift(with_values(four, {("original", shift.TV, "forget", 3): 0.5})) is None
    one = dataclasses.replace(four, run={**four.run, "forget_classes": [3]})
    assert shift.class_shift(one) is not None
    assert CLASSES[3] in shift.caption(one.run, "forget")
    assert CLASSES[3] not in shift.shown_classes(one, Numbers(one.records))


def test_small_classes_are_added_up(four: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shift, "MOST_CLASSES", 4)
    moved = with_values(four, {
        ("eu_k", shift.TV, "forget", 3): 0.5,
        ("eu_k", shift.SHARE + CLASSES[5], "forget", 3): 60.0,  # small in the pool, but a method goes there
    })  # fmt: skip
    shown = shift.shown_classes(moved, Numbers(moved.records))
    assert len(shown) == 3
    assert CLASSES[5] in shown
    figure = shift.class_shift(moved)
    assert figure is not None
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()][-1] == "all others"
    pool = figure.axes[0].containers[1]  # after its whiskers
    assert sum(bar.get_width() for bar in pool) == pytest.approx(100)  # type: ignore[attr-defined]
