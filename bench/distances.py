"""How far a method's models are from retrained ones, as records, each with the floor that retrained models set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bench import roc, statistics
from bench.attack import Points, Seen
from bench.competition import forgetting_score
from bench.interface import Record
from bench.logits import phi
from bench.margins import beyond, klom, klom_quantile, pair_shifts
from bench.pairs import OUTPUTS, agreement, output_distances

SPLITS = 20  # random halves of the retrained pool behind a floor
CHOICES = 5  # random choices of models behind a method's value
TAIL = 0.95  # of the samples: the worst ones decide
SIZED = {  # by part: the metrics that depend on the number of models
    "forget": ("klom", "klom_mean", "klom_quantile", "klom_quantile_mean", "forgetting_score"),
    "retain": ("klom_quantile",),
    "unseen": ("klom_quantile",),
}
RANGES = {  # the least and the largest value
    "activation_l2": (0.0, math.sqrt(2)),
    "activation_l1": (0.0, 2.0),
    "output_js": (0.0, 1.0),
    "agreement": (0.0, 100.0),
    "phi_above": (0.0, 100.0),
    "phi_below": (0.0, 100.0),
}
NOWHERE = np.empty(0), np.empty(0)
NOTHING = (math.nan, math.nan, math.nan)
Estimate = tuple[float, float, float]  # value, low and high
Row = tuple[str, str, Estimate, int, str]  # metric, part, estimate, models, why there is no value


@dataclass(frozen=True)
class _Models:
    """Models whose outputs are finite everywhere: logits and log-odds by part, and what became of the others."""

    logits: dict[str, np.ndarray]
    phi: dict[str, np.ndarray]
    status: str = ""

    @classmethod
    def of(cls, seen: Seen, kind: str = "") -> _Models:
        finite = seen.finite()
        lost = f"{(~finite).sum()} of {len(finite)}{kind} diverged" if not finite.all() else ""
        parts: dict[str, Points] = {part: getattr(seen, part).only(finite) for part in ("forget", "retain", "unseen")}
        logits = {part: points.logits for part, points in parts.items()}
        return cls(logits, {part: phi(points.logits, points.labels) for part, points in parts.items()}, lost)

    def __len__(self) -> int:
        return len(self.phi["forget"])

    def only(self, models: slice) -> _Models:
        """Some of the models."""
        kept = [{part: values[models] for part, values in told.items()} for told in (self.logits, self.phi)]
        return _Models(kept[0], kept[1], self.status)


def measure(unlearned: Seen, retrained: Seen, method: str, step: int, *, seed: int = 0) -> list[Record]:
    """Every distance of a method's models from the retrained ones, as records over all models (seed `all`).

    Distances of pairs, and the shift, have intervals over the models of both sides; `n` counts the unlearned ones.
    `phi_above` and `phi_below` have intervals over the unlearned models and take the retrained band as given. What is
    told from distributions over models depends on how many there are: KLoM and the forgetting score use
    N = min(m, k // 2) models a side, which is their `n`, and are averages over five random choices of the models,
    without interval; what chance does to them is in `floor`. Models with a logit that is not finite are left out, and
    the status counts them.

    Args:
        unlearned: m models of a method.
        retrained: k retrained models, seen on the same samples.
        seed: of the choices of models; methods that are compared share it.
    """
    ours, theirs = _Models.of(unlearned), _Models.of(retrained, " retrained")
    generator = np.random.default_rng(seed)
    size = min(len(ours), len(theirs) // 2)
    draws = [tuple(generator.permutation(len(side))[:size] for side in (ours, theirs)) for _ in range(CHOICES)]
    missing = _missing("forget", ours, fewest=_compared(ours, theirs))
    outside = NOWHERE if missing else beyond(ours.phi["forget"], theirs.phi["forget"])
    rows = [
        *_sized_rows(ours, theirs, draws, lambda values: (float(values.mean()), math.nan, math.nan)),
        *_pair_rows(ours, theirs, len(ours)),
        *_beyond_rows(outside, len(ours), missing),
    ]
    return _records(rows, method, step, ours.status, theirs.status)


def floor(retrained: Seen, models: int, step: int, *, seed: int = 0) -> list[Record]:
    """What `measure` finds between retrained models, as records of the method `reference`.

    Distances of pairs, and the shift, are those between two disjoint halves of the pool. KLoM and the forgetting score
    are means over 20 random pairs of disjoint groups of N = min(models, k // 2), which is their `n`, and `low` to
    `high` holds 95 % of those: a method is beyond the floor where its value is outside. `phi_above` and `phi_below`
    are those of each retrained model at the band of all others, nearly as many as a method is held against.

    Args:
        retrained: k retrained models.
        models: how many a method has: its numbers compare with the floor where its `n` is the same.
        seed: of the splits.
    """
    pool = _Models.of(retrained)
    generator = np.random.default_rng(seed)
    size = min(models, len(pool) // 2)
    orders = [generator.permutation(len(pool)) for _ in range(SPLITS)]
    draws = [(order[:size], order[size : 2 * size]) for order in orders]
    missing = _missing("forget", pool, pool)
    outside = NOWHERE if missing else _beyond_others(pool.phi["forget"])
    rows = [
        *_sized_rows(pool, pool, draws, _middle),
        *_pair_rows(pool.only(slice(0, None, 2)), pool.only(slice(1, None, 2)), len(pool)),
        *_beyond_rows(outside, len(pool), missing),
    ]
    return _records(rows, "reference", step, pool.status)


def _middle(values: np.ndarray) -> Estimate:
    tail = (1 - statistics.LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(values.mean()), float(low), float(high)


def _missing(part: str, *sides: _Models, fewest: int | None = None) -> str:
    """Why nothing can be measured on a part; nothing if it can."""
    fewest = min(len(side) for side in sides) if fewest is None else fewest
    if not sides[0].phi[part].shape[1]:
        return "empty"
    return "too_few_models" if fewest < 2 else ""


def _compared(ours: _Models, theirs: _Models) -> int:
    """Models that pairs can be made of: one of a method's is enough for a value, though not for its interval."""
    return len(theirs) if len(ours) else 0


def _sized_rows(
    ours: _Models, theirs: _Models, draws: Sequence[Sequence[np.ndarray]], summary: Callable[[np.ndarray], Estimate]
) -> Iterator[Row]:
    size = len(draws[0][0])
    for part, metrics in SIZED.items():
        missing = _missing(part, ours, fewest=size)
        found = [] if missing else [_sized(part, ours.phi[part][a], theirs.phi[part][b]) for a, b in draws]
        for metric in metrics:
            estimate = NOTHING if missing else summary(np.array([values[metric] for values in found]))
            yield metric, part, estimate, size, missing


def _sized(part: str, ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    """The metrics in `SIZED` of equally many models a side; KLoM as its 95th percentile over samples and its mean."""
    fine = klom_quantile(ours, theirs)
    found = {"klom_quantile": float(np.quantile(fine, TAIL))}
    if part == "forget":
        coarse = klom(ours, theirs)
        found |= {"klom": float(np.quantile(coarse, TAIL)), "klom_mean": float(coarse.mean())}
        found |= {"klom_quantile_mean": float(fine.mean()), "forgetting_score": forgetting_score(ours, theirs)}
    return found


def _pair_rows(ours: _Models, theirs: _Models, n: int) -> Iterator[Row]:
    for part in ("forget", "unseen"):
        missing = _missing(part, ours, fewest=_compared(ours, theirs))
        pairs = {} if missing else output_distances(ours.logits[part], theirs.logits[part])
        for metric in OUTPUTS:
            yield metric, part, NOTHING if missing else roc.interval(pairs[metric]), n, missing
        agreed = NOTHING if missing else roc.interval(agreement(ours.logits[part], theirs.logits[part]))
        yield "agreement", part, agreed, n, missing
    missing = _missing("forget", ours, fewest=_compared(ours, theirs))
    estimate = NOTHING if missing else roc.interval(pair_shifts(ours.phi["forget"], theirs.phi["forget"]))
    yield "phi_shift", "forget", estimate, n, missing


def _beyond_rows(outside: tuple[np.ndarray, np.ndarray], n: int, missing: str) -> Iterator[Row]:
    for metric, percents in zip(("phi_above", "phi_below"), outside, strict=True):
        yield metric, "forget", statistics.mean_interval(percents)[:3], n, missing


def _beyond_others(pool: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Percent of samples at which each model lies above and below the band of all others, float64 `[models]` each."""
    sides = [beyond(pool[[at]], np.delete(pool, at, axis=0)) for at in range(len(pool))]
    above, below = (np.concatenate(side) for side in zip(*sides, strict=True))
    return above, below


def _records(rows: Iterable[Row], method: str, step: int, *statuses: str) -> list[Record]:
    """The rows as records: intervals end where the metric's range does, statuses are joined."""
    records = []
    for metric, part, (value, low, high), n, missing in rows:
        reason = missing or ("undefined" if math.isnan(value) else "")
        least, most = RANGES.get(metric, (-math.inf, math.inf))
        low, high = max(low, least), min(high, most)
        status = " and ".join(text for text in (*statuses, reason) if text) or "ok"
        records.append(Record(method, "all", step, part, metric, value, low, high, n, status))
    return records
