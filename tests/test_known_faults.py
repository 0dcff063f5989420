"""Faults that published code for machine unlearning has had: each test fails if this project had the fault.

docs/known_faults.md has the list, and says which test is about which.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import math
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench import (
    config,
    contract,
    examination,
    ledger,
    plan,
    registry,
    roc,
    runner,
    statistics,
    training,
    unlearning,
    verdict,
)
from bench.attack import Attack, Known, Points, Seen
from bench.examination import Examiner, Sides
from bench.interface import SCENARIOS, Dataset, Method, Need, Record, UsageError
from bench.observation import Observer
from bench.pairs import output_distances
from bench.probe import RECIPE, Probe
from bench.store import Store
from bench.worlds import World

METHOD = '''"""A method with a fault."""

from bench.interface import Method, Need


class Mine(Method):
    """A method with a fault."""

    needs = Need.NEEDS
    budget = None

    def unlearn(self, model, data, ctx):
        BODY
        return model
'''


@functools.cache
def probe(name: str) -> Probe:
    with contract.double():
        return Probe(name, registry.load("methods", name))


def faulty(folder: Path, needs: str, body: str) -> Probe:
    """A method of a third party with this body."""
    path = folder / "mine.py"
    path.write_text(METHOD.replace("NEEDS", needs).replace("BODY", body))
    return probe(str(path))


def attacks(*names: str) -> dict[str, Attack]:
    return {name: registry.load("attacks", name)() for name in names}


def examine(unlearned: Seen, retrained: Seen, every: dict[str, Attack], last: int = 4) -> dict[tuple[str, str], Record]:
    """All records over models of made-up models of a method, by metric and part."""
    examiner = Examiner(every, 0.05)
    learned = Known(seen("no_op", 12, 20), seen("exact", 12, 21), 2)
    taught = {name: attack.fit(learned, 0) for name, attack in every.items() if attack.knows == "original"}
    usual = {name: examiner.single(name, retrained) for name, attack in every.items() if attack.knows == "model"}
    records, _ = examiner.examine("mine", Sides(unlearned, retrained, ("0", "1")), taught, usual, last)
    return {(one.metric, one.part): one for one in records if one.seed == "all"}


def test_retraining_keeps_no_old_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    from methods import retrain

    starts: list[dict[str, Tensor]] = []
    fit = retrain.loop.fit

    def spy(model: nn.Module, *rest: Any, **named: Any) -> None:
        starts.append({name: value.detach().clone() for name, value in model.named_parameters()})
        fit(model, *rest, **named)

    monkeypatch.setattr(retrain.loop, "fit", spy)
    tried = probe("retrain")
    with contract.double():
        first = training.weights_of(tried.carry_out().model)
        kept, original = tried.original, dict(tried.original.named_parameters())
        monkeypatch.setattr(tried, "original", _filled(kept, math.nan))
        again = training.weights_of(tried.carry_out().model)
    assert starts[0].keys() == original.keys()
    same = [name for name, value in starts[0].items() if torch.equal(value, original[name])]
    assert not same, "what training starts from is the original's"
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first), "the model handed in plays a part"


def _filled(model: nn.Module, value: float) -> nn.Module:
    filled = probe("retrain").setting("sample_removal", []).build(3)
    state = {name: torch.full_like(x, value) for name, x in model.state_dict().items() if x.is_floating_point()}
    filled.load_state_dict(state, strict=False)
    return filled


def test_a_student_that_never_moves_is_noticed(tmp_path: Path) -> None:
    still = faulty(tmp_path, "FORGET", "next(data.forget.batches(8))")
    assert contract.run_one(still, contract.reads_what_it_declares).passed
    assert still.run().status == "unchanged"
    result = contract.run_one(still, contract.changes_weights)
    assert not result.passed and "no learnable weight changes" in result.message


def test_a_forget_set_that_nobody_reads_is_noticed(tmp_path: Path) -> None:
    blind = faulty(tmp_path, "FORGET", "next(model.parameters()).data.add_(1)")
    assert contract.run_one(blind, contract.changes_weights).passed
    assert blind.run().taken["forget"] == 0
    result = contract.run_one(blind, contract.reads_what_it_declares)
    assert not result.passed and result.message == "declares forget data but never reads it"
    declared = [name for name in ("scrub", "neg_grad", "pgu") if Need.FORGET in probe(name).method.reads()]
    assert declared == ["scrub", "neg_grad", "pgu"]
    with contract.double():
        assert all(probe(name).run().taken["forget"] > 0 for name in declared)


FROZEN = {  # by method: the modules that stand still, of those in `digits_cnn`
    "eu_k": ("0.", "1."),
    "cf_k": ("0.", "1."),
    "pgu": ("1.", "5.", "9.", "12.bias"),
}


def test_masked_weights_stay_bit_identical() -> None:
    assert RECIPE.weight_decay > 0 and RECIPE.momentum > 0, "what would move a weight without a gradient"
    for name, frozen in FROZEN.items():
        with contract.double():
            before, after = probe(name).original.state_dict(), probe(name).run().model.state_dict()
        moved = [entry for entry in before if not torch.equal(before[entry], after[entry])]
        assert moved, name
        assert not [entry for entry in moved if entry.startswith(frozen)], name


@functools.cache
def seen(kind: str, models: int, seed: int) -> Seen:
    world = World(3, samples=30, others=40)
    world.generator = np.random.default_rng(seed)
    return world.seen(kind, models, views=5)


def test_scores_do_not_depend_on_the_batch() -> None:
    settings: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in registry.names("attacks")]
    svc = registry.load("attacks", "svc").model_fields["feature"].annotation.__args__
    settings += [("svc", {"feature": feature}) for feature in svc]
    for name, fields in settings:
        cls = registry.load("attacks", name)
        if "candidates" in cls.model_fields:
            pytest.importorskip("xgboost")
            fields = {"candidates": 1}
        attack: Attack = cls(**fields)
        fitted = {}
        if attack.knows != "model":
            fitted = attack.fit(Known(seen("no_op", 8, 0), seen("exact", 8, 1), 2), 0)
        judged = seen("half_forgotten", 3, 2)
        whole = attack.score(fitted, judged, judged.forget)
        for at in range(3):  # each model alone
            one = judged.only(np.array([at]))
            assert np.array_equal(attack.score(fitted, one, one.forget)[0], whole[at]), name
        others = judged.forget.logits.copy()
        others[:, :15] = np.random.default_rng(0).normal(0, 9, others[:, :15].shape)
        mixed = dataclasses.replace(judged.forget, logits=others)
        assert np.array_equal(attack.score(fitted, judged, mixed)[:, 15:], whole[:, 15:]), name
        if attack.knows == "model":  # in another order, and one by one
            for order in (np.arange(30)[::-1], np.array([7])):
                part = Points(judged.forget.logits[:, order], judged.forget.labels[order])
                assert np.array_equal(attack.score(fitted, judged, part), whole[:, order]), name


def test_divergences_add_up_over_samples() -> None:
    ours, theirs = (np.random.default_rng(at).normal(0, 3, (3, 40, 5)) for at in range(2))
    whole = output_distances(ours, theirs)
    for cuts in ([10], [1, 2, 39], list(range(1, 40))):
        parts = [
            output_distances(*both) for both in zip(*(np.split(z, cuts, axis=1) for z in (ours, theirs)), strict=True)
        ]
        sizes = np.diff([0, *cuts, 40])
        for metric, value in whole.items():
            total = sum(size * part[metric] for size, part in zip(sizes, parts, strict=True))
            np.testing.assert_allclose(total / 40, value, rtol=1e-12, err_msg=metric)


def test_constant_scores_have_the_area_of_chance() -> None:
    for members, others in ((7, 7), (1, 9), (9, 1)):
        one, two = np.full((3, members), 0.3), np.full((3, others), 0.3)
        assert statistics.auc(one[0], two[0]) == 0.5
        assert roc.between(one, two).value == roc.within(one, two).value == 0.5
        assert roc.areas(one, two).tolist() == [[0.5] * 3] * 3


def test_copies_of_one_model_are_one_model() -> None:
    every, pool = attacks("per_example", "rmia", "lira", "loss"), seen("exact", 24, 1)
    for kind in ("exact", "no_op"):
        made = seen(kind, 16, 2)
        copies, alone = made.only(np.full(16, 15)), made.only(np.array([15]))
        found, single = examine(copies, pool, every), examine(alone, pool, every)
        for place, record in found.items():
            assert record.status.startswith("15 of 16 copies"), place
            assert record.n <= 1 or record.n == single[place].n, place
            np.testing.assert_equal(record.value, single[place].value)
            assert record.high != record.low, (place, "an interval of width zero")
        assert verdict.judge(found, "per_example", ["per_example", "rmia"], 0.05).word in (
            [verdict.UNCLEAR] if kind == "exact" else [verdict.LEAKS, verdict.UNCLEAR]
        )
    nothing = examine(pool.only(np.zeros(16, int)), pool.only(np.zeros(24, int)), every, last=2)
    told = verdict.judge(nothing, "per_example", ["per_example", "rmia"], 0.05)
    assert told.word == verdict.UNCLEAR and told.reason == "15 of 16 copies"


def test_copies_are_taken_out_of_what_is_told_one_by_one() -> None:
    made, pool = seen("no_op", 8, 2), seen("exact", 12, 1)
    doubled = made.only(np.array([0, 1, 2, 3, 0, 5, 6, 6]))
    sides, last, status = examination.distinct(
        Sides(doubled, pool.only(np.array([*range(11), 10])), ("0", "1", "2")), 3
    )
    assert (len(sides.unlearned), len(sides.retrained), last) == (6, 11, 2)
    assert (sides.repeats, status) == (("0", "2"), "2 of 8 copies and 1 of 12 retrained copies")
    assert np.array_equal(sides.unlearned.forget.logits, made.only(np.array([1, 2, 3, 0, 5, 6])).forget.logits)
    whole = Sides(made, pool, ("0",))
    assert examination.distinct(whole, 3) == (whole, 3, "")
    broken = dataclasses.replace(made, forget=Points(np.full_like(made.forget.logits, np.nan), made.forget.labels))
    assert examination.distinct(Sides(broken, pool))[2] == "", "what diverged is counted as that"
    nothing = Seen.of(np.zeros((4, 0, 10), np.float32), np.zeros(0, int))
    assert examination.distinct(Sides(nothing, nothing))[2] == ""


def content(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


def test_non_members_were_never_trained_on(tmp_path: Path) -> None:
    for scenario in SCENARIOS:
        flags = {"scenario": scenario, "methods": "original", "attacks": "loss,per_example"}
        planned = plan.make(config.resolve("digits", flags, []))
        seen, data = Observer(planned, Store(tmp_path)), planned.dataset
        members = content(data.train_x)
        assert not members & content(data.validation_x), scenario
        assert not members & content(data.test_x[seen.unseen]), scenario
        assert len(seen.forget) and len(seen.retain) and not np.intersect1d(seen.forget, seen.retain).size
        for model in planned.retrained[-1]:
            assert not np.intersect1d(model.index, seen.forget).size, f"{scenario}: retrained on what is forgotten"
            assert np.isin(seen.retain, model.index).all(), scenario
        for model in planned.originals:
            assert np.isin(np.concatenate([seen.forget, seen.retain]), model.index).all(), scenario
        seeds = [model.seed for model in (*planned.originals, *planned.retrained[-1])]
        assert len(set(seeds)) == len(seeds), "models that share a seed are not independent"


def test_the_per_example_attack_finds_nothing_in_retraining() -> None:
    sides = Sides(seen("exact", 16, 5), seen("exact", 24, 6))
    for learned, judged in zip(sides.known, sides.judged, strict=True):  # no model is judged that was learned from
        assert not {z.tobytes() for z in learned.forget.logits} & {z.tobytes() for z in judged.forget.logits}
    found = Examiner(attacks("per_example"), 0.05).learned("per_example", sides)
    assert found.area.low <= 0.5 <= found.area.high
    assert np.isfinite(found.positives).all() and np.isfinite(found.negatives).all()
    agreed = Seen.of(np.tile(seen("exact", 1, 7).forget.logits, (8, 1, 1)), sides.unlearned.forget.labels)
    attack = attacks("per_example")["per_example"]  # models that all agree: no spread
    scores = attack.score(attack.fit(Known(agreed, agreed), 0), sides.unlearned, sides.unlearned.forget)
    assert np.isfinite(scores).all()
    right = np.where(np.eye(10)[np.arange(30) % 10][None], 800.0, 0.0).repeat(6, axis=0)  # all are certain, and right
    certain = Seen.of(right, np.arange(30) % 10)
    assert (attack.score(attack.fit(Known(certain, certain), 0), certain, certain.forget) == 0).all()


def test_every_metric_has_a_value_or_a_reason_on_constant_inputs() -> None:
    every = attacks("per_example", "rmia", "label_only", "lira", "loss", "entropy", "svc")
    for fill in (0.0, 1000.0):
        flat = dataclasses.replace(
            seen("exact", 12, 1),
            **{
                part: dataclasses.replace(points, logits=np.full_like(points.logits, fill))
                for part in ("forget", "retain", "validation", "unseen")
                for points in [getattr(seen("exact", 12, 1), part)]
            },
        )
        for made, pool in ((flat, flat), (flat, seen("exact", 12, 2)), (seen("exact", 12, 2), flat)):
            found = examine(made, pool, every)
            assert {metric for metric, _ in found} >= {"forgetting_score", "klom", "output_js", "attack_p:per_example"}
            unexplained = [place for place, one in found.items() if not math.isfinite(one.value) and one.status == "ok"]
            assert not unexplained


def test_peak_memory_does_not_depend_on_what_ran_before() -> None:
    def peak(name: str) -> int:
        tried, meter = probe(name), ledger.PeakMemory()
        [asked] = tried.request("sample_removal")
        with contract.double():
            setting = tried.setting("sample_removal", [asked])
            unlearning.unlearn(
                setting, name, tried.method, tried.original, asked, state={}, seed=1, original_seed=7, meter=meter
            )
        return meter.peak

    names = ["fine_tune", "neg_grad", "scrub"]
    forward = {name: peak(name) for name in names}
    assert forward == {name: peak(name) for name in reversed(names)}
    assert len(set(forward.values())) == len(names)


class Broken(Attack):
    """An attack that cannot."""

    knows = "unlearned"

    def score(self, fitted: Any, seen: Seen, points: Points) -> np.ndarray:
        raise ZeroDivisionError("no\nluck")


def test_a_measure_that_fails_leaves_a_cell_that_says_so() -> None:
    every, made, pool = attacks("per_example", "rmia", "lira", "loss"), seen("no_op", 16, 2), seen("exact", 24, 1)
    whole = examine(made, pool, every)
    z = made.forget.logits.copy()
    z[12, 0, 0] = math.nan
    found = examine(dataclasses.replace(made, forget=dataclasses.replace(made.forget, logits=z)), pool, every)
    assert found.keys() == whole.keys(), "a number has gone, and with it its row"
    lost = {place: one for place, one in found.items() if math.isnan(one.value) and not math.isnan(whole[place].value)}
    assert lost and all("1 of" in one.status and "diverged" in one.status for one in lost.values())
    with pytest.raises(UsageError, match="attack broken failed.*ZeroDivisionError: no luck.*--attacks per") as caught:
        examine(made, pool, attacks("per_example") | {"broken": Broken()})
    assert "\n" not in str(caught.value)


def slowly(work: Callable[..., Any], first: Callable[[], None]) -> Callable[..., Any]:
    """The same work, with something before it."""

    def late(*args: Any, **fields: Any) -> Any:
        first()
        return work(*args, **fields)

    return late


def test_only_the_method_is_on_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What surrounds a method takes ages by a clock that only stands still where the method runs."""
    clock = types.SimpleNamespace(now=0.0)
    monkeypatch.setattr(ledger, "time", types.SimpleNamespace(perf_counter=lambda: clock.now))
    late = (
        "unlearning.view_of",
        "unlearning.context",
        "unlearning.changed",
        "training.evaluate",
        "training.weights_of",
    )
    called: set[str] = set()

    def pass_time(place: str) -> None:
        clock.now += 1000
        called.add(place)

    for place in late:
        module, name = place.split(".")
        home = {"unlearning": unlearning, "training": training}[module]
        monkeypatch.setattr(home, name, slowly(getattr(home, name), functools.partial(pass_time, place)))

    class Mine(Method):
        """Takes three seconds."""

        def unlearn(self, model: nn.Module, data: Any, ctx: Any) -> nn.Module:
            clock.now += 3
            next(model.parameters()).data.add_(1)
            return model

    flags = {"scenario": "class_removal", "methods": "fine_tune", "attacks": "none", "seeds": 1}
    planned = plan.make(config.resolve("digits", flags, []))
    setting = runner.setting_of(plan.place(planned.config), planned.dataset, planned.labels)
    row = next(row for row in planned.rows if row.name == "fine_tune")
    store, model, run = Store(tmp_path), setting.build(0), row.runs[0]
    done = unlearning.unlearn(setting, "mine", Mine(), model, run.request, state={}, seed=1, original_seed=0)
    keeper = runner.MethodRunner.__new__(runner.MethodRunner)
    keeper.plan, keeper.store, keeper.setting, keeper.session = planned, store, setting, "now"
    keeper._put(run, done)
    assert called == set(late)
    assert store.meta("unlearned", run.key)["seconds_request"] == done.seconds == 3


def reached(*roots: Any) -> Iterator[Any]:
    """Everything that can be reached from these by attributes, items and closures; not through modules or globals."""
    todo, known = list(roots), set()
    while todo:
        thing = todo.pop()
        if id(thing) in known or isinstance(thing, types.ModuleType | type):
            continue
        known.add(id(thing))
        yield thing
        if isinstance(thing, types.FunctionType):
            todo += [cell.cell_contents for cell in thing.__closure__ or ()] + [
                thing.__defaults__,
                thing.__kwdefaults__,
            ]
        elif not isinstance(thing, str | bytes | int | float):
            todo += gc.get_referents(thing)


def test_no_test_data_can_be_reached_from_a_method() -> None:
    flags = {"scenario": "depoisoning", "methods": "fine_tune", "attacks": "none", "seeds": 1}
    planned = plan.make(config.resolve("digits", flags, []))
    setting, request = (
        runner.setting_of(plan.place(planned.config), planned.dataset, planned.labels),
        planned.requests[0],
    )
    method = registry.load("methods", "pgu")()
    view = unlearning.view_of(setting, "pgu", method, request)
    ctx = unlearning.context(setting, method, seed=1, original_seed=0, request=request, state={})
    things = list(reached(view, ctx))
    test = planned.dataset.test_x
    sizes = [thing.shape for thing in things if isinstance(thing, np.ndarray | Tensor)]
    assert (len(request.forget), *test.shape[1:]) in sizes, "the search finds what a method does have"
    assert not [thing for thing in things if isinstance(thing, Dataset)]
    assert not [size for size in sizes if size[:1] == test.shape[:1]]
    assert set(setting.images) == {"train", "validation"}


def test_what_was_kept_is_on_the_device_and_a_copy() -> None:
    flags = {"scenario": "sample_removal", "methods": "fine_tune", "attacks": "none", "seeds": 1}
    planned = plan.make(config.resolve("digits", flags, []))
    setting = runner.setting_of(plan.place(planned.config), planned.dataset, planned.labels)
    method, state = registry.load("methods", "fine_tune")(), {"kept": torch.ones(3)}
    for device in ("cpu", "meta"):
        ctx = unlearning.context(
            dataclasses.replace(setting, device=device), method, seed=1, original_seed=0, state=state
        )
        assert ctx.state["kept"].device.type == device
    unlearning.context(setting, method, seed=1, original_seed=0, state=state).state["kept"] += 1
    assert state["kept"].eq(1).all()
