"""Log-odds over models: slow loops, closed forms, floors, planted shifts, invariances and values at the edge."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bench import competition, margins
from bench.competition import forgetting_score

KLOM_MOST = 11.512925
Columns = Callable[[np.ndarray, np.ndarray], np.ndarray]
per_sample: list[Columns] = [margins.klom, margins.klom_quantile, competition.epsilons]
tied = hnp.arrays(np.float64, (7, 4), elements=st.integers(-6, 6).map(lambda v: v / 4))


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def slow_klom(u: np.ndarray, r: np.ndarray) -> list[float]:
    found = []
    for i in range(u.shape[1]):
        a, b = np.clip(u[:, i], -100, 100), np.clip(r[:, i], -100, 100)
        edges = np.histogram_bin_edges(np.concatenate([a, b]), 20)
        total = 0.0
        for x, y in zip(np.histogram(a, edges)[0], np.histogram(b, edges)[0], strict=True):
            if x:
                total += x / len(a) * math.log(x / len(a) / max(y / len(b), 1e-5))
        found.append(total)
    return found


def slow_quantile(u: np.ndarray, r: np.ndarray) -> list[float]:
    found = []
    for i in range(u.shape[1]):
        pooled = [*u[:, i], *r[:, i]]
        bins = [[10 * sum(y < x for y in pooled) // len(pooled) for x in side[:, i]] for side in (u, r)]
        p, q = ([(side.count(b) + 0.5) / (len(side) + 5) for b in range(10)] for side in bins)
        found.append(sum(x * math.log(x / y) for x, y in zip(p, q, strict=True)))
    return found


def slow_rule(positive: np.ndarray, negative: np.ndarray, delta: float = 1e-5) -> float:
    """Epsilon of one rule from who is called positive on each side; nothing, as -1, where it is discarded."""
    miss, false = 1 - positive.mean(), negative.mean()
    if miss == 0 and false == 0:
        return 50.0
    if miss == 0 or false == 0:
        return -1.0
    up, down = 1 - delta - false, 1 - delta - miss
    return max(math.log(up / miss) if up > 0 else 0.0, math.log(down / false) if down > 0 else 0.0, 0.0)


def slow_epsilon(u: np.ndarray, r: np.ndarray) -> float:
    """The competition's grid of thresholds and intervals, rule by rule."""
    high, low = (r, u) if np.median(r) > np.median(u) else (u, r)
    first, last = min(u.min(), r.min()), max(u.max(), r.max())
    found = [slow_rule(high >= t, low >= t) for t in np.linspace(first, last, math.ceil((last - first) * 100))]
    peaky, wide = (r, u) if np.ptp(r) < np.ptp(u) else (u, r)
    seen = set()
    for right in np.linspace(peaky.max() - 2, peaky.max() + 2, 400):
        left = np.linspace(right - np.ptp(peaky) - 2, right - np.ptp(peaky) + 2, 400)[:, None]
        counts = (((left <= side) & (side <= right)).sum(axis=1) for side in (peaky, wide))
        seen.update(zip(*counts, strict=True))
    for inside, outside in seen:
        found.append(slow_rule(np.arange(len(peaky)) < inside, np.arange(len(wide)) < outside))
    return max(found)


@pytest.mark.parametrize("seed", range(5))
def test_klom_equals_a_loop(seed: int) -> None:
    u, r = normal(seed, 9, 6), 1.5 * normal(seed + 10, 12, 6)
    np.testing.assert_allclose(margins.klom(u, r), slow_klom(u, r), rtol=1e-10)
    np.testing.assert_allclose(margins.klom_quantile(u, r), slow_quantile(u, r), rtol=1e-10)


@given(tied, tied)
def test_quantile_klom_of_ties_equals_a_loop(u: np.ndarray, r: np.ndarray) -> None:
    np.testing.assert_allclose(margins.klom_quantile(u, r), slow_quantile(u, r), rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize(
    ("seed", "scale"), [(0, 1.0), (1, 0.5), (2, 3.0), (3, 0.05), (4, 20.0), (5, 0.02), (6, 0.02), (7, 0.01)]
)
def test_epsilon_equals_the_grid_of_the_competition(seed: int, scale: float) -> None:
    u, r = scale * normal(seed, 9, 1), scale * (normal(seed + 10, 11, 1) + 0.4)  # the smallest fall through the grid
    assert competition.epsilons(u, r)[0] == pytest.approx(slow_epsilon(u[:, 0], r[:, 0]), rel=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_shifts_and_band_equal_loops(seed: int) -> None:
    u, r = normal(seed, 4, 5), normal(seed + 10, 6, 5)
    variances = [np.var(r[:, i], ddof=1) for i in range(5)]
    scale = [math.sqrt((5 * v + 4 * np.mean(variances)) / 9) for v in variances]
    slow = [[np.mean([(u[a, i] - r[k, i]) / scale[i] for i in range(5)]) for k in range(6)] for a in range(4)]
    np.testing.assert_allclose(margins.pair_shifts(u, r), slow, rtol=1e-10)
    above = [100 * np.mean([u[a, i] > np.percentile(r[:, i], 97.5) for i in range(5)]) for a in range(4)]
    below = [100 * np.mean([u[a, i] < np.percentile(r[:, i], 2.5) for i in range(5)]) for a in range(4)]
    np.testing.assert_allclose(margins.beyond(u, r), [above, below], rtol=1e-10)


def test_klom_closed_forms() -> None:
    u = normal(0, 20, 50)
    assert (margins.klom(u, u) == 0).all() and (margins.klom_quantile(u, u) == 0).all()
    zeros, ones = np.zeros((8, 3)), np.ones((5, 3))
    np.testing.assert_allclose(margins.klom(zeros, ones), KLOM_MOST, rtol=1e-6)
    np.testing.assert_allclose(margins.klom(1e5 * ones, -1e300 * ones), KLOM_MOST, rtol=1e-6)
    assert (margins.klom(zeros, zeros) == 0).all() and (margins.klom(200 * ones, 300 * ones) == 0).all()
    half = np.array([[0.0], [1.0]])
    assert margins.klom(half[:1], half)[0] == pytest.approx(math.log(2)), "KL(unlearned || retrained)"
    assert margins.klom(half, half[:1])[0] == pytest.approx(math.log(0.5) + KLOM_MOST / 2)


def test_klom_floor_and_planted_shifts_of_a_hundred_models() -> None:
    u, r = normal(0, 2, 100, 2000)
    coarse, fine = margins.klom(u, r), margins.klom_quantile(u, r)
    assert coarse.mean() == pytest.approx(0.35, rel=0.1) and np.quantile(coarse, 0.95) == pytest.approx(0.69, rel=0.1)
    assert fine.mean() == pytest.approx(0.082, rel=0.1) and np.quantile(fine, 0.95) == pytest.approx(0.159, rel=0.1)
    assert coarse.min() >= -1e-3 and fine.min() >= 0
    for moved, expected in ((0.5, 0.60), (1.0, 1.23), (2.0, 3.67), (4.0, 8.56)):
        assert margins.klom(u + moved, r).mean() == pytest.approx(expected, rel=0.1)
    assert margins.klom_quantile(u + 1, r).mean() == pytest.approx(0.54, rel=0.1)


@pytest.mark.parametrize("models", [16, 32, 64])
def test_exact_retraining_has_the_known_forgetting_score(models: int) -> None:
    u, r = normal(models, 2, models, 150)
    assert 0.13 <= forgetting_score(u, r) <= 0.24
    assert forgetting_score(u, r) == forgetting_score(r, u)


def test_forgetting_score_falls_with_the_shift_to_nothing() -> None:
    u, r = normal(1, 2, 64, 100)
    scores = [forgetting_score(u + moved, r) for moved in (0.0, 0.25, 0.5, 1.0, 2.0)]
    assert (np.diff(scores) < 0).all()
    assert forgetting_score(u + 50, r) == 0.0
    assert (competition.epsilons(u + 50, r) == 50).all()
    assert (competition.epsilons(u / 1000, r) == 50).all(), "far too peaky"


def test_forgetting_score_of_constants() -> None:
    same, other = np.zeros((8, 3)), np.full((8, 3), 0.001)
    assert forgetting_score(same, same) == 1.0
    assert forgetting_score(same, other) == 0.0
    assert forgetting_score(same, normal(0, 8, 3)) == 0.0
    spread = np.tile(np.arange(8.0)[:, None], (1, 3))
    assert 0.0 <= forgetting_score(spread, spread) <= 1.0


@pytest.mark.parametrize("k", [16, 50, 500])
def test_band_of_few_models_is_left_more_often(k: int) -> None:
    g = np.random.default_rng(k)
    above, below = margins.beyond(g.uniform(size=(4, 20_000)), g.uniform(size=(k, 20_000)))
    expected = 100 * (1 - (1 + 0.975 * (k - 1)) / (k + 1))
    assert above.mean() == pytest.approx(expected, rel=0.06) and below.mean() == pytest.approx(expected, rel=0.06)


@pytest.mark.parametrize("function", per_sample)
@given(st.integers(0, 999))
def test_order_of_models_and_samples_does_not_matter(function: Columns, seed: int) -> None:
    g = np.random.default_rng(seed)
    u, r = g.normal(size=(6, 5)), g.normal(size=(7, 5))
    found, order = function(u, r), g.permutation(5)
    np.testing.assert_allclose(function(g.permutation(u), g.permutation(r)), found, rtol=1e-12)
    np.testing.assert_allclose(function(u[:, order], r[:, order]), found[order], rtol=1e-12)


@given(tied, tied)
def test_quantile_klom_sees_order_alone(u: np.ndarray, r: np.ndarray) -> None:
    np.testing.assert_array_equal(margins.klom_quantile(u, r), margins.klom_quantile(np.exp(u), np.exp(r)))


@pytest.mark.parametrize("function", per_sample)
def test_samples_that_are_not_finite_have_no_distance(function: Columns) -> None:
    u, r = normal(0, 5, 3), normal(1, 5, 3)
    clean = function(u, r)
    u[2, 1] = math.nan
    np.testing.assert_array_equal(function(u, r), [clean[0], math.nan, clean[2]])
    assert function(u[:, :0], r[:, :0]).shape == (0,)


def test_score_and_shift_without_enough_models_or_samples() -> None:
    u, r = normal(0, 5, 3), normal(1, 5, 3)
    assert math.isnan(forgetting_score(u[:1], r)) and math.isnan(forgetting_score(u[:, :0], r[:, :0]))
    assert forgetting_score(u[:2], r[:2]) == 0.0, "two models a side leave no bucket"
    assert np.isnan(margins.pair_shifts(u, r[:1])).all() and np.isnan(margins.pair_shifts(u[:, :0], r[:, :0])).all()
    constant = r.copy()
    constant[:, 0] = 1.0
    assert np.isfinite(margins.pair_shifts(u, constant)).all(), "a sample without spread borrows that of the others"
