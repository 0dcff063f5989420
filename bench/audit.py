"""What can be found out from a method's outputs: every attack and distance, method by method, as records.

Models are parted once for all attacks: those to learn from and those to be judged, never the same. The store keeps what
was found.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bench import comparison, distances, logits, permutation, roc, statistics
from bench.attack import Attack, Known, Seen
from bench.interface import Record, UsageError
from bench.observation import Observer
from bench.plan import Plan, Row, Run
from bench.progress import Progress
from bench.seeds import derive
from bench.store import Store

Arrays = dict[str, np.ndarray]
FALSE = {"attack_tpr_1": 0.01, "attack_tpr_01": 0.001}  # false positive rates at which true ones are told
FEWEST = 4  # models a side below which an attack that knows the method learns nothing worth a number


@dataclass(frozen=True)
class Sides:
    """A method's models and retrained ones, with the number of each, from the first, that attacks learn from.

    `repeats` are the seeds of the last of the method's models, which are reported one by one.
    """

    unlearned: Seen
    retrained: Seen
    fit: tuple[int, int]
    repeats: tuple[str, ...] = ()

    @property
    def known(self) -> Known:
        """What attacks learn from."""
        return Known(self.unlearned.only(slice(self.fit[0])), self.retrained.only(slice(self.fit[1])))

    @property
    def judged(self) -> tuple[Seen, Seen]:
        """The models that are judged, and the retrained ones that they are judged against."""
        return self.unlearned.only(slice(self.fit[0], None)), self.retrained.only(slice(self.fit[1], None))


@dataclass(frozen=True)
class Found:
    """What one attack found: the area, the scores behind it, and why there is no number, if there is none."""

    area: roc.Area
    positives: np.ndarray
    negatives: np.ndarray
    status: str = "ok"


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
        if row.skipped:
            continue
        found, scores = auditor.row(row, failures, progress)
        records += found
        compared |= {row.name: scores.pop("compared")} if "compared" in scores else {}
        arrays |= scores
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
        self.plan, self.store, self.step = plan, store, len(plan.requests) - 1
        self.attacks, self.observer = plan.attacks(), Observer(plan, store)
        self.seeds = tuple(str(seed) for seed in plan.config.seeds)

    @cached_property
    def retrained(self) -> Seen:
        """All retrained models, shadows first."""
        pool = self.plan.retrained[-1]
        return self.observer.models(self.plan.of(pool, [*self.plan.shadows(), *self.plan.config.seeds]))

    @cached_property
    def originals(self) -> Seen:
        """Originals in the same order."""
        return self.observer.models(self.plan.of(self.plan.originals, [*self.plan.shadows(), *self.plan.config.seeds]))

    def pool(self, progress: Progress) -> tuple[list[Record], Arrays]:
        """Floors: one half of the retrained models against the other, as if a method had made it."""
        if self.store.has("audit", self.plan.audit_key):
            return _load(self.store, self.plan.audit_key)
        even, odd = self.retrained.only(slice(0, None, 2)), self.retrained.only(slice(1, None, 2))
        sides = Sides(even, odd, (len(even) // 2, len(odd) // 2))
        records: list[Record] = []
        for name, attack in self.attacks.items():
            if attack.knows == "unlearned":
                records += self._numbers("reference", name, self._learned(name, attack, sides), sides)
            if attack.knows == "model":
                records += self._population("reference", name, attack, self.retrained, ())
        records += distances.floor(self.retrained, self.step)
        arrays = self._negatives()
        _save(self.store, self.plan.audit_key, records, arrays)
        progress.done("audited the retrained pool")
        return records, arrays

    def row(self, row: Row, failures: Mapping[str, str], progress: Progress) -> tuple[list[Record], Arrays]:
        """Records and scores of one method; runs that failed are left out, and then nothing is kept."""
        last = [run for run in row.runs if run.last]
        wanted = [chain[-1] for chain in row.shadows] + last
        failed = [run.key for run in wanted if run.key in failures]
        if not failed and self.store.has("audit", row.audit_key):
            return _load(self.store, row.audit_key)
        repeats = [run for run in last if run.key not in failures]
        if not repeats:
            return [], {}
        sides = self._sides(row, [run for run in wanted[: len(row.shadows)] if run.key not in failures], repeats)
        records, arrays = self._audited(row.name, sides)
        if not failed:
            _save(self.store, row.audit_key, records, arrays)
            progress.done(f"audited {row.name}")
        return records, arrays

    def _sides(self, row: Row, shadows: Sequence[Run], repeats: Sequence[Run]) -> Sides:
        seeds = tuple(str(run.repeat) for run in repeats)
        if row.method.identity:
            made = len(self.plan.unlearned())
            places = [*range(made), *range(len(self.plan.shadows()), len(self.originals))]
            unlearned = self.originals.only(np.array(places))
        else:
            unlearned = self.observer.runs(shadows, repeats)
        return Sides(unlearned, self.retrained, (len(unlearned) // 2, len(self.retrained) // 2), seeds)

    def _audited(self, method: str, sides: Sides) -> tuple[list[Record], Arrays]:
        records: list[Record] = []
        arrays: Arrays = {}
        for name, attack in self.attacks.items():
            if attack.knows == "model":
                records += self._population(method, name, attack, sides.unlearned, sides.repeats)
                continue
            own = self._fixed(name, attack, sides) if attack.knows == "original" else self._learned(name, attack, sides)
            records += self._numbers(method, name, own, sides)
            if attack.headline or attack.knows == "original":
                arrays[f"score:{name}/{method}"] = own.positives
            if attack.headline:
                arrays[f"negatives:{name}/{method}"] = own.negatives
                arrays["compared"] = own.area.models
        return records + distances.measure(sides.unlearned, sides.retrained, method, self.step), arrays

    def _learned(self, name: str, attack: Attack, sides: Sides) -> Found:
        """An attack that learns from the method's own models and judges others of them."""
        known, (positives, negatives) = sides.known, sides.judged
        members, others = (side.only(side.finite()) for side in (known.members, known.others))
        if min(len(members), len(others)) < FEWEST:
            return _nothing("too_few_models")
        with self._errors(name):
            fitted = attack.fit(Known(members, others), self._seed(name))
            return self._judged(attack, fitted, positives, negatives)

    def _fixed(self, name: str, attack: Attack, sides: Sides) -> Found:
        """An attack that has learned from originals judges the repeats; shadows of this method are not independent."""
        own = sides.unlearned.only(slice(len(sides.unlearned) - len(sides.repeats), None))
        retrained = self.retrained.only(slice(len(self.plan.shadows()), None))
        with self._errors(name):
            return self._judged(attack, self._taught(name, attack), own, retrained)

    def _judged(self, attack: Attack, fitted: Mapping[str, np.ndarray], members: Seen, others: Seen) -> Found:
        scores = [np.asarray(attack.score(fitted, side, side.forget), np.float64) for side in (members, others)]
        for side, found in zip((members, others), scores, strict=True):
            if found.shape != side.forget.logits.shape[:2]:
                raise ValueError(f"scores have the shape {list(found.shape)}, not {list(side.forget.logits.shape[:2])}")
        return Found(roc.between(*scores), scores[0], scores[1], _diverged(members, others))

    def _taught(self, name: str, attack: Attack) -> Arrays:
        """The attack as fitted on the shadow originals, kept in the store."""
        key, shadows = self.plan.attack_keys[name], slice(len(self.plan.shadows()))
        if not self.store.has("attack", key):
            sides = [side.only(shadows) for side in (self.originals, self.retrained)]
            members, others = (side.only(side.finite()) for side in sides)
            known = Known(members, others, self.plan.config.shadow.validation)
            self.store.put("attack", key, attack.fit(known, self._seed("attack")), {})
        return self.store.get("attack", key)[0]

    def _negatives(self) -> Arrays:
        """Scores of the retrained repeats by attacks that know originals, which all methods share."""
        last, arrays = self.retrained.only(slice(len(self.plan.shadows()), None)), {}
        for name, attack in self.attacks.items():
            if attack.knows == "original":
                with self._errors(name):
                    arrays[f"negatives:{name}"] = attack.score(self._taught(name, attack), last, last.forget)
        return arrays

    def _numbers(self, method: str, name: str, found: Found, sides: Sides) -> list[Record]:
        """Records of an attack that tells a method's models from retrained ones."""
        area, status = found.area, found.status
        p, exact = area.p(), self.attacks[name].headline
        if exact:
            odds = [logits.phi(side.forget.logits, side.forget.labels) for side in (sides.unlearned, sides.retrained)]
            finite = [values[np.isfinite(values).all(axis=1)] for values in odds]
            p = permutation.exchangeable_p(finite[0], finite[1], seed=self._seed(name))
        margin = self.plan.config.audit.margin
        records = [
            self._record(method, f"attack_auc:{name}", area.value, area.low, area.high, len(area.models), status),
            self._record(method, f"attack_p:{name}", p, status="ok" if exact and p >= 0 else status),
            self._record(method, f"attack_equivalence_p:{name}", area.p_equivalent(margin), status=status),
            *self._single(method, f"attack_auc:{name}", area.models, sides.repeats),
        ]
        for metric, false in FALSE.items():
            rate = roc.rate(found.positives, found.negatives, false)
            reason = status if status != "ok" else rate.reason
            records.append(
                self._record(method, f"{metric}:{name}", rate.value, rate.low, rate.high, len(found.positives), reason)
            )
        return records

    def _population(self, method: str, name: str, attack: Attack, models: Seen, repeats: Sequence[str]) -> list[Record]:
        """Records of an attack on single models, beside what it makes of retrained ones."""
        area, rates = self._single_models(name, attack, models)
        expected, usual = self._usual(name, attack)
        error, degrees = roc.standard_error([area.models, expected.models])
        gap = dataclasses.replace(area, value=area.value - expected.value + 0.5, error=error, degrees=degrees)
        status = "ok" if math.isfinite(area.value) else _diverged(models) if len(models) else "empty"
        mean, low, high, n = statistics.mean_interval(rates)
        records = [
            self._record(method, f"attack_auc:{name}", area.value, area.low, area.high, len(area.models), status),
            *self._single(method, f"attack_auc:{name}", area.models, repeats),
            self._record(method, f"attack_rate:{name}", mean, low, high, n, status),
        ]
        if method == "reference":
            return records
        off, degrees = roc.standard_error([rates, usual])
        half = statistics.t_quantile((1 + statistics.LEVEL) / 2, degrees) * off if off > 0 else off
        away = mean - statistics.mean_interval(usual)[0]
        return [
            *records,
            self._record(method, f"attack_p:{name}", gap.p(), status=status),
            self._record(method, f"attack_rate_gap:{name}", away, away - half, away + half, n, status),
        ]

    def _usual(self, name: str, attack: Attack) -> tuple[roc.Area, np.ndarray]:
        """What an attack on single models makes of the retrained ones."""
        if name not in self._population_cache:
            self._population_cache[name] = self._single_models(name, attack, self.retrained)
        return self._population_cache[name]

    @cached_property
    def _population_cache(self) -> dict[str, tuple[roc.Area, np.ndarray]]:
        return {}

    def _single_models(self, name: str, attack: Attack, models: Seen) -> tuple[roc.Area, np.ndarray]:
        """Area of the forget set against unseen data, and the percent of the forget set called members, per model."""
        finite = models.only(models.finite())
        if not (len(finite) and finite.unseen.labels.size and finite.retain.labels.size):
            return roc.NOTHING, np.empty(0)
        with self._errors(name):
            own, unseen = (attack.score({}, finite, points) for points in (finite.forget, finite.unseen))
        return roc.within(own, unseen), 100.0 * (own > 0).mean(axis=1)

    def _single(self, method: str, metric: str, values: np.ndarray, repeats: Sequence[str]) -> list[Record]:
        """The values of the repeats, which are the last, one by one."""
        own: Sequence[float] = values[len(values) - len(repeats) :].tolist() if len(values) >= len(repeats) else []
        return [
            Record(method, seed, self.step, "forget", metric, value, n=1)
            for seed, value in zip(repeats, own, strict=False)
        ]

    def _record(
        self, method: str, metric: str, value: float, low: float = math.nan, high: float = math.nan, n: int = 0,
        status: str = "ok",
    ) -> Record:  # fmt: skip
        return Record(method, "all", self.step, "forget", metric, float(value), low, high, n, status)

    def _seed(self, name: str) -> int:
        return derive(self.plan.config.seed, name) % 2**31

    @contextlib.contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        """Whatever an attack raises becomes one line; the models and the methods' runs stay in the store."""
        try:
            yield
        except UsageError:
            raise
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
            others = ",".join(entry for entry in self.attacks if entry != name) or "none"
            message = f"the attack {name} failed ({fault}); --attacks {others} leaves it out, finished work is kept"
            raise UsageError(message) from error


def _nothing(reason: str) -> Found:
    return Found(roc.NOTHING, np.empty((0, 0)), np.empty((0, 0)), reason)


def _diverged(*sides: Seen) -> str:
    """`ok`, or how many of the models have an output that is not finite."""
    total, bad = sum(map(len, sides)), sum(int((~side.finite()).sum()) for side in sides)
    return f"{bad} of {total} diverged" if bad else "ok"


def _compared(plan: Plan, areas: Mapping[str, np.ndarray]) -> list[Record]:
    """How the methods rank by the headline's area, model by model, since they started from the same originals."""
    sizes = {len(values) for values in areas.values()}
    whole = {name: values for name, values in areas.items() if len(values) == max(sizes)} if sizes else {}
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
