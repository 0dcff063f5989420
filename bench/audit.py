"""Audits every method of a plan from the outputs in the store, which keeps what was found."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from bench import claims, cluster, comparison, pool, workers
from bench.attack import Attack
from bench.auditor import Auditor, Lean
from bench.examination import Arrays
from bench.interface import Record
from bench.plan import Plan, Row
from bench.progress import Progress
from bench.store import Store


def collect(
    plan: Plan, store: Store, failures: Mapping[str, str], jobs: int, progress: Progress
) -> tuple[list[Record], Arrays]:
    """All records of the audit, those of the retrained pool first, and the scores for figures; nothing without attacks.

    `failures` says why runs of methods failed, by their keys.
    """
    if not plan.audit_key:
        return [], {}
    auditor = Auditor(plan, store, failures)
    rows = [row for row in plan.rows if not row.skipped]
    _share_out(auditor, rows, jobs, progress)
    records, arrays = auditor.pool()
    compared: dict[str, np.ndarray] = {}
    for row in rows:
        found, scores = auditor.row(row)
        own = scores.pop("compared", None)  # by the original that a model comes from
        if own is not None and auditor.whole(row) and not row.given:
            compared[row.name] = own
        records, arrays = records + found, arrays | scores
    return records + _compared(plan, compared), arrays


_auditor: Auditor | None = None  # what forked workers inherit: sent to them, its arrays would be copied for every task


def _share_out(auditor: Auditor, rows: Sequence[Row], jobs: int, progress: Progress) -> None:
    """Audit what the store lacks, first the pool and then the rows, on several processes where they can be forked.

    They are forked before this process has used a library with threads of its own, which a fork would not survive.
    Workers of a cluster read the store, if they see it; sending them the outputs of all models would cost too much.
    """
    first = [] if auditor.store.has("audit", auditor.plan.audit_key) else [-1]
    todo = [at for at, row in enumerate(rows) if auditor.whole(row) and not auditor.store.has("audit", row.audit_key)]
    total = len(first) + len(todo)
    report = workers.counted(total, lambda finished: progress.done(f"audited {finished} of {total} rows"))
    with progress.stage("audit", total * len(auditor.plan.originals), workers.hands(jobs, "cpu", total)):
        _carry_out(auditor, (first, todo), jobs, report)


def _carry_out(auditor: Auditor, stages: Sequence[Sequence[int]], jobs: int, report: Callable[[], None]) -> None:
    there = cluster.joined()
    if there is not None and there.shared:
        work = functools.partial(_sent, auditor.lean())
        for stage in stages:
            workers.share_out(work, stage, auditor.store, jobs, "cpu", report)
    elif not any(stages) or sys.platform != "linux" or jobs < 2 or there is not None:
        for stage in stages:
            claims.share_out(functools.partial(_in_turn, auditor, report), stage)
    else:
        _fork(auditor, stages, jobs, report)


def _in_turn(auditor: Auditor, report: Callable[[], None], stage: Sequence[int], wait: bool) -> list[str | None]:
    """Audit in this process."""
    found = []
    for at in stage:
        found.append(auditor.work(at, wait=wait))
        report()
    return found


def _fork(auditor: Auditor, stages: Sequence[Sequence[int]], jobs: int, report: Callable[[], None]) -> None:
    """Audit on processes that inherit what this one has read."""
    global _auditor
    import joblib

    def carry(stage: Sequence[int], wait: bool) -> list[str | None]:
        return list(parallel(joblib.delayed(_work)(at, wait=wait) for at in stage))

    _auditor = auditor
    auditor.load()
    try:
        with workers.processes(jobs, "cpu", report) as parallel:
            for stage in stages:
                if stage:
                    claims.share_out(carry, stage)
    finally:
        _auditor = None


def _work(at: int, *, wait: bool) -> str | None:
    """`Auditor.work` in a forked process."""
    workers.begin()
    assert _auditor is not None
    return _auditor.work(at, wait=wait)


_received: dict[str, Auditor] = {}  # the last one, which has read what rows share


def _sent(lean: Lean, at: int, store: Store, *, wait: bool) -> str | None:
    """`Auditor.work` in a worker of a cluster."""
    workers.begin()
    if lean.name not in _received:
        _received.clear()
        data = pool.loaded(lean.plan.config.dataset, test=True)
        auditor = Auditor(replace(lean.plan, dataset=data), store, lean.failures)
        auditor.untouched = lean.untouched
        _received[lean.name] = auditor
    return _received[lean.name].work(at, wait=wait)


def headline(attacks: Mapping[str, Attack]) -> str:
    """The attack that decides verdicts; empty where it is not among these."""
    return next((name for name, attack in attacks.items() if attack.headline), "")


def family(attacks: Mapping[str, Attack]) -> list[str]:
    """The attacks whose findings count in verdicts: those that know the method."""
    return [name for name, attack in attacks.items() if attack.knows == "unlearned"]


def sizes(plan: Plan) -> dict[str, int]:
    """How many models attacks that know the method learn from and judge."""
    made, retrained = (len(numbers) + len(plan.config.seeds) for numbers in (plan.unlearned(), plan.shadows()))
    return {
        "unlearned_fit": made // 2,
        "unlearned_test": made - made // 2,
        "retrained_fit": retrained // 2,
        "retrained_test": retrained - retrained // 2,
    }


def _compared(plan: Plan, areas: Mapping[str, np.ndarray]) -> list[Record]:
    """How the methods rank by the headline's area, model by model, since they started from the same originals."""
    sizes = {len(values) for values in areas.values()}
    whole = {name: values for name, values in areas.items() if len(values) == max(sizes)}
    if len(whole) < 2 or max(sizes) < 2:
        return []
    records = []
    for one in comparison.compare(whole):
        place = (one.method, "all", len(plan.requests) - 1, "forget")
        records.append(Record(*place, "compared_rank", one.rank, n=one.n))
        records.append(Record(*place, "compared_p", one.p, n=one.n))
    return records
