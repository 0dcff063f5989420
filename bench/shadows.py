"""What attacks need beside the pool: every method applied to shadow originals, and shifted copies of the forget set.

Nothing here is timed, so it runs on several processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import chains, claims, keys, runner, views, workers
from bench.plan import Place, Plan, Run, place
from bench.progress import Progress
from bench.store import Store

if TYPE_CHECKING:
    from torch import nn

    from bench.unlearning import Setting

CHUNK = 10  # models that one task looks at


@dataclass(frozen=True)
class Job:
    """One method serving all requests from one shadow original."""

    key: str  # of the last run
    kept: str  # the store's, which depends on how copies are shifted too
    entry: str
    settings: dict[str, Any]
    place: Place
    runs: tuple[Run, ...]
    forgotten: np.ndarray


def unlearn(plan: Plan, store: Store, jobs: int, progress: Progress) -> dict[str, str]:
    """Apply every method to the shadow originals, unless the store has it; returns why runs failed, by their keys."""
    where, forgotten = place(plan.config), plan.requests[-1].forgotten
    failures: dict[str, str] = {}
    for row in plan.rows:
        entry, settings = plan.config.entry(row.name), row.method.model_dump()
        kept = {runs[-1].key: keys.view_key(runs[-1].key, plan.requests[-1]) for runs in row.shadows}
        todo = [
            Job(runs[-1].key, kept[runs[-1].key], entry, settings, where, runs, forgotten)
            for runs in row.shadows
            if not store.has("shadow", kept[runs[-1].key])
        ]
        alone = jobs if plan.config.time_limit is None else 1  # methods that watch the clock must not share it
        reasons = _shared_out(_serve, todo, store, plan, alone, progress, f"{row.name} for the attacks", chains.reads)
        failures |= {job.key: reason for job, reason in zip(todo, reasons, strict=True) if reason}
    return failures


def look(plan: Plan, store: Store, failed: Sequence[str], jobs: int, progress: Progress) -> None:
    """Have every model predict the shifted copies of the forget set, where an attack wants that; `failed` runs lack."""
    where, forgotten = place(plan.config), plan.requests[-1].forgotten
    todo = [
        (kind, source, key)
        for key, (kind, source) in plan.views().items()
        if source not in failed and not store.has("views", key)
    ]
    parts = [(where, forgotten, todo[at : at + CHUNK]) for at in range(0, len(todo), CHUNK)]
    counts = [len(part[2]) for part in parts]
    _shared_out(_look, parts, store, plan, jobs, progress, "shifted copies", _looked_at, counts)


def _shared_out(
    work: Callable[..., str | None], todo: Sequence[Any], store: Store, plan: Plan, jobs: int, progress: Progress,
    what: str, reads: Callable[[Any], Sequence[tuple[str, str]]], counts: Sequence[int] | None = None,
) -> list[str]:  # fmt: skip
    """Do the tasks on several processes; each stands for so many steps of the progress (one, without `counts`)."""
    if not todo:
        return []
    chains.setting_at(place(plan.config), test=True)  # forked workers inherit it
    steps = list(counts or [1] * len(todo))

    def tell(done: int) -> None:
        progress.done(f"{what}: {sum(steps[:done])} of {sum(steps)}", steps[done - 1])

    report = workers.counted(len(todo), tell)
    with progress.stage(what, sum(steps), workers.hands(jobs, plan.config.device, len(todo))):
        return workers.share_out(work, todo, store, jobs, plan.config.device, report, reads=reads)


def _serve(job: Job, store: Store, *, wait: bool) -> str | None:
    """Carry one job out and keep its outputs; returns as `claims.carry_out`. Runs in a worker process."""
    from bench import training

    def work() -> None:
        shared = chains.setting_at(job.place, test=True)
        setting = replace(shared, labels=job.runs[0].original.labels)
        method = chains.configured(job.entry, job.settings)
        *_, (_, done, model) = chains.follow(setting, method, job.runs, store, keep=False)
        outputs = training.evaluate(model, setting.dataset, setting.device)
        arrays = {f"logits/{part}": rows for part, rows in outputs.arrays().items()}
        arrays["views"] = _views(model, setting, job.forgotten)
        store.put("shadow", job.kept, arrays, {"status": done.status})

    return claims.carry_out(store, "shadow", [job.kept], lambda _: workers.attempt(work), wait=wait)


def _looked_at(job: tuple[Place, np.ndarray, list[tuple[str, str, str]]]) -> list[tuple[str, str]]:
    """Kinds and keys of the models that a task looks at."""
    return [(kind, source) for kind, source, _ in job[2]]


def _look(job: tuple[Place, np.ndarray, list[tuple[str, str, str]]], store: Store, *, wait: bool) -> str | None:
    """Have some models predict the shifted copies; returns as `claims.carry_out`. Runs in a worker process."""
    workers.begin()
    where, forgotten, sources = job
    setting = chains.setting_at(where, test=True)

    def work(keys: list[str]) -> str:
        for kind, source, key in sources:
            if key in keys:
                model = runner.model_of(setting, store.get(kind, source)[0])
                store.put("views", key, {"views": _views(model, setting, forgotten)}, {})
        return ""

    return claims.carry_out(store, "views", [key for _, _, key in sources], work, wait=wait)


def _views(model: nn.Module, setting: Setting, forgotten: np.ndarray) -> np.ndarray:
    flips = setting.recipe.augment != "none"
    return views.predicted(model, setting.images["train"], forgotten, flips=flips).astype(np.int16)
