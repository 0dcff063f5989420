"""A results folder: `run.json`, `records.csv` and `samples.npz`, written whole or not at all and checked on reading."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import program, run_file, untrusted
from bench.interface import Record, UsageError
from bench.whole import write_whole as write_whole

COLUMNS = (
    "dataset", "architecture", "scenario", "method", "seed", "step", "part", "metric",
    "value", "low", "high", "n", "status",
)  # fmt: skip
# Metrics that depend on the machine: never compared between runs, aside from ratios within one run.
TIMES = ("seconds_request", "seconds_prepare")


@dataclass(frozen=True)
class Results:
    """One run as a report sees it.

    Attributes:
        run: contents of `run.json`.
        records: every number of the run.
        samples: per-sample arrays for figures, float64, by name: `log_entropy/<method>/<step>` `[models, n_forgotten]`
            in nats, where `reference` is the retrained pool; `score:<attack>/<method>` `[models, n_forgotten]`, the
            scores of the method's models that were judged; and those of the retrained models beside them,
            `negatives:<attack>/<method>` of an attack that knows the method and `negatives:<attack>`, the same for all
            methods, of one that knows originals.
        failures: tracebacks of the runs that failed, which `save` writes and `load` leaves where they are.
    """

    run: dict[str, Any]
    records: list[Record]
    samples: dict[str, np.ndarray]
    failures: str = ""


def require_folder(folder: Path, what: str, flag: str) -> None:
    """Make a folder that can be written; raises UsageError, before any work, if that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make {what} {folder}: {error.strerror}; choose another with {flag}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{what} {folder} is not writable; choose another with {flag}")


def require_unlinked(folder: Path) -> None:
    """Raise UsageError where the `figures` of a results folder are a link: what is drawn would land elsewhere."""
    if (folder / "figures").is_symlink():
        raise UsageError(f"{folder / 'figures'} is a link, through which nothing is written; remove it")


def require_place(folder: Path, what: str, flag: str) -> None:
    """The same for a folder that is made when there is something to put into it: nothing of it stays behind."""
    missing = [place for place in (folder, *folder.parents) if not os.path.exists(place)]
    try:
        require_folder(folder, what, flag)
    finally:
        for place in missing:
            with contextlib.suppress(OSError):  # it was not made, or something is in it by now
                place.rmdir()


def to_csv(records: Iterable[Record], *, dataset: str, architecture: str, scenario: str) -> str:
    """The records as tidy CSV text with the columns `COLUMNS`; floats are written so that they read back exactly."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for r in records:
        numbers = ["" if math.isnan(v) else repr(float(v)) for v in (r.value, r.low, r.high)]
        place = (dataset, architecture, scenario, r.method, r.seed, r.step, r.part, r.metric)
        # A status may quote an error message of any kind; a line break in it would end the line for many readers.
        writer.writerow([*place, *numbers, r.n, " ".join(r.status.splitlines())])
    return text.getvalue()


def from_csv(path: Path) -> list[Record]:
    """Read a records file. Raises UsageError that names the first bad line."""
    try:
        lines = untrusted.text(path)
        rows = list(csv.reader(io.StringIO(lines)))
    except (OSError, ValueError, csv.Error) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    if not rows or tuple(rows[0]) != COLUMNS:
        raise UsageError(f"{path} is not a records file: its first line must be {','.join(COLUMNS)}")
    if not lines.endswith("\n"):
        raise UsageError(f"{path} is truncated: its last line does not end; run the benchmark again to rewrite it")
    return [_record(path, number, row) for number, row in enumerate(rows[1:], start=2)]


def _record(path: Path, number: int, row: list[str]) -> Record:
    try:
        _, _, _, method, seed, step, part, metric, value, low, high, n, status = row
        mean, lower, upper = (float(text) if text else math.nan for text in (value, low, high))
        return Record(method, seed, int(step), part, metric, mean, lower, upper, int(n), status)
    except ValueError as error:
        raise UsageError(f"{path} line {number} is damaged ({error}); run the benchmark again to rewrite it") from error


def save(folder: Path, results: Results) -> None:
    """Write the three files, and the tracebacks if any; `records.csv` last, so that a folder with it is complete."""
    run = results.run
    run["records"] = len(results.records)
    save_run(folder, run)
    arrays = io.BytesIO()
    np.savez_compressed(arrays, **results.samples)  # type: ignore[arg-type]
    write_whole(folder / "samples.npz", arrays.getvalue())
    if results.failures:
        write_whole(folder / "failures.txt", results.failures.encode(errors="replace"))
    else:
        (folder / "failures.txt").unlink(missing_ok=True)
    place = {key: run[key] for key in ("dataset", "architecture", "scenario")}
    write_whole(folder / "records.csv", to_csv(results.records, **place).encode())


def save_run(folder: Path, run: dict[str, Any]) -> None:
    """Write `run.json`."""
    write_whole(folder / "run.json", (json.dumps(run, indent=1, sort_keys=True) + "\n").encode())


def _instead(folder: Path) -> str:
    """What to do with a folder that is not that of a finished run."""
    parts = sorted(path.parent.name for path in folder.glob("*/records.csv"))
    if parts:
        return f"name one of the runs in it: {', '.join(parts)}"
    return "repeat the command that was to fill it, or name a results folder"


def load(folder: Path) -> Results:
    """Read a results folder. Raises UsageError, in one line, for anything missing or damaged."""
    if not folder.is_dir():
        raise UsageError(f"no results folder at {folder}; {program.name()} --out {folder} makes one")
    if not os.path.exists(folder / "records.csv"):
        raise UsageError(f"{folder} has no records.csv and so holds no finished run; {_instead(folder)}")
    records = from_csv(folder / "records.csv")
    try:
        run = untrusted.from_json(folder / "run.json")
        run_file.require_sound(run)
        if run.get("records", len(records)) != len(records):
            raise ValueError(f"records.csv has {len(records)} of {run['records']} records")
        samples = {name: _sample(name, array) for name, array in untrusted.arrays(folder / "samples.npz").items()}
    except Exception as error:  # a damaged file fails in any way
        fault = " ".join(str(error).split()) or type(error).__name__
        message = (
            f"results folder {folder} is incomplete or damaged ({fault}); run the same command again to rewrite it"
        )
        raise UsageError(message) from error
    return Results(run, records, samples)


def _sample(name: str, array: np.ndarray) -> np.ndarray:
    if array.ndim != 2 or array.dtype.kind != "f":
        raise ValueError(f"{name} in samples.npz must be numbers [models, samples], got {array.dtype} {array.shape}")
    return array
