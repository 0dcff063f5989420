"""What forgetting costs: scales with known ends, dominance, and the figure and the table that show both."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bench.interface import SCENARIOS, Record
from bench.records import Results, load
from reports import pareto, tradeoff, tradeoff_table
from tests.fabricated import fabricate

SMALL = st.floats(-100, 100, allow_subnormal=False)
AXES = arrays.arrays(np.float64, st.tuples(st.integers(0, 6), st.just(3)), elements=st.integers(0, 4).map(float))


def record(
    method: str, metric: str, value: float, part: str = "forget", half: float = 0.0, seed: str = "all"
) -> Record:
    return Record(method, seed, 0, part, metric, value, value - half, value + half, 5)


def made(rows: dict[str, tuple[float, float, float]], *, spread: float = 1.0) -> Results:
    """A run without an audit: by method its forget error gap, test error gap and seconds."""
    records = [record("reference", "error_sd", spread), record("reference", "error", 10.0)]
    for name, (forgotten, lost, seconds) in rows.items():
        records += [record(name, "error_gap", forgotten, half=1.0), record(name, "error_gap", lost, "test", 0.5)]
        records += [record(name, "error_gap", lost / 2, "retain", 0.5)]
        records += [record(name, "seconds_request", seconds * f, "all", seed=str(k)) for k, f in enumerate((0.9, 1.1))]
    names = [{"name": name, "status": "ok", "settings": settings_of(name)} for name in rows]
    run = {"scenario": "sample_removal", "steps": 1, "methods": names, "seeds": [0, 1], "reference_models": 20}
    return Results(run, records, {})


def settings_of(name: str) -> dict[str, float]:
    return {"compute": float(name.partition("compute=")[2] or 1)} if name.startswith("retrain") else {}


ROWS = {
    "original": (-8.0, 0.0, 0.001),
    "retrain": (0.0, 0.0, 10.0),
    "near": (2.0, 0.5, 2.0),
    "over": (16.0, 0.0, 2.0),
    "worse": (-4.0, 1.0, 5.0),
}


def points(results: Results) -> dict[str, tradeoff.Point]:
    return {point.method: point for point in tradeoff.measure(results).points}


def test_retrained_is_0_the_original_1_and_too_far_is_more() -> None:
    found = points(made(ROWS))
    assert {name: point.forgetting.value for name, point in found.items()} == {
        "original": 1.0, "retrain": 0.0, "near": 0.25, "over": 2.0, "worse": 0.5,
    }  # fmt: skip
    assert (found["near"].forgetting.low, found["near"].forgetting.high) == (1 / 8, 3 / 8)
    assert (found["retrain"].forgetting.low, found["retrain"].forgetting.high) == (0.0, 1 / 8)
    assert [found[name].cost.value for name in ROWS] == pytest.approx([1e-4, 1.0, 0.2, 0.2, 0.5])
    assert [found[name].loss.value for name in ROWS] == [0.0, 0.0, 0.5, 0.0, 1.0]


def test_rows_are_beaten_by_what_is_better_on_all_three() -> None:
    dominated = tradeoff.measure(made(ROWS)).dominated
    assert dominated == {"original": (), "retrain": (), "near": (), "over": ("original",), "worse": ("near",)}
    cells = {row.method: row.cells[-1] for row in tradeoff_table.table(made(ROWS)).rows}
    assert cells == {"original": "none", "retrain": "none", "near": "none", "over": "original", "worse": "near"}


def test_a_whole_loss_is_what_the_shortest_retraining_loses() -> None:
    found = tradeoff.measure(made(ROWS | {"retrain+compute=0.05": (-1.0, 4.0, 0.5), "retrain+compute=0.5": (0, 9, 5)}))
    losses = {point.method: point.loss.value for point in found.points}
    assert losses["retrain+compute=0.05"] == 1.0
    assert losses["near"] == 0.125
    assert {point.method: point.compute for point in found.points if point.compute <= 1} == {
        "retrain": 1.0, "retrain+compute=0.05": 0.05, "retrain+compute=0.5": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize(("top", "usable"), [(1.9, False), (2.1, True)])
def test_without_a_signal_nothing_is_ranked_and_that_is_said(top: float, usable: bool) -> None:
    results = made(ROWS | {"original": (-top, 0.0, 0.001)}, spread=1.0)
    found = tradeoff.measure(results)
    assert bool(found.signals) == usable
    assert (pareto.forgetting_cost(results) is not None) == usable
    table = tradeoff_table.table(results)
    if not usable:
        assert table.warning.startswith("No signal to forget")
        assert not any(found.dominated.values())
        assert all(row.cells[1] == row.cells[-1] == "n/a" for row in table.rows)


def test_a_missing_signal_does_not_flatter(tmp_path: Path) -> None:
    whole = load(fabricate(tmp_path, "sample_removal", audit=True))
    assert tradeoff.measure(whole).signals == ("AUC of per_example", "KLoM")
    pgu = points(whole)["pgu"].forgetting.value
    kept = [r for r in whole.records if (r.method, r.metric, r.part) != ("pgu", "klom_quantile", "forget")]
    less = points(dataclasses.replace(whole, records=kept))
    assert math.isfinite(pgu)
    assert math.isnan(less["pgu"].forgetting.value)
    assert tradeoff_table.table(dataclasses.replace(whole, records=kept)).rows[2].cells[-1] == "n/a"


def test_an_area_counts_on_either_side_of_chance() -> None:
    signal = tradeoff.Signal("area", "attack_auc", 0.5, 0.0, 0.4)
    low, high = (signal.place(record("x", "attack_auc", area, half=0.05)) for area in (0.3, 0.7))
    for one in (low, high):
        assert (one.value, one.low, one.high) == pytest.approx((0.5, 0.375, 0.625))
    assert signal.place(record("x", "attack_auc", 0.52, half=0.05)).low == 0.0


@given(SMALL, SMALL, SMALL, st.floats(0.1, 10), SMALL)
def test_a_scale_has_its_ends_and_ignores_units(
    value: float, floor: float, top: float, unit: float, shift: float
) -> None:
    top = floor + 1 + abs(top)
    assert tradeoff.normalized(floor, floor, top) == 0
    assert tradeoff.normalized(top, floor, top) == 1
    moved = (unit * one + shift for one in (value, floor, top))
    assert tradeoff.normalized(*moved) == pytest.approx(tradeoff.normalized(value, floor, top), abs=1e-6)


@given(AXES)
def test_dominance_is_a_strict_order_that_no_monotone_scale_changes(axes: np.ndarray) -> None:
    found = tradeoff.dominance(axes)
    assert not (found & found.T).any()
    assert not (found @ found & ~found).any(), "transitive"
    assert (tradeoff.dominance(np.exp(axes) * [1, 2, 3]) == found).all()
    order = np.random.default_rng(len(axes)).permutation(len(axes))
    assert (tradeoff.dominance(axes[order]) == found[np.ix_(order, order)]).all()
    assert (found == slowly(axes)).all()
    if len(axes):
        assert not found.any(0).all(), "something is always on the frontier"


def slowly(axes: np.ndarray) -> np.ndarray:
    """The definition of dominance, row by row."""
    n = len(axes)
    found = np.zeros((n, n), dtype=bool)
    for a in range(n):
        for b in range(n):
            pairs = list(zip(axes[a], axes[b], strict=True))
            found[a, b] = all(x <= y for x, y in pairs) and any(x < y for x, y in pairs)
    return found


def test_what_is_not_known_neither_beats_nor_is_beaten() -> None:
    found = tradeoff.dominance([[math.nan, 0, 0], [1, 1, 1], [2, 2, 2]])
    assert found.tolist() == [[False, False, False], [False, False, True], [False, False, False]]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_scenario_has_the_table_and_the_figure(tmp_path: Path, scenario: str) -> None:
    results = load(fabricate(tmp_path, scenario))
    table = tradeoff_table.table(results)
    original = next(row for row in table.rows if row.method == "original")
    assert original.cells[1].startswith("1.00 [")
    assert pareto.forgetting_cost(results) is not None
    assert "on a scale with retrained models at 0" in pareto.caption(results)
