"""The baseline check: silent on identical and redrawn runs, loud when something really moved."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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


@pytest.fixture
def baseline(tmp_path: Path) -> Path:
    regression.write_baseline(results(1), tmp_path / "baseline.json")
    return tmp_path / "baseline.json"


def test_equal_runs_never_move_and_neither_do_times(baseline: Path) -> None:
    assert regression.compare(results(1), baseline) == []
    slower = [
        dataclasses.replace(r, value=r.value * 10) if r.metric in regression.NOT_COMPARED else r
        for r in results(1).records
    ]
    assert regression.compare(dataclasses.replace(results(1), records=slower), baseline) == []


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
    regression.write_baseline(results(1), baseline)
    assert baseline.read_text() == text


def test_redraws_rarely_move_and_large_shifts_do(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    alarms, numbers, found = 0, 0, {("error", "test"): 0, ("log_entropy_w1", "forget"): 0, ("attack_auc", "forget"): 0}
    for pair in range(200):
        regression.write_baseline(results(2 * pair), path)
        alarms += len(regression.compare(results(2 * pair + 1), path))
        numbers += len(json.loads(path.read_text())["numbers"])
        moved = {(one.metric, one.part) for one in regression.compare(results(2 * pair + 1, shift=5.0), path)}
        for place in found:
            found[place] += place in moved
    assert alarms / numbers <= 0.005
    assert all(count >= 0.9 * 200 for count in found.values()), found


def test_one_sample_is_not_a_move(baseline: Path) -> None:
    def steady(value: float) -> Results:
        run = edited(results(1), value=value, low=value, high=value)
        same = ("pgu", "test", "error")
        one = [dataclasses.replace(r, value=value) if (r.method, r.part, r.metric) == same else r for r in run.records]
        return dataclasses.replace(run, records=one)

    regression.write_baseline(steady(2.0), baseline)
    assert regression.compare(steady(2.0 + 100 / 800), baseline) == []
    [moved] = regression.compare(steady(2.0 + 200 / 800), baseline)
    assert (moved.metric, moved.part, moved.explained) == ("error", "test", 0.0)


def test_reads_are_compared_exactly(baseline: Path) -> None:
    records = [
        dataclasses.replace(r, value=3001.0, low=3001.0, high=3001.0) if r.metric == "samples_read" else r
        for r in results(1).records
    ]
    [moved] = regression.compare(dataclasses.replace(results(1), records=records), baseline)
    assert (moved.metric, moved.was, moved.now) == ("samples_read", 3000.0, 3001.0)


def test_one_repeat_has_no_spread_or_borrows_it(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    regression.write_baseline(results(1, repeats=1), path)
    assert regression.compare(results(1, repeats=1), path) == []
    places = [one.metric for one in regression.compare(results(1, repeats=1, shift=3.0), path) if one.method == "pgu"]
    assert "attack_auc" in places
    assert [one for one in regression.compare(results(1, repeats=5), path) if one.metric == "attack_auc"] == []
    far = regression.compare(results(1, repeats=5, shift=50.0), path)
    assert "attack_auc" in [one.metric for one in far]


def test_a_gap_may_move_with_its_pool(tmp_path: Path) -> None:
    numbers = {}
    for spread in (0.0, 0.5):
        gap = regression.Number("pgu", 0, "test", "error_gap", 1.0, 0.0, 5, 800, "ok")
        pool = regression.Number("reference", 0, "test", "error", 3.0, spread, 50, 800, "ok")
        numbers[spread] = {gap.place: gap, pool.place: pool}
    assert regression._explained(gap.place, numbers[0.0], numbers[0.0]) == 0.0
    expected = statistics.explained_difference([(0.5, 50), (0.5, 50)], regression.ALPHA)
    assert regression._explained(gap.place, numbers[0.5], numbers[0.5]) == pytest.approx(expected)


def test_status_changes_count_but_not_how_often(baseline: Path) -> None:
    [moved] = regression.compare(edited(results(1), status="2 of 5 not_converged"), baseline)
    assert moved.reason == "status was ok, is 2 of 5 not_converged" and moved.was == moved.now
    regression.write_baseline(edited(results(1), status="1 of 5 not_converged"), baseline)
    assert regression.compare(edited(results(1), status="2 of 5 not_converged"), baseline) == []
    assert len(regression.compare(edited(results(1), status="1 of 5 diverged"), baseline)) == 1


def test_new_gone_and_lost_numbers(baseline: Path) -> None:
    run = results(1)
    fewer = dataclasses.replace(run, records=[r for r in run.records if r.metric != "attack_auc"])
    assert [(m.metric, m.reason) for m in regression.compare(fewer, baseline)] == [("attack_auc", "is gone")]
    lost = edited(run, value=math.nan, low=math.nan, high=math.nan, n=0)
    assert [m.reason for m in regression.compare(lost, baseline)] == ["has no value now"]
    regression.write_baseline(lost, baseline)
    assert [m.reason for m in regression.compare(run, baseline)] == ["has a value now"]
    assert regression.compare(lost, baseline) == []
    regression.write_baseline(fewer, baseline)
    assert [(m.metric, m.reason) for m in regression.compare(run, baseline)] == [("attack_auc", "is new")]


def test_other_configurations_are_refused_with_the_keys(baseline: Path) -> None:
    changed = results(1, recipe={"epochs": 12, "lr": 0.1}, seed=7)
    with pytest.raises(UsageError, match=r"recipe\.epochs \(12, baseline 10\), seed \(7, baseline 0\)") as caught:
        regression.compare(changed, baseline)
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=r"method_settings\.pgu\.gamma"):
        regression.compare(results(1, method_settings={"original": {}, "pgu": {"gamma": 0.5}}), baseline)


def test_a_setting_that_a_method_got_since_counts_as_its_default(tmp_path: Path) -> None:
    path = tmp_path / "before.json"
    regression.write_baseline(results(1, method_settings={"retrain": {}, "retrain+compute=0.5": {}}), path)
    now = {"retrain": {"compute": 1.0}, "retrain+compute=0.5": {}}
    assert regression.compare(results(1, method_settings=now), path) == []
    for strange in ({"compute": 0.5}, {"unheard": 1.0}):
        with pytest.raises(UsageError, match=rf"method_settings\.retrain\.{next(iter(strange))}"):
            regression.compare(results(1, method_settings=now | {"retrain": strange}), path)


def test_names_machines_and_other_methods_do_not_matter(baseline: Path) -> None:
    more = {"original": {}, "pgu": {"gamma": 0.9}, "scrub": {"lr": 1.0}}
    changed = results(1, device="cuda", preset="mine.toml", seeds=[0], methods=[*more], method_settings=more)
    assert regression.compare(changed, baseline) == []


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", "3", '{"format": 2}', '{"format": 1}', '{"format": 1, "numbers": [{"method": "pgu"}]}'],
)
def test_a_damaged_baseline_is_one_line(baseline: Path, text: str) -> None:
    baseline.write_text(text)
    with pytest.raises(UsageError, match="damaged.*--update-baseline") as caught:
        regression.compare(results(1), baseline)
    assert "\n" not in str(caught.value)


def test_a_baseline_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no baseline at .*--update-baseline"):
        regression.compare(results(1), tmp_path / "none.json")
    with pytest.raises(UsageError, match="cannot read"):
        regression.compare(results(1), tmp_path)
    with pytest.raises(UsageError, match="cannot write"):
        regression.write_baseline(results(1), tmp_path)


def test_table() -> None:
    moved = [
        regression.Moved("pgu", 2, "test", "error", 3.0, 4.5, 0.25, "beyond the spread of the repeats"),
        regression.Moved("scrub", 0, "-", "a|b", math.nan, 1.0, math.nan, "is new"),
    ]
    assert regression.table(moved).splitlines()[2:] == [
        "| pgu: error on test, step 2 | 3 | 4.5 | 1.5 | 0.25 | beyond the spread of the repeats |",
        "| scrub: a\\|b on - | n/a | 1 | n/a | n/a | is new |",
    ]


def audited(word: str, p: float, rank: float = 1.0) -> Results:
    """A made-up run with an audit whose numbers give pgu this verdict."""
    area, apart = {"leaks": (0.8, 1.0), "indistinguishable": (0.5, 0.01), "not enough data to say": (0.5, 0.4)}[word]
    run = results(1)
    found = {"attack_auc:a": area, "attack_p:a": p, "attack_equivalence_p:a": apart, "compared_rank": rank}
    numbers = [Record("pgu", "all", 0, "forget", metric, value, n=9) for metric, value in found.items()]
    audit = {"headline": "a", "family": ["a"], "margin": 0.05}
    told = run.run | {"steps": 1, "methods": [{"name": "pgu"}], "audit": audit}
    return dataclasses.replace(run, run=told, records=[*run.records, *numbers])


def test_a_verdict_that_changed_is_a_move(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    regression.write_baseline(audited("indistinguishable", 0.5), path)
    assert json.loads(path.read_text())["verdicts"] == {"pgu": "indistinguishable"}
    assert regression.compare(audited("indistinguishable", 0.5), path) == []
    moved = regression.compare(audited("not enough data to say", 0.5), path)
    assert [(one.metric, one.reason) for one in moved] == [
        ("verdict", "was indistinguishable, is not enough data to say")
    ]
    assert "pgu: verdict on forget" in regression.table(moved)
    reasons = {one.metric: one.reason for one in regression.compare(audited("leaks", 0.001), path)}
    assert reasons["verdict"] == "was indistinguishable, is leaks"
    assert "attack_auc:a" in reasons


def test_p_values_and_ranks_are_not_compared(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    regression.write_baseline(audited("indistinguishable", 0.06), path)
    assert regression.compare(audited("indistinguishable", 0.9, rank=2.0), path) == []
    kept = {one["metric"] for one in json.loads(path.read_text())["numbers"]}
    assert "attack_auc:a" in kept
    assert not any(metric.startswith(("attack_p", "attack_equivalence_p", "compared")) for metric in kept)


def test_a_baseline_without_verdicts_compares_numbers(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    regression.write_baseline(audited("indistinguishable", 0.5), path)
    content = json.loads(path.read_text())
    del content["verdicts"]
    path.write_text(json.dumps(content))
    assert regression.compare(audited("not enough data to say", 0.5), path) == []
