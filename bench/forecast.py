"""What a run would do and about how long it would take, from what the store has and what earlier runs took."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import benchmark, cluster, given, history, memorization, plan, store
from bench.config import Config
from bench.interface import Need

# What jobs take that no earlier run tells of, in trainings of one model; measured on the digits.
TIMES_A_MODEL = {"model": 1.0, "unlearned": 3.0, "peak": 4.0, "shadow": 4.0, "views": 0.1, "audit": 0.1}
ALONE = 5.0  # a training by itself, beside one of many in a stack
OWN = 2.0  # a method's own training, in trainings by themselves: it has more parts, or slower steps
REST = 5.0  # seconds of imports, tables, figures and the page
PARTS_OF = "unlearn with "  # how stages begin whose times hold jobs that have none of their own
PARALLEL = ("train", "unlearn for", "see", "audit")  # how stages begin that several processes share


@dataclass(frozen=True)
class Stage:
    """Jobs of one stage: how many there are, how many the store lacks, and seconds that the lacking ones take."""

    name: str
    jobs: int
    missing: int
    seconds: float | None


def preview(
    config: Config, store_folder: Path, jobs: int, name: str = "", weights: Sequence[given.Weights] = ()
) -> str:
    """What a run would do: the jobs by stage, what the store has, and an estimated time. Writes nothing."""
    entries = store.Store(store_folder, create=False)
    planned, first = memorization.foreseen(config, entries)
    weights = given.fitted(planned, weights)
    planned.rows += [given.row(planned, weights, name)] if weights else []
    forecast = Forecast(planned, entries)
    stages = list(forecast.stages([*first, *planned.jobs()]))
    lines = [benchmark.first_line(planned), ""]
    for stage in stages:
        lines.append(f"{stage.name:36} {stage.jobs:5} jobs, {stage.jobs - stage.missing:5} in the store")
        lines[-1] += "" if stage.seconds is None else f", {stage.seconds:8.1f} s of work to do"
    if first:
        lines.append(f"{len(first) - 1} half models must be trained first: only then is known which samples must go")
    lines += [f"skip {row.name}: {row.skipped}" for row in planned.rows if row.skipped]
    return "\n".join([*lines, "", forecast.line(stages, jobs)])


class Forecast:
    """Estimates the stages of a plan."""

    def __init__(self, planned: plan.Plan, entries: store.Store) -> None:
        self.plan, self.entries = planned, entries
        self.known, self.setting = history.runs(entries), history.setting_of(planned)
        self.one_model = self._told("train") or _seconds_per_model(planned, entries)
        once = self._told(history.TRAINING[1])  # warmed up, counted and timed
        self.own_training = OWN * (ALONE * (self.one_model or 0.0) if once is None else once / 3)
        own = [row.name for row in planned.rows if Need.OWN_TRAINING in row.method.reads()]
        self.own = {stage for name in own for stage in self._unseen(name)}

    def _unseen(self, name: str) -> Iterator[str]:
        """The stages in which a method trains a model of its own, but for those of which an earlier run tells."""
        if not history.seen(self.known, f"unlearn with {name}", self.setting):
            yield from (f"prepare {name}", f"count the memory of {name}")
        if not history.seen(self.known, f"{name} for the attacks", self.setting):
            yield f"unlearn for the attacks, {name}"

    def _told(self, stage: str) -> float | None:
        return history.per_job(self.known, stage, self.setting)

    def stages(self, jobs: Iterable[tuple[str, str, str]]) -> Iterator[Stage]:
        """The jobs by stage, in the order of making."""
        found: dict[str, dict[tuple[str, str], bool]] = {}
        for stage, kind, key in jobs:
            found.setdefault(stage, {})[kind, key] = self.entries.has(kind, key)
        for name, there in found.items():
            missing = [kind for (kind, _), has in there.items() if not has]
            seconds = None if self.one_model is None else sum(self.seconds(name, kind) for kind in missing)
            yield Stage(name, len(there), len(missing), seconds)

    def seconds(self, stage: str, kind: str) -> float:
        """What a job takes on one process: as in earlier runs, else as it does on the digits."""
        models = len(self.plan.originals) if kind == "audit" else 1
        noted = _noted(stage, kind)
        told = self._told(noted or PARTS_OF)
        if told is None:
            told = TIMES_A_MODEL.get(kind, 0.0) * (self.one_model or 0.0)
        elif not noted:
            told = 0.0
        return models * told + (self.own_training if stage in self.own else 0.0)

    def line(self, stages: Sequence[Stage], jobs: int) -> str:
        """The estimate in a line."""
        if self.one_model is None:
            return "no estimate of the time: this store has no finished model of this network and recipe to go by"
        told = history.rest(self.known, self.setting)
        total = REST if told is None else told
        for stage in stages:
            hands = jobs if stage.name.startswith(PARALLEL) else 1
            total += (stage.seconds or 0.0) / max(1, min(hands, stage.missing))
        by = "a rough estimate" if told is None else "by what earlier runs took"
        return f"about {total:.0f} s on {cluster.processes(jobs)}, {by}"


def _noted(stage: str, kind: str) -> str:
    """The stage under which `bench.history` has such jobs; none for those that are parts of others."""
    if kind == "shadow":
        return stage.removeprefix("unlearn for the attacks, ") + " for the attacks"
    return {"model": "train", "views": "shifted copies", "whitebox": "audit weights", "evaluation": "read out",
            "audit": "audit", "unlearned": stage}.get(kind, "")  # fmt: skip


def _seconds_per_model(planned: plan.Plan, entries: store.Store) -> float | None:
    """Seconds that training one model takes: as a finished one of this plan did, or as known for the digits."""
    done = next((model.key for model in planned.models() if entries.has("model", model.key)), None)
    if done is not None:
        with contextlib.suppress(store.Damaged):
            return float(entries.meta("model", done)["seconds"])
    if (planned.config.dataset, planned.config.architecture) != ("digits", "digits_cnn"):
        return None
    return 12e-6 * len(planned.labels) * planned.config.recipe.epochs
