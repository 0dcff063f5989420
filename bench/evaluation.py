"""From stored outputs to records: every row is read out once, and the store keeps what it says."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from bench import logits, readings, readouts
from bench.interface import Outputs, Record
from bench.plan import Model, Plan, Row, Run
from bench.progress import Progress
from bench.store import Store

Arrays = dict[str, np.ndarray]
LOGITS = ("train", "validation", "test")


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
        return records

    def _costs(self, row: Row, run: Run) -> list[Record]:
        """What the run cost; preparation counts for the first request."""
        meta = self.store.meta("unlearned", run.key)
        who: dict[str, Any] = {"method": row.name, "seed": str(run.repeat), "status": meta["status"]}
        if meta["seconds_request"] is None:  # weights made elsewhere
            return []
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
