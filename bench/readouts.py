"""Readouts of one unlearned model against the retrained ones, as records."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from bench import statistics
from bench.interface import Outputs, Record
from bench.logits import error_percent, log_entropy, mask, phi
from bench.readings import Case, ErrorPart, Reading, Reference, case, forget_log_entropy, read, reference

__all__ = [
    "Case",
    "ErrorPart",
    "Reading",
    "Reference",
    "case",
    "error_percent",
    "forget_log_entropy",
    "log_entropy",
    "mask",
    "measure",
    "phi",
    "read",
    "reference",
    "reference_records",
    "summarize",
]

# Bins of the Jensen-Shannon divergence, one nat wide over the range that the paper's code draws ([-19, 1] and [-5, 2]).
# Its figures have bins of 0.2 nats, in which 60 samples are so thin that two retrained models differ as much as any.
ENTROPY_EDGES = np.linspace(-19.0, 2.0, 22)
DISTANCES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "log_entropy_w1": statistics.wasserstein,
    "log_entropy_ks": statistics.ks_distance,
    "log_entropy_js": lambda a, b: statistics.js_divergence(a, b, ENTROPY_EDGES),
}


def measure(
    case: Case,
    outputs: Outputs,
    reference: Reference,
    *,
    method: str,
    seed: str,
    status: str = "ok",
    original_error: float = math.nan,
) -> list[Record]:
    """Every number of one model; `n` counts the samples behind it.

    Errors come with their signed gap to the mean of the retrained pool. Distances of log-entropies are averages over
    the retrained models, the class shift is measured from their mean; floors are in `reference_records`.

    Args:
        status: what the method said about its own run; joined with diverged or collapsed.
        original_error: mean test error of the originals in percent, for the restored share (depoisoning).
    """
    reading = read(case, outputs)
    status = _joined(status, reading.status)
    rows = [
        *_error_rows(case, reading, reference),
        *_distance_rows(reading, reference),
        *_shift_rows(case, reading, reference),
    ]
    if case.scenario == "depoisoning":
        rows.append(_restored_row(case, reading, reference, original_error))
    return [
        Record(method, seed, case.request.step, part, metric, value, n=n, status=_joined(status, reason))
        for metric, part, value, n, reason in rows
    ]


Row = tuple[str, str, float, int, str]  # metric, part, value, samples, ok or why there is no value


def _error_rows(case: Case, reading: Reading, reference: Reference) -> Iterator[Row]:
    pool = reference.errors.mean(axis=0)
    for error, value, clean in zip(case.errors, reading.errors, pool, strict=True):
        n = len(error.rows)
        reason = "ok" if n else "empty"
        yield error.metric, error.part, float(value), n, reason
        yield f"{error.metric}_gap", error.part, float(value - clean), n, reason


def _distance_rows(reading: Reading, reference: Reference) -> Iterator[Row]:
    n = len(reading.log_entropy)
    for metric, distance in DISTANCES.items():
        yield metric, "forget", _mean(distance(reading.log_entropy, reference.log_entropy)), n, "ok" if n else "empty"


def _shift_rows(case: Case, reading: Reading, reference: Reference) -> Iterator[Row]:
    for at, (part, _, rows) in enumerate(case.shifts):
        n, shares = len(rows), reading.shares[at]
        reason = "ok" if n else "empty"
        for metric, share in zip(_share_metrics(case), shares, strict=True):
            yield metric, part, float(share), n, reason
        moved = _total_variation(shares, _pool_shares(reference.shares[:, at]))
        yield "class_shift_tv", part, float(moved), n, reason


def _share_metrics(case: Case) -> list[str]:
    return [f"predicted_share:{case.class_names[c]}" for c in case.kept]


def _restored_row(case: Case, reading: Reading, reference: Reference, before: float) -> Row:
    at = [(error.metric, error.part) for error in case.errors].index(("error", "test"))
    gain = before - float(reference.errors[:, at].mean())
    # Where clean training is no better than poisoned training, there is nothing to restore.
    value, reason = ((before - float(reading.errors[at])) / gain, "ok") if gain > 0 else (math.nan, "undefined")
    return "restored", "test", value, len(case.errors[at].rows), reason


def _total_variation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Half the sum of absolute differences of shares in percent, as a fraction of 1."""
    return np.asarray(np.abs(a - b).sum(-1) / 200.0)


def _finite_rows(values: np.ndarray) -> np.ndarray:
    finite: np.ndarray = values[np.isfinite(values).all(-1)]
    return finite


def _pool_shares(shares: np.ndarray) -> np.ndarray:
    finite = _finite_rows(shares)
    return finite.mean(axis=0) if len(finite) else np.full(shares.shape[1], np.nan)


def _mean(values: np.ndarray) -> float:
    """Mean of the finite values: a retrained model that diverged has no distance, its status says so elsewhere."""
    return statistics.mean_interval(values)[0]


def _joined(*statuses: str) -> str:
    return " and ".join(dict.fromkeys(status for status in statuses if status != "ok")) or "ok"


def reference_records(case: Case, reference: Reference, *, original_error: float = math.nan) -> list[Record]:
    """Method `reference`: the mean over the retrained models with its t-interval, and their spread as `<metric>_sd`.

    Intervals end where the metric's range ends. Distances are floors, retrained versus retrained: between disjoint
    pairs of neighbors in the pool, which are independent draws (`n` counts pairs); the class shift is that of each
    model from the mean of all others.

    Args:
        original_error: as in `measure`.
    """
    rows = [(error.metric, error.part, reference.errors[:, at]) for at, error in enumerate(case.errors)]
    entropy = _finite_rows(reference.log_entropy)
    left, right = entropy[0:-1:2], entropy[1::2]
    rows += [(metric, "forget", distance(left, right)) for metric, distance in DISTANCES.items()]
    for at, (part, _, _) in enumerate(case.shifts):
        shares = reference.shares[:, at]
        rows += [(metric, part, column) for metric, column in zip(_share_metrics(case), shares.T, strict=True)]
        rows.append(("class_shift_tv", part, _leave_one_out_shift(shares)))
    if case.scenario == "depoisoning":
        at = [(error.metric, error.part) for error in case.errors].index(("error", "test"))
        gain = original_error - reference.errors[:, at].mean()
        rows.append(("restored", "test", (original_error - reference.errors[:, at]) / (gain if gain > 0 else math.nan)))
    status = _counted(reference.statuses)
    return [record for row in rows for record in _spread(case, *row, status)]


def _leave_one_out_shift(shares: np.ndarray) -> np.ndarray:
    finite = _finite_rows(shares)
    if len(finite) < 2:
        return np.empty(0)
    return _total_variation(finite, (finite.sum(axis=0) - finite) / (len(finite) - 1))


def _spread(case: Case, metric: str, part: str, values: np.ndarray, status: str) -> list[Record]:
    mean, low, high, n = statistics.mean_interval(values)
    least, most = _range(metric, math.nan)
    low, high = max(low, least), min(high, most)
    place = ("reference", "all", case.request.step, part)
    reason = status if n else _joined(status, "undefined" if metric == "restored" else "empty")
    return [
        Record(*place, metric, mean, low, high, n, reason),
        Record(*place, f"{metric}_sd", statistics.sd(values), n=n, status=reason),
    ]


def summarize(records: Iterable[Record], pool: Iterable[Record] = ()) -> list[Record]:
    """One record with seed `all` per method, step, part and metric, in the order of first appearance.

    Mean and 95 % t-interval over the seeds' finite values, which `n` counts; the status is ok, or says how many seeds
    were not, and why. A gap is a difference of two means, so that its interval (Welch's) also holds the spread of the
    retrained models, whose records are `pool`. Intervals end where the metric's range ends. A model that diverged has
    no distance, and then the mean has none either: the others alone would flatter it.
    """
    groups: dict[tuple[str, int, str, str], list[Record]] = {}
    for record in records:
        if record.seed != "all":
            groups.setdefault((record.method, record.step, record.part, record.metric), []).append(record)
    against = {(record.step, record.part, record.metric): record for record in pool}
    return [_summary(place, members, against) for place, members in groups.items()]


def _summary(
    place: tuple[str, int, str, str], members: Sequence[Record], pool: Mapping[tuple[int, str, str], Record]
) -> Record:
    method, step, part, metric = place
    values = [member.value for member in members]
    mean, low, high, n = statistics.mean_interval(values)
    base = metric.removesuffix("_gap")
    spread, level = pool.get((step, part, f"{base}_sd")), pool.get((step, part, base))
    if metric != base and spread is not None and level is not None and n > 1 and spread.n > 1:
        half = statistics.explained_difference([(statistics.sd(values), n), (spread.value, spread.n)], 0.05)
        low, high = mean - half, mean + half
    least, most = _range(metric, level.value if level else math.nan)
    low, high = max(low, least), min(high, most)
    if any("diverged" in member.status and not math.isfinite(member.value) for member in members):
        mean = low = high = math.nan
    return Record(method, "all", step, part, metric, mean, low, high, n, _counted([m.status for m in members]))


def _range(metric: str, level: float) -> tuple[float, float]:
    """The least and the largest value that a mean of this metric can have; `level` is the pool's, for gaps."""
    if metric.endswith("_gap"):
        return (-math.inf, math.inf) if math.isnan(level) else (-level, 100.0 - level)
    if metric.startswith(("error", "confusion", "predicted_share")):
        return 0.0, 100.0
    if metric == "recovered_error":
        return 0.0, 100.0
    if metric in ("relearn_censored", "class_shift_tv", "log_entropy_ks", "log_entropy_js"):
        return 0.0, 1.0
    return (0.0, math.inf) if metric.startswith(("log_entropy", "seconds")) else (-math.inf, math.inf)


def _counted(statuses: Iterable[str]) -> str:
    """`ok`, or what was not ok and how often: `2 of 5 not_converged; 1 of 5 diverged`."""
    counts = Counter(statuses)
    total = counts.total()
    return "; ".join(f"{count} of {total} {status}" for status, count in counts.items() if status != "ok") or "ok"
