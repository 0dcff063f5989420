"""Comparing methods: against scipy.stats, exact counts and closed forms."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench import comparison
from bench.comparison import compare

few = st.lists(st.integers(-3, 3), min_size=1, max_size=8)
p_values = st.lists(st.floats(0, 1) | st.just(math.nan), max_size=8)


@pytest.mark.parametrize("seed", range(5))
def test_signed_rank_matches_scipy_where_nothing_is_tied(seed: int) -> None:
    a, b = np.random.default_rng(seed).normal(size=(2, 14))
    a += 0.3
    assert comparison.signed_rank(a, b) == pytest.approx(stats.wilcoxon(a, b, method="exact").pvalue, rel=1e-10)
    a[3] = b[7] = math.nan
    kept = np.isfinite(a) & np.isfinite(b)
    assert comparison.signed_rank(a, b) == comparison.signed_rank(a[kept], b[kept])


@given(few)
def test_signed_rank_with_ties_and_zeros_counts_all_signs(gaps: list[int]) -> None:
    moved = np.array([gap for gap in gaps if gap])
    ranks = stats.rankdata(np.abs(moved))
    sums = np.array([(ranks * signs).sum() for signs in itertools.product((0, 1), repeat=len(moved))])
    found = (ranks * (moved > 0)).sum()
    expected = min(1.0, 2 * min((sums <= found).mean(), (sums >= found).mean()))
    assert comparison.signed_rank(gaps, np.zeros(len(gaps))) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize(("n", "least"), [(5, 0.0625), (6, 0.03125), (9, 0.00390625)])
def test_smallest_possible_p(n: int, least: float) -> None:
    assert comparison.signed_rank(np.arange(1.0, n + 1), np.zeros(n)) == least


@pytest.mark.parametrize(("methods", "originals"), [(2, 6), (3, 8), (5, 4), (4, 9)])
def test_no_comparison_gives_less_than_the_smallest_p(methods: int, originals: int) -> None:
    values = {f"m{at}": at + np.arange(originals) / (10.0 + at) for at in range(methods)}
    found = [one.p for one in comparison.compare(values) if not np.isnan(one.p)]
    assert min(found) == pytest.approx(comparison.smallest_p(methods, originals))


def test_signed_rank_of_degenerate_values() -> None:
    same = np.full(6, 0.1)
    assert comparison.signed_rank(same, same) == 1.0
    assert comparison.signed_rank([0.3, 0.1], [0.1 + 0.2, 0.1]) == 1.0, "rounding is no difference"
    assert math.isnan(comparison.signed_rank([], []))
    assert math.isnan(comparison.signed_rank([math.nan], [1.0]))
    with pytest.raises(ValueError, match="pairs"):
        comparison.signed_rank([1.0, 2.0], [1.0])


def test_holm_by_hand() -> None:
    adjusted = comparison.holm([0.01, math.nan, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(adjusted, [0.03, math.nan, 0.06, 0.06, 0.02], rtol=1e-12)


@given(p_values)
def test_holm_keeps_the_order_and_missing_values(given_p: list[float]) -> None:
    p = np.array(given_p)
    adjusted = comparison.holm(p)
    there = ~np.isnan(p)
    np.testing.assert_array_equal(np.isnan(adjusted), ~there)
    assert (adjusted[there] >= p[there]).all() and (adjusted[there] <= 1).all()
    assert (np.diff(adjusted[there][np.argsort(p[there], kind="stable")]) >= 0).all()


def test_average_ranks_share_ties_and_put_failures_last() -> None:
    values = np.array([[0.1, 0.2, 0.1, math.nan], [3.0, math.nan, math.nan, 1.0]])
    np.testing.assert_array_equal(comparison.average_ranks(values), [1.75, 3.25, 2.5, 2.5])
    np.testing.assert_array_equal(comparison.average_ranks(values[:1], "largest"), [2.5, 1.0, 2.5, 4.0])
    assert np.isnan(comparison.average_ranks(np.empty((0, 3)))).all()


@pytest.mark.parametrize("seed", range(5))
def test_ranks_and_friedman_match_scipy(seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 6, (12, 4)).astype(float)
    np.testing.assert_allclose(comparison.average_ranks(values), stats.rankdata(values, axis=1).mean(0), rtol=1e-12)
    assert comparison.friedman(values) == pytest.approx(stats.friedmanchisquare(*values.T).pvalue, rel=1e-10)
    assert comparison.friedman(-values, "largest") == comparison.friedman(values)


def test_friedman_of_degenerate_values() -> None:
    assert comparison.friedman(np.ones((5, 3))) == 1.0
    assert math.isnan(comparison.friedman(np.ones((1, 3)))) and math.isnan(comparison.friedman(np.ones((5, 1))))


@pytest.mark.parametrize(("blocks", "difference"), [(12, 4.81), (20, 3.73), (40, 2.63)])
def test_critical_difference_of_twelve_methods(blocks: int, difference: float) -> None:
    assert comparison.critical_difference(12, blocks) == pytest.approx(difference, abs=0.005)
    assert math.isnan(comparison.critical_difference(1, blocks)) and math.isnan(comparison.critical_difference(12, 0))


@given(st.integers(2, 30), st.integers(1, 2))
def test_two_blocks_never_tell_methods_apart(methods: int, blocks: int) -> None:
    assert comparison.critical_difference(methods, blocks) > methods - 1


def test_groups_not_told_apart_by_hand() -> None:
    ranks = [1.2, 4.9, 2.9, 3.5, 1.2]
    assert comparison.not_told_apart(ranks, 2.0) == [[0, 4, 2], [2, 3], [3, 1]]
    assert comparison.not_told_apart(ranks, 9.0) == [[0, 4, 2, 3, 1]]
    assert comparison.not_told_apart(ranks, 0.0) == [[0], [4], [2], [3], [1]]
    assert comparison.not_told_apart([], 1.0) == []


@given(st.lists(st.integers(1, 12), min_size=1, max_size=12), st.floats(0.1, 12))
def test_two_methods_share_a_group_exactly_where_they_are_not_told_apart(ranks: list[int], difference: float) -> None:
    groups = comparison.not_told_apart(ranks, difference)
    for one, other in itertools.combinations(range(len(ranks)), 2):
        together = any(one in group and other in group for group in groups)
        assert together == (abs(ranks[one] - ranks[other]) < difference)
    assert not any(set(one) < set(other) for one, other in itertools.permutations(groups, 2))


def test_compare_orders_methods_and_shows_the_worse_ones() -> None:
    g = np.random.default_rng(0)
    base = g.normal(size=16)
    values = {"far": base + 5, "near": base + 0.1 * g.normal(size=16), "best": base - 0.01}
    rows = compare(values)
    assert [row.method for row in rows][-1] == "far" and {row.n for row in rows} == {16}
    assert [row.not_worse for row in rows] == [True, True, False]
    assert math.isnan(rows[0].p) and rows[2].p == pytest.approx(3 * 2**-15)
    assert [row.rank for row in rows][-1] == 3.0 and sum(row.rank for row in rows) == 6.0
    flipped = compare({name: -column for name, column in values.items()}, "largest")
    assert [(r.method, -r.mean, r.rank, r.not_worse) for r in flipped] == [
        (r.method, r.mean, r.rank, r.not_worse) for r in rows
    ]


def test_compare_holds_failures_against_a_method() -> None:
    good = np.linspace(1, 2, 12)
    lucky = np.where(np.arange(12) < 9, math.nan, good - 0.5)  # better where it did not fail
    rows = compare({"lucky": lucky, "good": good, "lost": np.full(12, math.nan)})
    assert [(row.method, row.n) for row in rows] == [("good", 12), ("lucky", 3), ("lost", 0)]
    assert rows[1].mean == pytest.approx(good[9:].mean() - 0.5) and math.isnan(rows[2].mean)
    assert [row.not_worse for row in rows] == [True, False, False]
    assert rows[2].rank == pytest.approx((9 * 2.5 + 3 * 3) / 12)


def test_compare_of_few_or_no_values() -> None:
    five = compare({"a": np.zeros(5), "b": np.ones(5)})
    assert five[1].p == 0.0625 and five[1].not_worse, "five originals never show anything"
    assert compare({}) == [] and compare({"a": [1.0, 2.0]})[0].rank == 1.0
    lost = compare({"a": [math.nan] * 6, "b": [math.nan] * 6})
    assert [(row.n, row.not_worse, row.rank) for row in lost] == [(0, False, 1.5)] * 2
    with pytest.raises(ValueError, match="one value per original"):
        compare({"a": [1.0], "b": [1.0, 2.0]})


def test_equal_methods_are_rarely_called_worse() -> None:
    g = np.random.default_rng(0)
    called = [
        not all(r.not_worse for r in compare(dict(zip("abcde", g.normal(size=(5, 16)), strict=True))))
        for _ in range(150)
    ]
    assert np.mean(called) < 0.08
