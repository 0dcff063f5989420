"""The deep tier of a run: which models are audited by their weights, and the audits on several processes."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bench import chains, claims, runner, scenarios, seeds, workers
from bench.interface import Request
from bench.keys import BENCH
from bench.logits import error_percent
from bench.plan import Place, Plan, Row, Run, place
from bench.progress import Progress
from bench.recipe import Deep
from bench.store import Store, code_version, key

CODE = ("whitebox.py", "loop.py", "dataview.py", "logits.py")
KIND = "whitebox"  # of the store's entries
CONTROL = "reference"  # the retrained pool, as in other records


@dataclass(frozen=True)
class Job:
    """One model to audit.

    `kind` and `source` name the entry with its weights, `original` the model it came from (for a retrained one, the
    original of the same repeat). `method` is its row, or `reference`. Weights made elsewhere came from an original
    that nobody knows, and `kin` is false: they are not compared with it.
    """

    key: str
    kind: str
    source: str
    original: str
    seed: int
    request: Request
    method: str
    repeat: int | str
    kin: bool = True


def jobs_of(plan: Plan, deep: Deep) -> list[Job]:
    """What is audited: after the last request, the first `deep.models` repeats of every row and of retraining.

    The originals are the row `original`, which every plan has.
    """
    request, repeats = plan.requests[-1], plan.config.seeds[: deep.models]
    shared = key(
        settings=deep.model_dump(exclude={"models"}),
        forget=request.forgotten,
        labels=plan.labels[request.forgotten],
        retain=scenarios.reference_data(request),
        code=code_version(*(BENCH / name for name in CODE)),
    )

    def job(
        kind: str, source: str, row: str, method: str, repeat: int | str, original: str, *, kin: bool = True
    ) -> Job:
        seed = seeds.derive(plan.config.seed, "deep", method, repeat)
        own = key(shared=shared, kind=kind, source=source, original=original, seed=seed)
        return Job(own, kind, source, original, seed, request, row, repeat, kin)

    pairs = [[plan.repeat(pool, repeat).key for pool in (plan.retrained[-1], plan.originals)] for repeat in repeats]
    runs = [(row, run) for row in plan.rows for run in _runs(row, deep, repeats)]
    return [
        job("model", source, CONTROL, CONTROL, repeat, original)
        for repeat, (source, original) in zip(repeats, pairs, strict=True)
    ] + [
        job("unlearned", run.key, row.name, run.method, run.repeat, run.original.key, kin=not row.given)
        for row, run in runs
    ]


def _runs(row: Row, deep: Deep, repeats: Sequence[int]) -> Sequence[Run]:
    """The runs of a row that are audited: of weights made elsewhere, which belong to no repeat, the first ones."""
    return row.runs[: deep.models] if row.given else [run for run in row.runs if run.last and run.repeat in repeats]


def missing(jobs: Sequence[Job], store: Store) -> list[Job]:
    """The jobs that the store lacks, each key once."""
    return list({job.key: job for job in jobs if not store.has(KIND, job.key)}.values())


def carry_out(
    plan: Plan, jobs: Sequence[Job], deep: Deep, store: Store, processes: int, progress: Progress
) -> dict[str, str]:
    """Audit the models that the store lacks, on several processes; returns why audits failed, by the jobs' keys.

    A model that is not in the store, since its method failed, is left out. Raises StoreError, and Damaged where an
    entry that is read is not whole.
    """
    todo = [job for job in missing(jobs, store) if store.has(job.kind, job.source)]
    if not todo:
        return {}
    where = place(plan.config)
    chains.setting_at(where, test=False)  # forked workers inherit it

    def tell(finished: int) -> None:
        progress.done(f"audited the weights of {finished} of {len(todo)} models")

    report = workers.counted(len(todo), tell)
    work = functools.partial(serve, where=where, labels=plan.labels, deep=deep)
    with progress.stage("audit weights", len(todo), workers.hands(processes, plan.config.device, len(todo))):
        reasons = workers.share_out(work, todo, store, processes, plan.config.device, report, reads=_reads)
    return {job.key: reason for job, reason in zip(todo, reasons, strict=True) if reason}


def _reads(job: Job) -> list[tuple[str, str]]:
    return [(job.kind, job.source), ("model", job.original)]


def serve(job: Job, store: Store, *, where: Place, labels: np.ndarray, deep: Deep, wait: bool = True) -> str | None:
    """Audit one model and keep what that says; returns as `claims.carry_out`. Runs in a worker process."""

    def work() -> None:
        start = time.perf_counter()
        found = _audited(job, where, labels, deep, store)
        store.put(KIND, job.key, {}, found | {"seconds": time.perf_counter() - start})

    return claims.carry_out(store, KIND, [job.key], lambda _: workers.attempt(work), wait=wait)


def _audited(job: Job, where: Place, labels: np.ndarray, deep: Deep, store: Store) -> dict[str, Any]:
    from bench import whitebox

    setting = replace(chains.setting_at(where, test=False), labels=labels)
    arrays, meta = store.get(job.kind, job.source)
    before, _ = store.get("model", job.original)
    model, original = runner.model_of(setting, arrays), runner.model_of(setting, before)
    rows = whitebox.watched(job.request)
    accuracy = 100.0 - float(error_percent(before["logits/train"][rows], labels[rows]))
    found = whitebox.audit_model(setting, model, job.request, accuracy, deep, job.seed)
    weights = whitebox.weight_change(model, original)
    said = [meta.get("status", "ok"), "diverged" if math.isnan(weights["weight_distance"]) else "ok"]
    weights = weights if job.kin else {}
    status = " and ".join(word for word in said if word != "ok") or "ok"
    samples = {"forget": len(job.request.forgotten), "weights": sum(p.numel() for p in model.parameters())}
    return {**found, **weights, "status": status, "n": samples}
