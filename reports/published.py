"""One published number of the PGU paper, which `paper.toml` holds, and ours beside it."""

from __future__ import annotations

import functools
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.records import Results
from bench.statistics import explained_difference
from reports import words
from reports.departures import departures
from reports.numbers import MISSING, REFERENCE, Numbers, fixed, mean_sd, seconds

SOURCE = Path(__file__).with_name("paper.toml")
NOT_RUN = "not run"
LEFT_OUT = "not among the methods of this run"
UNPRINTED = "–"  # where the paper has no number
RATIO, RATIO_DIGITS = "time ÷ retraining", 3


@dataclass(frozen=True)
class Quantity:
    """What the paper reports, and where our records have it. `rounding` is half a unit of the last printed digit."""

    name: str
    metric: str
    part: str | None
    digits: int = 2
    rounding: float = 0.005
    complement: bool = False  # 100 minus ours


QUANTITIES = {
    "retain_error": Quantity("retain error, %", "error", "retain"),
    "forget_error": Quantity("forget error, %", "error", "forget"),
    "test_error": Quantity("test error, %", "error", "test"),
    "retained_test_error": Quantity("retained test error, %", "error", "retained_test"),
    "test_accuracy": Quantity("test accuracy, %", "error", "test", complement=True),
    "attack_auc": Quantity("attack AUC", "attack_auc", "forget", digits=4, rounding=0.00005),
    "seconds": Quantity("time, s", "seconds_request", None),
}


@dataclass(frozen=True)
class Estimate:
    """Mean and standard deviation over `n` runs; the deviation is NaN where there is none."""

    mean: float
    sd: float
    n: int

    def over(self, other: Estimate) -> Estimate:
        """The ratio of two means; its deviation to first order, the two taken as independent."""
        if not other.mean:
            return Estimate(math.nan, math.nan, 0)
        mean = self.mean / other.mean
        relative = math.hypot(self.sd / self.mean, other.sd / other.mean) if self.mean else math.nan
        return Estimate(mean, abs(mean) * relative, min(self.n, other.n))


@dataclass(frozen=True)
class Ours:
    """What of our runs stands beside a column of the paper: a run, its numbers, and the step (the request)."""

    run: Mapping[str, Any]
    numbers: Numbers
    step: int


@functools.cache
def paper() -> dict[str, Any]:
    """The contents of `paper.toml`."""
    return tomllib.loads(SOURCE.read_text(encoding="utf-8"))


def stands_for(run: Mapping[str, Any]) -> tuple[str, str]:
    """The published table that a run reproduces and the column, if it is one of several runs; empty for none."""
    name, _, column = str(run.get("published", "")).partition(".")
    table = paper().get(name)
    if not isinstance(table, dict) or run["scenario"] != table["setting"]["scenario"]:
        return "", ""
    known = {one["name"] for one in table["columns"]} if table.get("runs_apart") else {""}
    return (name, column) if column in known else ("", "")


def columns(published: Mapping[str, Any], run: Mapping[str, Any]) -> list[tuple[int, int, dict[str, Any]]]:
    """What of the paper's columns a run reproduces: the column's place, our step, and what the column says."""
    listed = list(enumerate(published["columns"]))
    if not published.get("runs_apart"):
        return [(place, place, column) for place, column in listed]
    return [(place, 0, column) for place, column in listed if column["name"] == stands_for(run)[1]]


def reported(row: Mapping[str, Any]) -> list[str]:
    """The quantities that one of the paper's rows has, as it orders them, and the share of the time of retraining."""
    shared = [RATIO] if "seconds" in row and row["ours"] != "retrain" else []
    return [*(name for name in row if name in QUANTITIES), *shared]


def title(quantity: str) -> str:
    """The name of a quantity as a table says it."""
    return QUANTITIES[quantity].name if quantity in QUANTITIES else quantity


def setting(published: Mapping[str, Any], runs: Sequence[Results]) -> str:
    """How far the runs are from the paper's setting, in words; empty where they are in it."""
    found: dict[str, None] = {}
    for results in runs:
        column = columns(published, results.run)[0][2]
        found |= dict.fromkeys(departures(results.run, published, column, paper()["runs"]))
    return f"Not the paper's setting: {', '.join(found)}" if found else ""


def credit(published: Mapping[str, Any], runs: Sequence[Results]) -> str:
    """Where the published numbers are from, what the paper says beside them, and our recipe in its setting."""
    repeats = f" ({paper()['runs']} runs)" if any(map(_has_deviation, published["rows"].values())) else ""
    source = f"Published: {paper()['source']}, {published['name']}{repeats}. {published['words']}"
    recipes = ", ".join(dict.fromkeys(one.run.get("recipe", {}).get("name", "unnamed") for one in runs))
    same = bool(runs) and not setting(published, runs)
    return source + (f". This is the paper's setting, with the recipe {recipes}" if same else "")


def _has_deviation(row: Mapping[str, Any]) -> bool:
    return any(len(cell) > 1 for name in QUANTITIES for cell in row.get(name, ()))


def odd(run: Mapping[str, Any], numbers: Numbers, method: str) -> str:
    """What was odd about some runs of a method that has numbers, or that there was none of it.

    `ok` for one that failed or was skipped, whose cells say why.
    """
    entry = next((entry for entry in run["methods"] if entry["name"] == method), None)
    if entry is None:
        return LEFT_OUT
    return words.status(run, entry, numbers) if entry["status"] == "ok" else "ok"


def beside(
    published: Mapping[str, Any], name: str, quantity: str, place: int, ours: Ours | None
) -> tuple[str, str, str]:
    """Published, ours and the difference of one number, of one of the paper's rows and columns.

    `ours` is None where there is no run of ours; the paper may have no number either.
    """
    row = published["rows"][name]
    if row["ours"] == "original" and quantity in ("seconds", RATIO):  # to leave the model as it is takes no time
        return UNPRINTED, UNPRINTED, UNPRINTED
    if quantity == RATIO:
        return _ratio(published, row, place, ours)
    known, cell = QUANTITIES[quantity], row[quantity][place] if quantity in row else ()
    theirs, found = _theirs(cell, known.rounding), _ours(row["ours"], known, ours)
    printed = _printed(cell, known) or UNPRINTED
    if isinstance(found, str):
        return printed, found, MISSING
    if known.metric == "seconds_request":
        return printed, f"{seconds(found.mean, found.sd)} ({found.n})", "not compared" if cell else UNPRINTED
    shown = f"{mean_sd(found.mean, found.sd, known.digits)} ({found.n})"
    return printed, shown, difference(found, theirs, known.digits, known.rounding)


def _ratio(published: Mapping[str, Any], row: Mapping[str, Any], place: int, ours: Ours | None) -> tuple[str, str, str]:
    """The same of the share of the time that retraining takes."""
    whole = next(other for other in published["rows"].values() if other["ours"] == "retrain")
    if row is whole:
        return UNPRINTED, UNPRINTED, UNPRINTED
    theirs = _theirs(row["seconds"][place] if "seconds" in row else ()).over(_theirs(whole["seconds"][place]))
    printed = UNPRINTED if math.isnan(theirs.mean) else mean_sd(theirs.mean, theirs.sd, RATIO_DIGITS)
    own, retrain = (_ours(name, QUANTITIES["seconds"], ours) for name in (row["ours"], "retrain"))
    if isinstance(own, str):
        return printed, own, MISSING
    if isinstance(retrain, str):
        return printed, retrain, MISSING
    found = own.over(retrain)
    shown = f"{mean_sd(found.mean, found.sd, RATIO_DIGITS)} ({found.n})"
    return printed, shown, UNPRINTED if printed == UNPRINTED else difference(found, theirs, RATIO_DIGITS, 0.0)


def _theirs(cell: Sequence[float], rounding: float = 0.0) -> Estimate:
    """A published mean and deviation, which the print may have rounded down: 0.00 is not nothing."""
    mean = cell[0] if cell else math.nan
    return Estimate(mean, cell[1] + rounding if len(cell) > 1 else math.nan, paper()["runs"])


def _printed(cell: Sequence[float], quantity: Quantity) -> str:
    """As the paper prints it: whole seconds are whole; empty where it has no number."""
    digits = 0 if cell and isinstance(cell[0], int) else quantity.digits
    return " ± ".join(fixed(value, digits) for value in cell)


def _ours(method: str, quantity: Quantity, ours: Ours | None) -> Estimate | str:
    """Our number, or why there is none. That of retraining is the pool's, but its time."""
    if ours is None:
        return NOT_RUN
    run, numbers, step = ours.run, ours.numbers, ours.step
    status = next((entry["status"] for entry in run["methods"] if entry["name"] == method), NOT_RUN)
    pooled = method == "retrain" and quantity.metric != "seconds_request"
    name = REFERENCE if pooled else method
    mean = numbers.value(name, quantity.metric, quantity.part, step)
    if math.isnan(mean):
        asked = status == "ok" and quantity.metric == "attack_auc" and not numbers.has("attack_auc")
        return NOT_RUN if asked else MISSING if status == "ok" else status.split(":")[0]
    sd = numbers.deviation(name, quantity.metric, quantity.part, step)
    singles = numbers.repeats(name, quantity.metric, quantity.part, step)
    n = run["reference_models"] if pooled else sum(math.isfinite(one.value) for one in singles)
    return Estimate(100 - mean if quantity.complement else mean, sd, n)


def difference(ours: Estimate, theirs: Estimate, digits: int, rounding: float) -> str:
    """`+0.64 [−0.02, +1.30]`, with `≠` where the interval holds no 0; without interval where a deviation is missing.

    `rounding` widens the interval: a mean that is printed with two decimals may be that much off.
    """
    gap = ours.mean - theirs.mean
    if math.isnan(gap):
        return MISSING
    text = fixed(gap, digits, signed=True)
    if math.isnan(ours.sd) or math.isnan(theirs.sd) or min(ours.n, theirs.n) < 2:
        return text
    half = explained_difference([(ours.sd, ours.n), (theirs.sd, theirs.n)], 0.05) + rounding
    inside = ", ".join(fixed(end, digits, signed=True) for end in (gap - half, gap + half))
    return f"{text} [{inside}]" + (" ≠" if abs(gap) > half else "")
