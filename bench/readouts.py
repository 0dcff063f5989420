"""Readouts of one unlearned model against the retrained ones: logits in, records out; no model is needed.

Logits are raw and unmasked everywhere. Class removal is evaluated with a masked head, which is the paper's deletion of
the removed classes' rows, and errors also without the mask: a method that leaves everything to the mask must be visible.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from bench import statistics
from bench.interface import Dataset, Outputs, Record, Request, UsageError
from bench.logits import error_percent, log_entropy, mask, phi

__all__ = ["Case", "Reference", "case", "error_percent", "forget_log_entropy", "log_entropy", "mask", "measure", "phi"]
__all__ += ["reference", "reference_records", "summarize"]

# Bins of the log-entropy histograms, in nats: the paper's code draws [-19, 1] and [-5, 2]; what lies outside is kept.
ENTROPY_EDGES = np.linspace(-19.0, 2.0, 106)
DISTANCES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "log_entropy_w1": statistics.wasserstein,
    "log_entropy_ks": statistics.ks_distance,
    "log_entropy_js": lambda a, b: statistics.js_divergence(a, b, ENTROPY_EDGES),
}


@dataclass(frozen=True)
class ErrorPart:
    """One error to read out: rows of a split, the labels they are compared with, and whether the head is masked."""

    metric: str
    part: str
    split: str
    rows: np.ndarray
    labels: np.ndarray
    masked: bool = False


@dataclass(frozen=True)
class Case:
    """Everything about one request that is the same for every model; made by `case`.

    Attributes:
        train_y: the training labels that the original was trained with (wrong ones where poisoned), int64 `[n]`.
        test_y: the test labels, int64 `[n]`.
        errors: the errors to read out, in the order of the records.
    """

    scenario: str
    request: Request
    class_names: tuple[str, ...]
    train_y: np.ndarray
    test_y: np.ndarray
    errors: tuple[ErrorPart, ...]

    @property
    def removed(self) -> tuple[int, ...]:
        """Classes that a masked head lacks."""
        return self.request.removed_classes

    @property
    def kept(self) -> np.ndarray:
        """Indices of the classes that stay, int64 `[classes that stay]`."""
        return np.setdiff1d(np.arange(len(self.class_names)), self.removed)


def case(scenario: str, request: Request, dataset: Dataset) -> Case:
    """What to read out for this request of this scenario."""
    train_y = dataset.train_y.copy()
    if request.wrong_labels is not None:
        train_y[request.forget] = request.wrong_labels
    errors = tuple(_error_parts(scenario, request, train_y, dataset))
    return Case(scenario, request, dataset.class_names, train_y, dataset.test_y, errors)


def _error_parts(scenario: str, request: Request, train_y: np.ndarray, dataset: Dataset) -> Iterator[ErrorPart]:
    def train(metric: str, part: str, rows: np.ndarray, labels: np.ndarray = train_y, *, masked: bool = False) -> ErrorPart:
        return ErrorPart(metric, part, "train", rows, labels[rows], masked)

    def test(metric: str, part: str, rows: np.ndarray, *, masked: bool = False) -> ErrorPart:
        return ErrorPart(metric, part, "test", rows, dataset.test_y[rows], masked)

    everything = np.arange(len(dataset.test_y))
    if scenario == "class_removal":
        gone = np.isin(dataset.test_y, request.removed_classes)
        yield train("error", "retain", request.retain, masked=True)
        yield test("error", "retained_test", everything[~gone], masked=True)
        yield train("error_unmasked", "retain", request.retain)
        yield train("error_unmasked", "forget", request.forgotten)
        yield test("error_unmasked", "retained_test", everything[~gone])
        yield test("error_unmasked", "forget_test", everything[gone])
        return
    yield train("error", "retain", request.retain)
    yield train("error", "forget", request.forgotten)
    if scenario == "incremental":
        yield train("error", "chunk", request.forget)
    if scenario == "depoisoning":
        yield train("error", "corrected", request.forgotten, dataset.train_y)
    yield test("error", "test", everything)


@dataclass(frozen=True)
class Reading:
    """What one model's outputs say.

    Attributes:
        errors: percent, aligned with `Case.errors`, float64 `[errors]`.
        log_entropy: of every sample forgotten so far, in nats, float64 `[n_forgotten]`; masked head in class removal.
        shares: percent of the forget samples predicted as each class that stays, float64 `[classes that stay]`; only
            in class removal, else empty. nan when an output is not finite.
        status: ok, diverged (an output is not finite) or collapsed (one predicted class, or no better than chance).
    """

    errors: np.ndarray
    log_entropy: np.ndarray
    shares: np.ndarray
    status: str


def read(case: Case, outputs: Outputs) -> Reading:
    """Read one model out; nothing here depends on another model."""
    errors = [_error(case, outputs, error) for error in case.errors]
    entropy = forget_log_entropy(case, outputs)
    return Reading(np.array(errors), entropy, _shares(case, outputs), _status(case, outputs))


def forget_log_entropy(case: Case, outputs: Outputs) -> np.ndarray:
    """Log-entropy of the samples forgotten so far, nats, float64 `[n_forgotten]`; renormalized without removed classes."""
    logits = outputs.train[case.request.forgotten]
    entropy = log_entropy(mask(logits, case.removed))
    return np.where(np.isfinite(logits).all(-1), entropy, np.nan)


def _error(case: Case, outputs: Outputs, error: ErrorPart) -> float:
    logits = outputs.arrays()[error.split][error.rows]
    return float(error_percent(logits, error.labels, case.removed if error.masked else ()))


def _shares(case: Case, outputs: Outputs) -> np.ndarray:
    if not case.removed:
        return np.empty(0)
    logits = outputs.train[case.request.forgotten]
    if not np.isfinite(logits).all() or not len(logits):
        return np.full(len(case.kept), np.nan)
    predicted = np.argmax(logits[:, case.kept], axis=-1)
    return 100.0 * np.bincount(predicted, minlength=len(case.kept)) / len(logits)


def _status(case: Case, outputs: Outputs) -> str:
    if not all(np.isfinite(array).all() for array in outputs.arrays().values()):
        return "diverged"
    rows = ~np.isin(case.test_y, case.removed)
    logits, labels = mask(outputs.test[rows], case.removed), case.test_y[rows]
    if not len(labels):
        return "ok"
    chance = 1.0 / len(case.kept)
    limit = chance + 3.0 * math.sqrt(chance * (1.0 - chance) / len(labels))
    accuracy = 1.0 - float(error_percent(logits, labels, case.removed)) / 100.0
    one_class = len(np.unique(labels)) > 1 and len(np.unique(np.argmax(logits, axis=-1))) == 1
    # With a handful of test samples even a perfect model is within three sigma of chance.
    return "collapsed" if one_class or accuracy <= limit < 1.0 else "ok"


@dataclass(frozen=True)
class Reference:
    """The retrained pool of one request, read out once; the first axis is models, the rest as in `Reading`."""

    errors: np.ndarray
    log_entropy: np.ndarray
    shares: np.ndarray
    statuses: tuple[str, ...]


def reference(case: Case, outputs: Iterable[Outputs]) -> Reference:
    """Read the retrained pool out, one model at a time; `outputs` may load them lazily. Raises UsageError for none."""
    readings = [read(case, one) for one in outputs]
    if not readings:
        raise UsageError("there is no retrained model to compare with; the pool needs at least one")
    arrays = [np.array([getattr(reading, name) for reading in readings]) for name in ("errors", "log_entropy", "shares")]
    return Reference(*arrays, statuses=tuple(reading.status for reading in readings))


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

    Errors come with their signed gap to the mean of the retrained pool. Distances of log-entropies are averages over the
    retrained models, the class shift is measured from their mean; floors are in `reference_records`.

    Args:
        status: what the method said about its own run; joined with diverged or collapsed.
        original_error: mean test error of the originals in percent, for the restored share (depoisoning).
    """
    reading = read(case, outputs)
    status = _joined(status, reading.status)
    rows = [*_error_rows(case, reading, reference), *_distance_rows(reading, reference)]
    if case.removed:
        rows += _shift_rows(case, reading, reference)
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
    n = len(reading.log_entropy)
    reason = "ok" if n else "empty"
    for c, share in zip(case.kept, reading.shares, strict=True):
        yield f"predicted_share:{case.class_names[c]}", "forget", float(share), n, reason
    yield "class_shift_tv", "forget", float(_total_variation(reading.shares, _pool_shares(reference))), n, reason


def _restored_row(case: Case, reading: Reading, reference: Reference, before: float) -> Row:
    at = [(error.metric, error.part) for error in case.errors].index(("error", "test"))
    gain = before - float(reference.errors[:, at].mean())
    # Where clean training is no better than poisoned training, there is nothing to restore.
    value, reason = ((before - float(reading.errors[at])) / gain, "ok") if gain > 0 else (math.nan, "undefined")
    return "restored", "test", value, len(case.errors[at].rows), reason


def _total_variation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Half the sum of absolute differences of shares in percent, as a fraction of 1."""
    return np.asarray(np.abs(a - b).sum(-1) / 200.0)


def _pool_shares(reference: Reference) -> np.ndarray:
    finite = reference.shares[np.isfinite(reference.shares).all(-1)]
    return finite.mean(axis=0) if len(finite) else np.full(reference.shares.shape[1], np.nan)


def _mean(values: np.ndarray) -> float:
    """Mean of the finite values: a retrained model that diverged has no distance, its status says so elsewhere."""
    return statistics.mean_interval(values)[0]


def _joined(*statuses: str) -> str:
    return " and ".join(dict.fromkeys(status for status in statuses if status != "ok")) or "ok"


def reference_records(case: Case, reference: Reference, *, original_error: float = math.nan) -> list[Record]:
    """Method `reference`: the mean over the retrained models with its t-interval, and their spread as `<metric>_sd`.

    Distances are floors, retrained versus retrained: between the disjoint pairs of neighbours in the pool, which are
    independent draws (`n` counts pairs); the class shift is that of each model from the mean of all others.
    """
    rows = [(error.metric, error.part, reference.errors[:, at]) for at, error in enumerate(case.errors)]
    left, right = reference.log_entropy[0:-1:2], reference.log_entropy[1::2]
    rows += [(metric, "forget", distance(left, right)) for metric, distance in DISTANCES.items()]
    if case.removed:
        names = [f"predicted_share:{case.class_names[c]}" for c in case.kept]
        rows += [(name, "forget", shares) for name, shares in zip(names, reference.shares.T, strict=True)]
        rows.append(("class_shift_tv", "forget", _leave_one_out_shift(reference.shares)))
    if case.scenario == "depoisoning":
        at = [(error.metric, error.part) for error in case.errors].index(("error", "test"))
        gain = original_error - reference.errors[:, at].mean()
        rows.append(("restored", "test", (original_error - reference.errors[:, at]) / (gain if gain > 0 else math.nan)))
    status = _counted(reference.statuses)
    return [record for row in rows for record in _spread(case, *row, status)]


def _leave_one_out_shift(shares: np.ndarray) -> np.ndarray:
    finite = shares[np.isfinite(shares).all(-1)]
    if len(finite) < 2:
        return np.empty(0)
    return _total_variation(finite, (finite.sum(axis=0) - finite) / (len(finite) - 1))


def _spread(case: Case, metric: str, part: str, values: np.ndarray, status: str) -> list[Record]:
    mean, low, high, n = statistics.mean_interval(values)
    place = ("reference", "all", case.request.step, part)
    reason = status if n else _joined(status, "undefined" if metric == "restored" else "empty")
    return [
        Record(*place, metric, mean, low, high, n, reason),
        Record(*place, f"{metric}_sd", statistics.sd(values), n=n, status=reason),
    ]


def summarize(records: Iterable[Record]) -> list[Record]:
    """One record with seed `all` per method, step, part and metric, in the order of first appearance.

    Mean and 95 % t-interval over the seeds' finite values, which `n` counts; the status is ok, or says how many seeds
    were not, and why. Records that are summaries already are left out.
    """
    groups: dict[tuple[str, int, str, str], list[Record]] = {}
    for record in records:
        if record.seed != "all":
            groups.setdefault((record.method, record.step, record.part, record.metric), []).append(record)
    summaries = []
    for (method, step, part, metric), members in groups.items():
        mean, low, high, n = statistics.mean_interval([member.value for member in members])
        status = _counted([member.status for member in members])
        summaries.append(Record(method, "all", step, part, metric, mean, low, high, n, status))
    return summaries


def _counted(statuses: Iterable[str]) -> str:
    """`ok`, or what was not ok and how often: `2 of 5 not_converged; 1 of 5 diverged`."""
    counts = Counter(statuses)
    total = counts.total()
    return "; ".join(f"{count} of {total} {status}" for status, count in counts.items() if status != "ok") or "ok"
