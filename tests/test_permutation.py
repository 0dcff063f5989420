"""The permutation test is exact under the null, whatever models share, and notices every made-up way not to forget."""

import math

import numpy as np
import pytest
from scipy.stats import kstest

from bench import permutation
from bench.attack import Seen
from bench.logits import phi
from bench.permutation import exchangeable_p, outlier_p, permutation_p
from bench.worlds import KINDS, World


def odds(seen: Seen) -> np.ndarray:
    return phi(seen.forget.logits, seen.forget.labels)


@pytest.mark.parametrize("spread", [0.0, 0.5])
@pytest.mark.parametrize(("m", "k"), [(6, 10), (16, 16)])
def test_p_values_of_retrained_models_are_uniform(spread: float, m: int, k: int) -> None:
    worlds = [World(seed, samples=20, others=1) for seed in range(150)]
    sides = [[odds(world.seen("exact", n, spread=spread)) for n in (m, k)] for world in worlds]
    found = [permutation_p(*pair, permutations=199, seed=seed) for seed, pair in enumerate(sides)]
    assert kstest(found, "uniform").pvalue > 0.01
    assert np.mean(np.array(found) <= 0.05) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.0, 0.3, 1.0])
def test_p_values_of_retrained_models_are_uniform_over_many_worlds(spread: float) -> None:
    worlds = [World(seed, samples=60, others=1) for seed in range(1000)]
    sides = [[odds(world.seen("exact", n, spread=spread)) for n in (10, 16)] for world in worlds]
    found = [permutation_p(*pair, permutations=199, seed=seed) for seed, pair in enumerate(sides)]
    assert kstest(found, "uniform").pvalue > 0.01
    assert 0.03 < np.mean(np.array(found) <= 0.05) < 0.07


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "exact"])
def test_every_way_not_to_forget_is_noticed(kind: str) -> None:
    for seed, (m, k) in enumerate([(8, 8), (5, 20), (32, 50)]):
        world = World(seed, samples=60, others=1)
        assert permutation_p(odds(world.seen(kind, m, spread=0.3)), odds(world.seen("exact", k, spread=0.3))) < 0.02


def test_statistic_is_that_of_a_loop() -> None:
    g = np.random.default_rng(0)
    x, prior = g.normal(size=(9, 4)), permutation.PRIOR
    split = np.array([[1, 0, 1, 0, 0, 1, 0, 1, 0.0]])
    total = 0.0
    for side in (x[split[0] == 1], x[split[0] == 0]):
        own = [np.var(side[:, i], ddof=1) for i in range(4)]
        for one in own:
            total -= len(side) * math.log(((len(side) - 1) * one + prior * np.mean(own)) / (len(side) - 1 + prior))
    assert permutation._ratios(split, x, 4)[0] == pytest.approx(total, rel=1e-10)


def test_what_must_not_matter_does_not() -> None:
    world = World(1, samples=30, others=1)
    own, others = odds(world.seen("half_forgotten", 6)), odds(world.seen("exact", 7))
    p = permutation_p(own, others, seed=3)
    assert permutation_p(own, others, seed=3) == p
    g = np.random.default_rng(0)
    state = np.random.get_state()[1].copy()  # type: ignore[union-attr, index]
    scale, constant = g.uniform(0.1, 9, 30), g.normal(0, 50, 30)
    assert permutation_p(own * scale + constant, others * scale + constant, seed=3) == pytest.approx(p, abs=1e-12)
    order = g.permutation(30)
    assert permutation_p(own[:, order], others[:, order], seed=3) == pytest.approx(p, abs=1e-12)
    assert permutation_p(-own, -others, seed=3) == pytest.approx(p, abs=1e-12)
    for again in (permutation_p(others, own, seed=3), permutation_p(own[::-1], others[::-1], seed=3)):
        assert again == pytest.approx(p, abs=0.05)  # other permutations of the same models
    assert np.array_equal(state, np.random.get_state()[1])  # type: ignore[index]


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(1, samples=30, others=1)
    sides = odds(world.seen("exact", 6)), odds(world.seen("exact", 7))
    p = permutation_p(*sides, seed=3)
    monkeypatch.setattr(permutation, "CELLS", 1000)
    assert permutation_p(*sides, seed=3) == p


def test_smallest_p_and_repeated_splits() -> None:
    far = np.arange(2.0)[:, None] + np.zeros(3)
    # Of the 6 splits of 2 + 2 models 2 are the true one, up to which side is which: as extreme as itself, however
    # sums round.
    assert permutation_p(far, far + 100, permutations=3000) == pytest.approx(1 / 3, abs=0.03)
    many = np.random.default_rng(0).normal(size=(20, 5))
    assert permutation_p(many, many + 100, permutations=99) == 0.01


def test_degenerate_inputs() -> None:
    ones, noise = np.ones((4, 5)), np.random.default_rng(0).normal(size=(4, 5))
    assert permutation_p(ones, ones) == 1
    assert permutation_p(np.c_[ones, noise], np.c_[ones, noise]) == 1
    assert 0 < permutation_p(ones, 2 * ones) < 0.05  # all models of a side agree, the sides do not
    assert 0 < permutation_p(1e300 * noise[:, :1] * 0 + 5000, noise[:, :1]) <= 1
    assert math.isnan(permutation_p(ones[:1], ones)) and math.isnan(permutation_p(ones, ones[:1]))
    assert math.isnan(permutation_p(ones[:, :0], ones[:, :0]))
    noise[1, 1] = math.nan
    assert math.isnan(permutation_p(ones, noise))


def test_one_retrained_model_among_others_has_a_uniform_rank() -> None:
    found = []
    for seed in range(120):
        world = World(seed, samples=20, others=1)
        model, retrained, originals = (
            odds(world.seen(kind, n, spread=0.5)) for kind, n in (("exact", 1), ("exact", 19), ("no_op", 10))
        )
        found.append(outlier_p(model[0], retrained, originals))
    assert min(found) == 1 / 20 and max(found) == 1
    assert kstest(found, "uniform").pvalue > 0.01  # conservative by half a step, which 120 cannot tell


@pytest.mark.parametrize("kind", ["no_op", "over_forgotten", "both_ways"])
def test_one_model_that_is_not_retrained_stands_out(kind: str) -> None:
    found = []
    for seed in range(10):
        world = World(seed, samples=60, others=1)
        model, retrained, originals = (odds(world.seen(one, n)) for one, n in ((kind, 1), ("exact", 40), ("no_op", 20)))
        found.append(outlier_p(model[0], retrained, originals))
        assert exchangeable_p(model, retrained, originals=originals) == found[-1]
    assert np.mean(np.array(found) < 0.05) >= 0.9


def test_originals_beside_it_help_to_find_one_model_that_has_forgotten_half() -> None:
    alone, beside = [], []
    for seed in range(20):
        world = World(seed, samples=60, others=1)
        model, retrained, originals = (
            odds(world.seen(kind, n, spread=0.2)) for kind, n in (("half_forgotten", 1), ("exact", 40), ("no_op", 20))
        )
        alone.append(outlier_p(model[0], retrained) < 0.05)
        beside.append(outlier_p(model[0], retrained, originals) < 0.05)
    assert sum(beside) >= sum(alone) + 3  # 20 and 15


@pytest.mark.parametrize("n", [0, 1])
def test_one_model_beside_too_few_has_no_p_value(n: int) -> None:
    assert math.isnan(outlier_p(np.zeros(3), np.zeros((n, 3))))
    assert math.isnan(outlier_p(np.array([0.0, math.nan]), np.zeros((5, 2))))
    assert outlier_p(np.zeros(3), np.zeros((5, 3)), np.zeros((5, 3))) == 1.0
