"""Our numbers beside the published ones of the PGU paper, which `paper.toml` holds."""

from __future__ import annotations

import functools
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.records import Results
from bench.statistics import explained_difference
from reports import words
from reports.departures import departures
from reports.grid import Heads, Row, Table
from reports.numbers import MISSING, REFERENCE, Numbers, fixed, mean_sd, seconds

SOURCE = Path(__file__).with_name("paper.toml")
HEADS: Heads = [("method", ""), ("quantity", ""), ("published", "mean ± sd"), ("ours", "mean ± sd (n)"),
                ("difference", "ours − published")]  # fmt: skip
NOT_RUN = "not run"
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


@functools.cache
def paper() -> dict[str, Any]:
    """The contents of `paper.toml`."""
    return tomllib.loads(SOURCE.read_text(encoding="utf-8"))


def tables(runs: Sequence[Results]) -> list[Table]:
    """One table for each published table that some of the runs reproduce; [] where none does."""
    found: dict[str, list[Results]] = {}
    for results in runs:
        if name := _published(results.run)[0]:
            found.setdefault(name, []).append(results)
    return [_table(paper()[name], found[name]) for name in sorted(found)]


def notes(runs: Mapping[str, Results]) -> list[str]:
    """How to read the tables, and which runs, by their folders, have no published numbers."""
    bare = [folder for folder, results in runs.items() if not _published(results.run)[0]]
    lines = [f"Without published numbers, see their tables and figures: {', '.join(bare)}."] if bare else []
    return [*([words.PUBLISHED] if len(bare) < len(runs) else []), *lines]


def _published(run: Mapping[str, Any]) -> tuple[str, str]:
    """The published table that a run reproduces and the column, if it is one of several runs; empty for none."""
    name, _, column = str(run.get("published", "")).partition(".")
    table = paper().get(name)
    if not isinstance(table, dict) or run["scenario"] != table["setting"]["scenario"]:
        return "", ""
    known = {one["name"] for one in table["columns"]} if table.get("runs_apart") else {""}
    return (name, column) if column in known else ("", "")


def _table(published: Mapping[str, Any], runs: Sequence[Results]) -> Table:
    order, runs = list(published["rows"]), sorted(runs, key=lambda one: _columns(published, one.run)[0][0])
    rows = [row for results in runs for row in _rows(published, results)]
    rows.sort(key=lambda row: order.index(row.method))  # a method's rows together, also where runs are several
    repeats = f" ({paper()['runs']} runs)" if any(map(_has_deviation, published["rows"].values())) else ""
    units = f"Published: {paper()['source']}, {published['name']}{repeats}. {published['words']}"
    caption, setting = f"Against the paper: {published['name']}", _departures(published, runs)
    recipes = ", ".join(dict.fromkeys(results.run.get("recipe", {}).get("name", "unnamed") for results in runs))
    units += "" if setting else f". This is the paper's setting, with the recipe {recipes}"
    return Table("paper", caption, units, HEADS, rows, labels=2, warning=setting)


def _has_deviation(row: Mapping[str, Any]) -> bool:
    return any(len(cell) > 1 for cells in _cells(row).values() for cell in cells)


def _departures(published: Mapping[str, Any], runs: Sequence[Results]) -> str:
    """How far the runs are from the paper's setting, in words; empty where they are in it."""
    found: dict[str, None] = {}
    for results in runs:
        column = _columns(published, results.run)[0][2]
        found |= dict.fromkeys(departures(results.run, published, column, paper()["runs"]))
    return f"Not the paper's setting: {', '.join(found)}" if found else ""


def _columns(published: Mapping[str, Any], run: Mapping[str, Any]) -> list[tuple[int, int, dict[str, Any]]]:
    """What of the paper's columns a run reproduces: the column's place, our step, and what the column says."""
    listed = list(enumerate(published["columns"]))
    if not published.get("runs_apart"):
        return [(place, place, column) for place, column in listed]
    return [(place, 0, column) for place, column in listed if column["name"] == _published(run)[1]]


def _cells(row: Mapping[str, Any]) -> dict[str, list[list[float]]]:
    return {name: row[name] for name in QUANTITIES if name in row}


def _rows(published: Mapping[str, Any], results: Results) -> Iterator[Row]:
    """A line for each method of the paper, quantity and column; the first of a method tells what was odd."""
    run, numbers = results.run, Numbers(results.records)
    for method, row in published["rows"].items():
        same = row["ours"] == "retrain" or _letters(row["ours"]) == _letters(method)
        label = method if same else f"{method} ({row['ours']})"
        remark = _odd(run, numbers, row["ours"])
        for said, place, line in _lines(published, run, numbers, row):
            column = published["columns"][place]["name"]
            yield Row(method, "method", [label, f"{column}: {said}" if column else said, *line], remark)
            remark = "ok"


def _odd(run: Mapping[str, Any], numbers: Numbers, method: str) -> str:
    """What was odd about some runs of a method that has numbers; `ok` for any other, whose cells say why."""
    entry = next((entry for entry in run["methods"] if entry["name"] == method), None)
    return words.status(run, entry, numbers) if entry is not None and entry["status"] == "ok" else "ok"


def _letters(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def _lines(
    published: Mapping[str, Any], run: Mapping[str, Any], numbers: Numbers, row: Mapping[str, Any]
) -> Iterator[tuple[str, int, list[str]]]:
    """Of one of the paper's rows: what is compared, the column's place and the three cells."""
    columns, ours = _columns(published, run), row["ours"]
    for name, cells in _cells(row).items():
        quantity = QUANTITIES[name]
        for place, step, _ in columns:
            yield quantity.name, place, _line(run, numbers, ours, quantity, cells[place], step)
    if "seconds" in row and ours != "retrain":
        whole = published["rows"][_retrained(published)]["seconds"]
        for place, step, _ in columns:
            yield RATIO, place, _ratio(run, numbers, ours, row["seconds"][place], whole[place], step)


def _retrained(published: Mapping[str, Any]) -> str:
    """What the paper calls retraining in this table."""
    names = [str(method) for method, row in published["rows"].items() if row["ours"] == "retrain"]
    return names[0]


def _line(
    run: Mapping[str, Any], numbers: Numbers, method: str, quantity: Quantity, cell: Sequence[float], step: int
) -> list[str]:
    """Published, ours and the difference of one number."""
    theirs, ours = _theirs(cell, quantity.rounding), _ours(run, numbers, method, quantity, step)
    printed = _printed(cell, quantity)
    if isinstance(ours, str):
        return [printed, ours, MISSING]
    if quantity.metric == "seconds_request":
        return [printed, f"{seconds(ours.mean, ours.sd)} ({ours.n})", "not compared"]
    shown = f"{mean_sd(ours.mean, ours.sd, quantity.digits)} ({ours.n})"
    return [printed, shown, difference(ours, theirs, quantity.digits, quantity.rounding)]


def _ratio(
    run: Mapping[str, Any], numbers: Numbers, method: str, cell: Sequence[float], whole: Sequence[float], step: int
) -> list[str]:
    """The same of the share of the time that retraining takes."""
    theirs = _theirs(cell).over(_theirs(whole))
    printed = mean_sd(theirs.mean, theirs.sd, RATIO_DIGITS)
    own, retrain = (_ours(run, numbers, name, QUANTITIES["seconds"], step) for name in (method, "retrain"))
    if isinstance(own, str):
        return [printed, own, MISSING]
    if isinstance(retrain, str):
        return [printed, retrain, MISSING]
    ours = own.over(retrain)
    shown = f"{mean_sd(ours.mean, ours.sd, RATIO_DIGITS)} ({ours.n})"
    return [printed, shown, difference(ours, theirs, RATIO_DIGITS, 0.0)]


def _theirs(cell: Sequence[float], rounding: float = 0.0) -> Estimate:
    """A published mean and deviation, which the print may have rounded down: 0.00 is not nothing."""
    return Estimate(cell[0], cell[1] + rounding if len(cell) > 1 else math.nan, paper()["runs"])


def _printed(cell: Sequence[float], quantity: Quantity) -> str:
    """As the paper prints it: whole seconds are whole."""
    digits = 0 if isinstance(cell[0], int) else quantity.digits
    return " ± ".join(fixed(value, digits) for value in cell)


def _ours(run: Mapping[str, Any], numbers: Numbers, method: str, quantity: Quantity, step: int) -> Estimate | str:
    """Our number, or why there is none. That of retraining is the pool's, but its time."""
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
