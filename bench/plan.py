"""From a config to the jobs it needs, each with the key of what it makes; no side effects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from bench import registry, scenarios, seeds, store
from bench.config import Config
from bench.datasets import SUBSET, require_sound, subset
from bench.interface import Dataset, Method, Need, Request, UsageError
from bench.recipe import Recipe

BENCH = Path(__file__).resolve().parent
TRAINING_CODE = ("training.py", "stack.py", "loop.py", "step.py", "dataview.py")
METHOD_CODE = ("loop.py", "step.py", "dataview.py", "unlearning.py")
READOUT_CODE = ("readings.py", "readouts.py", "statistics.py", "evaluation.py")


@dataclass(frozen=True)
class Model:
    """A model to train: `role` is original, retrained or half, `number` its place in the pool.

    `index` int64 are its training rows, `labels` the labels that all training rows carry.
    """

    key: str
    role: str
    number: str
    step: int
    seed: int
    index: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Run:
    """One method applied to one original for one request; `previous` is the run whose model it starts from."""

    key: str
    method: str
    repeat: int
    request: Request
    seed: int
    original: Model
    prepared: str | None
    previous: Run | None
    last: bool
    peak: str | None = None  # where its peak memory is kept: the first repeat's only


@dataclass(frozen=True)
class Row:
    """One row of the table: a method with its runs, or the reason why it is skipped."""

    name: str
    method: Method
    runs: tuple[Run, ...]
    skipped: str = ""
    key: str = ""


@dataclass
class Plan:
    """Everything a config needs. `retrained[step]` is the reference pool of a request, repeats last.

    `labels` are those of training, wrong where the data is poisoned; `hardness` are the memorization scores, if any.
    """

    config: Config
    dataset: Dataset
    requests: list[Request]
    labels: np.ndarray
    originals: list[Model] = field(default_factory=list)
    retrained: list[list[Model]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    attack_key: str | None = None
    reference_key: str = ""
    hardness: np.ndarray | None = None

    def models(self) -> list[Model]:
        """All models of the pool, originals first."""
        return [*self.originals, *(model for pool in self.retrained for model in pool)]

    def jobs(self) -> Iterator[tuple[str, str, str]]:
        """`(stage, kind, key)` of every entry that the run will read or make, in the order of making."""
        for model in self.models():
            yield f"train {model.role} models" + (f", request {model.step}" if model.step else ""), "model", model.key
        for row in self.rows:
            for run in row.runs:
                if run.prepared and not run.previous:
                    yield f"prepare {row.name}", "prepared", run.prepared
                yield f"unlearn with {row.name}", "unlearned", run.key
                if run.peak:
                    yield f"count the memory of {row.name}", "peak", run.peak
        if self.attack_key:
            yield f"fit the attack {self.config.attack}", "attack", self.attack_key
        yield "read out the retrained pool", "evaluation", self.reference_key
        for row in self.rows:
            if row.runs:
                yield f"read out {row.name}", "evaluation", row.key

    def shadows(self) -> list[str]:
        """Numbers of the pool's models that only the attack learns from."""
        total = self.config.shadow.train + self.config.shadow.validation
        return [f"shadow{j}" for j in range(total)]

    def repeat(self, pool: list[Model], repeat: int) -> Model:
        """The model of a pool that belongs to a repeat."""
        return next(model for model in pool if model.number == f"repeat{repeat}")


Place = tuple[str, str, Recipe, str, str, float | None]  # data set, architecture, recipe, device, scenario, time limit


def place(config: Config) -> Place:
    """Where a config's methods run."""
    return (config.dataset, config.architecture, config.recipe, config.device, config.scenario, config.time_limit)


def load_dataset(name: str) -> Dataset:
    """The data set of this name or file, checked; `cifar10+train=2500` is a part of it (`bench.datasets.subset`).

    Raises UsageError, in one line, for one that breaks its contract.
    """
    load = registry.function("datasets", name, besides=SUBSET)
    _, settings = registry.variant(name)
    chosen = {part: registry.value(text) for part, text in settings.items() if part in SUBSET}
    try:
        dataset = load()
        require_sound(dataset)
        if chosen:
            dataset = subset(dataset, **chosen)
        if settings:
            dataset = replace(dataset, name=registry.row_name(name)).verified(dataset.digest)
    except UsageError:
        raise
    except Exception as error:  # a plug-in may return or raise anything
        raise UsageError(f"the data set {name} cannot be used: {type(error).__name__}: {error}") from error
    return dataset  # type: ignore[no-any-return]


def make(config: Config, hardness: np.ndarray | None = None) -> Plan:
    """The plan of a config, with the scores of `bench.memorization` where its scenario needs them.

    Raises UsageError when the data cannot serve the scenario.
    """
    plan = of_originals(config, load_dataset(config.dataset), shadows=True, hardness=hardness)
    recipe_key = model_kind(config, plan.dataset)
    plan.retrained = [_pool(plan, recipe_key, "retrained", r.step, scenarios.reference_data(r)) for r in plan.requests]
    plan.attack_key = _attack_key(plan)
    plan.reference_key = _evaluation_key(plan, "reference", [])
    plan.rows = [row(plan, name) for name in config.rows()]
    return plan


def of_originals(config: Config, dataset: Dataset, *, shadows: bool, hardness: np.ndarray | None = None) -> Plan:
    """The requests and the originals of a config, with neither retrained models nor rows. Raises as `make` does.

    Without `shadows`, the originals are those of the repeats only.
    """
    requests = config.scenario_settings.requests(dataset.train_y, dataset.classes, config.seed, hardness)
    labels = scenarios.training_labels(requests, dataset.train_y)
    plan = Plan(config, dataset, requests, labels, hardness=hardness)
    pool = _pool(plan, model_kind(config, dataset), "original", 0, np.arange(len(labels)))
    plan.originals = pool if shadows else [plan.repeat(pool, repeat) for repeat in config.seeds]
    return plan


def model_kind(config: Config, dataset: Dataset) -> str:
    """The part of a model's key that every pool shares: data, architecture, recipe, device and code."""
    architecture = registry.source("architectures", registry.variant(config.architecture)[0])
    code = [BENCH / name for name in TRAINING_CODE] + ([architecture] if architecture else [])
    return store.key(
        data=store.fingerprint(dataset),
        architecture=registry.row_name(config.architecture),
        recipe=config.recipe.model_dump(exclude={"name"}),
        device=config.device.split(":")[0],
        torch=_version("torch"),
        code=store.code_version(*code),
    )


def _version(package: str) -> str:
    """The installed version without its local part, or nothing: numbers of one version do not pass for another's."""
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return ""


def _pool(plan: Plan, kind: str, role: str, step: int, index: np.ndarray) -> list[Model]:
    numbers = [*plan.shadows(), *(f"repeat{s}" for s in plan.config.seeds)]
    made_of = store.key(kind=kind, index=index, labels=plan.labels[index])
    pool = []
    for number in numbers:
        seed = seeds.derive(plan.config.seed, role, number)
        pool.append(Model(store.key(made_of=made_of, seed=seed), role, number, step, seed, index, plan.labels))
    return pool


def row(plan: Plan, name: str) -> Row:
    """The row of a method: its runs for every repeat and request, or why it is skipped."""
    method = plan.config.method(name)
    scenario = plan.config.scenario
    if scenario not in method.supports:
        supported = ", ".join(method.supports)
        return Row(name, method, (), f"{name} does not support {scenario} (it supports {supported})")
    if reason := method.refuses(scenario):
        return Row(name, method, (), reason)
    if Need.OWN_TRAINING in method.reads():
        return Row(name, method, (), f"{name} needs its own training, which this version cannot run yet")
    runs: list[Run] = []
    code = _method_code(plan.config, name)
    for repeat in plan.config.seeds:
        previous: Run | None = None
        for request in plan.requests:
            previous = _run(plan, name, method, code, repeat, request, previous)
            runs.append(previous)
    return Row(name, method, tuple(runs), key=_evaluation_key(plan, name, [run.key for run in runs]))


def _run(plan: Plan, name: str, method: Method, code: str, repeat: int, request: Request, previous: Run | None) -> Run:
    original = plan.repeat(plan.originals, repeat)
    name = registry.short_name(plan.config.entry(name))  # a variant differs in its settings only
    made_of = {
        "method": name,
        "settings": method.model_dump(),
        "code": code,
        "original": original.key,
    }
    if plan.config.time_limit is not None:
        made_of["time_limit"] = str(plan.config.time_limit)
    prepares = type(method).prepare is not Method.prepare
    seed = seeds.derive(plan.config.seed, "method", name, repeat, request.step)
    key = store.key(
        **made_of,
        forget=request.forget,
        retain=request.retain,
        wrong=request.wrong_labels,
        scenario=plan.config.scenario,
        removed=request.removed_classes,
        seed=seed,
        previous=previous.key if previous else None,
    )
    last = request.step == len(plan.requests) - 1
    used = method.model_dump(include=None if method.prepares_with is None else set(method.prepares_with))
    prepared = store.key(stage="prepare", **(made_of | {"settings": used})) if prepares else None
    peak = store.key(peak=key) if repeat == plan.config.seeds[0] else None
    return Run(key, name, repeat, request, seed, original, prepared, previous, last, peak)


def _method_code(config: Config, name: str) -> str:
    """The version of a method's code: its file, the helpers beside it, and what the harness adds."""
    path = registry.source("methods", config.entry(name))
    own = store.sources(path) if path else []
    return store.code_version(*own, *(BENCH / file for file in METHOD_CODE))


def _attack_key(plan: Plan) -> str | None:
    attack = plan.config.attack_instance()
    if attack is None or plan.config.attack is None:
        return None
    path = registry.source("attacks", plan.config.attack)
    wanted = set(plan.shadows())
    pools = [[m.key for m in pool if m.number in wanted] for pool in (plan.originals, plan.retrained[-1])]
    return store.key(
        attack=plan.config.attack,
        settings=attack.model_dump(exclude={"n_threads"}),
        code=store.code_version(*(store.sources(path) if path else [])),
        xgboost=_version("xgboost-cpu") or _version("xgboost"),
        pools=pools,
        validation=plan.config.shadow.validation,
        forget=plan.requests[-1].forgotten,
    )


def _evaluation_key(plan: Plan, name: str, runs: list[str]) -> str:
    return store.key(
        name=name,
        runs=runs,
        forget=[request.forget for request in plan.requests],  # one reference pool serves every share of known poison
        reference=[[model.key for model in pool] for pool in plan.retrained],
        originals=[model.key for model in plan.originals],
        attack=plan.attack_key,
        scenario=plan.config.scenario,
        code=store.code_version(*(BENCH / file for file in READOUT_CODE)),
    )
