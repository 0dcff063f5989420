"""From stored outputs to records: the attack is fitted and every row read out once; the store keeps both."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from bench import logits, readings, readouts, statistics
from bench.attack import Known, Seen
from bench.interface import Outputs, Record, UsageError
from bench.plan import Model, Plan, Row, Run
from bench.progress import Progress
from bench.seeds import derive
from bench.store import Store

Arrays = dict[str, np.ndarray]
LOGITS = ("train", "validation", "test")


def fit_attack(plan: Plan, store: Store, progress: Progress) -> None:
    """Fit the attack on the shadow models, unless the store has it or there is none."""
    attack = plan.config.attack_instance()
    if attack is None or plan.attack_key is None or store.has("attack", plan.attack_key):
        return
    wanted = set(plan.shadows())
    members, others = (
        _seen(plan, _forget_logits(plan, store, [m for m in pool if m.number in wanted]))
        for pool in (plan.originals, plan.retrained[-1])
    )
    with _attack_errors(plan):
        fitted = attack.fit(
            Known(members, others, plan.config.shadow.validation), derive(plan.config.seed, "attack") % 2**31
        )
    store.put("attack", plan.attack_key, fitted, {})
    progress.done(f"fitted the attack {plan.config.attack}")


@contextlib.contextmanager
def _attack_errors(plan: Plan) -> Iterator[None]:
    """Whatever an attack raises becomes one line; the models and the methods' runs stay in the store."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        fault = f"{type(error).__name__}: {error}"
        message = (
            f"the attack {plan.config.attack} failed ({fault}); --attack none leaves it out, finished work is kept"
        )
        raise UsageError(message) from error


def collect(plan: Plan, store: Store, failures: dict[str, str], progress: Progress) -> tuple[list[Record], Arrays]:
    """All records of a run, those of the retrained pool first, and the per-sample arrays for figures."""
    evaluator = _Evaluator(plan, store)
    pool, samples = evaluator.reference(progress)
    records = list(pool)
    for row in plan.rows:
        rows, arrays = evaluator.whole(row, failures, progress)
        records += rows
        samples |= arrays
    return records, samples


class _Evaluator:
    """Reads rows out; the retrained pool is read on first need and shared."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self.plan, self.store = plan, store
        self.cases = [
            readings.case(plan.config.scenario, request, plan.dataset, plan.requests[:step])
            for step, request in enumerate(plan.requests)
        ]
        self._references: dict[int, readings.Reference] = {}
        self._before: list[float] = []
        self._fitted: Arrays = {}
        self._pool: list[Record] = []

    def reference(self, progress: Progress) -> tuple[list[Record], Arrays]:
        """Records and arrays of the retrained pools, one per request."""
        if self.store.has("evaluation", self.plan.reference_key):
            self._pool, stored = _load(self.store, self.plan.reference_key)
            return self._pool, stored
        records: list[Record] = []
        arrays: Arrays = {}
        for step, case in enumerate(self.cases):
            pool = self._reference(step)
            records += readouts.reference_records(case, pool, original_error=self._original_error())
            arrays[f"log_entropy/reference/{step}"] = pool.log_entropy
        if self.plan.attack_key:
            arrays["score/negatives"] = self._scores(self._repeats(self.plan.retrained[-1]))
        _save(self.store, self.plan.reference_key, records, arrays)
        progress.done("read out the retrained pool")
        self._pool = records
        return records, arrays

    def row(self, row: Row, failures: dict[str, str], progress: Progress) -> tuple[list[Record], Arrays]:
        """Records and arrays of one row; what failed or was skipped is a record that says so."""
        if row.skipped:
            return [_absent(row.name, "all", 0, f"skipped: {row.skipped}")], {}
        failed = {run.key: failures[run.key] for run in row.runs if run.key in failures}
        if not failed and self.store.has("evaluation", row.key):
            return _load(self.store, row.key)
        records: list[Record] = []
        arrays: dict[str, list[np.ndarray]] = {}
        for run in row.runs:
            if run.key in failed:
                records.append(_absent(row.name, str(run.repeat), run.request.step, failed[run.key]))
                continue
            records += self._run(row, run, arrays)
        stacked = {name: np.stack(rows) for name, rows in arrays.items()}
        if not failed:  # a failed row is tried again next time
            _save(self.store, row.key, records, stacked)
            progress.done(f"read out {row.name}")
        return records, stacked

    def whole(self, row: Row, failures: dict[str, str], progress: Progress) -> tuple[list[Record], Arrays]:
        """The same with costs and summaries: costs are those of the runs that the store holds now."""
        records, arrays = self.row(row, failures, progress)
        for run in row.runs:
            if run.key not in failures:
                records = records + self._costs(row, run)
        return records + readouts.summarize(records, self._pool), arrays

    def _run(self, row: Row, run: Run, arrays: dict[str, list[np.ndarray]]) -> list[Record]:
        """Records of one run; appends its arrays."""
        entry, meta = self.store.get("unlearned", run.key)
        outputs = Outputs(**{part: entry[f"logits/{part}"] for part in LOGITS})
        step, case = run.request.step, self.cases[run.request.step]
        who: dict[str, Any] = {"method": row.name, "seed": str(run.repeat), "status": meta["status"]}
        records = readouts.measure(case, outputs, self._reference(step), original_error=self._original_error(), **who)
        arrays.setdefault(f"log_entropy/{row.name}/{step}", []).append(readings.forget_log_entropy(case, outputs))
        if self.plan.attack_key and run.last:
            scores = self._scores(outputs.train[run.request.forgotten][None])[0]
            negatives = self._scores(self._repeats(self.plan.retrained[-1], run.repeat))[0]
            arrays.setdefault(f"score/{row.name}", []).append(scores)
            area = statistics.auc(scores, negatives)
            records.append(_record(who, step, "forget", "attack_auc", area, len(scores)))
        return records

    def _costs(self, row: Row, run: Run) -> list[Record]:
        """What the run cost; preparation counts for the first request."""
        meta = self.store.meta("unlearned", run.key)
        who: dict[str, Any] = {"method": row.name, "seed": str(run.repeat), "status": meta["status"]}
        step, read = run.request.step, dict(meta["samples_read"])
        records = [_record(who, step, "-", "seconds_request", meta["seconds_request"])]
        if run.prepared and run.previous is None:
            prepared = self.store.meta("prepared", run.prepared)
            records.append(_record(who, step, "-", "seconds_prepare", prepared["seconds_prepare"]))
            read |= prepared["samples_read"]
        if run.peak and self.store.has("peak", run.peak):
            peak = self.store.meta("peak", run.peak)["peak_bytes"]
            if peak is not None:  # None: counting would have taken too long
                records.append(_record(who, step, "-", "peak_bytes", float(peak)))
        return records + [
            _record(who, step, part, "samples_read", float(read.get(part, 0)))
            for part in ("forget", "retain", "validation", "train", *(["corrected"] if "corrected" in read else []))
        ]

    def _reference(self, step: int) -> readings.Reference:
        if step not in self._references:
            outputs = [_outputs(self.store, model) for model in self.plan.retrained[step]]
            self._references[step] = readings.reference(self.cases[step], outputs)
        return self._references[step]

    def _original_error(self) -> float:
        """Mean test error of the originals in percent: what depoisoning starts from."""
        if self.plan.config.scenario == "depoisoning" and not self._before:
            labels = self.plan.dataset.test_y
            self._before = [
                float(logits.error_percent(_outputs(self.store, model).test, labels)) for model in self.plan.originals
            ]
        return float(np.mean(self._before)) if self._before else math.nan

    def _repeats(self, pool: Sequence[Model], repeat: int | None = None) -> np.ndarray:
        repeats = self.plan.config.seeds if repeat is None else (repeat,)
        return _forget_logits(self.plan, self.store, [self.plan.repeat(list(pool), r) for r in repeats])

    def _scores(self, outputs: np.ndarray) -> np.ndarray:
        """Attack scores float64 `[models, n_forgotten]`."""
        attack = self.plan.config.attack_instance()
        assert attack is not None
        assert self.plan.attack_key is not None
        if not self._fitted:
            self._fitted, _ = self.store.get("attack", self.plan.attack_key)
        with _attack_errors(self.plan):
            seen = _seen(self.plan, outputs)
            return attack.score(self._fitted, seen, seen.forget)


def _seen(plan: Plan, outputs: np.ndarray) -> Seen:
    return Seen.of(outputs, plan.labels[plan.requests[-1].forgotten])


def _forget_logits(plan: Plan, store: Store, models: Sequence[Model]) -> np.ndarray:
    forgotten = plan.requests[-1].forgotten
    return np.stack([store.get("model", model.key)[0]["logits/train"][forgotten] for model in models])


def _outputs(store: Store, model: Model) -> Outputs:
    arrays, _ = store.get("model", model.key)
    return Outputs(**{part: arrays[f"logits/{part}"] for part in LOGITS})


def _record(who: dict[str, Any], step: int, part: str, metric: str, value: float, n: int = 1) -> Record:
    return Record(who["method"], who["seed"], step, part, metric, value, n=n, status=who["status"])


def _absent(method: str, seed: str, step: int, status: str) -> Record:
    return Record(method, seed, step, "forget", "error", float("nan"), status=status)


def _save(store: Store, key: str, records: Sequence[Record], arrays: Arrays) -> None:
    store.put("evaluation", key, arrays, {"records": [dataclasses.astuple(record) for record in records]})


def _load(store: Store, key: str) -> tuple[list[Record], Arrays]:
    arrays, meta = store.get("evaluation", key)
    return [Record(*values) for values in meta["records"]], arrays
