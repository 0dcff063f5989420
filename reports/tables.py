"""The numbers of a run as tables of text cells, the same for Markdown, LaTeX and HTML."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate  # type: ignore[import-untyped, unused-ignore]

from bench.records import Results
from reports import words
from reports.numbers import (
    MISSING,
    REFERENCE,
    Numbers,
    alike,
    count,
    mean_sd,
    memory,
    seconds,
    significant,
    with_interval,
)

ANCHORS = ("original", "retrain")
READ = {"forget": "F", "retain": "R", "validation": "V", "train": "S"}  # S: statistics, taken from the training set
TOLD = "corrected"  # the forget set with its true labels, named where it was read


Heads = list[tuple[str, str]]


@dataclass(frozen=True)
class Quantity:
    """One measured thing: a percentage takes two columns (value, gap to the pool), anything else one.

    `goal` stands under the head and says which way is good.
    """

    head: str
    metric: str
    part: str
    goal: str = "→ retrained"

    @property
    def has_gap(self) -> bool:
        """Whether it is a percentage with a gap to the pool."""
        return self.metric.startswith(("error", "confusion"))


@dataclass(frozen=True)
class Row:
    """One line of a table.

    `kind` is reference, anchor, method or, for a line without any number, failed. `remark` is `ok`, the reason for
    which numbers are missing, or what was odd about some runs.
    """

    method: str
    kind: str
    cells: list[str]
    remark: str


@dataclass(frozen=True)
class Table:
    """A table of finished text: `heads` holds one `(head, goal)` per column, the method's name first."""

    name: str
    caption: str
    units: str
    heads: Heads
    rows: list[Row]


FORGOTTEN = {
    "sample_removal": [Quantity("forget error", "error", "forget")],
    "class_removal": [
        Quantity("forget error", "error_unmasked", "forget"),
        Quantity("forget-class test error", "error_unmasked", "forget_test"),
    ],
    "incremental": [
        Quantity("forget error so far", "error", "forget"),
        Quantity("this step's error", "error", "chunk"),
    ],
    "depoisoning": [
        Quantity("wrong-label error", "error", "forget"),
        Quantity("true-label error", "error", "corrected"),
    ],
}
TRACES = [
    Quantity("entropy W1", "log_entropy_w1", "forget", "↓ floor"),
    Quantity("attack AUC", "attack_auc", "forget", "→ 0.5"),
]
KEPT = [Quantity("retain error", "error", "retain"), Quantity("test error", "error", "test")]
ACCURACY = {
    "class_removal": [
        Quantity("retain error", "error", "retain"),
        Quantity("retained test error", "error", "retained_test"),
        Quantity("the same, unmasked", "error_unmasked", "retained_test"),
    ],
    "depoisoning": [
        *KEPT,
        Quantity("restored", "restored", "test", "→ 1"),
        Quantity("pair confusion", "confusion", "test"),
    ],
}
UNDETECTED = [
    Quantity("wrong-label error", "error", "undetected"),
    Quantity("true-label error", "error", "undetected_corrected"),
]
UNITS = "Errors in percent, gaps in percentage points with 95 % intervals"
FORGOTTEN_UNITS = {
    "class_removal": UNITS + "; outputs unmasked",
    "incremental": UNITS + "; steps in order of the requests",
}
ACCURACY_UNITS = {"class_removal": UNITS + "; the removed classes' outputs masked unless said otherwise"}
COST_UNITS = "Per run; seconds are mean ± standard deviation over seeds"
COST = [
    ("request, s", "↓"), ("÷ retrain", "↓"), ("prepare, s", "↓, once"), ("examples read", "↓"), ("peak memory", "↓")
]  # fmt: skip


def build(results: Results) -> list[Table]:
    """The tables of a run: what was forgotten, what it cost in accuracy, what it cost in time and data."""
    run, numbers = results.run, Numbers(results.records)
    scenario = run["scenario"]
    traces = [quantity for quantity in TRACES if numbers.has(quantity.metric)]
    forgotten = [*FORGOTTEN[scenario], *traces]
    kept, forgotten_units = ACCURACY.get(scenario, KEPT), FORGOTTEN_UNITS.get(scenario, UNITS)
    accuracy_units = ACCURACY_UNITS.get(scenario, UNITS)
    return [
        Table("forgotten", "What was forgotten", forgotten_units, *_measured(forgotten, run, numbers)),
        Table("accuracy", "What it cost in accuracy", accuracy_units, *_measured(kept, run, numbers)),
        *_undetected(run, numbers),
        Table("cost", "What it cost in time and data", COST_UNITS, *_costs(run, numbers)),
    ]


def _undetected(run: dict[str, Any], numbers: Numbers) -> list[Table]:
    if not words.undetected(run):
        return []
    caption = "What became of the undetected wrong labels"
    return [Table("undetected", caption, UNITS, *_measured(UNDETECTED, run, numbers))]


def _measured(quantities: Sequence[Quantity], run: dict[str, Any], numbers: Numbers) -> tuple[Heads, list[Row]]:
    heads: Heads = []
    for quantity in quantities:
        goal = quantity.goal.replace("retrained", "clean") if words.undetected(run) else quantity.goal
        heads.append((quantity.head, goal))
        heads += [("gap", "→ 0")] if quantity.has_gap else []
    rows = [(REFERENCE, step, _measured_cells(quantities, numbers, REFERENCE, step)) for step in range(run["steps"])]
    for method, step in _lines(run, numbers):
        rows.append((method, step, _measured_cells(quantities, numbers, method, step)))
    return _framed(heads, rows, run, numbers)


def _costs(run: dict[str, Any], numbers: Numbers) -> tuple[Heads, list[Row]]:
    rows = [(method, step, _cost_cells(numbers, method, step)) for method, step in _lines(run, numbers)]
    return _framed(COST, rows, run, numbers)


def _lines(run: dict[str, Any], numbers: Numbers) -> list[tuple[str, int]]:
    """Methods and steps in row order; a method without any number has one line, which will say why."""
    lines = []
    for entry in run["methods"]:
        steps = run["steps"] if numbers.knows(entry["name"]) else 1
        lines += [(entry["name"], step) for step in range(steps)]
    return lines


def _framed(
    heads: Heads, lines: list[tuple[str, int, list[str]]], run: dict[str, Any], numbers: Numbers
) -> tuple[Heads, list[Row]]:
    """Add what stands around the numbers: name, step of a sequence, and what the status says."""
    several = run["steps"] > 1
    entries = {entry["name"]: entry for entry in run["methods"]}
    rows = []
    for method, step, cells in lines:
        remark = words.status(run, entries[method], numbers, step) if method in entries else "ok"
        empty = set(cells) == {MISSING} and remark != "ok"
        start = [words.row_name(run, method)] + ([str(step + 1)] if several else [])
        rows.append(Row(method, "failed" if empty else _kind(method), start + cells, remark))
    return [("method", "")] + ([("step", "")] if several else []) + heads, rows


def _kind(method: str) -> str:
    return "reference" if method == REFERENCE else "anchor" if method in ANCHORS else "method"


def _measured_cells(quantities: Sequence[Quantity], numbers: Numbers, method: str, step: int) -> list[str]:
    cells = []
    for quantity in quantities:
        place = (method, quantity.metric, quantity.part, step)
        if quantity.has_gap:
            cells += [mean_sd(numbers.value(*place), numbers.deviation(*place)), _gap(quantity, numbers, method, step)]
        else:
            cells.append(with_interval(numbers.summary(*place)))
    return cells


def _gap(quantity: Quantity, numbers: Numbers, method: str, step: int) -> str:
    if method == REFERENCE:
        return "reference"
    gap = numbers.summary(method, f"{quantity.metric}_gap", quantity.part, step)
    if gap is None or math.isnan(gap.value):
        return MISSING
    spread = numbers.deviation(REFERENCE, quantity.metric, quantity.part, step)
    return with_interval(gap, signed=True) + ("*" if alike(gap, spread) else "")


def _cost_cells(numbers: Numbers, method: str, step: int) -> list[str]:
    def spent(metric: str, at: int = step) -> str:
        return seconds(numbers.value(method, metric, None, at), numbers.deviation(method, metric, None, at))

    request, prepared = spent("seconds_request"), spent("seconds_prepare", 0)
    if prepared == MISSING and request != MISSING:
        prepared = "none"
    return [
        request,
        ratio(numbers, method, step),
        prepared if step == 0 or prepared in (MISSING, "none") else "at step 1",
        examples_read(numbers, method, step),
        memory(numbers.value(method, "peak_bytes", None, step)),
    ]


def ratio(numbers: Numbers, method: str, step: int) -> str:
    """Time of a request as a share of retraining for the same request."""
    own, retrain = (numbers.value(name, "seconds_request", None, step) for name in (method, "retrain"))
    if math.isnan(own) or not retrain > 0:
        return MISSING
    share = own / retrain
    return "< 0.001" if share < 0.001 else significant(share, 2)


def examples_read(numbers: Numbers, method: str, step: int) -> str:
    """Examples handed out in one run by part, `F 25,000 · R 0 · V 1,200 · S 600`."""
    read = {part: numbers.value(method, "samples_read", part, step) for part in READ}
    if all(math.isnan(value) for value in read.values()):
        return MISSING
    told = numbers.value(method, "samples_read", TOLD, step)
    cells = [f"{letter} {count(0 if math.isnan(read[part]) else read[part])}" for part, letter in READ.items()]
    return " · ".join([*cells, *([f"C {count(told)}"] if told > 0 else [])])


def markdown(results: Results, tables: Sequence[Table]) -> str:
    """The page `table.md`: title, setting, tables and the key to them."""
    blocks = [f"# {_plain(results.run['title'])}", _plain(words.setting(results.run))]
    for place, table in enumerate(tables):
        blocks += [f"## {table.caption}", f"{table.units}.", _grid(table, status=place == 0)]
    notes = "\n".join(f"- {_plain(note)}" for note in words.key(results, tables))
    return "\n\n".join([*blocks, f"## How to read this\n\n{notes}"]) + "\n"


def _grid(table: Table, *, status: bool) -> str:
    """A table in Markdown; reasons are long, so one table shows them and the others name the kind."""
    shown = status and any(row.remark != "ok" for row in table.rows)
    heads = [_plain(f"{head} {goal}".strip()) for head, goal in table.heads] + (["status"] if shown else [])
    lines = []
    for row in table.rows:
        cells = row.cells + ([row.remark] if shown else [])
        if row.kind == "failed" and not shown:
            cells = [*cells[:-1], row.remark.split(":")[0]]
        lines.append([_plain(cell) for cell in cells])
    sides = ["left", *["right"] * (len(table.heads) - 1), "left"][: len(heads)]
    text: str = tabulate(lines, heads, tablefmt="github", disable_numparse=True, colalign=sides)
    return text


def _plain(text: str) -> str:
    """Text that neither breaks a Markdown table nor is taken for HTML; what reads well in a terminal stays as it is."""
    text = re.sub(r"&(?=#?\w+;)", "&amp;", " ".join(text.split()))
    return re.sub(r"<(?=[a-zA-Z/!?])", "&lt;", text).replace("|", "\\|")
