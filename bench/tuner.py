"""Tunes methods: trains the originals, runs the trials that the store lacks on several processes, and chooses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from bench import chains, claims, machine, pool, tuning, workers
from bench.plan import Plan
from bench.progress import Progress
from bench.store import Store
from bench.trials import Cell, Job, Study
from bench.tuning import Judged, Trial


@dataclass(frozen=True)
class Outcome:
    """What tuning one method in one scenario came to; no trials where the method does not apply."""

    study: Study
    tried: list[Trial]

    @property
    def best(self) -> int:
        """The place of the chosen trial."""
        return tuning.choose(self.tried)

    @property
    def failed(self) -> bool:
        """Whether no trial of a method that applies got through."""
        return bool(self.tried) and math.isinf(self.tried[self.best].score)


def carry_out(cells: Sequence[Cell], folder: Path, jobs: int, show: Callable[[Outcome], None]) -> list[list[Outcome]]:
    """Do what the store lacks, and choose; `show` is called with every outcome as soon as it is known.

    Raises UsageError for a network that cannot be built, and StoreError.
    """
    machine.require_device(cells[0].config.device)
    pool.require_trainable(_originals(cells), Store(folder, create=False))
    entries = Store(folder)
    shown: dict[int, Outcome] = {}
    studies = [study for cell in cells for study in cell.studies]
    with claims.at_work(entries):
        entries.mending(lambda: _work(cells, studies, entries, jobs, shown, show))
    outcomes = iter(shown[at] for at in range(len(studies)))
    return [[next(outcomes) for _ in cell.studies] for cell in cells]


def _originals(cells: Sequence[Cell]) -> Plan:
    """A plan of the originals of all cells."""
    return replace(cells[0].plans[0], originals=[m for cell in cells for p in cell.plans for m in p.originals])


def _work(
    cells: Sequence[Cell], studies: Sequence[Study], entries: Store, jobs: int,
    shown: dict[int, Outcome], show: Callable[[Outcome], None],
) -> None:  # fmt: skip
    originals = _originals(cells)
    models = {model.key for model in originals.originals if not entries.has("model", model.key)}
    missing = {job.key for study in studies for job in _missing(study, entries)}
    with Progress(len(models) + len(missing)) as progress:
        pool.train_pool(originals, entries, jobs, progress)
        for at, study in enumerate(studies):
            if at not in shown:
                reasons = _serve_missing(study, entries, jobs, progress)
                shown[at] = _outcome(study, entries, reasons)
                show(shown[at])


def _missing(study: Study, entries: Store) -> list[Job]:
    jobs = (job for candidate in study.candidates for job in candidate.jobs)
    return [job for job in jobs if not entries.has("trial", job.key)]


def _serve_missing(study: Study, entries: Store, jobs: int, progress: Progress) -> dict[str, str]:
    """Serve the jobs that the store lacks on several processes; returns why jobs failed, by their key."""
    todo = _missing(study, entries)
    if not todo:
        return {}
    chains.setting_at(todo[0].place, test=False)  # forked workers inherit it
    step = len(study.candidates[0].jobs)

    def tell(finished: int) -> None:
        if finished % step == 0 or finished == len(todo):
            line = f"{study.config.scenario}, {study.name}: {finished} of {len(todo)} runs"
            progress.done(line, (finished - 1) % step + 1)

    report = workers.counted(len(todo), tell)
    reasons = workers.share_out(serve, todo, entries, jobs, study.config.device, report, reads=chains.reads)
    return {job.key: reason for job, reason in zip(todo, reasons, strict=True) if reason}


def serve(job: Job, entries: Store, *, wait: bool = True) -> str | None:
    """Serve a job's requests and keep what they score; returns as `claims.carry_out`. Runs in a worker process."""

    def work() -> None:
        entries.put("trial", job.key, {}, {"judged": [astuple(one) for one in _judged(job, entries)]})

    return claims.carry_out(entries, "trial", [job.key], lambda _: workers.attempt(work), wait=wait)


def _judged(job: Job, entries: Store) -> list[Judged]:
    from bench import training

    setting = replace(chains.setting_at(job.place, test=False), labels=job.runs[0].original.labels)
    method, judged = chains.configured(job.entry, job.settings), []
    before = entries.get("model", job.runs[0].original.key)[0]["logits/validation"]
    for run, done, model in chains.follow(setting, method, job.runs, entries, keep=True):
        outputs = training.evaluate(model, setting.dataset, setting.device)
        truth, held_out = setting.dataset.train_y, setting.dataset.validation_y
        seen = (outputs.train, outputs.validation, before)
        judged.append(tuning.judge(setting.scenario, run.request, truth, held_out, *seen, done.status))
    return judged


def _outcome(study: Study, entries: Store, reasons: dict[str, str]) -> Outcome:
    """Every trial with what its jobs scored."""
    tried = []
    for candidate in study.candidates:
        failed = [reasons[job.key] for job in candidate.jobs if job.key in reasons]
        served = [entries.meta("trial", job.key)["judged"] for job in candidate.jobs if job.key not in reasons]
        judged = [Judged(*values) for job in served for values in job]
        tried.append(Trial(candidate.changes, judged, candidate.refused or (failed[0] if failed else "")))
    return Outcome(study, tried)
