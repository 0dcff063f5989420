"""Areas and rates count models and not rows, treat ties fairly, and say why a number cannot be had."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import t

from bench import roc
from bench.attack import Seen
from bench.logits import phi
from bench.worlds import World

SCORES = arrays(np.float64, st.tuples(st.integers(2, 4), st.integers(1, 6)), elements=st.integers(-3, 3).map(float))


def odds(seen: Seen) -> np.ndarray:
    return phi(seen.forget.logits, seen.forget.labels)


@given(SCORES, SCORES)
def test_areas_are_shares_of_pairs_won_with_ties_half(positives: np.ndarray, negatives: np.ndarray) -> None:
    found = roc.areas(positives, negatives)
    for i, own in enumerate(positives):
        for j, others in enumerate(negatives):
            won = [(p > n) + 0.5 * (p == n) for p in own for n in others]
            assert found[i, j] == pytest.approx(np.mean(won), abs=1e-12)
    area = roc.between(positives, negatives)
    assert area.value == pytest.approx(found.mean()) and np.allclose(area.models, found.mean(axis=1))
    assert 0 <= area.low <= area.value <= area.high <= 1


@given(SCORES, SCORES)
def test_swapping_sides_and_turning_scores_around_mirrors_an_area(positives: np.ndarray, negatives: np.ndarray) -> None:
    one, other, turned = (
        roc.between(*sides) for sides in ((positives, negatives), (negatives, positives), (-positives, -negatives))
    )
    for mirrored in (other, turned):
        assert (mirrored.value, mirrored.error) == pytest.approx((1 - one.value, one.error), abs=1e-12)
        assert (mirrored.low, mirrored.high) == pytest.approx((1 - one.high, 1 - one.low), abs=1e-9)


def test_order_of_models_and_examples_does_not_matter() -> None:
    g = np.random.default_rng(0)
    positives, negatives = g.normal(0.3, 1, (5, 300)), g.normal(0, 1, (6, 300))
    shuffled = positives[g.permutation(5)][:, g.permutation(300)], negatives[g.permutation(6)][:, g.permutation(300)]
    one, other = roc.between(positives, negatives), roc.between(*shuffled)
    assert (one.value, one.error, one.degrees) == pytest.approx((other.value, other.error, other.degrees), rel=1e-12)
    assert roc.rate(*shuffled, 0.01).value == roc.rate(positives, negatives, 0.01).value


def test_variance_over_models_by_hand() -> None:
    positives, negatives = np.array([[1.0], [3.0], [5.0]]), np.array([[2.0], [4.0]])
    # Pairs: 1 beats none, 3 beats 2, 5 beats both. Row means 0, 1/2, 1; column means 2/3, 1/3.
    area = roc.between(positives, negatives)
    rows, columns = 0.25 / 3, (1 / 18) / 2
    degrees = (rows + columns) ** 2 / (rows**2 / 2 + columns**2 / 1)
    assert area.value == 0.5 and area.models.tolist() == [0, 0.5, 1]
    assert (area.error, area.degrees) == pytest.approx((math.sqrt(rows + columns), degrees))
    half = t.ppf(0.975, degrees) * area.error
    assert (area.low, area.high) == (max(0.5 - half, 0), min(0.5 + half, 1))


def test_constant_scores_are_chance_exactly() -> None:
    flat = np.full((4, 7), 0.1)
    for area in (roc.between(flat, flat), roc.within(flat, flat)):
        assert (area.value, area.low, area.high, area.error) == (0.5, 0.5, 0.5, 0)
        assert area.p() == 1 and area.p(0.4) == 0
        assert math.isnan(area.p_equivalent(0.02)), "an attack that learned nothing proves nothing"


def test_areas_within_models() -> None:
    positives, negatives = np.array([[1.0, 3], [0, 1]]), np.array([[2.0, 0, 2], [5, 5, 5]])
    area = roc.within(positives, negatives)
    assert area.models.tolist() == pytest.approx([4 / 6, 0]) and area.value == pytest.approx(1 / 3)
    assert area.error == pytest.approx(np.std([4 / 6, 0], ddof=1) / math.sqrt(2)) and area.degrees == 1


def test_p_values_are_those_of_the_t_test() -> None:
    area = roc.Area(0.53, 0, 1, 0.01, 12.0, np.empty(0))
    assert area.p() == pytest.approx(2 * t.sf(3, 12))
    assert area.p(0.56) == pytest.approx(2 * t.sf(3, 12))
    assert area.p_equivalent(0.05) == pytest.approx(t.sf(2, 12))  # from .55 below, and .53 - .45 is farther
    assert area.p_equivalent(0.02) > 0.5  # outside of the margin
    assert area.p_equivalent(0.02, chance=0.53) == pytest.approx(t.sf(2, 12))


def test_too_few_models_and_bad_scores_have_no_error() -> None:
    g = np.random.default_rng(0)
    one, many, bad = g.normal(size=(1, 9)), g.normal(size=(4, 9)), g.normal(size=(4, 9))
    bad[1, 2] = math.nan
    single = roc.between(one, many)
    assert 0 < single.value < 1
    assert all(math.isnan(x) for x in (single.low, single.high, single.error, single.p(), single.p_equivalent(0.1)))
    for broken in (roc.between(bad, many), roc.between(many, bad), roc.within(bad, many), roc.between(many[:0], many)):
        assert math.isnan(broken.value) and math.isnan(broken.p()) and not broken.models.size
    assert np.isnan(roc.areas(bad, many)).sum() == 4
    assert math.isnan(roc.between(many[:, :0], many).value)


def test_a_threshold_takes_all_of_a_tie_or_none() -> None:
    negatives = np.concatenate([np.zeros(97), [1, 2, 2]])
    negatives = np.stack([negatives] * 10)  # 1000 negatives: 2 % reach 2, 3 % reach 1
    positives = np.array([[3.0, 2.0, 1.0, 0.0]] * 2)
    found = {false: roc.rate(positives, negatives, false) for false in (0.03, 0.025, 0.02, 0.0199)}
    assert [rate.value for rate in found.values()] == [0.75, 0.5, 0.5, 0.25]
    assert all(rate.reason == "ok" and rate.low == rate.value == rate.high for rate in found.values())
    flat = roc.rate(np.zeros((2, 4)), np.zeros((10, 100)), 0.05)
    assert (flat.value, flat.low, flat.high) == (0, 0, 0)
    apart = roc.rate(np.ones((2, 4)), np.zeros((10, 100)), 0.05)
    assert (apart.value, apart.low, apart.high) == (1, 1, 1), "negatives that all tie do not hide perfect separation"


def test_a_rate_is_refused_with_the_reason() -> None:
    g = np.random.default_rng(0)
    positives, negatives = g.normal(size=(5, 100)), g.normal(size=(5, 100))
    assert roc.rate(positives, negatives, 0.02).reason == "ok"
    refused = {
        "needs 1000 negatives and has 500": roc.rate(positives, negatives, 0.01),
        "needs 10000 negatives and has 500": roc.rate(positives, negatives, 0.001),
        "too_few_models": roc.rate(positives[:1], negatives, 0.02),
        "diverged": roc.rate(np.where(positives > 2, np.nan, positives), negatives, 0.02),
    }
    for reason, rate in refused.items():
        assert rate.reason == reason and math.isnan(rate.value) and math.isnan(rate.low) and math.isnan(rate.high)


def test_the_interval_of_a_rate_grows_with_what_models_share() -> None:
    g = np.random.default_rng(0)
    widths = []
    for spread in (0.0, 1.0):
        positives = g.normal(size=(10, 1)) * spread + g.normal(1, 1, (10, 200))
        negatives = g.normal(size=(10, 1)) * spread + g.normal(0, 1, (10, 200))
        rate = roc.rate(positives, negatives, 0.05)
        assert rate.low <= rate.value <= rate.high
        assert roc.rate(positives, negatives, 0.05) == rate  # the same resamples
        widths.append(rate.high - rate.low)
    assert widths[1] > 2 * widths[0]


def covered(worlds: int, spread: float, m: int, k: int) -> tuple[float, float]:
    """Shares of worlds of retrained models only whose interval holds .5 and whose p-value is below .05."""
    held, low = [], []
    for seed in range(worlds):
        world = World(seed, samples=30, others=1)
        area = roc.between(*(odds(world.seen("exact", n, spread=spread)) for n in (m, k)))
        held.append(area.low <= 0.5 <= area.high)
        low.append(area.p() < 0.05)
    return float(np.mean(held)), float(np.mean(low))


@pytest.mark.parametrize(("spread", "m", "k"), [(0.0, 8, 8), (1.0, 5, 12)])
def test_intervals_hold_the_truth_also_where_models_share_an_offset(spread: float, m: int, k: int) -> None:
    held, low = covered(150, spread, m, k)
    assert held > 0.89 and low < 0.11


@pytest.mark.slow
@pytest.mark.parametrize(("spread", "m", "k"), [(0.0, 5, 5), (0.3, 8, 16), (1.0, 5, 20), (1.0, 16, 16)])
def test_coverage_of_intervals(spread: float, m: int, k: int) -> None:
    held, low = covered(1000, spread, m, k)
    assert 0.92 < held < 0.98 and 0.02 < low < 0.08
