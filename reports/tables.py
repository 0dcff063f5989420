"""The numbers of a run as tables of text cells, the same for Markdown, LaTeX and HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bench.records import Results
from bench.verdict import Verdict
from reports import audit, tradeoff_table, verdicts, words
from reports.grid import NONE, Heads, Place, Table, line, methods
from reports.numbers import (
    MISSING,
    REFERENCE,
    Numbers,
    alike,
    count,
    fixed,
    mean_sd,
    memory,
    seconds,
    significant,
    with_interval,
)
from reports.quantities import ACCURACY, ANCHORS, BY_REQUEST, FORGOTTEN, KEPT, TRACES, UNDETECTED, WORST, Quantity

READ = {"forget": "F", "retain": "R", "validation": "V", "train": "S"}  # S: statistics, taken from the training set
TOLD = "corrected"  # the forget set with its true labels, named where it was read

NO_VERDICTS: Mapping[str, Verdict] = {}
UNITS = "Errors in percent, gaps in percentage points with 95 % intervals"
FORGOTTEN_UNITS = {"class_removal": UNITS + "; outputs unmasked"}
ACCURACY_UNITS = {"class_removal": UNITS + "; the removed classes' outputs masked unless said otherwise"}
REQUEST_UNITS = "Errors in percent, in parentheses the gap to the pool in percentage points; means over seeds"


def build(results: Results) -> list[Table]:
    """The tables of a run: what was forgotten, what it cost in accuracy, what it cost in time and data.

    Of several requests these show the state after the last and the cost of all; one more table goes through them. An
    audit adds tables of its own.
    """
    run, numbers = results.run, Numbers(results.records)
    scenario, after = run["scenario"], f", after the last of {run['steps']} requests" if run["steps"] > 1 else ""
    kept, units = ACCURACY.get(scenario, KEPT), FORGOTTEN_UNITS.get(scenario, UNITS) + after
    accuracy_units = ACCURACY_UNITS.get(scenario, UNITS) + after
    missed = "What became of the undetected wrong labels"
    return [
        _forgotten(results, numbers, units),
        *audit.tables(results),
        _measured("accuracy", "What it cost in accuracy", accuracy_units, kept, run, numbers),
        *([_measured("undetected", missed, UNITS, UNDETECTED, run, numbers)] if words.undetected(run) else []),
        *([_by_request(run, numbers)] if run["steps"] > 1 else []),
        _cost(run, numbers),
        tradeoff_table.table(results),
    ]


def _forgotten(results: Results, numbers: Numbers, units: str) -> Table:
    """What was forgotten, the verdict before any number where the run has an audit."""
    run, found = results.run, verdicts.of(results)
    traces = [quantity for quantity in _traces(run) if numbers.has(quantity.metric)]
    quantities = [*FORGOTTEN[run["scenario"]], *traces]
    return _measured("forgotten", "What was forgotten", units, quantities, run, numbers, found)


def _traces(run: dict[str, Any]) -> list[Quantity]:
    """The traces in the outputs; the attack is the one that decides the verdict, without one the paper's."""
    if not verdicts.judged(run):
        return TRACES
    metric = f"attack_auc:{run['audit']['headline']}"
    return [replace(one, metric=metric) if one.metric == "attack_auc" else one for one in TRACES]


def _measured(
    name: str,
    caption: str,
    units: str,
    quantities: Sequence[Quantity],
    run: dict[str, Any],
    numbers: Numbers,
    found: Mapping[str, Verdict] = NO_VERDICTS,
) -> Table:
    """A table of these quantities; verdicts, if any, are its second column."""
    heads: Heads = [("method", ""), *([("verdict", "")] if found else [])]
    metrics = ["", *(["verdict"] if found else [])]
    for quantity in quantities:
        goal = quantity.goal.replace("retrained", "clean") if words.undetected(run) else quantity.goal
        heads += [(quantity.head, goal), *([("gap", "→ 0")] if quantity.has_gap else [])]
        metrics += [quantity.metric, *([f"{quantity.metric}_gap"] if quantity.has_gap else [])]
    last, rows = run["steps"] - 1, []
    for method in (REFERENCE, *methods(run)):
        said = [verdicts.cell(run, found, method) if numbers.knows(method) else MISSING] if found else []
        cells = _measured_cells(quantities, numbers, method, last)
        places = _measured_places(quantities, numbers, method, last)
        rows.append(line(run, numbers, method, cells, said=said, places=places))
    return Table(name, caption, units, heads, rows, labels=2 if found else 1, metrics=tuple(metrics))


def _measured_cells(quantities: Sequence[Quantity], numbers: Numbers, method: str, step: int) -> list[str]:
    cells = []
    for quantity in quantities:
        place = (method, quantity.metric, quantity.at(numbers, method, step), step)
        if quantity.has_gap:
            cells += [mean_sd(numbers.value(*place), numbers.deviation(*place)), _gap(quantity, numbers, method, step)]
        else:
            cells.append(with_interval(numbers.summary(*place)))
    return cells


def _measured_places(quantities: Sequence[Quantity], numbers: Numbers, method: str, step: int) -> list[Place]:
    places = []
    for quantity in quantities:
        part = quantity.at(numbers, method, step)
        places += [Place(quantity.metric, part, step)]
        places += [Place(f"{quantity.metric}_gap", part, step)] if quantity.has_gap else []
    return places


def _gap(quantity: Quantity, numbers: Numbers, method: str, step: int, *, interval: bool = True) -> str:
    if method == REFERENCE:
        return "reference"
    part = quantity.at(numbers, method, step)
    gap = numbers.summary(method, f"{quantity.metric}_gap", part, step)
    if gap is None or math.isnan(gap.value):
        return MISSING
    close = alike(gap, numbers.deviation(REFERENCE, quantity.metric, part, step))
    return (with_interval(gap, signed=True) if interval else fixed(gap.value, signed=True)) + ("*" if close else "")


def _by_request(run: dict[str, Any], numbers: Numbers) -> Table:
    """One line per method and request; a method without any number has one line, which says why."""
    heads = [("method", ""), ("request", ""), *((quantity.head, "(→ 0)") for quantity in BY_REQUEST)]
    heads += [("time, s", "↓"), ("÷ retrain", "↓")]
    rows = []
    for method in (REFERENCE, *methods(run)):
        for step in range(run["steps"] if numbers.knows(method) else 1):
            cells = [_with_gap(quantity, numbers, method, step) for quantity in BY_REQUEST]
            parts = [(quantity.metric, quantity.at(numbers, method, step)) for quantity in BY_REQUEST]
            places = [Place(metric, part, step) if part else None for metric, part in parts]
            places += [Place("seconds_request", None, step)] * 2
            rows.append(line(run, numbers, method, [*cells, *_times(numbers, method, [step])], step, places=places))
    return Table("requests", "Request by request", REQUEST_UNITS, heads, rows, by_request=True)


def _with_gap(quantity: Quantity, numbers: Numbers, method: str, step: int) -> str:
    """`9.35 (+0.07*)`; the worst earlier request by its number, `no. 2: 9.35 (+0.07*)`."""
    part = quantity.at(numbers, method, step)
    if part is None:
        return NONE if step == 0 else MISSING
    value = numbers.value(method, quantity.metric, part, step)
    if method == REFERENCE:
        return mean_sd(value, numbers.deviation(method, quantity.metric, part, step))
    named = f"no. {part.removeprefix('chunk')}: " if quantity.part == WORST else ""
    gap = _gap(quantity, numbers, method, step, interval=False)
    return MISSING if math.isnan(value) else f"{named}{fixed(value)} ({gap})"


def _cost(run: dict[str, Any], numbers: Numbers) -> Table:
    several, steps = run["steps"] > 1, range(run["steps"])
    together = ", all requests together" if several else ""
    units = f"Per run{together}; seconds are mean ± standard deviation over seeds"
    heads = [("method", ""), ("requests, s" if several else "request, s", "↓"), ("÷ retrain", "↓")]
    heads += [("prepare, s", "↓, once"), ("pays after", "requests ↓"), ("examples read", "↓"), ("peak memory", "↓")]
    rows = [
        line(run, numbers, method, _cost_cells(numbers, method, steps), places=_cost_places(numbers, method, steps))
        for method in methods(run)
    ]
    metrics = ("", "seconds_request", "seconds_request", "seconds_prepare", "", "samples_read", "peak_bytes")
    return Table("cost", "What it cost in time and data", units, heads, rows, metrics=metrics)


def _cost_cells(numbers: Numbers, method: str, steps: Sequence[int]) -> list[str]:
    request, share = _times(numbers, method, steps)
    prepared = seconds(*numbers.total(method, "seconds_prepare", None, steps[:1]))
    peak = numbers.value(method, "peak_bytes", None, highest(numbers, method, steps))
    return [
        request,
        share,
        NONE if prepared == MISSING and request != MISSING else prepared,
        pays_after(numbers, method, steps),
        examples_read(numbers, method, steps),
        memory(peak),
    ]


def pays_after(numbers: Numbers, method: str, steps: Sequence[int]) -> str:
    """The number of requests from which on a method takes less time than retraining for each, by mean times."""
    if method in ANCHORS:
        return NONE
    own, retraining = (numbers.total(one, "seconds_request", None, steps)[0] for one in (method, "retrain"))
    prepared = numbers.total(method, "seconds_prepare", None, steps[:1])[0]
    return break_even(own / len(steps), retraining / len(steps), 0.0 if math.isnan(prepared) else prepared)


def break_even(request: float, retraining: float, prepared: float) -> str:
    """The smallest n with `prepared` + n `request` < n `retraining`, all in seconds."""
    saved = retraining - request
    if math.isnan(saved):
        return MISSING
    return count(math.floor(prepared / saved) + 1) if saved > 0 else "never"


def _cost_places(numbers: Numbers, method: str, steps: Sequence[int]) -> list[Place | None]:
    """The second is that of the share of retraining: the seconds it is made of."""
    every = None if len(steps) > 1 else steps[0]
    request = Place("seconds_request", None, every)
    peak = Place("peak_bytes", None, highest(numbers, method, steps))
    return [request, request, Place("seconds_prepare", None, steps[0]), None, Place("samples_read", None, every), peak]


def highest(numbers: Numbers, method: str, steps: Sequence[int]) -> int:
    """The request that took most memory, the first where none has a number."""
    peaks = {step: numbers.value(method, "peak_bytes", None, step) for step in steps}
    known = {step: peak for step, peak in peaks.items() if not math.isnan(peak)}
    return max(known, key=known.__getitem__) if known else steps[0]


def _times(numbers: Numbers, method: str, steps: Sequence[int]) -> list[str]:
    return [seconds(*numbers.total(method, "seconds_request", None, steps)), ratio(numbers, method, steps)]


def ratio(numbers: Numbers, method: str, steps: Sequence[int]) -> str:
    """Time of these requests as a share of retraining for the same requests."""
    return share_text(share(numbers, method, steps))


def share_text(value: float) -> str:
    """A share of the time of retraining with two significant digits."""
    return "< 0.001" if value < 0.001 else significant(value, 2)


def share(numbers: Numbers, method: str, steps: Sequence[int]) -> float:
    """Time of these requests as a share of retraining for the same requests, nan where either was not timed."""
    own, retrain = (numbers.total(name, "seconds_request", None, steps)[0] for name in (method, "retrain"))
    return own / retrain if retrain > 0 else math.nan


def examples_read(numbers: Numbers, method: str, steps: Sequence[int]) -> str:
    """Examples handed out in one run by part, `F 25,000 · R 0 · V 1,200 · S 600`."""
    read = {part: numbers.total(method, "samples_read", part, steps)[0] for part in READ}
    if all(math.isnan(value) for value in read.values()):
        return MISSING
    told = numbers.total(method, "samples_read", TOLD, steps)[0]
    cells = [f"{letter} {count(0 if math.isnan(read[part]) else read[part])}" for part, letter in READ.items()]
    return " · ".join([*cells, *([f"C {count(told)}"] if told > 0 else [])])
