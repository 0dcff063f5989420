"""Results folders as cells of a leaderboard: the runs on one data set, network, recipe and request, and their rows."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench import program
from bench.interface import SCENARIOS, UsageError
from bench.records import Results, load
from bench.verdict import verdicts
from reports import words
from reports.numbers import Numbers
from reports.quantities import ACCURACY, FORGOTTEN, KEPT, Quantity
from reports.tables import share

TUNED = "†"
EXACT = 12  # decimals: values closer than that are ties, not an order


@dataclass(frozen=True)
class Entry:
    """What one run found of one method in a cell.

    Attributes:
        row: name of the row: the method with what was changed by hand, and a dagger where a preset chose values.
        chosen: the values that a preset chose, in words.
        needs: what it may read.
        control: whether the answer is known: the untouched original, and retraining.
        failed: whether any of its runs failed, those for the attacks too.
        verdict: the word of the verdict, empty without an audit.
        values: by criterion, 0 the best; nan where it was not measured.
    """

    row: str
    chosen: str
    needs: tuple[str, ...]
    control: bool
    failed: bool
    verdict: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Cell:
    """Runs on one data set, network, recipe and request that were judged alike: one block of the ranks.

    `run` is what the latest of them says of itself. `folders` are the runs that count, `unused` the others of the cell.
    """

    run: Mapping[str, Any]
    entries: tuple[Entry, ...]
    folders: tuple[str, ...]
    unused: tuple[str, ...] = ()


def read(folders: Sequence[Path]) -> tuple[dict[str, Results], list[str]]:
    """The runs among and below these folders by their own, and what is wrong with those that are damaged.

    Raises UsageError, in one line, where a folder holds no run or all runs are damaged.
    """
    found: dict[str, Results] = {}
    faults = []
    for folder in find(folders):
        try:
            found[str(folder)] = load(folder)
        except UsageError as error:
            faults.append(str(error))
    if not found:
        more = f"; so are {len(faults) - 1} others" if len(faults) > 1 else ""
        raise UsageError(faults[0] + more)
    return found, faults


def collect(runs: Mapping[str, Results]) -> dict[str, list[Cell]]:
    """The cells of runs by their folders, by scenario."""
    blocks: dict[tuple[str, ...], list[tuple[str, Results]]] = {}
    for folder, results in runs.items():
        blocks.setdefault(_block(results.run), []).append((folder, results))
    cells: dict[str, list[Cell]] = {scenario: [] for scenario in SCENARIOS}
    for place in sorted(blocks):
        cells[place[0]].append(_cell(blocks[place]))
    return {scenario: _written_out(own) for scenario, own in cells.items() if own}


def find(folders: Sequence[Path]) -> list[Path]:
    """The results folders among and below these, each once. Raises UsageError where one of them holds none."""
    found: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"no folder at {folder}; leaderboard takes folders that hold results, such as results")
        here = {path.parent for name in ("records.csv", "run.json") for path in folder.rglob(name)}
        if not here:
            raise UsageError(f"no results in or below {folder}; {program.name()} --out {folder} makes some")
        for one in sorted(here):
            found.setdefault(one.resolve(), one)
    return list(found.values())


def _block(run: Mapping[str, Any]) -> tuple[str, ...]:
    """What makes a cell: scenario, data set, network, recipe, request, and the root of all random draws."""
    config = run.get("config", {})
    facts = (run.get("recipe", {}), config.get("scenario_settings", {}), config.get("seed", 0), run["steps"])
    return (run["scenario"], run["dataset"], run["architecture"], *(json.dumps(one, sort_keys=True) for one in facts))


def _judged(run: Mapping[str, Any]) -> tuple[Any, ...]:
    """How a run was judged. Values rank together only where this is the same; more models compare as larger."""
    audit = run.get("audit") or {}
    sizes = json.dumps([run.get("shadow", {}), audit.get("models", {}), run["seeds"]], sort_keys=True)
    decides = str(audit.get("headline") or "")
    return (bool(decides), len(run["seeds"]), run["reference_models"], decides, audit.get("margin", 0.0), sizes)


def _cell(runs: Sequence[tuple[str, Results]]) -> Cell:
    """One cell of its runs: those judged on the most models count, and of each row the latest of these."""
    ordered = sorted(runs, key=lambda one: (_judged(one[1].run), str(one[1].run.get("started", "")), one[0]))
    best = _judged(ordered[-1][1].run)
    found: dict[tuple[str, str], tuple[str, Entry]] = {}
    for folder, results in ordered:
        if _judged(results.run) == best:
            found |= {(entry.row, entry.chosen): (folder, entry) for entry in _entries(results)}
    used = {folder for folder, entry in found.values() if not entry.control} or {ordered[-1][0]}
    folders = [folder for folder, _ in ordered]
    return Cell(
        ordered[-1][1].run,
        tuple(entry for _, entry in found.values()),
        tuple(folder for folder in folders if folder in used),
        tuple(folder for folder in folders if folder not in used),
    )


def _written_out(cells: Sequence[Cell]) -> list[Cell]:
    """The cells, with the values that presets chose in the names of rows that one cell has with several."""
    several = {row for cell in cells for row, times in Counter(one.row for one in cell.entries).items() if times > 1}
    return [
        replace(
            cell,
            entries=tuple(
                replace(one, row=f"{one.row} ({one.chosen})") if one.row in several else one for one in cell.entries
            ),
        )
        for cell in cells
    ]


def _entries(results: Results) -> list[Entry]:
    """What a run found of every method that serves its scenario."""
    run, numbers = results.run, Numbers(results.records)
    judged, known = verdicts(run, results.records), words.aside(run)
    return [
        _entry(
            run, numbers, method, control=method["name"] in known, verdict=judged[method["name"]].word if judged else ""
        )
        for method in run["methods"]
        if not method["status"].startswith("skipped")
    ]


def _entry(
    run: Mapping[str, Any], numbers: Numbers, method: Mapping[str, Any], *, control: bool, verdict: str
) -> Entry:
    name, failed = method["name"], method["status"].startswith("failed") or bool(method.get("lost_for_attacks"))
    row, chosen = _row(run, method)
    values = {
        criterion: math.nan if failed else round(measure(run, numbers, name), EXACT)
        for criterion, measure in MEASURES.items()
    }
    return Entry(row, chosen, tuple(method.get("needs", ())), control, failed, verdict, values)


def _row(run: Mapping[str, Any], method: Mapping[str, Any]) -> tuple[str, str]:
    """The name of a row with what was changed by hand, and in words the values that a preset chose."""
    name = method["name"]
    if files := method.get("files"):
        return f"{name} (weights)", f"SHA-256 {files[0]['sha256'][:8]}"
    base, *own = name.split("+")
    named = {change.partition("=")[0] for change in own}
    typed = {change.partition("=")[0].strip() for change in run.get("changes", ())}
    by_hand = {field for field in method.get("tuned", {}) if {f"{base}.{field}", f"{name}.{field}"} & typed}
    tuned = {field: value for field, value in method.get("tuned", {}).items() if field not in named}
    hand = words.settings({field: value for field, value in tuned.items() if field in by_hand})
    chosen = words.settings({field: value for field, value in tuned.items() if field not in by_hand})
    return name + (f" ({hand})" if hand else "") + (f" {TUNED}" if chosen else ""), chosen


def _attack_distance(run: Mapping[str, Any], numbers: Numbers, method: str) -> float:
    headline = (run.get("audit") or {}).get("headline")
    return abs(numbers.value(method, f"attack_auc:{headline}", "forget", run["steps"] - 1) - 0.5)


def _forget_gap(run: Mapping[str, Any], numbers: Numbers, method: str) -> float:
    return _gap(run, numbers, method, FORGOTTEN[run["scenario"]][0])


def _test_gap(run: Mapping[str, Any], numbers: Numbers, method: str) -> float:
    kept = ACCURACY.get(run["scenario"], KEPT)
    return _gap(run, numbers, method, next(one for one in kept if one.part.endswith("test")))


def _gap(run: Mapping[str, Any], numbers: Numbers, method: str, what: Quantity) -> float:
    return abs(numbers.value(method, f"{what.metric}_gap", what.part, run["steps"] - 1))


def _cost(run: Mapping[str, Any], numbers: Numbers, method: str) -> float:
    return share(numbers, method, range(run["steps"]))


# Criteria that methods are ranked by, each 0 at the best: what they measure after the last request.
MEASURES: dict[str, Callable[[Mapping[str, Any], Numbers, str], float]] = {
    "attack": _attack_distance,
    "forget": _forget_gap,
    "test": _test_gap,
    "cost": _cost,
}
