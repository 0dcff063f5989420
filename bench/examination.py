"""Attacks and distances on one method's models against retrained ones: arrays in, records out.

Models are parted once for all attacks: those to learn from and those to be judged are never the same.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from bench import distances, logits, permutation, roc, statistics
from bench.attack import Attack, Known, Points, Seen
from bench.interface import Record, UsageError
from bench.seeds import derive
from bench.store import Damaged

Arrays = dict[str, np.ndarray]
FALSE = {"attack_tpr_1": 0.01, "attack_tpr_01": 0.001}  # false positive rates at which true ones are told
FEWEST = 4  # models a side below which an attack that knows the method learns nothing worth a number


@dataclass(frozen=True)
class Sides:
    """A method's models and retrained ones; the first half of each is what attacks that know the method learn from.

    `repeats` are the seeds of the last of the method's models, which are reported one by one. `originals` are models
    that have forgotten nothing, for where the method has a single model.
    """

    unlearned: Seen
    retrained: Seen
    repeats: tuple[str, ...] = ()
    originals: Seen | None = None

    @property
    def known(self) -> tuple[Seen, Seen]:
        """The finite models to learn from."""
        halves = [side.only(slice(len(side) // 2)) for side in (self.unlearned, self.retrained)]
        members, others = (half.only(half.finite()) for half in halves)
        return members, others

    @property
    def judged(self) -> tuple[Seen, Seen]:
        """The models that are judged, and the retrained ones that they are judged against."""
        members, others = (side.only(slice(len(side) // 2, None)) for side in (self.unlearned, self.retrained))
        return members, others


@dataclass(frozen=True)
class Found:
    """What one attack found: the area, the scores behind it, and why there is no number, if there is none."""

    area: roc.Area = roc.NOTHING
    positives: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    negatives: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    status: str = "ok"


@dataclass(frozen=True)
class Single:
    """What an attack on single models makes of some: area of the forget set against unseen data, and the percent of
    the forget set that it calls members, float64 `[models]`; and why there is no number, if there is none."""

    area: roc.Area = roc.NOTHING
    rates: np.ndarray = field(default_factory=lambda: np.empty(0))
    status: str = "ok"


@dataclass(frozen=True)
class Examiner:
    """What all methods of a run have in common: the attacks by name, the margin of the verdict, the step, the seed."""

    attacks: Mapping[str, Attack]
    margin: float
    step: int = 0
    seed: int = 0

    def examine(
        self,
        method: str,
        sides: Sides,
        taught: Mapping[str, Arrays],
        usual: Mapping[str, Single],
        last: int,
    ) -> tuple[list[Record], Arrays]:
        """Every attack and distance on one method: records, and the scores behind the figures.

        Args:
            taught: by name, what attacks that know originals have learned.
            usual: by name, what attacks on single models make of the retrained ones.
            last: how many of the retrained models, from the end, those that know originals have not learned from; they
                judge the method's repeats, since its other models come from originals that they know.
        """
        sides, last, bad = finite_pool(sides, last)
        sides, last, copies = distinct(sides, last)
        copies = " and ".join(text for text in (bad, copies) if text)
        records: list[Record] = []
        arrays: Arrays = {}
        for name, attack in self.attacks.items():
            if attack.knows == "model":
                records += self.population(method, name, sides, usual[name])
                continue
            if attack.knows == "original":
                own = sides.unlearned.only(slice(len(sides.unlearned) - len(sides.repeats), None))
                retrained = sides.retrained.only(slice(len(sides.retrained) - last, None))
                found = self.judge(name, taught[name], own, retrained)
            else:
                found = self.learned(name, sides)
            records += self.numbers(method, name, found, sides)
            if attack.headline or attack.knows == "original":
                arrays[f"score:{name}/{method}"] = found.positives
            if attack.headline:
                arrays[f"negatives:{name}/{method}"] = found.negatives
                arrays["compared"] = np.abs(found.area.models - 0.5)
        records += distances.measure(sides.unlearned, sides.retrained, method, self.step)
        return noted(records, copies), arrays

    def learned(self, name: str, sides: Sides) -> Found:
        """An attack that learns from the method's own models and judges others of them."""
        members, others = sides.known
        if min(len(members), len(others)) < FEWEST:
            return Found(status="too_few_models")
        with self.errors(name):
            fitted = self.attacks[name].fit(Known(members, others), self._seed(name))
        return replace(self.judge(name, fitted, *sides.judged), status=diverged(sides.unlearned))

    def judge(self, name: str, fitted: Arrays, members: Seen, others: Seen) -> Found:
        """What an attack that has learned finds in models that it has not seen."""
        with self.errors(name):
            scores = [self._scores(name, fitted, side, side.forget) for side in (members, others)]
        return Found(roc.between(*scores), scores[0], scores[1], diverged(members, others))

    def _scores(self, name: str, fitted: Arrays, side: Seen, points: Points) -> np.ndarray:
        scores = np.asarray(self.attacks[name].score(fitted, side, points), np.float64)
        if scores.shape != points.logits.shape[:2]:
            raise ValueError(f"scores have the shape {list(scores.shape)}, not {list(points.logits.shape[:2])}")
        if (~np.isfinite(scores) & np.isfinite(points.logits).all(axis=-1)).any():
            raise ValueError("a score is not finite where all outputs are")
        return scores

    def numbers(self, method: str, name: str, found: Found, sides: Sides) -> list[Record]:
        """Records of an attack that tells a method's models from retrained ones."""
        area, status, n = found.area, found.status, len(found.area.models)
        records = [
            self._record(method, f"attack_auc:{name}", area.value, area.low, area.high, n, status),
            self._p(method, name, found, sides),
            self._record(method, f"attack_equivalence_p:{name}", area.p_equivalent(self.margin), n=n, status=status),
            *self._repeats(method, f"attack_auc:{name}", area.models, sides.repeats),
        ]
        for metric, false in FALSE.items():
            rate = roc.rate(found.positives, found.negatives, false)
            reason = rate.reason if status == "ok" else status
            n = len(found.positives)
            records.append(self._record(method, f"{metric}:{name}", rate.value, rate.low, rate.high, n, reason))
        return records

    def _p(self, method: str, name: str, found: Found, sides: Sides) -> Record:
        """The p-value of chance: of the headline by permuting all models, of others by permuting the judged ones."""
        metric, area = f"attack_p:{name}", found.area
        if not self.attacks[name].headline:
            p = permutation.relabeled_p(found.positives, found.negatives, seed=self._seed(name))
            return self._record(method, metric, p, n=len(area.models), status=found.status)
        own, retrained = (_odds(side) for side in (sides.unlearned, sides.retrained))
        originals = None if sides.originals is None else _odds(sides.originals)
        p = permutation.exchangeable_p(own, retrained, originals=originals, seed=self._seed(name))
        status = "ok" if math.isfinite(p) else diverged(sides.unlearned, sides.retrained)
        return self._record(method, metric, p, n=len(own), status=status)

    def population(self, method: str, name: str, sides: Sides, usual: Single) -> list[Record]:
        """Records of an attack on single models, beside what it makes of retrained ones."""
        found = self.single(name, sides.unlearned)
        gap, rates, status = found.area.value - usual.area.value, found.rates, found.status
        error, degrees = roc.standard_error([found.area.models, usual.area.models])
        p = replace(found.area, value=0.5 + gap, error=error, degrees=degrees).p()
        away = _mean(rates) - _mean(usual.rates)
        half = roc.half_width([rates, usual.rates])
        return [
            *self.single_numbers(method, name, found),
            self._record(method, f"attack_p:{name}", p, n=len(rates), status=status),
            self._record(method, f"attack_rate_gap:{name}", away, away - half, away + half, len(rates), status),
            *self._repeats(method, f"attack_auc:{name}", found.area.models, sides.repeats),
        ]

    def single_numbers(self, method: str, name: str, found: Single) -> list[Record]:
        """Records of what an attack on single models makes of some."""
        area, n = found.area, len(found.area.models)
        rate = statistics.mean_interval(found.rates)
        return [
            self._record(method, f"attack_auc:{name}", area.value, area.low, area.high, n, found.status),
            self._record(method, f"attack_rate:{name}", *rate, found.status),
        ]

    def single(self, name: str, models: Seen) -> Single:
        """What an attack on single models makes of those that are finite."""
        finite = models.only(models.finite())
        if not len(finite):
            return Single(status=diverged(models) if len(models) else "too_few_models")
        if not (finite.unseen.labels.size and finite.retain.labels.size and finite.validation.labels.size):
            return Single(status="empty")
        asked = [finite.forget, finite.unseen]  # at once, so that the attack is fitted once
        points = Points(
            np.concatenate([part.logits for part in asked], axis=1), np.concatenate([part.labels for part in asked])
        )
        with self.errors(name):
            scores = self._scores(name, {}, finite, points)
        own, unseen = np.split(scores, [len(finite.forget.labels)], axis=1)
        return Single(roc.within(own, unseen), 100.0 * (own > 0).mean(axis=1), diverged(models))

    def _repeats(self, method: str, metric: str, values: np.ndarray, repeats: Sequence[str]) -> list[Record]:
        """The values of the repeats, which are the last, one by one."""
        own = values[-len(repeats) :].tolist() if len(values) >= len(repeats) > 0 else []
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
        return derive(self.seed, name) % 2**31

    @contextlib.contextmanager
    def errors(self, name: str) -> Iterator[None]:
        """Whatever an attack raises becomes one line; the models and the methods' runs stay in the store."""
        try:
            yield
        except (UsageError, Damaged):
            raise
        except Exception as error:
            fault = " ".join(f"{type(error).__name__}: {error}".split())
            others = ",".join(entry for entry in self.attacks if entry != name) or "none"
            message = f"the attack {name} failed ({fault}); --attacks {others} leaves it out, finished work is kept"
            raise UsageError(message) from error


def finite_pool(sides: Sides, last: int) -> tuple[Sides, int, str]:
    """The sides without retrained models that are not finite, how many of the `last` stay, and what has gone."""
    fine = sides.retrained.finite()
    if fine.all():
        return sides, last, ""
    gone = f"{(~fine).sum()} of {len(fine)} retrained diverged"
    kept = replace(sides, retrained=sides.retrained.only(fine))
    return kept, int(fine[len(fine) - last :].sum()), gone


def distinct(sides: Sides, last: int = 0) -> tuple[Sides, int, str]:
    """Models that are copies of a later one left out, how many of the `last` retrained ones stay, and what has gone.

    A copy shows the very same logits on all of the forget set. One model that is counted n times would narrow every
    interval, down to nothing where all are copies, though there is but one training to judge by.
    """
    ours, theirs = (_no_copies(side.forget.logits) for side in (sides.unlearned, sides.retrained))
    if ours.all() and theirs.all():
        return sides, last, ""
    own = ours[len(ours) - len(sides.repeats) :]
    repeats = tuple(seed for seed, kept in zip(sides.repeats, own, strict=True) if kept)
    gone = [f"{(~kept).sum()} of {len(kept)}{kind} copies" for kept, kind in ((ours, ""), (theirs, " retrained"))]
    status = " and ".join(text for text in gone if not text.startswith("0 "))
    kept_sides = Sides(sides.unlearned.only(ours), sides.retrained.only(theirs), repeats, sides.originals)
    return kept_sides, int(theirs[len(theirs) - last :].sum()), status


def _no_copies(logits: np.ndarray) -> np.ndarray:
    """Which models are not the same as a later one, bool `[models]`; those that are not finite count as diverged."""
    if not logits[0:1].size:
        return np.ones(len(logits), dtype=bool)
    place = {model.tobytes(): at for at, model in enumerate(logits)}
    return np.array([place[m.tobytes()] == at or not np.isfinite(m).all() for at, m in enumerate(logits)])


def noted(records: Sequence[Record], status: str) -> list[Record]:
    """The records with this added to their status; as they are without."""
    if not status:
        return list(records)
    return [replace(one, status=status if one.status == "ok" else f"{status} and {one.status}") for one in records]


def _odds(side: Seen) -> np.ndarray:
    """Log-odds float64 `[models, n_forget]` of the models that are finite."""
    values = logits.phi(side.forget.logits, side.forget.labels)
    return np.asarray(values[np.isfinite(values).all(axis=1)])


def diverged(*sides: Seen) -> str:
    """`ok`, or how many of the models have an output that is not finite."""
    total, bad = sum(map(len, sides)), sum(int((~side.finite()).sum()) for side in sides)
    return f"{bad} of {total} diverged" if bad else "ok"


def _mean(values: np.ndarray) -> float:
    return statistics.mean_interval(values)[0]
