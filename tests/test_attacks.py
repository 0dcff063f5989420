"""Every attack finds a planted leak, finds nothing where nothing is, and judges an example by nothing but itself."""

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import File, claims

from bench import registry, roc
from bench.attack import Attack, Known, Points, Seen
from bench.interface import UsageError
from bench.worlds import KINDS, World

pytest.importorskip("xgboost")
SAMPLES, KNOWN, VALIDATION, TESTED, VIEWS = 120, 24, 4, 12, 5
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Case:
    """An attack with a world that has something for it: examples on the edge for one that reads labels only."""

    attack: Attack

    def world(self, seed: int) -> World:
        return _world(seed, 5.0 if self.attack.views else 0.0)

    def seen(self, kind: str, models: int = KNOWN, seed: int = 0) -> Seen:
        return _seen(seed, kind, models, VIEWS if self.attack.views else 0, 5.0 if self.attack.views else 0.0)

    def known(self, kind: str) -> Known:
        members = self.seen("no_op" if self.attack.knows == "original" else kind, KNOWN + TESTED).only(slice(KNOWN))
        return Known(members, self.seen("exact", KNOWN + TESTED, 1).only(slice(KNOWN)), VALIDATION)

    def fit(self, kind: str) -> dict[str, np.ndarray]:
        return {} if self.attack.knows == "model" else _fit(self, kind)

    def judge(self, kind: str) -> roc.Area:
        """Unlearned against retrained models, or of one model the forget set against unseen data."""
        arrays = self.fit(kind)
        if self.attack.knows == "model":  # which learns from none of the models, so that all can be judged
            every = self.seen(kind, KNOWN + TESTED)
            return roc.within(*(self.attack.score(arrays, every, part) for part in (every.forget, every.unseen)))
        unlearned, retrained = (
            self.seen(one, KNOWN + TESTED, seed).only(slice(KNOWN, None)) for seed, one in enumerate((kind, "exact"))
        )
        return roc.between(*(self.attack.score(arrays, side, side.forget) for side in (unlearned, retrained)))


@cache
def _world(seed: int, lower: float) -> World:
    world = World(7, samples=SAMPLES, others=SAMPLES)
    world.examples = {name: replace(one, a=one.a - lower) for name, one in world.examples.items()}
    world.examples["unseen"] = world.examples["forget"]  # as hard, so that only membership can tell them apart
    world.generator = np.random.default_rng(seed)
    return world


@cache
def _seen(seed: int, kind: str, models: int, views: int, lower: float) -> Seen:
    world = _world(seed, lower)
    world.generator = np.random.default_rng([seed, list(KINDS).index(kind)])  # whatever was drawn before
    return exactly(world.seen(kind, models, views=views), lambda z: np.round(z * 1024) / 1024)


@cache
def _fit(case: Case, kind: str) -> dict[str, np.ndarray]:
    return case.attack.fit(case.known(kind), 1)


def exactly(seen: Seen, change: Callable[[np.ndarray], np.ndarray]) -> Seen:
    """What would be seen if all logits were changed."""
    parts = {field.name: getattr(seen, field.name) for field in fields(seen)}
    return Seen(**{name: replace(part, logits=change(part.logits)) for name, part in parts.items()})


def few(cls: type[Attack], **settings: Any) -> Attack:
    """The attack, with a short search where it searches."""
    return cls(**({"candidates": 1} if "candidates" in cls.model_fields else {}), **settings)


@pytest.fixture(scope="module", params=[*registry.names("attacks"), "third party"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    name = request.param
    if name == "third party":
        example = next(claim for claim in claims(ROOT / "CONTRIBUTING.md") if isinstance(claim, File))
        path = tmp_path_factory.mktemp("attack") / example.name
        path.write_text(example.text)
        name = str(path)
    return Case(few(registry.load("attacks", name)))


def load(name: str) -> type[Attack]:
    cls: type[Attack] = registry.load("attacks", name)
    return cls


def test_one_attack_decides_and_every_population_attack_needs_no_fitting() -> None:
    every = {name: load(name) for name in registry.names("attacks")}
    assert [name for name, cls in every.items() if cls.headline] == ["per_example"]
    assert {cls.knows for cls in every.values()} == {"original", "unlearned", "model"}
    assert all("fit" not in vars(cls) for cls in every.values() if cls.knows == "model")


def test_loading_an_attack_loads_no_heavy_library() -> None:
    names = registry.names("attacks")
    code = f"""
import sys
from bench import registry
for name in {names!r}:
    registry.load("attacks", name)
print([name for name in ("xgboost", "sklearn", "scipy", "torch.nn") if name in sys.modules])
"""
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert told.strip() == "[]"


def test_nothing_is_found_in_retrained_models(case: Case) -> None:
    found = case.judge("exact")
    assert abs(found.value - 0.5) < 3 * found.error < 0.1


def test_no_op_is_found(case: Case) -> None:
    assert case.judge("no_op").low > 0.55


@pytest.mark.parametrize("name", ["per_example", "lira"])
def test_attacks_per_example_find_a_no_op_with_certainty(name: str) -> None:
    assert Case(load(name)()).judge("no_op").low > 0.75


def test_forgetting_too_much_is_found_with_a_sign_that_tells_who_knows_the_method(case: Case) -> None:
    found = case.judge("over_forgotten")
    blind = case.attack.knows != "unlearned" or type(case.attack).__name__ == "Rmia"  # Rmia learns from retrained only
    least = 0.05 if "candidates" in type(case.attack).model_fields else 0.15  # trees learn little from so few models
    assert found.high < 0.5 - least if blind else found.low > 0.5 + least


def test_score_does_not_depend_on_other_models(case: Case) -> None:
    arrays, seen = case.fit("no_op"), case.seen("half_forgotten", 4)
    together = case.attack.score(arrays, seen, seen.forget)
    assert together.shape == (4, SAMPLES) and together.dtype == np.float64 and np.isfinite(together).all()
    for models in ([0], [2], [3, 1, 0, 2]):
        some = seen.only(np.array(models))
        assert np.array_equal(case.attack.score(arrays, some, some.forget), together[models])


def test_score_does_not_depend_on_other_examples(case: Case) -> None:
    arrays, seen = case.fit("no_op"), case.seen("half_forgotten", 4)
    together = case.attack.score(arrays, seen, seen.forget)
    half = np.arange(SAMPLES) % 2 == 0
    noise = np.random.default_rng(0).normal(0, 9, seen.forget.logits.shape).astype(np.float32)
    changed = replace(seen.forget, logits=np.where(half[:, None], noise, seen.forget.logits))
    assert np.array_equal(case.attack.score(arrays, seen, changed)[:, ~half], together[:, ~half])
    if case.attack.knows == "model":
        for order in (np.arange(SAMPLES)[::-1], np.array([5]), np.arange(0, SAMPLES, 7)):
            part = Points(seen.forget.logits[:, order], seen.forget.labels[order])
            assert np.array_equal(case.attack.score(arrays, seen, part), together[:, order])


def test_test_data_and_the_judged_examples_teach_nothing(case: Case) -> None:
    seen, known = case.seen("half_forgotten", 4), case.known("no_op")

    def without(one: Seen, *parts: str) -> Seen:
        return replace(one, **{p: replace(getattr(one, p), logits=0 * getattr(one, p).logits) for p in parts})

    arrays = case.fit("no_op")
    hidden = without(seen, "forget", "unseen")
    assert np.array_equal(case.attack.score(arrays, hidden, seen.forget), case.attack.score(arrays, seen, seen.forget))
    if case.attack.knows != "model":
        bare = replace(known, members=without(known.members, "unseen"), others=without(known.others, "unseen"))
        again = case.attack.fit(bare, 1)
        assert all(np.array_equal(arrays[name], again[name]) for name in arrays)


def test_a_constant_added_to_all_logits_changes_nothing(case: Case) -> None:
    seen, known = case.seen("half_forgotten", 4), case.known("no_op")
    arrays, moved = case.fit("no_op"), exactly(seen, lambda z: z + np.float32(8))  # exact in float32 on this grid
    scores = case.attack.score(arrays, seen, seen.forget)
    np.testing.assert_allclose(case.attack.score(arrays, moved, moved.forget), scores, rtol=1e-9, atol=1e-9)
    if case.attack.knows != "model":
        shifted = replace(known, members=exactly(known.members, lambda z: z + np.float32(8)))
        again = case.attack.fit(shifted, 1)
        np.testing.assert_allclose(case.attack.score(again, seen, seen.forget), scores, rtol=1e-9, atol=1e-9)


def test_renumbering_the_classes_changes_nothing(case: Case) -> None:
    order = np.random.default_rng(4).permutation(10)
    place = np.argsort(order)

    def renumber(seen: Seen) -> Seen:
        parts = {f.name: getattr(seen, f.name) for f in fields(seen)}
        return Seen(**{n: Points(p.logits[..., order], place[p.labels], place[p.views]) for n, p in parts.items()})

    seen, known = case.seen("half_forgotten", 4), case.known("no_op")
    other, arrays = renumber(seen), case.fit("no_op")
    again = arrays
    if case.attack.knows != "model":
        again = case.attack.fit(replace(known, members=renumber(known.members), others=renumber(known.others)), 1)
    one, two = case.attack.score(arrays, seen, seen.forget), case.attack.score(again, other, other.forget)
    if "candidates" in type(case.attack).model_fields:  # which of two equal splits a tree takes goes by their order
        assert np.corrcoef(one.ravel(), two.ravel())[0, 1] > 0.9
    else:
        np.testing.assert_allclose(two, one, rtol=1e-6, atol=1e-6)


def test_models_that_all_agree_give_one_score(case: Case) -> None:
    def flat(models: int, gap: float) -> Seen:
        z = np.zeros((models, 8, 10), np.float32)
        z[..., 4] = gap
        points = Points(z, np.full(8, 4), np.full((models, 8, VIEWS), 4))
        return Seen(points, points, points, points)

    for gap in (0.0, 30.0, 800.0):
        arrays = {} if case.attack.knows == "model" else case.attack.fit(Known(flat(6, gap), flat(6, gap), 2), 1)
        seen = flat(3, gap)
        scores = case.attack.score(arrays, seen, seen.forget)
        assert np.isfinite(scores).all() and roc.between(scores[:1], scores[1:]).value == 0.5
        other = flat(3, -gap)  # models that are confidently different from all that was seen
        assert np.isfinite(case.attack.score(arrays, other, other.forget)).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_bad_logit_costs_its_own_score_only(case: Case, bad: float) -> None:
    arrays, seen = case.fit("no_op"), case.seen("half_forgotten", 3)
    before = case.attack.score(arrays, seen, seen.forget)
    broken = replace(seen.forget, logits=seen.forget.logits.copy())
    broken.logits[1, 2, 0] = bad
    before[1, 2] = np.nan
    assert np.array_equal(case.attack.score(arrays, seen, broken), before, equal_nan=True)
    diverged = exactly(seen, lambda z: np.full_like(z, bad))
    assert np.isnan(case.attack.score(arrays, diverged, diverged.forget)).all()


def test_what_is_fitted_is_plain_numbers_that_survive_a_file(case: Case, tmp_path: Path) -> None:
    arrays, seen = case.fit("no_op"), case.seen("half_forgotten", 2)
    assert all(isinstance(array, np.ndarray) and array.dtype.kind in "fiu" for array in arrays.values())
    np.savez(tmp_path / "fitted.npz", **arrays)  # type: ignore[arg-type]
    with np.load(tmp_path / "fitted.npz", allow_pickle=False) as archive:
        again = {name: archive[name] for name in archive.files}
    before, after = (case.attack.score(stored, seen, seen.forget) for stored in (arrays, again))
    assert np.array_equal(before, after)


def test_result_does_not_depend_on_threads_or_on_global_randomness(case: Case) -> None:
    arrays, seen, cls = case.fit("no_op"), case.seen("half_forgotten", 2), type(case.attack)
    attack = few(cls, n_threads=1) if "n_threads" in cls.model_fields else case.attack
    np.random.seed(5)
    state = np.random.get_state()[1].copy()  # type: ignore[union-attr, index]
    again = {} if attack.knows == "model" else attack.fit(case.known("no_op"), 1)
    assert again.keys() == arrays.keys()
    assert all(np.array_equal(again[name], arrays[name]) for name in arrays)
    assert np.array_equal(attack.score(again, seen, seen.forget), case.attack.score(arrays, seen, seen.forget))
    assert np.array_equal(state, np.random.get_state()[1])  # type: ignore[index]


def test_too_few_models_is_one_clear_line() -> None:
    for name in registry.names("attacks"):
        case = Case(few(load(name)))
        if case.attack.knows == "model" or name == "rmia":  # which learns from a single retrained model
            continue
        known = case.known("no_op")
        with pytest.raises(UsageError, match=f"{name} .*models") as caught:
            case.attack.fit(Known(known.members.only(slice(1)), known.others, 0), 1)
        assert "\n" not in str(caught.value)
