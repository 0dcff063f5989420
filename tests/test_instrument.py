"""The instrument's own release test: it passes exact retraining, convicts the original, and is calibrated.

The first tests run the command line with the pool of the quick start; the last ones are the small brothers of
`benchmarks/calibration.py`.
"""

from __future__ import annotations

import functools
import resource
from collections import Counter
from collections.abc import Mapping

import calibration
import numpy as np
import pytest
from command import Place
from scipy import stats

from bench import records, registry, verdict
from bench.audit import family
from bench.interface import Record
from bench.records import Results

WORLDS = 200
SECONDS = 40  # of one core


def audited(place: Place, scenario: str) -> Results:
    """The quick start with no method but the two whose truth is known, and the attacks that decide."""
    deciding = family({name: registry.load("attacks", name) for name in registry.names("attacks")})
    words = ("--preset", "digits", "--scenario", scenario, "--methods", "original,retrain")
    finished = place.benchmark(*words, "--attacks", ",".join(deciding))
    assert finished.code == 0, finished.err
    results = records.load(place.out)
    assert results.run["audit"]["family"] == deciding
    assert results.run["audit"]["models"] == {
        "unlearned_fit": 16, "unlearned_test": 16, "retrained_fit": 25, "retrained_test": 25,
    }  # fmt: skip
    return results


def told(results: Results, method: str, metric: str) -> Record:
    place = (method, "all", "forget", metric)
    [one] = [one for one in results.records if (one.method, one.seed, one.part, one.metric) == place]
    return one


def test_retraining_passes_and_the_original_does_not(run: Place) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    results = audited(run, "sample_removal")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = verdict.verdicts(results.run, results.records)
    assert {name: one.word for name, one in words.items()} == {
        "original": verdict.LEAKS,
        "retrain": verdict.INDISTINGUISHABLE,
    }
    assert words["original"].found_by[0] == "adaptive_xgboost" and "per_example" in words["original"].found_by
    assert words["original"].reason == "surer of the forget set than retrained models"
    original, retrain = (told(results, name, "attack_auc:per_example") for name in ("original", "retrain"))
    assert original.low > 0.55 and retrain.low < 0.5 < retrain.high
    assert told(results, "retrain", "attack_p:per_example").value > 0.05
    floor = told(results, "reference", "attack_auc:per_example")
    assert abs(floor.value - 0.5) < 0.05
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < SECONDS


@pytest.mark.slow
def test_in_class_removal_the_original_is_convicted_and_retraining_is_not(run: Place) -> None:
    results = audited(run, "class_removal")
    words = verdict.verdicts(results.run, results.records)
    assert words["original"].word == verdict.LEAKS
    assert words["retrain"].word not in (verdict.LEAKS, verdict.OVER_FORGETS)
    for name in ("per_example", "adaptive_xgboost", "rmia", "label_only"):
        assert told(results, "original", f"attack_auc:{name}").value > 0.99
        tpr = told(results, "original", f"attack_tpr_1:{name}")
        assert tpr.value == 1.0, "models that are told apart surely are told apart without a false alarm"


@functools.cache
def null() -> list[Mapping[str, Record]]:
    """What the attacks that decide find in worlds of exact retraining."""
    return [calibration._null(seed, calibration.SAMPLES, 0.3) for seed in range(WORLDS)]


@pytest.mark.slow
def test_p_values_of_exact_retraining_are_uniform() -> None:
    found = [one["attack_p:per_example"].value for one in null()]
    assert stats.kstest(found, "uniform").pvalue > 0.01


@pytest.mark.slow
def test_exact_retraining_is_accused_no_more_often_than_is_said() -> None:
    words = Counter(calibration.judged(one) for one in null())
    assert words[verdict.LEAKS] + words[verdict.OVER_FORGETS] <= 0.08 * WORLDS
    assert words[verdict.INDISTINGUISHABLE] > 0.5 * WORLDS
    for name in calibration.attacks():
        alarms = np.mean([one[f"attack_p:{name}"].value < 0.05 for one in null()])
        assert alarms < 0.11, name


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    areas = [one["attack_auc:per_example"] for one in null()]
    assert 0.9 <= np.mean([area.low <= 0.5 <= area.high for area in areas]) <= 0.99
    held = np.mean([calibration._covered(seed, "half_forgotten", 0.3)[0] for seed in range(WORLDS // 2)])
    assert 0.9 <= held <= 0.99
