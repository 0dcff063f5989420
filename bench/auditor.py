"""Audits the retrained pool and the rows of a plan, one by one, from the outputs in the store."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bench import claims, distances, roc
from bench.attack import Known, Seen
from bench.examination import Arrays, Examiner, Sides, Single, distinct, noted
from bench.interface import Method, Record
from bench.observation import Observer
from bench.plan import Model, Plan, Row, Run
from bench.seeds import derive
from bench.store import Store


@dataclass(frozen=True)
class Lean:
    """What to make an auditor of elsewhere: the plan without images and methods, and why runs failed."""

    name: str
    plan: Plan
    failures: Mapping[str, str]
    untouched: frozenset[str]


class Auditor:
    """Audits the rows of a plan; the pool's models are read on first need and shared."""

    def __init__(self, plan: Plan, store: Store, failures: Mapping[str, str]) -> None:
        self.plan, self.store, self.failures = plan, store, failures
        self.untouched = frozenset(row.name for row in plan.rows if row.method.identity)
        self.observer = Observer(plan, store)
        config = plan.config
        self.examiner = Examiner(plan.attacks(), config.audit.margin, len(plan.requests) - 1, config.seed)

    @functools.cached_property
    def retrained(self) -> Seen:
        """All retrained models, shadows first."""
        return self._whole(self.plan.retrained[-1])

    @functools.cached_property
    def originals(self) -> Seen:
        """All originals, shadows first."""
        return self._whole(self.plan.originals)

    def _whole(self, pool: list[Model]) -> Seen:
        return self.observer.models(self.plan.of(pool, [*self.plan.shadows(), *self.plan.config.seeds]))

    def work(self, at: int, *, wait: bool) -> str | None:
        """Audit the pool (-1) or the row of this number among those that are not skipped, as `claims.carry_out`."""
        row = None if at < 0 else [row for row in self.plan.rows if not row.skipped][at]

        def audit(_: list[str]) -> str:
            self.pool() if row is None else self.row(row)
            return ""

        key = self.plan.audit_key if row is None else row.audit_key
        return claims.carry_out(self.store, "audit", [key], audit, wait=wait)

    def lean(self) -> Lean:
        """The same, to be sent: a worker has the data, and perhaps no file that an instance of a method came from."""
        data, rows = self.plan.dataset, [replace(row, method=Method()) for row in self.plan.rows]
        plan = replace(self.plan, dataset=replace(data, train_x=data.train_x[:0].copy()), rows=rows)
        name = " ".join([*(row.audit_key for row in rows), *sorted(self.failures)])
        return Lean(name, plan, self.failures, self.untouched)

    def load(self) -> None:
        """Read the models that several rows need."""
        _ = self.retrained, self.originals

    def _taught(self) -> dict[str, Arrays]:
        """What attacks that know originals have learned from the shadows, kept in the store."""
        for name, key in self.plan.attack_keys.items():
            claims.once(self.store, "attack", key, functools.partial(self._teach, name, key))
        return {name: self.store.get("attack", key)[0] for name, key in self.plan.attack_keys.items()}

    def _teach(self, name: str, key: str) -> None:
        shadows = slice(len(self.plan.shadows()))
        sides = [side.only(shadows) for side in (self.originals, self.retrained)]
        members, others = (side.only(side.finite()) for side in sides)
        known = Known(members, others, self.plan.config.shadow.validation)
        with self.examiner.errors(name):
            fitted = self.examiner.attacks[name].fit(known, derive(self.plan.config.seed, "attack") % 2**31)
        self.store.put("attack", key, fitted, {})

    def _usual(self) -> dict[str, Single]:
        """What attacks on single models make of the retrained ones, kept with the audit of the pool."""
        arrays, meta = self.store.get("audit", self.plan.audit_key)
        known = [name for name, attack in self.examiner.attacks.items() if attack.knows == "model"]
        return {name: Single(*_unpacked(arrays, name), status=meta["usual"][name]) for name in known}

    def pool(self) -> tuple[list[Record], Arrays]:
        """Floors: one half of the retrained models against the other, as if a method had made it."""
        if self.store.has("audit", self.plan.audit_key):
            return _load(self.store, self.plan.audit_key)
        examiner, records, arrays = self.examiner, list[Record](), Arrays()
        fine = self.retrained.only(self.retrained.finite())
        halves = Sides(fine.only(slice(0, None, 2)), fine.only(slice(1, None, 2)))
        floor, _, copies = distinct(halves)
        taught, usual = self._taught(), {}
        for name, attack in examiner.attacks.items():
            if attack.knows == "unlearned":
                records += noted(examiner.numbers("reference", name, examiner.learned(name, floor), floor), copies)
            elif attack.knows == "model":
                usual[name] = examiner.single(name, self.retrained)
                records += examiner.single_numbers("reference", name, usual[name])
                arrays |= {f"usual/{name}/area": usual[name].area.models, f"usual/{name}/rate": usual[name].rates}
            else:
                last = self.retrained.only(slice(len(self.plan.shadows()), None))
                arrays[f"negatives:{name}"] = examiner.judge(name, taught[name], last, last).negatives
        made = len(self.plan.unlearned()) + len(self.plan.config.seeds)
        records += distances.floor(self.retrained, made, examiner.step)
        _save(self.store, self.plan.audit_key, records, arrays, {name: one.status for name, one in usual.items()})
        return _load(self.store, self.plan.audit_key)

    def whole(self, row: Row) -> bool:
        """Whether no run of a row has failed."""
        return not any(run.key in self.failures for run in _last_runs(row))

    def row(self, row: Row) -> tuple[list[Record], Arrays]:
        """Records and scores of one method; runs that failed are left out, and then nothing is kept."""
        whole = self.whole(row)
        if whole and self.store.has("audit", row.audit_key):
            return _load(self.store, row.audit_key)
        shadows = [chain[-1] for chain in row.shadows if chain[-1].key not in self.failures]
        repeats = [run for run in row.runs if run.last and run.key not in self.failures]
        if not repeats:
            return [], {}
        unlearned = self._originals_again() if row.name in self.untouched else self.observer.runs(shadows, repeats)
        shadows_only = self.originals.only(slice(len(self.plan.shadows())))
        sides = Sides(unlearned, self.retrained, tuple(str(run.repeat) for run in repeats), shadows_only)
        last = len(self.plan.config.seeds)
        records, arrays = self.examiner.examine(row.name, sides, self._taught(), self._usual(), last)
        if gone := sum(run.key in self.failures for run in _last_runs(row)):
            records = noted(records, f"{gone} of {len(_last_runs(row))} failed")
        if whole:
            _save(self.store, row.audit_key, records, arrays)
        return records, arrays

    def _originals_again(self) -> Seen:
        """The originals that other methods start from, in the same order."""
        total, shadows = len(self.originals), len(self.plan.shadows())
        return self.originals.only(np.array([*range(len(self.plan.unlearned())), *range(shadows, total)]))


def _last_runs(row: Row) -> list[Run]:
    """The runs whose models are audited."""
    return [*(chain[-1] for chain in row.shadows), *(run for run in row.runs if run.last)]


def _save(
    store: Store, key: str, records: Sequence[Record], arrays: Arrays, usual: Mapping[str, str] | None = None
) -> None:
    meta = {"records": [dataclasses.astuple(record) for record in records], "usual": dict(usual or {})}
    store.put("audit", key, arrays, meta)


def _load(store: Store, key: str) -> tuple[list[Record], Arrays]:
    arrays, meta = store.get("audit", key)
    shown = {name: array for name, array in arrays.items() if not name.startswith("usual/")}
    return [Record(*values) for values in meta["records"]], shown


def _unpacked(arrays: Arrays, name: str) -> tuple[roc.Area, np.ndarray]:
    """The areas and rates of an attack on single models as `Auditor.pool` keeps them."""
    return roc.of_models(arrays[f"usual/{name}/area"]), arrays[f"usual/{name}/rate"]
