"""The paper's attack and its adaptive twin learn only from the models they may learn from, and choose as they say."""

import builtins
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from attacks.adaptive_xgboost import AdaptiveXGBoost
from attacks.shadow_xgboost import GRID, ShadowXGBoost
from bench import roc
from bench.attack import Known, Seen
from bench.interface import UsageError
from bench.worlds import World

pytest.importorskip("xgboost")
SAMPLES, SHADOWS, TESTED = 50, 45, 16


@pytest.fixture(scope="module")
def world() -> World:
    return World(0, samples=SAMPLES, others=1)


@pytest.fixture(scope="module")
def known(world: World) -> Known:
    return Known(world.seen("no_op", SHADOWS), world.seen("exact", SHADOWS), validation=5)


def area(attack: ShadowXGBoost, arrays: dict[str, np.ndarray], world: World, kind: str) -> roc.Area:
    sides = [world.seen(which, TESTED) for which in (kind, "exact")]
    return roc.between(*(attack.score(arrays, side, side.forget) for side in sides))


def joined(one: Seen, other: Seen, order: np.ndarray) -> Seen:
    """Models of both in a new order."""
    logits = np.concatenate([one.forget.logits, other.forget.logits])[order]
    return Seen.of(logits, one.forget.labels)


def test_it_finds_originals_and_mistakes_too_much_forgetting_for_privacy(world: World, known: Known) -> None:
    attack = ShadowXGBoost()
    arrays = attack.fit(known, 1)
    exact, no_op, over = (area(attack, arrays, world, kind) for kind in ("exact", "no_op", "over_forgotten"))
    assert exact.low < 0.5 < exact.high
    assert no_op.value > 0.55 and no_op.low > 0.5
    assert over.high < 0.45  # it moves in the second digit with the release of xgboost


def test_nothing_is_found_when_labels_are_shuffled_per_model(world: World, known: Known) -> None:
    order = np.random.default_rng(3).permutation(2 * SHADOWS)
    sides = [joined(known.members, known.others, part) for part in (order[:SHADOWS], order[SHADOWS:])]
    attack = ShadowXGBoost(candidates=2)
    found = area(attack, attack.fit(Known(*sides, 5), 1), world, "no_op")
    assert abs(found.value - 0.5) < 0.1


@pytest.mark.parametrize("kind", [ShadowXGBoost, AdaptiveXGBoost])
def test_fitting_uses_each_model_once_and_only_for_its_purpose(kind: type[ShadowXGBoost], known: Known) -> None:
    attack = kind(candidates=1)  # chooses nothing, so that the validation models must not matter
    order = np.arange(2 * SHADOWS).reshape(2, SHADOWS)
    order[:, -5:] = order[::-1, -5:].copy()
    tampered = Known(*(joined(known.members, known.others, part) for part in order), 5)
    one, other = attack.fit(known, 1), attack.fit(tampered, 1)
    assert np.array_equal(one["booster"], other["booster"])
    assert one["f1"] != other["f1"]


def test_search_prefers_the_better_f1_and_respects_the_row_limit(known: Known) -> None:
    single = ShadowXGBoost(candidates=1).fit(known, 1)
    assert [single[name].item() for name in ("rate", "depth", "trees")] == [*GRID[0], 100]
    searched = ShadowXGBoost(candidates=3).fit(known, 1)
    assert searched["f1"] >= single["f1"]
    small = [ShadowXGBoost(candidates=1, max_rows=300).fit(known, seed)["booster"] for seed in (1, 1, 2)]
    assert np.array_equal(small[0], small[1]) and not np.array_equal(small[0], small[2])
    assert len(small[0]) < len(single["booster"])


@pytest.mark.parametrize("validation", [0, SHADOWS])
def test_no_models_left_to_fit_or_choose_on(known: Known, validation: int) -> None:
    with pytest.raises(UsageError, match="shadow"):
        ShadowXGBoost().fit(replace(known, validation=validation), 1)


def test_a_side_without_finite_outputs_is_one_clear_line(known: Known) -> None:
    bad = np.full_like(known.members.forget.logits, np.nan)
    with pytest.raises(UsageError, match="one side has none"):
        ShadowXGBoost().fit(replace(known, members=Seen.of(bad, known.members.forget.labels)), 1)


@pytest.mark.parametrize(("models", "kept"), [(2, 1), (7, 1), (16, 2), (SHADOWS, 5)])
def test_the_adaptive_attack_sets_an_eighth_of_the_models_aside(known: Known, models: int, kept: int) -> None:
    attack, sides = AdaptiveXGBoost(candidates=1), (known.members.only(slice(models)), known.others.only(slice(models)))
    own, told = attack.fit(Known(*sides, 0), 1), attack.fit(Known(*sides, kept), 1)
    assert all(np.array_equal(own[name], told[name]) for name in own)


@pytest.mark.parametrize("attack", [ShadowXGBoost, AdaptiveXGBoost])
def test_missing_xgboost_is_one_clear_line(
    attack: type[ShadowXGBoost], known: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "xgboost":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=rf"{attack.__module__.split('.')[1]} needs .*pip install xgboost") as caught:
        attack().fit(known, 1)
    assert "\n" not in str(caught.value)
