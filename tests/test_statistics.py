"""Statistics against closed forms, scipy.stats and slow loops."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from bench import statistics

EDGES = np.linspace(-19, 2, 106)
quick = settings(max_examples=60, deadline=None)
# Few distinct values, so that ties happen.
samples = hnp.arrays(np.float64, st.integers(1, 12), elements=st.integers(-6, 6).map(lambda v: v / 4))


def test_interval_matches_scipy() -> None:
    values = [1.0, 2.5, 2.0, 4.0, 3.25]
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    mean, our_low, our_high, n = statistics.mean_interval(values)
    assert (mean, n) == (2.55, 5)
    np.testing.assert_allclose([our_low, our_high], [low, high], rtol=1e-12)
    assert statistics.interval_sd(our_low, our_high, n) == pytest.approx(np.std(values, ddof=1), rel=1e-12)


def test_interval_of_few_or_identical_values() -> None:
    assert statistics.mean_interval([0.1, 0.1, 0.1]) == (0.1, 0.1, 0.1, 3)
    assert statistics.sd([0.1, 0.1, 0.1]) == 0.0
    mean, low, high, n = statistics.mean_interval([7.0])
    assert (mean, n) == (7.0, 1) and math.isnan(low) and math.isnan(high)
    assert all(map(math.isnan, statistics.mean_interval([])[:3]))
    assert statistics.mean_interval([1.0, math.nan, 3.0, math.inf])[::3] == (2.0, 2)
    assert math.isnan(statistics.sd([1.0])) and math.isnan(statistics.interval_sd(0.0, 1.0, 1))


def test_interval_covers_the_mean_at_its_level() -> None:
    draws = np.random.default_rng(0).normal(size=(2000, 5))
    covered = [low <= 0 <= high for _, low, high, _ in map(statistics.mean_interval, draws)]
    assert 0.93 < np.mean(covered) < 0.97


def test_explained_difference_is_welch() -> None:
    a, b = np.array([1.0, 2.0, 4.0, 4.5, 3.0]), np.array([5.0, 9.0, 6.0])
    spreads = [(statistics.sd(a), len(a)), (statistics.sd(b), len(b))]
    p = stats.ttest_ind(a, b, equal_var=False).pvalue
    assert statistics.explained_difference(spreads, float(p)) == pytest.approx(abs(a.mean() - b.mean()), rel=1e-9)
    assert statistics.explained_difference([(0.0, 5), (0.0, 3)], 1e-3) == 0.0
    assert statistics.explained_difference([(1e-100, 5), (0.0, 3)], 1e-3) > 0.0


@quick
@given(samples, samples)
def test_auc_equals_a_count_of_pairs_and_the_area_of_the_curve(a: np.ndarray, b: np.ndarray) -> None:
    pairs = [1.0 if x > y else 0.5 if x == y else 0.0 for x in a for y in b]
    assert statistics.auc(a, b) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert statistics.auc(a, b) + statistics.auc(b, a) == pytest.approx(1.0, abs=1e-12)
    fpr, tpr = statistics.roc_curve(a, b)
    assert np.trapezoid(tpr, fpr) == pytest.approx(np.mean(pairs), abs=1e-12)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(fpr) >= 0).all() and (np.diff(tpr) >= 0).all()


def test_auc_of_degenerate_scores() -> None:
    assert statistics.auc(np.zeros(7), np.zeros(3)) == 0.5
    assert statistics.auc([2.0, 3.0], [0.0, 1.0]) == 1.0
    for bad in ([], [math.nan], [math.inf]):
        assert math.isnan(statistics.auc(bad, [0.0])) and math.isnan(statistics.auc([0.0], bad))
        assert statistics.roc_curve(bad, [0.0])[0].size == 0


@quick
@given(samples, samples)
def test_distances_match_references_for_unequal_sizes(a: np.ndarray, b: np.ndarray) -> None:
    assert statistics.wasserstein(a, b) == pytest.approx(stats.wasserstein_distance(a, b), abs=1e-12)
    at = np.union1d(a, b)
    gap = [abs((a <= point).mean() - (b <= point).mean()) for point in at]
    assert statistics.ks_distance(a, b) == pytest.approx(max(gap), abs=1e-12)


@quick
@given(samples, st.floats(-5, 5))
def test_distances_of_a_sample_to_itself_and_to_its_shift(h: np.ndarray, shift: float) -> None:
    assert statistics.wasserstein(h, h) == 0 and statistics.ks_distance(h, h) == 0
    assert statistics.js_divergence(h, h, EDGES) == 0
    assert statistics.wasserstein(h, h + shift) == pytest.approx(abs(shift), abs=1e-12)


@quick
@given(samples, samples)
def test_js_equals_the_sum_over_its_bins(a: np.ndarray, b: np.ndarray) -> None:
    edges = np.linspace(-1, 1, 5)
    counts = [np.histogram(h, [-np.inf, *edges, np.inf])[0] / len(h) for h in (a, b)]
    total = 0.0
    for p, q in zip(*counts, strict=True):
        middle = (p + q) / 2
        total += sum(v * math.log(v / middle) / 2 for v in (p, q) if v > 0)
    assert statistics.js_divergence(a, b, edges) == pytest.approx(total / math.log(2), abs=1e-12)
    assert statistics.js_divergence(a, b, edges) == pytest.approx(statistics.js_divergence(b, a, edges), abs=1e-15)


def test_js_is_one_on_disjoint_samples_and_keeps_what_lies_outside_the_bins() -> None:
    assert statistics.js_divergence([-3.0, -4.0], [0.5], EDGES) == 1.0
    assert statistics.js_divergence([-900.0, -901.0], [900.0], EDGES) == 1.0
    assert statistics.js_divergence([-900.0], [-901.0], EDGES) == 0.0


DISTANCES: dict[str, Any] = {
    "w1": statistics.wasserstein,
    "ks": statistics.ks_distance,
    "js": lambda a, b: statistics.js_divergence(a, b, EDGES),
}


@pytest.mark.parametrize("name", DISTANCES)
def test_distances_broadcast_and_mark_bad_rows(name: str) -> None:
    distance = DISTANCES[name]
    draw = np.random.default_rng(1).normal(size=(4, 9))
    one = draw[0, :5]
    rows = distance(one, draw)
    np.testing.assert_allclose(rows, [distance(one, row) for row in draw], rtol=1e-12)
    draw[2, 3] = math.inf
    assert np.isnan(distance(one, draw)).tolist() == [False, False, True, False]
    assert np.isnan(distance(one, [])) and np.isnan(distance([], one))
