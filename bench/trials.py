"""From configs to the trials that tuning them takes, each with the keys of what it makes; no side effects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench import development, keys, plan, pool, registry, seeds, store, tuning
from bench.config import Config
from bench.interface import Dataset, UsageError
from bench.plan import Place, Plan, Row, Run
from bench.scenarios import Scenario

MOST = 10_000  # of anything in a budget
SCORING_CODE = ("tuning.py", "tuner.py")


@dataclass(frozen=True)
class Budget:
    """What every method may spend: trials, and the draws and originals that each is scored on."""

    trials: int = 16
    draws: int = 3
    originals: int = 2

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 1 <= value <= MOST:
                bound = "at least 1" if value < 1 else f"at most {MOST:,}"
                raise UsageError(f"--{name} must be {bound}, got {value}")


@dataclass(frozen=True)
class Job:
    """One configuration serving the requests of one draw from one original."""

    key: str
    entry: str
    settings: dict[str, Any]
    place: Place
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Candidate:
    """One trial before it is carried out: what it changes, and its jobs, or why the method's class refuses it."""

    changes: dict[str, Any]
    jobs: list[Job]
    refused: str = ""


@dataclass(frozen=True)
class Study:
    """One method in one scenario: its trials, or why there are none."""

    config: Config
    name: str
    candidates: list[Candidate]
    skipped: str = ""


@dataclass(frozen=True)
class Cell:
    """One scenario: the draws to choose on, the plan of each, and the methods to tune."""

    config: Config
    draws: list[Scenario]
    plans: list[Plan]
    studies: list[Study]


def lay_out(configs: Sequence[Config], fixed: Sequence[str], budget: Budget) -> list[Cell]:
    """What tuning these configs, one a scenario, takes; `fixed` are the fields that are not searched, as `name.field`.

    Raises UsageError for a `search` that its method's fields refuse and for a request that leaves no other draws.
    """
    dataset = pool.loaded(configs[0].dataset, test=False)
    cells = [_cell(config, dataset, set(fixed), budget) for config in configs]
    skipped = [study.skipped for cell in cells for study in cell.studies]
    if all(skipped):
        reasons = "; ".join(dict.fromkeys(skipped))
        raise UsageError(f"nothing to tune: {reasons}; name others with --methods, or another --scenario")
    return cells


def _cell(config: Config, dataset: Dataset, fixed: set[str], budget: Budget) -> Cell:
    draws = development.draws(config.scenario_settings, dataset.train_y, dataset.classes, config.seed, budget.draws)
    plans = [_plan(config, draw, dataset, budget) for draw in draws]
    rows = dict.fromkeys(registry.row_name(entry) for entry in config.methods)
    studies = [_study(config, row, plans, fixed, budget) for row in rows if row != "retrain"]
    if not studies:
        raise UsageError("retrain is what methods are judged by; there is nothing to tune")
    return Cell(config, draws, plans, studies)


def _plan(config: Config, draw: Scenario, dataset: Dataset, budget: Budget) -> Plan:
    """Other originals, serving other requests: every random stream of it starts at another root."""
    repeats = tuple(range(budget.originals))
    own = {"seed": development.root(config.seed), "seeds": repeats, "scenario_settings": draw, "attacks": ()}
    return plan.of_originals(config.model_copy(update=own), dataset, shadows=False)


def _study(config: Config, name: str, plans: Sequence[Plan], fixed: set[str], budget: Budget) -> Study:
    defaults = config.method(name)
    try:
        tuning.check_search(type(defaults))
    except ValueError as error:
        raise UsageError(f"{registry.source('methods', config.entry(name)) or name}: {error}") from error
    if skipped := plan.row(plans[0], name).skipped:
        return Study(config, name, [], skipped)
    base, own = registry.short_name(config.entry(name)), registry.variant(config.typed(name))[1]
    fixed = fixed | {f"{base}.{field}" for field in own}
    search = {field: values for field, values in defaults.search.items() if f"{base}.{field}" not in fixed}
    generator = seeds.rng(development.root(config.seed), "trials", config.scenario, name)
    changes = tuning.trials(search, defaults, budget.trials, generator)
    return Study(config, name, [_candidate(config, name, change, plans) for change in changes])


def _candidate(config: Config, name: str, changes: dict[str, Any], plans: Sequence[Plan]) -> Candidate:
    """The jobs of one trial: one for every draw and original."""
    jobs: list[Job] = []
    for draw in plans:
        try:
            row = plan.row(replace(draw, config=changed_config(draw.config, name, changes)), name)
        except UsageError as error:  # the class refuses these values together
            return Candidate(changes, [], f"failed: {error}")
        for repeat in draw.config.seeds:
            jobs.append(_job(config, row, [run for run in row.runs if run.repeat == repeat]))
    return Candidate(changes, jobs)


def changed_config(config: Config, name: str, changes: dict[str, Any]) -> Config:
    """The config with these changes to the settings of one row."""
    settings = config.method_settings | {name: config.method_settings[name] | changes}
    return config.model_copy(update={"method_settings": settings})


def _job(config: Config, row: Row, runs: Sequence[Run]) -> Job:
    code = store.code_version(*(keys.BENCH / file for file in SCORING_CODE))
    key = store.key(trial=[run.key for run in runs], code=code)
    return Job(key, config.entry(row.name), row.method.model_dump(), plan.place(config), tuple(runs))
