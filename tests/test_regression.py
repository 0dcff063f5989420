"""The baseline check: silent on identical and redrawn runs, loud when something really moved."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from bench import baseline as baselines
from bench import readouts, regression, statistics
from bench.interface import Record, UsageError
from bench.records import Results

CONFIG: dict[str, Any] = {
    "dataset": "digits",
    "device": "cpu",
    "preset": "digits",
    "seed": 0,
    "seeds": [0, 1, 2, 3, 4],
    "methods": ["original", "pgu"],
    "recipe": {"epochs": 10, "lr": 0.1},
    "method_settings": {"original": {}, "pgu": {"gamma": 0.9}},
}
# metric, part, mean, sd between models, samples
METRICS = (
    ("error", "test", 3.0, 0.5, 800),
    ("error", "forget", 0.4, 0.6, 60),
    ("error", "retain", 0.02, 0.1, 540),
    ("log_entropy_w1", "forget", 0.5, 0.1, 60),
    ("attack_auc", "forget", 0.6, 0.04, 60),
)


def draw(metric: str, mean: float, sd: float, samples: int, size: int, g: np.random.Generator) -> np.ndarray:
    """Values of independent models; errors are whole numbers of samples."""
    values = g.normal(mean, sd, size)
    return np.round(np.maximum(values, 0) * samples / 100) * 100 / samples if metric == "error" else values


def results(stream: int, shift: float = 0.0, repeats: int = 5, **changes: Any) -> Results:
    """A made-up run; `shift` in standard deviations moves every number of pgu."""
    g = np.random.default_rng(stream)
    made: list[Record] = []
    pool = []
    for metric, part, mean, sd, samples in METRICS:
        clean = draw(metric, mean, sd, samples, 50, g)
        value, low, high, n = statistics.mean_interval(clean)
        if metric != "attack_auc":
            pool.append(Record("reference", "all", 0, part, metric, value, low, high, n))
            pool.append(Record("reference", "all", 0, part, f"{metric}_sd", statistics.sd(clean), n=n))
        for k, one in enumerate(draw(metric, mean + shift * sd, sd, samples, repeats, g)):
            made.append(Record("pgu", str(k), 0, part, metric, one, n=samples))
            if metric == "error":
                made.append(Record("pgu", str(k), 0, part, "error_gap", one - value, n=samples))
    for k in range(repeats):
        made.append(Record("pgu", str(k), 0, "forget", "samples_read", 3000.0, n=1))
        made.append(Record("pgu", str(k), 0, "-", "seconds_request", g.uniform(1, 9), n=1))
        made.append(Record("pgu", str(k), 0, "-", "peak_bytes", g.uniform(1, 9), n=1))
    run = {"config": CONFIG | changes, "config_hash": "abcd", "versions": {}, "seeds": [0], "command": "run"}
    return Results(run, [*pool, *made, *readouts.summarize(made)], {})


def edited(run: Results, **changes: Any) -> Results:
    """The run with some fields of pgu's test error replaced."""
    records = [
        dataclasses.replace(r, **changes)
        if (r.method, r.seed, r.part, r.metric) == ("pgu", "all", "test", "error")
        else r
        for r in run.records
    ]
    return dataclasses.replace(run, records=records)


def moves(run: Results, path: Path) -> list[regression.Moved]:
    """What moved since a baseline."""
    return list(regression.compare(run, path).moved)


@pytest.fixture
def baseline(tmp_path: Path) -> Path:
    baselines.write(results(1), tmp_path / "baseline.json")
    return tmp_path / "baseline.json"


def test_equal_runs_never_move_and_neither_do_times(baseline: Path) -> None:
    assert moves(results(1), baseline) == []
    slower = [
        dataclasses.replace(r, value=r.value * 10) if r.metric in baselines.NOT_COMPARED else r
        for r in results(1).records
    ]
    assert moves(dataclasses.replace(results(1), records=slower), baseline) == []


def test_baseline_is_readable_and_writing_it_again_changes_nothing(baseline: Path) -> None:
    text = baseline.read_text()
    content = json.loads(text)
    assert content["config"] == CONFIG and content["command"] == "run"
    entries = {(e["method"], e["part"], e["metric"]): e for e in content["numbers"]}
    entry = entries["pgu", "test", "error"]
    values = [r.value for r in results(1).records if (r.method, r.part, r.metric) == ("pgu", "test", "error")][:5]
    assert entry["value"] == pytest.approx(np.mean(values)) and (entry["n"], entry["samples"]) == (5, 800)
    assert entry["sd"] == pytest.approx(np.std(values, ddof=1))
    [spread] = [r.value for r in results(1).records if (r.part, r.metric) == ("test", "error_sd")]
    assert entries["reference", "test", "error"]["sd"] == pytest.approx(spread)
    assert sum('"metric"' in line for line in text.splitlines()) == len(entries)
    baselines.write(results(1), baseline)
    assert baseline.read_text() == text


def test_redraws_rarely_move_and_large_shifts_do(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    alarms, found = 0, {("error", "test"): 0, ("log_entropy_w1", "forget"): 0, ("attack_auc", "forget"): 0}
    for pair in range(80):
        baselines.write(results(2 * pair), path)
        alarms += len(moves(results(2 * pair + 1), path))
        found_now = {(one.metric, one.part) for one in moves(results(2 * pair + 1, shift=8.0), path)}
        for place in found:
            found[place] += place in found_now
    assert alarms <= 1  # of some 1,500 numbers
    assert all(count >= 0.9 * 80 for count in found.values()), found


def test_one_sample_is_not_a_move(baseline: Path) -> None:
    def steady(value: float) -> Results:
        run = edited(results(1), value=value, low=value, high=value)
        same = ("pgu", "test", "error")
        one = [dataclasses.replace(r, value=value) if (r.method, r.part, r.metric) == same else r for r in run.records]
        return dataclasses.replace(run, records=one)

    baselines.write(steady(2.0), baseline)
    assert moves(steady(2.0 + 100 / 800), baseline) == []
    [moved] = moves(steady(2.0 + 200 / 800), baseline)
    assert (moved.metric, moved.part) == ("error", "test")
    assert moved.explained < 200 / 800


def test_reads_are_compared_exactly(baseline: Path) -> None:
    records = [
        dataclasses.replace(r, value=3001.0, low=3001.0, high=3001.0) if r.metric == "samples_read" else r
        for r in results(1).records
    ]
    [moved] = moves(dataclasses.replace(results(1), records=records), baseline)
    assert (moved.metric, moved.was, moved.now) == ("samples_read", 3000.0, 3001.0)


def test_one_repeat_has_no_spread_or_borrows_it(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    baselines.write(results(1, repeats=1), path)
    found = regression.compare(results(1, repeats=1, shift=50.0), path)
    assert not found.moved
    assert "one repeat tells no spread" in found.line()
    assert "of pgu (--seeds 5 would)" in found.line()
    assert moves(results(1, repeats=5), path) == []
    far = moves(results(1, repeats=5, shift=50.0), path)
    assert "attack_auc" in [one.metric for one in far]


def test_the_pools_spread_is_that_of_its_models_where_an_interval_ends_at_zero(tmp_path: Path) -> None:
    place = ("reference", "all", 0, "forget")
    floor = Record(*place, "log_entropy_w1", 0.44, 0.0, 4.03, 2)
    spread = Record(*place, "log_entropy_w1_sd", 0.4, n=2)
    run = dataclasses.replace(results(1), records=[floor, spread])
    baselines.write(run, tmp_path / "baseline.json")
    [kept] = baselines.read(tmp_path / "baseline.json").numbers.values()
    assert kept.sd == 0.4


def test_where_nothing_has_a_spread_nothing_can_be_judged(tmp_path: Path) -> None:
    run = results(1, repeats=1)
    alone = dataclasses.replace(run, records=[r for r in run.records if r.method != "reference"])
    baselines.write(alone, tmp_path / "baseline.json")
    with pytest.raises(UsageError, match="one repeat tells no spread; make both with --seeds 5"):
        moves(alone, tmp_path / "baseline.json")
    assert regression.compare(alone, tmp_path / "baseline.json", exact=True).compared


def test_what_is_measured_against_the_pool_may_move_with_it() -> None:
    numbers = {}
    for spread in (0.0, 0.5):
        own = baselines.Number("pgu", 0, "forget", "log_entropy_w1", 1.0, 0.0, 5, 60, "ok")
        pool = baselines.Number("reference", 0, "forget", "log_entropy_w1", 3.0, spread, 50, 60, "ok")
        numbers[spread] = {own.place: own, pool.place: pool}
    assert regression._explained(own.place, numbers[0.0], numbers[0.0], 0.001) < 1 / 60
    wide = regression._explained(own.place, numbers[0.5], numbers[0.5], 0.001)
    assert wide == pytest.approx(scipy.stats.t.isf(0.001 / 2, 98) * 0.5 * math.sqrt(2 / 50), rel=0.05)


@given(st.integers(2, 6), st.integers(2, 6), st.integers(0, 1000))
def test_what_is_explained_is_students_t_test(n: int, m: int, seed: int) -> None:
    g = np.random.default_rng(seed)
    a, b = g.normal(size=n), g.normal(size=m)
    p = float(scipy.stats.ttest_ind(a, b).pvalue)
    sides = [baselines.Number("m", 0, "-", "x", v.mean(), statistics.sd(v), len(v), 0, "ok") for v in (a, b)]
    assert regression._student([(sides[0], sides[1])], p) == pytest.approx(abs(a.mean() - b.mean()), rel=1e-6)


@pytest.mark.parametrize(
    ("was", "now", "counts"),
    [
        ("ok", "2 of 5 not_converged", False),
        ("ok", "4 of 5 not_converged", False),
        ("ok", "5 of 5 not_converged", True),
        ("5 of 5 not_converged", "ok", True),
        ("5 of 5 not_converged", "5 of 5 diverged", True),
        ("ok", "1 of 5 failed: ValueError: no", True),
        ("1 of 5 failed: ValueError: no", "2 of 5 failed: ValueError: no", False),
        ("ok", "undefined", True),
        ("needs 1000 negatives and has 600", "needs 1000 negatives and has 540", False),
        ("needs 1000 negatives and has 600", "1 of 16 diverged and needs 1000 negatives and has 600", False),
    ],
)
def test_statuses_move_beyond_what_chance_explains(baseline: Path, was: str, now: str, counts: bool) -> None:
    baselines.write(edited(results(1), status=was), baseline)
    found = moves(edited(results(1), status=now), baseline)
    assert [one.reason for one in found] == ([f"status was {was}, is {now}"] if counts else [])


@given(st.integers(0, 12), st.integers(1, 12), st.integers(0, 12), st.integers(1, 12))
def test_fisher_is_scipys(j: int, m: int, k: int, n: int) -> None:
    j, k = min(j, m), min(k, n)
    expected = scipy.stats.fisher_exact([[j, m - j], [k, n - k]]).pvalue
    assert regression.fisher(j, m, k, n) == pytest.approx(expected)


def timed(factor: float, stream: int = 1, noise: float = 0.1, **run: Any) -> Results:
    """A made-up run in which a request of pgu takes `factor` times as long as retraining, on some machine."""
    made, g = results(stream), np.random.default_rng(stream)
    speed = math.exp(g.normal())
    others = [r for r in made.records if r.metric != "seconds_request"]
    times = [
        Record(method, str(k), 0, "-", "seconds_request", speed * seconds * math.exp(noise * g.normal()), n=1)
        for k in range(5)
        for method, seconds in (("pgu", factor), ("retrain", 1.0))
    ]
    return Results(made.run | run, [*others, *times], {})


def slowed(run: Results, path: Path) -> list[regression.Moved]:
    """The times that moved since a baseline."""
    return [one for one in regression.compare(run, path, times=True).moved if one.metric == baselines.TIME]


def test_times_are_compared_as_ratios_within_a_run(baseline: Path) -> None:
    baselines.write(timed(0.3), baseline)
    [kept] = [one for one in baselines.read(baseline).numbers.values() if one.metric == baselines.TIME]
    assert kept.value == pytest.approx(0.3, rel=0.2)
    assert [one for stream in range(20) for one in slowed(timed(0.6, stream), baseline)] == []
    for factor, word in ((1.5, "long"), (0.06, "little")):
        [slow] = slowed(timed(factor), baseline)
        assert slow.reason == f"takes 5.0 times as {word}, in retrainings of its run"
        remarked = regression.compare(timed(factor), baseline)
        assert not remarked.moved
        assert f"pgu: a request {slow.reason}; --times makes that count" in remarked.line()
    assert slowed(timed(1.5, 2, noise=1.5), baseline) == []


def test_times_that_tell_nothing_are_not_compared(baseline: Path) -> None:
    baselines.write(timed(0.3), baseline)
    for run in (timed(1.5, timed_elsewhere=["pgu"]), timed(1e-5), results(1)):
        assert slowed(run, baseline) == []


def test_exact_counts_any_difference(baseline: Path) -> None:
    assert regression.compare(results(1), baseline, exact=True).moved == []
    changed = edited(results(1), value=3.0000001)
    assert moves(changed, baseline) == []
    [found] = regression.compare(changed, baseline, exact=True).moved
    assert (found.metric, found.part, found.reason) == ("error", "test", "differs")


def test_new_gone_and_lost_numbers(baseline: Path) -> None:
    run = results(1)
    fewer = dataclasses.replace(run, records=[r for r in run.records if r.metric != "attack_auc"])
    assert [(m.metric, m.reason) for m in moves(fewer, baseline)] == [("attack_auc", "is gone")]
    lost = edited(run, value=math.nan, low=math.nan, high=math.nan, n=0)
    assert [m.reason for m in moves(lost, baseline)] == ["has no value now"]
    baselines.write(lost, baseline)
    assert [m.reason for m in moves(run, baseline)] == ["has a value now"]
    assert moves(lost, baseline) == []
    baselines.write(fewer, baseline)
    assert [(m.metric, m.reason) for m in moves(run, baseline)] == [("attack_auc", "is new")]
    none = dataclasses.replace(run, records=[r for r in run.records if r.method != "pgu"])
    assert [(m.method, m.metric, m.reason) for m in moves(none, baseline)] == [("pgu", "every number", "is gone")]


def test_other_configurations_are_refused_with_the_keys(baseline: Path) -> None:
    changed = results(1, recipe={"epochs": 12, "lr": 0.1}, seed=7)
    with pytest.raises(UsageError, match=r"recipe\.epochs \(12, baseline 10\), seed \(7, baseline 0\)") as caught:
        moves(changed, baseline)
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=r"method_settings\.pgu\.gamma"):
        moves(results(1, method_settings={"original": {}, "pgu": {"gamma": 0.5}}), baseline)


def test_a_setting_that_a_method_got_since_counts_as_its_default(tmp_path: Path) -> None:
    path = tmp_path / "before.json"
    baselines.write(results(1, method_settings={"retrain": {}, "retrain+compute=0.5": {}}), path)
    now = {"retrain": {"compute": 1.0}, "retrain+compute=0.5": {}}
    assert moves(results(1, method_settings=now), path) == []
    for strange in ({"compute": 0.5}, {"unheard": 1.0}):
        with pytest.raises(UsageError, match=rf"method_settings\.retrain\.{next(iter(strange))}"):
            moves(results(1, method_settings=now | {"retrain": strange}), path)


def test_names_machines_and_other_methods_do_not_matter(baseline: Path) -> None:
    more = {"original": {}, "pgu": {"gamma": 0.9}, "scrub": {"lr": 1.0}}
    changed = results(1, device="cuda", preset="mine.toml", seeds=[0], methods=[*more], method_settings=more)
    assert moves(changed, baseline) == []


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", "3", '{"format": 2}', '{"format": 1}', '{"format": 1, "numbers": [{"method": "pgu"}]}'],
)
def test_a_damaged_baseline_is_one_line(baseline: Path, text: str) -> None:
    baseline.write_text(text)
    with pytest.raises(UsageError, match="damaged.*--update-baseline") as caught:
        moves(results(1), baseline)
    assert "\n" not in str(caught.value)


def test_a_baseline_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no baseline at .*--update-baseline"):
        moves(results(1), tmp_path / "none.json")
    with pytest.raises(UsageError, match="cannot read"):
        moves(results(1), tmp_path)
    with pytest.raises(UsageError, match="cannot write"):
        baselines.write(results(1), tmp_path)


def test_table() -> None:
    moved = [
        regression.Moved("pgu", 2, "test", "error", 3.0, 4.5, 0.25, "beyond the spread of the repeats"),
        regression.Moved("scrub", 0, "-", "a|b", math.nan, 1.0, math.nan, "is new"),
    ]
    assert regression.table(moved).splitlines()[2:] == [
        "| pgu: error on test, step 2 | 3 | 4.5 | 1.5 | 0.25 | beyond the spread of the repeats |",
        "| scrub: a\\|b | n/a | 1 | n/a | n/a | is new |",
    ]


def audited(word: str, p: float, rank: float = 1.0) -> Results:
    """A made-up run with an audit whose numbers give pgu this verdict."""
    area, apart = {"leaks": (0.8, 1.0), "indistinguishable": (0.5, 0.01), "not enough data to say": (0.5, 0.4)}[word]
    run = results(1)
    found = {"attack_auc:a": area, "attack_p:a": p, "attack_equivalence_p:a": apart, "compared_rank": rank}
    numbers = [
        Record("pgu", "all", 0, "forget", m, value, value - 0.01, value + 0.01, n=9) for m, value in found.items()
    ]
    audit = {"headline": "a", "family": ["a"], "margin": 0.05}
    told = run.run | {"steps": 1, "methods": [{"name": "pgu"}], "audit": audit}
    return dataclasses.replace(run, run=told, records=[*run.records, *numbers])


def test_a_verdict_moves_with_the_numbers_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    baselines.write(audited("indistinguishable", 0.5), path)
    assert json.loads(path.read_text())["verdicts"] == {"pgu": "indistinguishable"}
    assert regression.compare(audited("indistinguishable", 0.5), path).line().startswith("no number moved; ")
    near = regression.compare(audited("not enough data to say", 0.5), path)
    assert not near.moved
    assert "pgu: the verdict was indistinguishable and is not enough data to say" in near.line()
    found = moves(audited("leaks", 0.001), path)
    reasons = {one.metric: one.reason for one in found}
    assert reasons["verdict"] == "was indistinguishable, is leaks"
    assert "attack_auc:a" in reasons
    assert "| pgu: verdict |" in regression.table(found)


def test_p_values_and_ranks_are_not_compared(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    baselines.write(audited("indistinguishable", 0.06), path)
    assert moves(audited("indistinguishable", 0.9, rank=2.0), path) == []
    kept = {one["metric"] for one in json.loads(path.read_text())["numbers"]}
    assert "attack_auc:a" in kept
    assert not any(metric.startswith(("attack_p", "attack_equivalence_p", "compared")) for metric in kept)


DRAWS: dict[str, Callable[[np.random.Generator, tuple[int, int]], np.ndarray]] = {
    "normal": lambda g, size: g.normal(size=size),
    "skewed": lambda g, size: g.gamma(2.0, size=size),
    "heavy": lambda g, size: g.standard_t(4, size=size),
    "counts": lambda g, size: 100 / 60 * g.binomial(60, 0.03, size=size),
}


def redrawn(shape: str, repeats: int, g: np.random.Generator, shift: float = 0.0) -> baselines.Baseline:
    """A made-up run of 100 independent numbers."""
    metric, found = "error" if shape == "counts" else "x", {}
    for step, row in enumerate(DRAWS[shape](g, (100, repeats)) + shift):
        number = baselines.Number("m", step, "test", metric, row.mean(), statistics.sd(row), repeats, 60, "ok")
        found[number.place] = number
    return baselines.Baseline({}, found, {})


@pytest.mark.parametrize("shape", ["normal", "skewed", "heavy", "counts"])
@pytest.mark.parametrize("repeats", [3, 5])
def test_false_alarms_of_a_whole_run_are_rare_whatever_the_distribution(shape: str, repeats: int) -> None:
    g = np.random.default_rng(5)
    alarms = [bool(regression.between(redrawn(shape, repeats, g), redrawn(shape, repeats, g)).moved) for _ in range(60)]
    assert sum(alarms) <= 1


@pytest.mark.parametrize("repeats", [3, 5])
def test_what_a_shift_must_be_to_be_caught(repeats: int) -> None:
    """Of 100 numbers of five repeats nearly all are caught that moved by 10 standard deviations; of three, few are."""
    g = np.random.default_rng(6)
    share = len(regression.between(redrawn("normal", repeats, g), redrawn("normal", repeats, g, 10.0)).moved) / 100
    assert share > 0.9 if repeats == 5 else share < 0.5


def test_a_baseline_without_verdicts_compares_numbers(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    baselines.write(audited("indistinguishable", 0.5), path)
    content = json.loads(path.read_text())
    del content["verdicts"]
    path.write_text(json.dumps(content))
    assert moves(audited("not enough data to say", 0.5), path) == []
