"""Audits every method of a plan from the outputs in the store, which keeps what was found."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from bench import comparison, distances
from bench.attack import Attack, Known, Seen
from bench.examination import Arrays, Examiner, Sides, Single
from bench.interface import Record
from bench.observation import Observer
from bench.plan import Model, Plan, Row
from bench.progress import Progress
from bench.seeds import derive
from bench.store import Store


def collect(plan: Plan, store: Store, failures: Mapping[str, str], progress: Progress) -> tuple[list[Record], Arrays]:
    """All records of the audit, those of the retrained pool first, and the scores for figures; nothing without attacks.

    `failures` says why runs of methods failed, by their keys.
    """
    if not plan.audit_key:
        return [], {}
    auditor = Auditor(plan, store)
    records, arrays = auditor.pool(progress)
    compared: dict[str, np.ndarray] = {}
    for row in plan.rows:
        if not row.skipped:
            found, scores = auditor.row(row, failures, progress)
            compared |= {row.name: scores.pop("compared")} if "compared" in scores else {}
            records, arrays = records + found, arrays | scores
    return records + _compared(plan, compared), arrays


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


class Auditor:
    """Audits the rows of a plan; the pool's models are read on first need and shared."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self.plan, self.store = plan, store
        self.observer = Observer(plan, store)
        config = plan.config
        self.examiner = Examiner(plan.attacks(), config.audit.margin, len(plan.requests) - 1, config.seed)

    @cached_property
    def retrained(self) -> Seen:
        """All retrained models, shadows first."""
        return self._whole(self.plan.retrained[-1])

    @cached_property
    def originals(self) -> Seen:
        """All originals, shadows first."""
        return self._whole(self.plan.originals)

    def _whole(self, pool: list[Model]) -> Seen:
        return self.observer.models(self.plan.of(pool, [*self.plan.shadows(), *self.plan.config.seeds]))

    @cached_property
    def usual(self) -> dict[str, Single]:
        """What attacks on single models make of the retrained ones."""
        known = {name: attack for name, attack in self.examiner.attacks.items() if attack.knows == "model"}
        return {name: self.examiner.single(name, self.retrained) for name in known}

    @cached_property
    def taught(self) -> dict[str, Arrays]:
        """What attacks that know originals have learned from the shadows, kept in the store."""
        shadows, found = slice(len(self.plan.shadows())), {}
        for name, key in self.plan.attack_keys.items():
            if not self.store.has("attack", key):
                sides = [side.only(shadows) for side in (self.originals, self.retrained)]
                members, others = (side.only(side.finite()) for side in sides)
                known = Known(members, others, self.plan.config.shadow.validation)
                with self.examiner.errors(name):
                    fitted = self.examiner.attacks[name].fit(known, derive(self.plan.config.seed, "attack") % 2**31)
                self.store.put("attack", key, fitted, {})
            found[name] = self.store.get("attack", key)[0]
        return found

    def pool(self, progress: Progress) -> tuple[list[Record], Arrays]:
        """Floors: one half of the retrained models against the other, as if a method had made it."""
        if self.store.has("audit", self.plan.audit_key):
            return _load(self.store, self.plan.audit_key)
        examiner, records, arrays = self.examiner, list[Record](), Arrays()
        floor = Sides(self.retrained.only(slice(0, None, 2)), self.retrained.only(slice(1, None, 2)))
        for name, attack in examiner.attacks.items():
            if attack.knows == "unlearned":
                records += examiner.numbers("reference", name, examiner.learned(name, floor), floor)
            elif attack.knows == "model":
                records += examiner.single_numbers("reference", name, self.usual[name])
            else:
                last = self.retrained.only(slice(len(self.plan.shadows()), None))
                arrays[f"negatives:{name}"] = examiner.judge(name, self.taught[name], last, last).negatives
        made = len(self.plan.unlearned()) + len(self.plan.config.seeds)
        records += distances.floor(self.retrained, made, examiner.step)
        _save(self.store, self.plan.audit_key, records, arrays)
        progress.done("audited the retrained pool")
        return records, arrays

    def row(self, row: Row, failures: Mapping[str, str], progress: Progress) -> tuple[list[Record], Arrays]:
        """Records and scores of one method; runs that failed are left out, and then nothing is kept."""
        repeats = [run for run in row.runs if run.last]
        shadows = [chain[-1] for chain in row.shadows]
        failed = [run.key for run in (*shadows, *repeats) if run.key in failures]
        if not failed and self.store.has("audit", row.audit_key):
            return _load(self.store, row.audit_key)
        shadows, repeats = ([run for run in runs if run.key not in failures] for runs in (shadows, repeats))
        if not repeats:
            return [], {}
        unlearned = self.observer.runs(shadows, repeats) if not row.method.identity else self._untouched()
        sides = Sides(unlearned, self.retrained, tuple(str(run.repeat) for run in repeats))
        last = len(self.plan.config.seeds)
        records, arrays = self.examiner.examine(row.name, sides, self.taught, self.usual, last)
        if not failed:
            _save(self.store, row.audit_key, records, arrays)
            progress.done(f"audited {row.name}")
        return records, arrays

    def _untouched(self) -> Seen:
        """The originals that other methods start from, in the same order."""
        total, shadows = len(self.originals), len(self.plan.shadows())
        return self.originals.only(np.array([*range(len(self.plan.unlearned())), *range(shadows, total)]))


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


def _save(store: Store, key: str, records: Sequence[Record], arrays: Arrays) -> None:
    store.put("audit", key, arrays, {"records": [dataclasses.astuple(record) for record in records]})


def _load(store: Store, key: str) -> tuple[list[Record], Arrays]:
    arrays, meta = store.get("audit", key)
    return [Record(*values) for values in meta["records"]], arrays
