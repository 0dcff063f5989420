"""Audits of weights: planted memories come back and retrained models stay flat; censored is never 0; repeatable."""

from __future__ import annotations

import copy
import math
import multiprocessing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bench import config, deep, deep_records, plan, pool, runner, store, whitebox
from bench.interface import Record
from bench.logits import error_percent
from bench.progress import Progress
from bench.recipe import Deep
from bench.unlearning import Setting

SMALL = ("shadow.train=2", "shadow.validation=1", "recipe.epochs=5")
FAULTY = '''"""Faulty: fails."""
from bench.interface import Method

class Faulty(Method):
    """Fails."""
    budget = None

    def unlearn(self, model, data, ctx):
        raise RuntimeError("as asked")
'''


class World:
    """A finished small run whose models are there to audit."""

    def __init__(self, folder: Path, methods: str, scenario: str, *changes: str) -> None:
        flags = {"methods": methods, "scenario": scenario, "seeds": 2, "attacks": "none"}
        self.plan = plan.make(config.resolve("digits", flags, [*SMALL, *changes]))
        self.store = store.Store(folder)
        with Progress(0, quiet=True) as progress:
            pool.train_pool(self.plan, self.store, 1, progress)
            self.failures = runner.run_methods(self.plan, self.store, progress)
        self.request = self.plan.requests[-1]

    @property
    def setting(self) -> Setting:
        return runner.setting_of(plan.place(self.plan.config), self.plan.dataset, self.plan.labels)

    def model(self, role: str, repeat: int = 0) -> nn.Module:
        found = self.plan.originals if role == "original" else self.plan.retrained[-1]
        return runner.model_of(self.setting, self.store.get("model", self.plan.repeat(found, repeat).key)[0])

    def stored_error(self, role: str) -> float:
        """Of the forget set in percent, from the outputs that the store has."""
        found = self.plan.originals if role == "original" else self.plan.retrained[-1]
        arrays, _ = self.store.get("model", self.plan.repeat(found, 0).key)
        rows = self.request.forgotten
        return float(error_percent(arrays["logits/train"][rows], self.plan.labels[rows]))

    def audit(self, model: nn.Module, seed: int = 1, **settings: Any) -> dict[str, Any]:
        accuracy = 100.0 - self.stored_error("original")
        return whitebox.audit_model(self.setting, model, self.request, accuracy, Deep(**settings), seed)

    def carry_out(self, into: store.Store, jobs: Sequence[deep.Job], processes: int = 1) -> dict[str, str]:
        with Progress(len(jobs), quiet=True) as progress:
            return deep.carry_out(self.plan, jobs, QUICK, into, processes, progress)


QUICK = Deep(models=2, relearn_steps=60, recover_steps=8)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Some samples of class 0 must go."""
    folder = tmp_path_factory.mktemp("samples")
    return World(folder, "original", "sample_removal", "scenario.draw=class_random", "scenario.count=20")


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A class must go; one of the methods fails."""
    folder = tmp_path_factory.mktemp("classes")
    (folder / "faulty.py").write_text(FAULTY)
    return World(folder, f"pgu,{folder / 'faulty.py'}", "class_removal")


def head_edited(model: nn.Module, label: int) -> nn.Module:
    """The model, whose features know everything still; only the head denies a class."""
    edited = copy.deepcopy(model)
    with torch.no_grad():
        [module for module in edited.modules() if isinstance(module, nn.Linear)][-1].bias[label] -= 30.0
    return edited


# What is planted comes back


def test_an_original_needs_no_relearning_and_has_nothing_to_recover(samples: World, classes: World) -> None:
    for world in (samples, classes):
        found = world.audit(world.model("original"))
        assert (found["relearn_steps"], found["relearn_censored"]) == (0, 0)
        assert max(found["recovered_error"]) <= 5


def test_a_denied_class_is_relearned_at_once(classes: World) -> None:
    (label,) = classes.request.removed_classes
    denied = classes.audit(head_edited(classes.model("original"), label))
    control = classes.audit(classes.model("retrained"))
    assert denied["recovered_error"][0] == control["recovered_error"][0] == 100.0
    assert denied["relearn_censored"] == control["relearn_censored"] == 0
    assert 0 < denied["relearn_steps"] < control["relearn_steps"] / 2


def test_denied_samples_come_back_without_being_seen_and_retrained_ones_stay(samples: World) -> None:
    denied = samples.audit(head_edited(samples.model("original"), 0), lr=0.01)
    assert denied["recovered_error"][0] == 100.0
    assert denied["recovered_error"][-1] <= 5
    control = samples.audit(samples.model("retrained"), lr=0.01)["recovered_error"]
    assert max(control) - min(control) <= 10  # of 20 samples


def test_a_removed_class_does_not_come_back_to_retrained_models(classes: World) -> None:
    assert classes.audit(classes.model("retrained"))["recovered_error"] == [100.0] * 4


# Budgets


def test_what_is_never_relearned_is_censored_at_the_budget_and_not_0(classes: World) -> None:
    found = classes.audit(classes.model("retrained"), lr=1e-9, relearn_steps=40, recover_steps=0)
    assert (found["relearn_steps"], found["relearn_censored"]) == (40, 1)


def test_no_budget_gives_the_readings_before(classes: World, samples: World) -> None:
    nothing = {"relearn_steps": 0, "recover_steps": 0}
    found = samples.audit(samples.model("retrained"), **nothing)
    assert found["recovered_error"] == [samples.stored_error("retrained")] * 4
    assert found["recovered_at"] == [0.0] * 4
    assert samples.audit(samples.model("retrained"), recover_epochs=0)["recovered_at"] == [0.0] * 4
    assert classes.audit(classes.model("retrained"), **nothing)["relearn_censored"] == 1
    original = classes.audit(classes.model("original"), **nothing)
    assert (original["relearn_steps"], original["relearn_censored"]) == (0, 0)


@pytest.mark.parametrize(("epochs", "steps", "at"), [(10, 8, [0, 2, 4, 8]), (2, 500, [0, 5, 10, 20])])
def test_the_smaller_budget_of_recovery_counts(samples: World, epochs: int, steps: int, at: list[float]) -> None:
    assert len(samples.request.retain) == 580  # ten batches of at most 64
    found = samples.audit(samples.model("retrained"), recover_epochs=epochs, recover_steps=steps, relearn_steps=0)
    assert found["recovered_at"] == at


def test_large_forget_sets_are_watched_on_a_fixed_thousand(samples: World) -> None:
    large = type(samples.request)(forget=np.arange(2500), retain=np.arange(9), forgotten=np.arange(2500) * 2)
    rows = whitebox.watched(large)
    assert len(np.unique(rows)) == 1000
    assert (rows[0], rows[-1]) == (0, 4998)
    assert np.array_equal(whitebox.watched(samples.request), samples.request.forgotten)


def test_steps_are_those_of_a_plain_count(classes: World) -> None:
    model, within = classes.model("retrained"), 30.0
    settings = Deep(relearn_within=within, relearn_steps=100)
    steps, _ = whitebox.relearn(classes.setting, model, classes.request, 90.0, settings, 1)
    part = whitebox._part(classes.setting, classes.request.forgotten)
    taken = whitebox._fine_tune(model.eval(), part, settings, 1, 100)
    assert steps == next(step for step in taken if 100.0 - whitebox._error(model, part) >= 90.0 - within) > 0


def test_nothing_forgotten_has_no_reading(samples: World) -> None:
    none = np.empty(0, dtype=np.int64)
    empty = type(samples.request)(forget=none, retain=np.arange(50), forgotten=none)
    found = whitebox.audit_model(samples.setting, samples.model("original"), empty, math.nan, QUICK, 1)
    assert math.isnan(float(str(found["relearn_steps"])))
    assert np.isnan(found["recovered_error"]).all()


# Weights


def test_a_model_does_not_differ_from_itself_and_far_is_far(samples: World) -> None:
    model = samples.model("original")
    same = whitebox.weight_change(model, copy.deepcopy(model))
    assert (same["weight_distance"], same["weights_changed"]) == (0.0, 0.0)
    assert same["weight_cosine"] == pytest.approx(1)
    edited = whitebox.weight_change(head_edited(model, 0), model)
    count = sum(p.numel() for p in model.parameters())
    norm = math.sqrt(sum(float((p.detach().double() ** 2).sum()) for p in model.parameters()))
    assert edited["weights_changed"] == pytest.approx(100 / count)
    assert edited["weight_distance"] == pytest.approx(30 / norm, rel=1e-6)
    assert whitebox.weight_change(samples.model("retrained"), model)["weight_distance"] > 0.5


def test_weights_that_are_zero_or_broken_have_an_answer(samples: World) -> None:
    model, zero = samples.model("original"), samples.model("original")
    with torch.no_grad():
        for p in zero.parameters():
            p.zero_()
    assert whitebox.weight_change(zero, model)["weight_distance"] == pytest.approx(1)
    assert math.isfinite(whitebox.weight_change(model, zero)["weight_distance"])
    with torch.no_grad():
        next(zero.parameters()).fill_(math.nan)
    assert all(math.isnan(value) for value in whitebox.weight_change(zero, model).values())
    found = samples.audit(zero, relearn_steps=3, recover_steps=3)
    assert (found["relearn_steps"], found["relearn_censored"], found["recovered_error"][-1]) == (3, 1, 100.0)


# Repeatable, and without traces


def test_an_audit_leaves_the_model_and_torchs_own_stream_as_they_were(samples: World) -> None:
    model = samples.model("original").train()
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    first = samples.audit(model)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert samples.audit(model.eval()) == first


def test_another_seed_gives_another_order(classes: World) -> None:
    model, budget = classes.model("retrained"), {"batch_size": 4, "recover_steps": 0}
    assert len({classes.audit(model, seed, **budget)["relearn_steps"] for seed in range(4)}) > 1


def copied(world: World, folder: Path) -> store.Store:
    """A store with the world's models and runs, and no audit."""
    other = store.Store(folder)
    for kind in ("model", "unlearned"):
        for path in (world.store.folder / kind).rglob("*.safetensors"):
            target = other.path(kind, path.stem)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return other


def readings(entries: store.Store, jobs: Sequence[deep.Job]) -> list[dict[str, Any] | None]:
    found = [entries.meta(deep.KIND, job.key) if entries.has(deep.KIND, job.key) else None for job in jobs]
    return [one and {name: value for name, value in one.items() if name != "seconds"} for one in found]


def test_neither_processes_nor_order_matter_and_weights_in_the_store_stay(classes: World, tmp_path: Path) -> None:
    jobs = deep.jobs_of(classes.plan, QUICK)
    one, two = copied(classes, tmp_path / "one"), copied(classes, tmp_path / "two")
    files = {path: path.read_bytes() for path in one.folder.rglob("*.safetensors")}
    assert classes.carry_out(one, jobs) == classes.carry_out(two, jobs[::-1], processes=2) == {}
    assert readings(one, jobs) == readings(two, jobs)
    assert {path: path.read_bytes() for path in files} == files
    assert not multiprocessing.active_children()


def test_the_control_and_every_row_are_audited_but_for_runs_that_failed(classes: World, tmp_path: Path) -> None:
    jobs = deep.jobs_of(classes.plan, QUICK)
    assert [(job.method, job.repeat) for job in jobs] == [
        (method, repeat) for method in ("reference", "original", "retrain", "pgu", "faulty") for repeat in (0, 1)
    ]
    assert len({job.key for job in jobs}) == len({job.seed for job in jobs}) == len(jobs)
    assert [job.key for job in deep.jobs_of(classes.plan, QUICK.model_copy(update={"models": 1}))] == [
        job.key for job in jobs if job.repeat == 0
    ]
    entries = copied(classes, tmp_path)
    classes.carry_out(entries, jobs)
    assert {job.method for job in deep.missing(jobs, entries)} == {"faulty"}
    assert {r.method for r in deep_records.records(classes.plan, QUICK, entries)} == {
        "reference",
        "original",
        "retrain",
        "pgu",
    }


def test_what_the_store_has_is_not_audited_again(
    classes: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs, entries = deep.jobs_of(classes.plan, QUICK), copied(classes, tmp_path)
    served: list[str] = []
    real: Callable[..., Any] = deep._audited

    def killed(job: deep.Job, *rest: Any) -> Any:
        if len(served) == 3:
            raise KeyboardInterrupt
        served.append(job.key)
        return real(job, *rest)

    monkeypatch.setattr(deep, "_audited", killed)
    with pytest.raises(KeyboardInterrupt):
        classes.carry_out(entries, jobs)
    assert len(deep.missing(jobs, entries)) == len(jobs) - 3
    first = set(served)
    monkeypatch.setattr(deep, "_audited", lambda job, *rest: served.append(job.key) or real(job, *rest))
    classes.carry_out(entries, jobs)
    classes.carry_out(entries, jobs)
    assert first < set(served)
    assert len(served) == len(set(served)) == len(jobs) - 2  # not what failed


def test_an_audit_that_fails_says_so(classes: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no memory\nat all")

    jobs, entries = deep.jobs_of(classes.plan, QUICK)[:3], copied(classes, tmp_path)
    monkeypatch.setattr(deep, "_audited", fail)
    reasons = classes.carry_out(entries, jobs)
    assert reasons == {job.key: "failed: RuntimeError: no memory" for job in jobs}
    found = deep_records.records(classes.plan, QUICK, entries, reasons)
    assert [(r.method, r.seed, r.status) for r in found] == [
        (job.method, str(job.repeat), "failed: RuntimeError: no memory") for job in jobs
    ]


def test_other_settings_are_other_entries_and_more_models_are_not(classes: World) -> None:
    base = deep.jobs_of(classes.plan, QUICK)[0].key
    for name, value in {"lr": 0.1, "momentum": 0.5, "batch_size": 8, "recover_steps": 9, "relearn_within": 1.0}.items():
        assert deep.jobs_of(classes.plan, QUICK.model_copy(update={name: value}))[0].key != base
    assert deep.jobs_of(classes.plan, QUICK.model_copy(update={"models": 1}))[0].key == base


def test_the_last_request_of_several_covers_all_that_was_forgotten(tmp_path: Path) -> None:
    world = World(tmp_path, "original", "incremental", "scenario.steps=2", "scenario.per_class=1", "recipe.epochs=1")
    jobs = deep.jobs_of(world.plan, QUICK)
    assert {len(job.request.forgotten) for job in jobs} == {20}
    assert world.carry_out(world.store, jobs) == {}
    found = deep_records.records(world.plan, QUICK, world.store)
    assert {record.step for record in found} == {1}
    assert {record.n for record in found if record.seed == "0" and record.part == "forget"} == {20}


# Records


def only(found: Sequence[Record], method: str, metric: str, seed: str = "all") -> Record:
    (record,) = (r for r in found if (r.method, r.metric, r.seed) == (method, metric, seed))
    return record


def test_records_compare_with_the_retrained_models(classes: World) -> None:
    jobs = deep.jobs_of(classes.plan, QUICK)
    classes.carry_out(classes.store, jobs)
    found = deep_records.records(classes.plan, QUICK, classes.store)
    audits = {(job.method, job.repeat): one for job, one in zip(jobs, readings(classes.store, jobs), strict=True)}
    own, control = audits["pgu", 1], [audits["reference", repeat] for repeat in (0, 1)]
    assert own and all(control)
    level = np.mean([one["recovered_error"][-1] for one in control if one])
    assert only(found, "pgu", "recovered_error_gap", "1").value == pytest.approx(own["recovered_error"][-1] - level)
    assert only(found, "pgu", "recovery", "1").value == own["recovered_error"][0] - own["recovered_error"][-1]
    median = min(one["relearn_steps"] for one in control if one)
    assert only(found, "reference", "relearn_steps").value == median
    assert only(found, "pgu", "relearn_ratio", "1").value == own["relearn_steps"] / median < 1
    assert only(found, "original", "relearn_ratio", "0").value == 0
    assert only(found, "original", "weight_distance", "0").value == 0
    assert only(found, "reference", "recovered_error").value == pytest.approx(level)
    assert only(found, "reference", "weight_distance_sd").n == 2
    assert {r.status for r in found} == {"ok"}
    assert {r.seed for r in found if r.method == "reference"} == {"all"}
    assert "recovered_error_gap" not in {r.metric for r in found if r.method == "reference"}


def audit(steps: float, censored: int) -> dict[str, Any]:
    return {"relearn_steps": steps, "relearn_censored": censored}


@pytest.mark.parametrize(
    ("own", "control", "ratio"),
    [
        ((30, 0), [(20, 0), (40, 0), (60, 1)], 0.75),
        ((60, 1), [(20, 0), (20, 0)], 3.0),  # at least
        ((6, 0), [(60, 1), (60, 1)], 0.1),  # at most
        ((60, 1), [(60, 1), (60, 1)], None),
        ((3, 0), [(0, 0), (0, 0), (9, 0)], None),
        ((3, 0), [], None),
    ],
)
def test_ratios_of_relearning(own: tuple[int, int], control: list[tuple[int, int]], ratio: float | None) -> None:
    found = deep_records._ratio(audit(*own), [audit(*one) for one in control], QUICK)
    assert math.isnan(found) if ratio is None else found == ratio


def test_known_medians() -> None:
    median = deep_records.kaplan_meier_median
    assert median([3, 1, 2], [False] * 3) == 2
    assert median([500, 4, 500], [True, False, True]) == math.inf
    assert median([500, 4, 8], [True, False, False]) == 8
    # At risk 6, 5, 3, 2: 5/6, then 4/6, then (one was lost at 3) 4/9.
    assert median([1, 2, 3, 4, 5, 6], [False, False, True, False, False, True]) == 4
    assert math.isnan(median([], []))
    assert math.isnan(median([math.nan], [False]))


@given(st.lists(st.integers(0, 9), min_size=1), st.integers(1, 9))
def test_the_median_is_the_plain_one_wherever_the_budget_allows(steps: list[int], budget: int) -> None:
    found = deep_records.kaplan_meier_median([min(s, budget) for s in steps], [s > budget for s in steps])
    plain = sorted(steps)[(len(steps) - 1) // 2]
    assert found == (plain if plain <= budget else math.inf)


def test_bad_settings_are_refused() -> None:
    for bad in ({"lr": 0}, {"batch_size": 1}, {"models": 0}, {"relearn_steps": -1}, {"relearn_within": 101}, {"x": 1}):
        with pytest.raises(ValueError):
            Deep(**bad)
