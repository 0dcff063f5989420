"""What finished runs took, stage by stage, kept beside a store's entries: what the next estimate is made from."""

from __future__ import annotations

import contextlib
import json
import secrets
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from bench import machine
from bench.plan import Plan
from bench.progress import Spent
from bench.records import write_whole
from bench.store import Store, key

FOLDER = "history"  # below the store
KEPT = 200  # runs; older ones go
RECENT = 5  # runs of a kind that an estimate looks at
TRAINING = ("train", "unlearn with retrain", "retrain for the attacks")  # longer where the recipe is
START = 1.0  # seconds that processes need before the first model; the first stage of a run pays them
METHODS = (("unlearn with ", ""), ("", " for the attacks"))  # how stages of methods begin and end


@dataclass(frozen=True)
class Noted:
    """A run that is over: when it ended, in seconds since 1970, what it was, and what its stages took."""

    ended: float
    setting: Mapping[str, Any]
    stages: Mapping[str, Spent]
    rest: float  # seconds beside the stages: imports, tables, figures


def setting_of(plan: Plan) -> dict[str, Any]:
    """What decides how long jobs take: `what` must be equal, the rest had better be."""
    config = plan.config
    recipe = config.recipe.model_dump(exclude={"name"}, mode="json")
    names = [config.dataset, config.architecture, config.device.split(":")[0]]
    return {
        "what": key(what=names),
        "recipe": key(recipe=recipe),
        "scenario": config.scenario,
        "attacks": sorted(config.attacks),
        "samples": len(plan.labels) * config.recipe.epochs,
        "host": machine.hardware("cpu")["cpu"],
    }


def note(store: Store, plan: Plan, stages: Mapping[str, Spent], seconds: float) -> None:
    """Keep what a run of so many seconds took; without effect where nothing was done or the disk refuses."""
    if not stages:
        return
    rest = seconds - sum(spent.seconds for spent in stages.values())
    told = {"ended": time.time(), "setting": setting_of(plan), "rest": rest}
    told["stages"] = {name: astuple(spent) for name, spent in stages.items()}
    with contextlib.suppress(OSError):
        write_whole(store.folder / FOLDER / f"{secrets.token_hex(8)}.json", json.dumps(told).encode())
        for path in _files(store)[:-KEPT]:
            path.unlink(missing_ok=True)


def runs(store: Store) -> list[Noted]:
    """The runs that were noted, the last one first; files that are not whole are passed over."""
    found = []
    for path in _files(store):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            told = json.loads(path.read_bytes())
            stages = {str(name): _spent(*spent) for name, spent in told["stages"].items()}
            setting = dict(told["setting"]) | {"samples": float(told["setting"]["samples"])}
            found.append(Noted(float(told["ended"]), setting, stages, float(told["rest"])))
    return sorted(found, key=lambda run: -run.ended)


def _spent(jobs: float, seconds: float, processes: float) -> Spent:
    return Spent(int(jobs), float(seconds), int(processes))


def _files(store: Store) -> list[Path]:
    """The notes, the oldest first."""
    with contextlib.suppress(OSError):
        return sorted((store.folder / FOLDER).glob("*.json"), key=lambda path: path.stat().st_mtime)
    return []


def per_job(known: Sequence[Noted], stage: str, wanted: Mapping[str, Any]) -> float | None:
    """Seconds that one process takes for a job of a stage: the median of the last runs that resemble most.

    Training that is longer or on more samples takes so much more. For a method that no run had, the median of all
    methods. None where no run of this network was noted.
    """
    kind = next((kind for kind in METHODS if stage.startswith(kind[0]) and stage.endswith(kind[1])), (stage, ""))

    def fits(name: str) -> bool:
        return name.startswith(kind[0]) and name.endswith(kind[1])

    alike = [run for run in known if run.setting.get("what") == wanted["what"] and any(map(fits, run.stages))]
    exact = [run for run in alike if stage in run.stages]
    found = _most_alike(exact or alike, wanted)
    took = [_scaled(run, name, wanted) for run in found for name in ([stage] if exact else filter(fits, run.stages))]
    return statistics.median(took) if took else None


def seen(known: Sequence[Noted], stage: str, wanted: Mapping[str, Any]) -> bool:
    """Whether a run of this network had the stage itself."""
    return any(run.setting.get("what") == wanted["what"] and stage in run.stages for run in known)


def _most_alike(known: Sequence[Noted], wanted: Mapping[str, Any]) -> Sequence[Noted]:
    """The last of the runs that share most of what matters, the first of it first."""

    def likeness(run: Noted) -> list[bool]:
        return [run.setting.get(name) == wanted[name] for name in ("host", "recipe", "scenario", "attacks")]

    best = max(map(likeness, known), default=[])
    return [run for run in known if likeness(run) == best][:RECENT]


def rest(known: Sequence[Noted], wanted: Mapping[str, Any]) -> float | None:
    """Seconds that the last such run took beside its stages."""
    return next((run.rest for run in known if run.setting.get("what") == wanted["what"]), None)


def _scaled(run: Noted, stage: str, wanted: Mapping[str, Any]) -> float:
    spent = run.stages[stage]
    longer = wanted["samples"] / run.setting["samples"] if stage in TRAINING else 1.0
    work = max(spent.seconds - START, spent.seconds / 2) if stage == "train" else spent.seconds
    return work * spent.processes / spent.jobs * longer
