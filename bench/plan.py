"""From a config to the jobs it needs, each with the key of what it makes; no side effects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from bench import keys, registry, scenarios, seeds, store
from bench.attack import Attack
from bench.config import Config
from bench.datasets import SUBSET, require_sound, subset
from bench.interface import Dataset, Method, Request, UsageError
from bench.recipe import Recipe


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
    """One method applied to one original for one request; `previous` is the run whose model it starts from.

    `repeat` is the original's: a repeat's number, or the name of a shadow.
    """

    key: str
    method: str
    repeat: int | str
    request: Request
    seed: int
    original: Model
    prepared: str | None
    previous: Run | None
    last: bool
    peak: str | None = None  # where its peak memory is kept: the first repeat's only


@dataclass(frozen=True)
class Row:
    """One row of the table: a method with its runs, or the reason why it is skipped.

    `shadows` are its runs from shadow originals, for attacks that know the method: by original, all requests in order.
    """

    name: str
    method: Method
    runs: tuple[Run, ...]
    skipped: str = ""
    key: str = ""
    shadows: tuple[tuple[Run, ...], ...] = ()
    audit_key: str = ""
    given: tuple[tuple[str, str], ...] = ()  # files and SHA-256 of weights made elsewhere, where the runs are those


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
    attack_keys: dict[str, str] = field(default_factory=dict)  # by name, of the attacks that know the original
    reference_key: str = ""
    audit_key: str = ""  # of what the audit says of the retrained pool
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
                stage = "evaluate" if row.given else "unlearn with"
                yield f"{stage} {row.name}", "unlearned", run.key
                if run.peak:
                    yield f"count the memory of {row.name}", "peak", run.peak
        for row in self.rows:
            for chain in row.shadows:
                yield f"unlearn for the attacks, {row.name}", "shadow", keys.view_key(chain[-1].key, self.requests[-1])
        yield from (("see the forget set shifted", "views", key) for key in self.views())
        yield from ((f"fit the attack {name}", "attack", key) for name, key in self.attack_keys.items())
        yield from self.deep()
        yield "read out the retrained pool", "evaluation", self.reference_key
        if self.audit_key:
            yield "audit the retrained pool", "audit", self.audit_key
        for row in self.rows:
            if row.runs:
                yield f"read out {row.name}", "evaluation", row.key
            if row.audit_key:
                yield f"audit {row.name}", "audit", row.audit_key

    def shadows(self) -> list[str]:
        """Numbers of the pool's models that only attacks learn from."""
        shadow = self.config.shadow
        return [f"shadow{shadow.first + j}" for j in range(shadow.train + shadow.validation)]

    def unlearned(self) -> list[str]:
        """Numbers of the shadow originals that every method also unlearns from, for attacks that know the method."""
        learns = any(attack.knows == "unlearned" for attack in self.attacks().values())
        return self.shadows()[: self.config.shadow.unlearned] if learns else []

    def attacks(self) -> dict[str, Attack]:
        """The attacks of the run by name."""
        return {registry.short_name(entry): self.config.attack(entry) for entry in self.config.attacks}

    def deep(self) -> Iterator[tuple[str, str, str]]:
        """The jobs of audits by weights, where they are wanted."""
        from bench import deep

        if self.config.audit.level == "deep":
            yield from (("audit weights", deep.KIND, job.key) for job in deep.jobs_of(self, self.config.deep))

    def views(self) -> dict[str, tuple[str, str]]:
        """Models that must be seen on shifted copies of the forget set: kind and key of each, by that of what is seen.

        None where no attack wants it. What methods make of shadow originals is seen when it is made.
        """
        if not any(attack.views for attack in self.attacks().values()):
            return {}
        sources = [("model", model.key) for model in (*self.originals, *self.retrained[-1])]
        sources += [("unlearned", run.key) for row in self.rows for run in row.runs if run.last]
        return {keys.view_key(source, self.requests[-1]): (kind, source) for kind, source in sources}

    def repeat(self, pool: list[Model], of: int | str) -> Model:
        """The model of a pool that belongs to a repeat, or to a shadow of this number."""
        return next(model for model in pool if model.number == (of if isinstance(of, str) else f"repeat{of}"))

    def of(self, pool: list[Model], numbers: Iterable[int | str]) -> list[Model]:
        """The models of a pool that belong to these repeats and shadows."""
        return [self.repeat(pool, number) for number in numbers]


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
    except (Exception, SystemExit) as error:  # a plug-in may return or raise anything
        raise UsageError(f"the data set {name} cannot be used: {type(error).__name__}: {error}") from error
    return dataset  # type: ignore[no-any-return]


def make(config: Config, hardness: np.ndarray | None = None) -> Plan:
    """The plan of a config, with the scores of `bench.memorization` where its scenario needs them.

    Raises UsageError when the data cannot serve the scenario.
    """
    plan = of_originals(config, load_dataset(config.dataset), shadows=True, hardness=hardness)
    recipe_key = keys.model_kind(config, plan.dataset)
    plan.retrained = [_pool(plan, recipe_key, "retrained", r.step, scenarios.reference_data(r)) for r in plan.requests]
    plan.attack_keys = keys.attack_keys(plan)
    plan.reference_key = keys.evaluation_key(plan, "reference", [])
    plan.audit_key = keys.audit_key(plan, "reference", [], [])
    plan.rows = [row(plan, name) for name in config.rows()]
    _require_work([one for one in plan.rows if one.name in map(registry.row_name, config.methods)])
    return plan


def _require_work(named: Sequence[Row]) -> None:
    """Raise UsageError where every method that was named is skipped: a run would show controls only."""
    if named and all(one.skipped for one in named):
        reasons = "; ".join(dict.fromkeys(one.skipped for one in named))
        raise UsageError(f"none of these methods can run: {reasons}; name others with --methods, or another --scenario")


def of_originals(config: Config, dataset: Dataset, *, shadows: bool, hardness: np.ndarray | None = None) -> Plan:
    """The requests and the originals of a config, with neither retrained models nor rows. Raises as `make` does.

    Without `shadows`, the originals are those of the repeats only.
    """
    requests = config.scenario_settings.requests(dataset.train_y, dataset.classes, config.seed, hardness)
    labels = scenarios.training_labels(requests, dataset.train_y)
    plan = Plan(config, dataset, requests, labels, hardness=hardness)
    pool = _pool(plan, keys.model_kind(config, dataset), "original", 0, np.arange(len(labels)))
    plan.originals = pool if shadows else [plan.repeat(pool, repeat) for repeat in config.seeds]
    return plan


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
        supported = ", ".join(method.supports) or "none"
        return Row(name, method, (), f"{name} does not support {scenario} (it supports {supported})")
    if reason := method.refuses(scenario):
        return Row(name, method, (), reason)
    code = keys.method_code(plan.config, name)
    chains = [_chain(plan, name, method, code, repeat) for repeat in plan.config.seeds]
    runs = tuple(run for chain in chains for run in chain)
    # The original's models are there already.
    shadows = () if method.identity else tuple(_chain(plan, name, method, code, number) for number in plan.unlearned())
    made = Row(name, method, runs, key=keys.evaluation_key(plan, name, [run.key for run in runs]), shadows=shadows)
    last = [chain[-1].key for chain in shadows]
    return replace(made, audit_key=keys.audit_key(plan, name, [run.key for run in runs], last))


def _chain(plan: Plan, name: str, method: Method, code: str, of: int | str) -> tuple[Run, ...]:
    """A method's runs from one original, a repeat's or a shadow's, for all requests in order."""
    runs: list[Run] = []
    for request in plan.requests:
        runs.append(_run(plan, name, method, code, of, request, runs[-1] if runs else None))
    return tuple(runs)


def _run(
    plan: Plan, name: str, method: Method, code: str, of: int | str, request: Request, previous: Run | None
) -> Run:
    original = plan.repeat(plan.originals, of)
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
    seed = seeds.derive(plan.config.seed, "method", name, of, request.step)
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
    peak = store.key(peak=key) if of == plan.config.seeds[0] else None
    return Run(key, name, of, request, seed, original, prepared, previous, last, peak)
