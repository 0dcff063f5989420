"""What single attacks must give: closed forms, golden worlds, and the faults that other benchmarks' attacks have."""

import math
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import betabinom, norm, t

from attacks import _gaussian as gaussian
from attacks._population import of_classes
from attacks.entropy import Entropy
from attacks.label_only import LabelOnly
from attacks.lira import Lira
from attacks.loss import Loss
from attacks.per_example import PerExample
from attacks.rmia import Rmia
from attacks.svc import FEATURES, Svc, features
from bench import roc
from bench.attack import Attack, Known, Points, Seen
from bench.worlds import World

# World: areas of an attack per example that learned from originals and of one that learned from the world's own models,
# the latter's true positive rate at 1 % false ones; from a simulation in other code.
GOLDEN = {
    "exact": (0.502, 0.498, 0.010),
    "no_op": (0.798, 0.799, 0.219),
    "half_forgotten": (0.663, 0.673, 0.082),
    "partly_leaking": (0.541, 0.581, 0.094),
    "over_forgotten": (0.283, 0.915, 0.317),
    "both_ways": (0.548, 0.848, 0.161),
    "too_peaky": (0.450, 0.933, 0.093),
}
Judged = dict[str, tuple[float, ...]]


def of_odds(odds: np.ndarray) -> Seen:
    """Two-class models of which all examples have label 1 and these log-odds `[models, n]`."""
    return Seen.of(np.stack([np.zeros_like(odds), odds], axis=-1).astype(np.float32), np.ones(odds.shape[1], np.int64))


def of_points(points: Points) -> Seen:
    return Seen(points, points, points, points)


def judge(attack: Attack, known: Known, unlearned: Seen, retrained: Seen) -> tuple[np.ndarray, np.ndarray]:
    arrays = attack.fit(known, 1)
    return attack.score(arrays, unlearned, unlearned.forget), attack.score(arrays, retrained, retrained.forget)


def golden(worlds: int) -> Judged:
    """The same over a number of worlds, and as the last the area of `Lira`."""
    found: dict[str, list[tuple[float, ...]]] = {kind: [] for kind in GOLDEN}
    for seed in range(worlds):
        world = World(seed, others=1)
        retrained = world.seen("exact", 48)
        fit, test = retrained.only(slice(32)), retrained.only(slice(32, None))
        originals = world.seen("no_op", 32)
        for kind in GOLDEN:
            own = world.seen(kind, 48)
            tested = own.only(slice(32, None)), test
            fixed, lira = (judge(attack, Known(originals, fit), *tested) for attack in (PerExample(), Lira()))
            adaptive = judge(PerExample(), Known(own.only(slice(32)), fit), *tested)
            areas = [roc.between(*scores).value for scores in (fixed, adaptive, lira)]
            one = *areas[:2], roc.rate(*adaptive, 0.01).value, areas[2]
            found[kind].append(one)
    return {kind: tuple(np.mean(rows, axis=0)) for kind, rows in found.items()}


@pytest.mark.parametrize(("worlds", "within"), [(2, 0.03), pytest.param(10, 0.01, marks=pytest.mark.slow)])
def test_golden_worlds(worlds: int, within: float) -> None:
    for kind, (*found, lira) in golden(worlds).items():
        assert found == pytest.approx(GOLDEN[kind], abs=within), kind
        assert lira == pytest.approx(GOLDEN[kind][0], abs=within + 0.01), kind  # one variance where that attack has two


@pytest.mark.parametrize("attack", [Lira(), PerExample()])
@pytest.mark.parametrize(("shift", "area"), [(0.5, 0.6382), (1.0, 0.7602), (2.0, 0.9214)])
def test_closed_form_of_a_shift(attack: Attack, shift: float, area: float) -> None:
    g = np.random.default_rng(1)
    a, s = g.normal(6, 3, 40), np.exp(g.normal(0, 0.4, 40))
    sides = [of_odds(a + up * s + s * g.normal(size=(400, 40))) for up in (shift, 0)]
    fitting, tested = ([side.only(models) for side in sides] for models in (slice(200), slice(200, None)))
    positives, negatives = judge(attack, Known(*fitting), *tested)
    assert area == pytest.approx(ndtr(shift / math.sqrt(2)), abs=1e-4)
    assert roc.between(positives, negatives).value == pytest.approx(area, abs=0.012)
    rate = roc.rate(positives, negatives, 0.01)
    assert rate.value == pytest.approx(ndtr(shift - norm.ppf(0.99)), abs=0.05)


def test_densities_are_those_of_the_textbook() -> None:
    g = np.random.default_rng(0)
    x, mean, scale = g.normal(size=(3, 5)), g.normal(size=5), np.exp(g.normal(size=5))
    half = 0.5 * math.log(2 * math.pi)
    for degrees, known in ((math.inf, norm(mean, np.sqrt(scale))), (7.0, t(7, mean, np.sqrt(scale)))):
        found = gaussian.log_density(x, mean, scale, np.asarray(degrees))
        np.testing.assert_allclose(found - half, known.logpdf(x), rtol=1e-12)


def test_a_variance_is_shrunk_to_the_mean_over_examples() -> None:
    squares = np.array([0.0, 8.0, 16.0])
    np.testing.assert_allclose(gaussian.shrunk(squares, 4, 4.0), [1.0, 2.0, 3.0])
    np.testing.assert_allclose(gaussian.shrunk(squares, 4, 0.0), [1e-12, 2.0, 4.0])


@pytest.mark.parametrize("attack", [Lira(), PerExample()])
@pytest.mark.parametrize("models", [8, 20])
def test_a_constant_per_example_cancels(attack: Attack, models: int) -> None:
    g = np.random.default_rng(2)
    own, others = g.normal(1, 1, (models, 30)), g.normal(0, 1, (models, 30))
    constant = g.integers(-20, 20, 30)
    known = [Known(of_odds(own + up), of_odds(others + up)) for up in (0 * constant, constant)]
    scores = [
        judge(attack, one, of_odds(own + up), of_odds(others + up))
        for one, up in zip(known, (0 * constant, constant), strict=True)
    ]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-3)


def test_swapping_the_sides_turns_the_ratio_around() -> None:
    world = World(3, samples=40, others=1)
    own, others = world.seen("both_ways", 12), world.seen("exact", 12)
    one, other = (
        judge(PerExample(), Known(own, others), own, others),
        judge(PerExample(), Known(others, own), own, others),
    )
    np.testing.assert_array_equal(one[0], -other[0])


@pytest.mark.parametrize("attack", [Lira(), PerExample()])
def test_models_kept_for_choosing_are_not_fitted_on(attack: Attack) -> None:
    world = World(3, samples=40, others=1)
    own, others = world.seen("no_op", 12), world.seen("exact", 12)
    kept, cut = attack.fit(Known(own, others, 4), 1), attack.fit(Known(own.only(slice(8)), others.only(slice(8))), 1)
    assert all(np.array_equal(kept[name], cut[name]) for name in kept)


@pytest.mark.parametrize("attack", [Lira(), PerExample()])
def test_models_that_are_right_or_wrong_alike_give_finite_ratios(attack: Attack) -> None:
    """Deep Unlearn's ratio is 0 / 0 where all models agree on an example: a spread of 0."""
    right = np.random.default_rng(0).random((10, 30)) < 0.8
    right[:, :10], right[:, 10:20] = True, False
    sides = [of_odds(np.where(one, 20.0, -20.0)) for one in (right, np.roll(right, 3, axis=0))]
    for scores in judge(attack, Known(*sides), *sides):
        assert np.isfinite(scores).all()
        assert (scores[:, :20] == 0).all()


def test_rmia_is_what_a_loop_over_pairs_says() -> None:
    world = World(5, samples=20, others=25)
    out, seen = world.seen("exact", 3), world.seen("no_op", 2)
    for gamma, a in ((1.0, 0.3), (2.0, 1.0), (0.5, 0.0)):
        attack = Rmia(gamma=gamma, a=a)
        found = attack.score(attack.fit(Known(out, out), 1), seen, seen.forget)

        def ratio(name: Literal["forget", "validation"], k: int, i: int, a: float = a) -> float:
            p = [np.exp(z) / np.exp(z).sum() for z in getattr(seen, name).logits[:, i].astype(np.float64)]
            q = [np.exp(z) / np.exp(z).sum() for z in getattr(out, name).logits[:, i].astype(np.float64)]
            label = getattr(seen, name).labels[i]
            mean = np.mean([one[label] for one in q])
            return float(p[k][label] / ((1 + a) / 2 * mean + (1 - a) / 2))

        for k in range(2):
            rivals = [ratio("validation", k, z) for z in range(25)]
            for i in range(20):
                assert found[k, i] == np.mean([ratio("forget", k, i) / rival >= gamma for rival in rivals])


def test_rmia_counts_ties_half_and_everything_at_a_small_gamma() -> None:
    world = World(5, samples=20, others=25)
    saturated = np.zeros((3, 20, 10), np.float32)
    saturated[..., 1] = 900
    same = of_points(Points(saturated, np.ones(20, np.int64)))
    attack = Rmia()
    assert (attack.score(attack.fit(Known(same, same), 1), same, same.forget) == 0.5).all()
    out, seen = world.seen("exact", 3), world.seen("no_op", 2)
    tiny = Rmia(gamma=1e-300)
    assert (tiny.score(tiny.fit(Known(out, out), 1), seen, seen.forget) == 1).all()


def test_rmia_scores_are_uniform_on_what_was_never_seen() -> None:
    world = World(6, samples=400, others=400)
    out, seen = world.seen("exact", 8), world.seen("exact", 4)
    attack = Rmia()
    scores = attack.score(attack.fit(Known(out, out), 1), seen, seen.forget)
    assert np.abs(np.sort(scores.ravel()) - np.linspace(0, 1, scores.size)).max() < 0.06


def test_modified_entropy_is_its_definition_and_not_the_batch_s() -> None:
    """SalUn and its kin overwrite whole columns, so that the score of an example depends on its batch."""
    g = np.random.default_rng(0)
    z, labels = g.normal(0, 3, (2, 30, 10)).astype(np.float32), g.integers(0, 10, 30)
    found = features(Points(z, labels), "modified_entropy")[..., 0]
    p = np.exp(z.astype(np.float64))
    p /= p.sum(-1, keepdims=True)
    for k in range(2):
        for i, label in enumerate(labels):
            own = p[k, i, label]
            rest = sum(q * math.log(1 - q) for j, q in enumerate(p[k, i]) if j != label)
            assert found[k, i] == pytest.approx(-(1 - own) * math.log(own) - rest, rel=1e-10)
    assert np.array_equal(features(Points(z[:, 7:9], labels[7:9]), "modified_entropy")[..., 0], found[:, 7:9])


@pytest.mark.parametrize("gap", [40.0, 800.0])
def test_features_of_perfect_and_of_hopeless_predictions(gap: float) -> None:
    z = np.zeros((1, 2, 10), np.float32)
    z[..., 3] = gap
    points = Points(z, np.array([3, 4]))
    found = {name: features(points, name)[0, :, 0] for name in ("confidence", "correctness", "entropy")}
    assert found["confidence"] == pytest.approx([1, 0], abs=1e-15)
    assert found["correctness"].tolist() == [1, 0]
    assert found["entropy"] == pytest.approx([0, 0], abs=1e-14)
    assert features(points, "modified_entropy")[0, :, 0] == pytest.approx([0, 2 * gap], rel=0.1, abs=1e-12)
    assert features(points, "probabilities")[0].sum(-1) == pytest.approx([1, 1])


@pytest.mark.parametrize("feature", [*FEATURES, "all"])
def test_every_feature_finds_a_leak_that_it_can_see(feature: str) -> None:
    world = World(1, samples=200, others=300)
    world.examples = {name: replace(one, a=one.a - 5) for name, one in world.examples.items()}
    world.examples["unseen"] = world.examples["forget"]
    attack, seen = Svc(feature=feature), world.seen("over_forgotten", 3)  # type: ignore[arg-type]
    scores = [attack.score({}, seen, part) for part in (seen.forget, seen.unseen)]
    assert roc.within(*scores).value < (0.5 if feature in ("entropy", "probabilities") else 0.4)


@pytest.mark.parametrize("attack", [Loss(), Entropy(), Svc()])
def test_members_are_called_members_and_others_are_not(attack: Attack) -> None:
    g = np.random.default_rng(0)

    def points(odds: float) -> Points:
        return of_odds(g.normal(odds, 1, (2, 200))).forget

    seen = Seen(points(0), points(6), points(0), points(0))
    assert (attack.score({}, seen, points(6)) > 0).mean() > 0.95
    assert (attack.score({}, seen, points(0)) > 0).mean() < 0.05


def test_a_few_large_losses_do_not_turn_the_loss_attack_around() -> None:
    g = np.random.default_rng(0)
    member, other = g.normal(3, 1, (1, 200)), g.normal(0, 1, (1, 200))
    member[0, :3] = -500
    empty = of_odds(np.empty((1, 0))).forget
    seen = Seen(empty, of_odds(member).forget, of_odds(other).forget, empty)
    assert np.all(np.diff(Loss().score({}, seen, of_odds(np.linspace(-9, 9, 30)[None]).forget)) > 0)


def test_non_members_are_of_the_members_classes() -> None:
    points = Points(np.zeros((2, 4, 3)), np.array([0, 1, 2, 1]))
    kept = of_classes(points, np.array([1, 1, 2]))
    assert kept.labels.tolist() == [1, 2, 1] and kept.logits.shape == (2, 3, 3)


def test_without_members_or_others_there_is_no_score() -> None:
    nothing = Seen.of(np.zeros((2, 5, 10), np.float32), np.zeros(5, np.int64))
    for attack in (Loss(), Entropy(), Svc()):
        assert np.isnan(attack.score({}, nothing, nothing.forget)).all()


def views(share: np.ndarray, models: int, spread: float, generator: np.random.Generator) -> Seen:
    """Models that classify this share `[n]` of 18 views as the label, and all vary in it by a beta distribution."""
    chance = generator.beta(share / spread, (1 - share) / spread, (models, len(share)))
    right = generator.random((models, len(share), 18)) < chance[..., None]
    points = Points(
        np.zeros((models, len(share), 4), np.float32), np.ones(len(share), np.int64), right.astype(np.int64)
    )
    return of_points(points)


def test_label_only_finds_views_that_flip_and_reads_no_logits() -> None:
    g = np.random.default_rng(0)
    share = g.uniform(0.5, 0.95, 100)
    for lost, low, high in ((0.0, 0.46, 0.54), (0.3, 0.75, 0.95)):
        sides = [views(share * keep, 40, 0.1, g) for keep in (1 - lost, 1.0)]
        known = Known(*(side.only(slice(24)) for side in sides))
        tested = [side.only(slice(24, None)) for side in sides]
        scores = judge(LabelOnly(), known, *tested)
        assert low < roc.between(*scores).value < high
        louder = replace(tested[0].forget, logits=10 * tested[0].forget.logits + 3)
        fitted = LabelOnly().fit(known, 1)
        assert np.array_equal(LabelOnly().score(fitted, tested[0], louder), scores[0])


def test_label_only_fits_a_beta_binomial_distribution() -> None:
    g = np.random.default_rng(0)
    share = np.full(400, 0.7)
    seen = views(share, 200, 0.25, g)
    a, b = LabelOnly().fit(Known(seen, seen), 1)["members"]
    assert (a / (a + b)).mean() == pytest.approx(0.7, abs=0.01) and (a + b).mean() == pytest.approx(4, rel=0.05)
    same = LabelOnly().score(
        {"members": np.array([[3.0], [1.0]]), "others": np.array([[1.0], [1.0]])}, seen, seen.forget
    )
    count = seen.forget.views.sum(-1)
    known = betabinom(18, 3, 1).logpmf(count) - betabinom(18, 1, 1).logpmf(count)
    np.testing.assert_allclose(same, known, rtol=1e-9)
