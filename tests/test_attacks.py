"""Attacks find a planted leak, find nothing where nothing is, and learn only from the models they may learn from."""

import builtins
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from attacks.shadow_xgboost import GRID, ShadowXGBoost
from bench import registry, statistics
from bench.attack import Attack
from bench.interface import UsageError

pytest.importorskip("xgboost")
SAMPLES, CLASSES, SHADOWS, TESTED = 50, 10, 45, 16


class World:
    """Made-up outputs in which what each model knows of the forget set is set by hand.

    Per sample: log-odds N(a, s) in a retrained model and N(a + d, s) in an original, with a ~ N(6, 3),
    s = exp N(0, .4), d = |N(0, 1.5)|; the other logits are a profile of the sample with some noise.
    """

    def __init__(self, seed: int = 0) -> None:
        g = self.generator = np.random.default_rng(seed)
        self.a, self.s = g.normal(6, 3, SAMPLES), np.exp(g.normal(0, 0.4, SAMPLES))
        self.d = np.abs(g.normal(0, 1.5, SAMPLES))
        self.labels = g.integers(0, CLASSES, SAMPLES)
        self.profile = g.normal(0, 1, (SAMPLES, CLASSES))

    def logits(self, mean: np.ndarray, models: int) -> np.ndarray:
        g = self.generator
        odds = mean + self.s * g.normal(size=(models, SAMPLES))
        z = self.profile + 0.3 * g.normal(size=(models, SAMPLES, CLASSES))
        own = np.broadcast_to(self.labels, odds.shape)[..., None]
        np.put_along_axis(z, own, -np.inf, axis=-1)
        np.put_along_axis(z, own, (odds + np.log(np.exp(z).sum(-1)))[..., None], axis=-1)
        return z.astype(np.float32)

    def shadow(self) -> ShadowOutputs:
        originals, retrained = self.logits(self.a + self.d, SHADOWS), self.logits(self.a, SHADOWS)
        return ShadowOutputs(originals, retrained, self.labels, validation=5)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def shadow(world: World) -> ShadowOutputs:
    return world.shadow()


def attacks() -> list[Attack]:
    return [registry.load("attacks", name)() for name in registry.names("attacks")]


@pytest.fixture(scope="module", params=attacks(), ids=lambda attack: type(attack).__name__)
def fitted(request: pytest.FixtureRequest, shadow: ShadowOutputs) -> tuple[Attack, dict[str, np.ndarray]]:
    return request.param, request.param.fit(shadow, seed=1)


def aucs(attack: Attack, arrays: dict[str, np.ndarray], world: World, unlearned: np.ndarray) -> list[float]:
    positives = attack.score(arrays, unlearned, world.labels)
    negatives = attack.score(arrays, world.logits(world.a, len(unlearned)), world.labels)
    return [statistics.auc(p, n) for p, n in zip(positives, negatives, strict=True)]


def test_golden_worlds(fitted: tuple[Attack, dict[str, np.ndarray]], world: World) -> None:
    _, low, high, n = statistics.mean_interval(aucs(*fitted, world, world.logits(world.a, TESTED)))
    assert low < 0.5 < high and n == TESTED
    no_op = statistics.mean_interval(aucs(*fitted, world, world.logits(world.a + world.d, TESTED)))
    assert no_op[0] > 0.55 and no_op[1] > 0.5
    over = statistics.mean_interval(aucs(*fitted, world, world.logits(world.a - 2 * world.s, TESTED)))
    assert over[0] < 0.35 and over[2] < 0.5


def test_nothing_is_found_when_labels_are_shuffled_per_model(shadow: ShadowOutputs, world: World) -> None:
    both = np.concatenate([shadow.members, shadow.others])
    order = np.random.default_rng(3).permutation(len(both))
    mixed = replace(shadow, members=both[order[:SHADOWS]], others=both[order[SHADOWS:]])
    attack = ShadowXGBoost(candidates=2)
    found = aucs(attack, attack.fit(mixed, 1), world, world.logits(world.a + world.d, TESTED))
    assert abs(np.mean(found) - 0.5) < 0.1


def test_fitting_uses_each_model_once_and_only_for_its_purpose(shadow: ShadowOutputs) -> None:
    attack = ShadowXGBoost(candidates=1)  # chooses nothing, so that the validation models must not matter
    tampered = replace(shadow, members=shadow.members.copy(), others=shadow.others.copy())
    tampered.members[-5:], tampered.others[-5:] = shadow.others[-5:], shadow.members[-5:]
    one, other = attack.fit(shadow, 1), attack.fit(tampered, 1)
    assert np.array_equal(one["booster"], other["booster"])
    assert one["f1"] != other["f1"]


def test_result_does_not_depend_on_threads_or_on_global_randomness(shadow: ShadowOutputs) -> None:
    runs = []
    for threads in (1, 2):
        np.random.seed(threads)
        runs.append(ShadowXGBoost(candidates=3, n_threads=threads).fit(shadow, 1))
    assert runs[0].keys() == runs[1].keys()
    assert all(np.array_equal(runs[0][name], runs[1][name]) for name in runs[0])


def test_score_of_a_model_does_not_depend_on_its_company(
    fitted: tuple[Attack, dict[str, np.ndarray]], world: World
) -> None:
    attack, arrays = fitted
    logits = world.logits(world.a, 4)
    together = attack.score(arrays, logits, world.labels)
    assert together.shape == (4, SAMPLES) and together.dtype == np.float64
    for k in range(4):
        assert np.array_equal(attack.score(arrays, logits[k : k + 1], world.labels)[0], together[k])
    assert np.array_equal(attack.score(arrays, logits[:, ::-1], world.labels[::-1])[:, ::-1], together)
    assert np.array_equal(attack.score(arrays, logits[:, :1], world.labels[:1]), together[:, :1])


def test_fitted_arrays_are_plain_and_survive_a_file(
    fitted: tuple[Attack, dict[str, np.ndarray]], world: World, tmp_path: Any
) -> None:
    attack, arrays = fitted
    assert all(isinstance(array, np.ndarray) and not array.dtype.hasobject for array in arrays.values())
    np.savez(tmp_path / "fitted.npz", **arrays)  # type: ignore[arg-type]
    with np.load(tmp_path / "fitted.npz", allow_pickle=False) as archive:
        again = {name: archive[name] for name in archive.files}
    logits = world.logits(world.a, 2)
    before, after = (attack.score(stored, logits, world.labels) for stored in (arrays, again))
    assert np.array_equal(before, after)


def test_degenerate_outputs(fitted: tuple[Attack, dict[str, np.ndarray]], shadow: ShadowOutputs) -> None:
    attack, arrays = fitted
    flat = np.zeros((3, 6, CLASSES), np.float32)
    scores = attack.score(arrays, flat, np.full(6, 4))
    assert statistics.auc(scores[0], scores[1:]) == 0.5
    flat[1, 2, 0] = math.inf
    assert np.isnan(attack.score(arrays, flat, np.full(6, 4))).sum() == 1
    extreme = np.array([[[800.0, *[0.0] * 9]]], dtype=np.float32)
    assert np.isfinite(attack.score(arrays, extreme, np.array([0]))).all()


def test_diverged_shadow_models_are_left_out(shadow: ShadowOutputs) -> None:
    attack = ShadowXGBoost(candidates=1)
    bad = replace(shadow, members=shadow.members.copy())
    bad.members[0] = np.nan
    fewer = replace(shadow, members=shadow.members[1:])
    assert np.array_equal(attack.fit(bad, 1)["booster"], attack.fit(fewer, 1)["booster"])
    bad.members[:] = np.nan
    with pytest.raises(UsageError, match="one side has none"):
        attack.fit(bad, 1)


def test_search_prefers_the_better_f1_and_respects_the_row_limit(shadow: ShadowOutputs) -> None:
    single = ShadowXGBoost(candidates=1).fit(shadow, 1)
    assert [single[name].item() for name in ("rate", "depth", "trees")] == [*GRID[0], 100]
    searched = ShadowXGBoost(candidates=3).fit(shadow, 1)
    assert searched["f1"] >= single["f1"]
    small = [ShadowXGBoost(candidates=1, max_rows=300).fit(shadow, seed)["booster"] for seed in (1, 1, 2)]
    assert np.array_equal(small[0], small[1]) and not np.array_equal(small[0], small[2])
    assert len(small[0]) < len(single["booster"])


@pytest.mark.parametrize("validation", [0, SHADOWS])
def test_no_models_left_to_fit_or_choose_on(shadow: ShadowOutputs, validation: int) -> None:
    with pytest.raises(UsageError, match="shadow"):
        ShadowXGBoost().fit(replace(shadow, validation=validation), 1)


def test_missing_xgboost_is_one_clear_line(shadow: ShadowOutputs, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "xgboost":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match="pip install xgboost") as caught:
        ShadowXGBoost().fit(shadow, 1)
    assert "\n" not in str(caught.value)
