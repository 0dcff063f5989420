"""What an audit says of made-up models, whose truth is known: the verdict, the reasons, and what it keeps."""

from __future__ import annotations

import ast
import dataclasses
import functools
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from command import TINY, FinishedRun, Place, numbers

from bench import audit, auditor, config, keys, plan, registry, verdict
from bench.attack import Attack, Knows, Points, Seen
from bench.examination import Arrays, Examiner, Sides
from bench.interface import Record, UsageError
from bench.progress import Progress
from bench.store import Store
from bench.worlds import World

FAMILY = ("per_example", "rmia", "label_only")
SAMPLES, MADE, RETRAINED, MARGIN = 60, 16, 24, 0.05
Found = dict[tuple[str, str], Record]


def attacks(*names: str) -> dict[str, Attack]:
    return {name: registry.load("attacks", name)() for name in names}


@functools.cache
def sides(kind: str, seed: int = 0, made: int = MADE) -> Sides:
    """Models of a kind, the last two of them repeats, and retrained ones of the same world."""
    world = World(seed, samples=SAMPLES, others=SAMPLES)
    retrained = world.seen("exact", RETRAINED, spread=0.3, views=5)
    repeats = ("0", "1")[:made]
    return Sides(world.seen(kind, made, spread=0.3, views=5), retrained, repeats)


def examine(some: Sides, every: Mapping[str, Attack] | None = None) -> tuple[list[Record], Arrays]:
    every = attacks(*FAMILY) if every is None else every
    examiner = Examiner(every, MARGIN)
    usual = {name: examiner.single(name, some.retrained) for name, one in every.items() if one.knows == "model"}
    return examiner.examine("mine", some, {}, usual, 2)


def summaries(records: list[Record]) -> Found:
    return {(one.metric, one.part): one for one in records if one.seed == "all"}


@functools.cache
def found(kind: str, seed: int = 0, made: int = MADE) -> Found:
    return summaries(examine(sides(kind, seed, made))[0])


def judged(numbers: Found, family: tuple[str, ...] = FAMILY) -> verdict.Verdict:
    return verdict.judge(numbers, "per_example", family, MARGIN)


def broken(some: Sides, *models: int, retrained: bool = False) -> Sides:
    """The same, but these models have diverged."""
    name = "retrained" if retrained else "unlearned"
    side: Seen = getattr(some, name)
    z = side.forget.logits.copy()
    z[list(models)] = np.nan
    return dataclasses.replace(
        some, **{name: dataclasses.replace(side, forget=dataclasses.replace(side.forget, logits=z))}
    )


@pytest.mark.parametrize("seed", range(6))
def test_exact_retraining_is_never_accused(seed: int) -> None:
    assert judged(found("exact", seed)).word in (verdict.INDISTINGUISHABLE, verdict.UNCLEAR)
    area = found("exact", seed)["attack_auc:per_example", "forget"]
    assert area.low - 0.02 < 0.5 < area.high + 0.02 and area.n == MADE // 2


def test_exact_retraining_is_shown_to_be_indistinguishable_where_models_are_many() -> None:
    assert judged(found("exact", 0, 96), ("per_example",)).word == verdict.INDISTINGUISHABLE


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("no_op", verdict.LEAKS),
        ("over_forgotten", verdict.OVER_FORGETS),
        ("both_ways", verdict.LEAKS),
        ("too_peaky", verdict.LEAKS),
    ],
)
def test_every_fault_gets_its_verdict(kind: str, word: str, seed: int) -> None:
    told = judged(found(kind, seed))
    assert told.word == word and "per_example" in told.found_by


@pytest.mark.parametrize("kind", ["both_ways", "too_peaky"])
def test_a_leak_that_leaves_the_level_alone_is_found(kind: str) -> None:
    shift = found(kind)["phi_shift", "forget"]
    assert abs(shift.value) < 0.3 and shift.low < 0 < shift.high
    assert judged(found(kind)).reason == "told apart, though neither surer nor less sure on average"


def test_few_models_are_not_enough_to_say_that_nothing_is_there() -> None:
    words = [judged(found("exact", seed, 5)).word for seed in range(10)]
    assert verdict.INDISTINGUISHABLE not in words
    assert words.count(verdict.UNCLEAR) >= 9, "one in twenty is accused, which is what 5 % means"
    for seed in range(3):
        told = found("exact", seed, 5)
        assert told["attack_auc:per_example", "forget"].status == "too_few_models"
        assert math.isnan(told["attack_equivalence_p:per_example", "forget"].value)
        assert 0 < told["attack_p:per_example", "forget"].value <= 1


def test_one_model_is_enough_to_be_convicted_and_never_to_be_acquitted() -> None:
    one = found("no_op", 0, 1)
    assert judged(one).word == verdict.LEAKS and judged(one).found_by == ("per_example",)
    assert one["attack_p:per_example", "forget"].value == pytest.approx(1 / (RETRAINED + 1))
    words = [judged(found("exact", seed, 1)).word for seed in range(10)]
    assert verdict.INDISTINGUISHABLE not in words and words.count(verdict.UNCLEAR) >= 9


@pytest.mark.parametrize("model", [0, MADE - 1])
def test_a_diverged_model_is_counted_and_nothing_else_breaks(model: int) -> None:
    whole, told = found("exact"), summaries(examine(broken(sides("exact"), model))[0])
    assert told.keys() == whole.keys()
    for place, one in told.items():
        assert math.isfinite(one.value) or one.status != "ok" or math.isnan(whole[place].value), place
    area = told["attack_auc:per_example", "forget"]
    if model >= MADE // 2:  # among the judged
        assert math.isnan(area.value) and area.status == "1 of 16 diverged"
    assert judged(told).word == verdict.UNCLEAR
    assert told["phi_shift", "forget"].status == "1 of 16 diverged"


def test_models_that_all_diverged_are_no_evidence() -> None:
    told = summaries(examine(broken(sides("no_op"), *range(MADE)))[0])
    assert judged(told).word == verdict.UNCLEAR
    assert "too few models" in judged(told).reason
    attacked = [one for (metric, _), one in told.items() if metric.startswith("attack_")]
    assert all(math.isnan(one.value) and one.status != "ok" for one in attacked)
    lost = summaries(examine(broken(sides("no_op"), *range(RETRAINED), retrained=True))[0])
    assert judged(lost).word == verdict.UNCLEAR


def test_repeats_are_told_one_by_one_and_agree_with_the_whole() -> None:
    records, arrays = examine(sides("no_op"))
    for name in FAMILY:
        own = {one.seed: one for one in records if one.metric == f"attack_auc:{name}"}
        assert set(own) == {"all", "0", "1"}
    scores, negatives = arrays["score:per_example/mine"], arrays["negatives:per_example/mine"]
    assert scores.shape == (MADE // 2, SAMPLES) and negatives.shape == (RETRAINED // 2, SAMPLES)
    from bench import roc

    areas = roc.between(scores, negatives).models
    values = {one.seed: one.value for one in records if one.metric == "attack_auc:per_example"}
    assert (values["0"], values["1"]) == (areas[-2], areas[-1])
    assert values["all"] == pytest.approx(areas.mean())
    np.testing.assert_array_equal(arrays["compared"], np.abs(areas - 0.5))
    assert set(arrays) == {"score:per_example/mine", "negatives:per_example/mine", "compared"}


def test_attacks_on_single_models_stand_beside_the_pool() -> None:
    for kind, gap in (("exact", 0.0), ("no_op", 1.0), ("over_forgotten", -1.0)):
        told = summaries(examine(sides(kind), attacks("loss"))[0])
        assert {metric for metric, _ in told if metric.startswith("attack")} == {
            "attack_auc:loss", "attack_rate:loss", "attack_p:loss", "attack_rate_gap:loss",
        }  # fmt: skip
        away, p = told["attack_rate_gap:loss", "forget"], told["attack_p:loss", "forget"].value
        assert away.low <= away.value <= away.high
        if gap:
            assert away.value * gap > 0 and p < 0.05
        else:
            assert away.low < 0 < away.high and p > 0.05


class Odd(Attack):
    """Returns one score too many."""

    knows: ClassVar[Knows] = "unlearned"

    def score(self, fitted: Mapping[str, np.ndarray], seen: Seen, points: Points) -> np.ndarray:
        """As told."""
        return np.zeros((len(points.logits), points.logits.shape[1] + 1))


class Raises(Odd):
    """Fails when it learns."""

    def fit(self, known: Any, seed: int) -> dict[str, np.ndarray]:
        """Fail."""
        raise RuntimeError("no\nluck")


@pytest.mark.parametrize(
    ("attack", "fault"),
    [(Odd(), r"ValueError: scores have the shape \[8, 61\], not \[8, 60\]"), (Raises(), "RuntimeError: no luck")],
)
def test_a_faulty_attack_is_one_line_that_says_how_to_go_on(attack: Attack, fault: str) -> None:
    with pytest.raises(
        UsageError, match=rf"^the attack odd failed \({fault}\); --attacks loss leaves it out"
    ) as caught:
        examine(sides("exact"), attacks("loss") | {"odd": attack})
    assert "\n" not in str(caught.value)


class SingleOdd(Odd):
    """The same on single models."""

    knows: ClassVar[Knows] = "model"


def test_a_faulty_attack_on_single_models_is_one_line_too() -> None:
    with pytest.raises(UsageError, match=r"^the attack odd failed .*; --attacks none leaves it out"):
        examine(sides("exact"), {"odd": SingleOdd()})


# The whole audit, on made-up outputs in place of those in the store


def planned(*changes: str, attack: str = "per_example,lira,loss", methods: str = "fine_tune") -> plan.Plan:
    flags = {"scenario": "sample_removal", "methods": methods, "attacks": attack, "seeds": 2}
    sizes = ["shadow.train=18", "shadow.validation=4", "shadow.unlearned=14"]
    return plan.make(config.resolve("digits", flags, [*sizes, *changes]))


class MadeUp(auditor.Auditor):
    """An auditor whose models are those of a world."""

    def __init__(self, made: plan.Plan, store: Store, failures: Mapping[str, str] | None = None) -> None:
        super().__init__(made, store, failures or {})
        world = World(0, samples=SAMPLES, others=SAMPLES)
        self.retrained, self.originals = world.seen("exact", 24), world.seen("no_op", 24)
        self.unlearned = world.seen("half_forgotten", 16)
        self.observer.runs = lambda shadows, repeats: self.unlearned.only(  # type: ignore[method-assign]
            np.arange(16)[[*range(len(shadows)), *(16 - len(repeats) + at for at in range(len(repeats)))]]
        )

    def of(self, name: str) -> tuple[list[Record], Arrays]:
        return self.row(next(row for row in self.plan.rows if row.name == name))


def test_floors_stand_for_the_pool(tmp_path: Path) -> None:
    records, arrays = MadeUp(planned(), Store(tmp_path)).pool()
    told = summaries(records)
    assert {one.method for one in records} == {"reference"}
    floor = told["attack_auc:per_example", "forget"]
    assert floor.low < 0.5 < floor.high and floor.n == 6
    assert told["attack_auc:loss", "forget"].n == 24 and ("attack_rate_gap:loss", "forget") not in told
    assert told["klom", "forget"].low <= told["klom", "forget"].value <= told["klom", "forget"].high
    assert told["klom", "forget"].n == 12
    assert list(arrays) == ["negatives:lira"] and arrays["negatives:lira"].shape == (2, SAMPLES)


def test_what_is_kept_is_what_was_found(tmp_path: Path) -> None:
    made = planned()
    first = MadeUp(made, Store(tmp_path))
    fresh = [first.pool(), first.of("fine_tune"), first.of("original")]
    again = MadeUp(made, Store(tmp_path))
    again.retrained = again.originals = again.unlearned = Seen.of(np.zeros((0, 0, 0)), np.zeros(0))  # not looked at
    kept = [again.pool(), again.of("fine_tune"), again.of("original")]
    for (records, arrays), (others, stored) in zip(fresh, kept, strict=True):
        assert list(map(repr, records)) == list(map(repr, others))
        assert arrays.keys() == stored.keys()
        assert all(np.array_equal(arrays[name], stored[name]) for name in arrays)
    told = summaries(fresh[1][0])
    assert told["attack_auc:per_example", "forget"].n == 8
    assert told["attack_auc:lira", "forget"].n == 2, "originals that it has learned from say nothing"
    assert summaries(fresh[2][0])["attack_auc:lira", "forget"].value > 0.6


def test_failed_runs_are_left_out_and_nothing_of_them_is_kept(tmp_path: Path) -> None:
    made = planned()
    row = next(row for row in made.rows if row.name == "fine_tune")
    whole = MadeUp(made, Store(tmp_path))
    whole.pool()
    some = {row.runs[0].key: "failed: x", **{chain[-1].key: "failed: x" for chain in row.shadows[:3]}}
    records, _ = MadeUp(made, Store(tmp_path), some).of("fine_tune")
    assert summaries(records)["attack_p:per_example", "forget"].n == 12
    assert {one.seed for one in records} == {"all", "1"}
    assert not Store(tmp_path).has("audit", row.audit_key)
    assert MadeUp(made, Store(tmp_path), {run.key: "failed: x" for run in row.runs}).of("fine_tune") == ([], {})


def test_what_an_audit_depends_on_is_in_its_key() -> None:
    base = planned(methods="fine_tune,fine_tune+lr=0.3")
    one, same = (row for row in base.rows if row.name.startswith("fine_tune"))
    assert [run.key for run in one.runs] == [run.key for run in same.runs]
    assert one.audit_key != same.audit_key, "the records of one row would stand under the name of the other"
    for change in ("audit.margin=0.1", "shadow.unlearned=12", "per_example.prior=2", "shadow.validation=3"):
        other = planned(change)
        assert other.audit_key != base.audit_key, change
        originals = [next(row for row in some.rows if row.name == "original") for some in (base, other)]
        assert originals[0].audit_key != originals[1].audit_key, change
    assert planned().audit_key == base.audit_key
    assert planned(attack="none").audit_key == ""


INFRASTRUCTURE = {
    "claims",
    "cluster",
    "pool",
    "interface",
    "seeds",
    "store",
    "plan",
    "progress",
    "workers",
    "comparison",
    "keys",
    "scenarios",
}


def test_the_code_of_an_audit_is_all_in_its_key() -> None:
    todo, known = ["audit"], set()
    while todo:
        name = todo.pop()
        if name in known | INFRASTRUCTURE:
            continue
        known.add(name)
        for node in ast.walk(ast.parse((keys.BENCH / f"{name}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "bench":
                inner = (node.module or "").split(".")[1:]
                todo += inner[:1] or [alias.name for alias in node.names]
    assert known - {"views"} <= {name.removesuffix(".py") for name in keys.AUDIT_CODE}


def test_one_process_or_two_and_kept_or_fresh_the_numbers_are_the_same(tiny: FinishedRun, tmp_path: Path) -> None:
    shutil.copytree(tiny.folder, tmp_path / "copy")
    place = Place(tmp_path / "copy")
    kept = list((place.store / "audit").rglob("*.safetensors"))
    assert kept
    shutil.rmtree(place.store / "audit")
    finished = place.benchmark(*TINY, jobs=2)
    assert finished.code == 0, finished.err
    assert "audited" in finished.err
    assert numbers(place.out) == numbers(tiny.out)
    with np.load(place.out / "samples.npz") as one, np.load(tiny.out / "samples.npz") as other:
        assert set(one.files) == set(other.files)
        assert all(np.array_equal(one[name], other[name], equal_nan=True) for name in one.files)
    fresh = list((place.store / "audit").rglob("*.safetensors"))
    assert {path.name for path in fresh} == {path.name for path in kept}


def test_no_attacks_no_audit(tmp_path: Path) -> None:
    with Progress(0) as progress:
        assert audit.collect(planned(attack="none"), Store(tmp_path), {}, 1, progress) == ([], {})
