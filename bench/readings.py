"""What one model's raw logits say: log-odds, log-entropies, errors and predicted classes, as arrays.

Logits are raw and unmasked everywhere. Class removal is evaluated with a masked head, which equals deleting the removed
classes' rows as in the PGU paper, and errors also without the mask: a method that relies on the mask must be visible.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bench import scenarios
from bench.interface import Dataset, Outputs, Request, UsageError
from bench.logits import error_percent, log_entropy, mask


@dataclass(frozen=True)
class ErrorPart:
    """One percentage to read out: rows of a split, the labels they are compared with, and whether the head is masked.

    The metric `confusion` is the percent predicted as these labels, the mean over them; all others are errors.
    """

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
        shifts: `(part, split, rows)` of the samples whose predicted classes are counted.
    """

    scenario: str
    request: Request
    class_names: tuple[str, ...]
    train_y: np.ndarray
    test_y: np.ndarray
    errors: tuple[ErrorPart, ...]
    shifts: tuple[tuple[str, str, np.ndarray], ...]

    @property
    def removed(self) -> tuple[int, ...]:
        """Classes that a masked head lacks."""
        return self.request.removed_classes

    @property
    def kept(self) -> np.ndarray:
        """Indices of the classes that stay, int64 `[classes that stay]`."""
        return np.setdiff1d(np.arange(len(self.class_names)), self.removed)


def case(scenario: str, request: Request, dataset: Dataset, earlier: Sequence[Request] = ()) -> Case:
    """What to read out for this request of this scenario, which came after the `earlier` ones."""
    train_y = scenarios.training_labels([request], dataset.train_y)
    errors = tuple(_error_parts(scenario, [*earlier, request], train_y, dataset))
    shifts = [("forget", "train", request.forgotten)]
    if request.removed_classes:
        shifts.append(("forget_test", "test", np.flatnonzero(np.isin(dataset.test_y, request.removed_classes))))
    return Case(scenario, request, dataset.class_names, train_y, dataset.test_y, errors, tuple(shifts))


def _error_parts(
    scenario: str, requests: Sequence[Request], train_y: np.ndarray, dataset: Dataset
) -> Iterator[ErrorPart]:
    """The errors after the last of these requests."""
    request = requests[-1]

    def train(metric: str, part: str, rows: np.ndarray, *, masked: bool = False) -> ErrorPart:
        return ErrorPart(metric, part, "train", rows, train_y[rows], masked)

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
    yield train("error", "retain", scenarios.reference_data(request))
    yield train("error", "forget", request.forgotten)
    if scenario == "incremental":  # chunk3 is what the third request took, after whichever request it is read out
        yield from (train("error", f"chunk{past.step + 1}", past.forget) for past in requests)
    if scenario == "depoisoning":
        yield ErrorPart("error", "corrected", "train", request.forget, dataset.train_y[request.forget])
        if len(missed := scenarios.undetected(request)):
            yield train("error", "undetected", missed)
            yield ErrorPart("error", "undetected_corrected", "train", missed, dataset.train_y[missed])
        yield _confusion(request, dataset)
    yield test("error", "test", everything)


def _confusion(request: Request, dataset: Dataset) -> ErrorPart:
    """Test samples of the paired classes, with the classes that they may be taken for."""
    partner = np.arange(dataset.classes)
    partner[dataset.train_y[request.poisoned]] = request.wrong_labels
    paired = np.flatnonzero(partner[dataset.test_y] != dataset.test_y)
    return ErrorPart("confusion", "test", "test", paired, partner[dataset.test_y[paired]])


@dataclass(frozen=True)
class Reading:
    """What one model's outputs say.

    Attributes:
        errors: percent, aligned with `Case.errors`, float64 `[errors]`.
        log_entropy: of every sample forgotten so far, in nats, float64 `[n_forgotten]`; masked head in class removal.
        shares: percent of the samples of each of `Case.shifts` predicted as each class that stays, float64
            `[shifts, classes that stay]`; nan where there is no sample or an output is not finite.
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
    shares = [_shares(case, outputs.arrays()[split][rows]) for _, split, rows in case.shifts]
    return Reading(np.array(errors), entropy, np.array(shares), _status(case, outputs))


def forget_log_entropy(case: Case, outputs: Outputs) -> np.ndarray:
    """Log-entropy of the samples forgotten so far in nats, float64 `[n_forgotten]`; without removed classes."""
    logits = outputs.train[case.request.forgotten]
    entropy = log_entropy(mask(logits, case.removed))
    return np.where(np.isfinite(logits).all(-1), entropy, np.nan)


def _error(case: Case, outputs: Outputs, error: ErrorPart) -> float:
    logits = outputs.arrays()[error.split][error.rows]
    if error.metric != "confusion":
        return float(error_percent(logits, error.labels, case.removed if error.masked else ()))
    own = [error.labels == label for label in np.unique(error.labels)]
    taken = [100.0 - float(error_percent(logits[rows], error.labels[rows])) for rows in own]
    return float(np.mean(taken)) if taken else math.nan


def _shares(case: Case, logits: np.ndarray) -> np.ndarray:
    if not np.isfinite(logits).all() or not len(logits):
        return np.full(len(case.kept), np.nan)
    predicted = np.argmax(logits[:, case.kept], axis=-1)
    return 100.0 * np.bincount(predicted, minlength=len(case.kept)) / len(logits)


def _status(case: Case, outputs: Outputs) -> str:
    if not all(np.isfinite(array).all() for array in outputs.arrays().values()):
        return "diverged"
    rows = ~np.isin(case.test_y, case.removed)
    logits, labels = outputs.test[rows], case.test_y[rows]
    if not len(labels):
        return "ok"
    chance = 1.0 / len(case.kept)
    limit = chance + 3.0 * math.sqrt(chance * (1.0 - chance) / len(labels))
    accuracy = 1.0 - float(error_percent(logits, labels, case.removed)) / 100.0
    one_class = len(np.unique(labels)) > 1 and len(np.unique(np.argmax(logits[:, case.kept], axis=-1))) == 1
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
    return Reference(
        errors=np.array([reading.errors for reading in readings]),
        log_entropy=np.array([reading.log_entropy for reading in readings]),
        shares=np.array([reading.shares for reading in readings]),
        statuses=tuple(reading.status for reading in readings),
    )
