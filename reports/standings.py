"""The tables of a leaderboard: the ranked methods, what was found in each cell, and which cells there are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bench import comparison
from bench.verdict import INDISTINGUISHABLE, LEAKS, OVER_FORGETS
from reports import verdicts, words
from reports.cells import MEASURES, Cell, Entry
from reports.grid import NONE, Row, Table
from reports.numbers import MISSING, chance, fixed
from reports.ranking import Ranking, Ranks
from reports.tables import share_text

HEADS = {"attack": "attack", "forget": "forget error", "test": "test error", "cost": "time"}
UNRANKED = "–"
READS = {"forget": "F", "retain": "R", "validation": "V", "statistics": "S", "corrected": "C", "initial_weights": "I",
         "own_training": "T"}  # fmt: skip
MOST = 12  # values of one setting of a request that are written out


def tables(scenario: str, cells: Sequence[Cell], ranking: Ranking) -> list[Table]:
    """The three tables of a scenario: who stands where, what was found in each cell, and what the cells are."""
    return [_standing(scenario, cells, ranking), _found(scenario, cells, ranking), _cells(scenario, cells, ranking)]


def _standing(scenario: str, cells: Sequence[Cell], ranking: Ranking) -> Table:
    order = [ranking.by, *(criterion for criterion in MEASURES if criterion != ranking.by)]
    heads = [("method", ""), ("may read", ""), ("group", ""), *((HEADS[one], "rank ↓") for one in order)]
    heads += [("indistinguishable", "cells"), ("leaks, over-forgets", "cells"), ("failed", "cells")]
    rows = [_line(row, kind, cells, ranking, order) for row, kind in _rows(cells, ranking)]
    units = _units(ranking)
    return Table(
        scenario, f"{scenario}: methods ranked", units, heads, rows, labels=3, warning=_warning(cells, ranking)
    )


def _rows(cells: Sequence[Cell], ranking: Ranking) -> list[tuple[str, str]]:
    """All rows with their kind: the ranked ones in order, the others, the controls."""
    entries = {entry.row: entry for cell in cells for entry in cell.entries}
    controls = [row for row, entry in entries.items() if entry.control]
    others = sorted(set(entries) - set(controls) - set(ranking.rows))
    return [*((row, "method") for row in [*ranking.rows, *others]), *((row, "anchor") for row in controls)]


def _line(row: str, kind: str, cells: Sequence[Cell], ranking: Ranking, order: Sequence[str]) -> Row:
    ranked = row in ranking.rows
    mine = _held(row, [cells[at] for at in ranking.cells] if ranked else cells)
    told = [entry for entry in mine if entry.verdict]
    placed = ranked and ranking.tells
    group = ranking.letters(row) if placed else "control" if kind == "anchor" else UNRANKED
    ranks = [fixed(ranking.ranks[one].average[row]) if placed and one in ranking.ranks else UNRANKED for one in order]
    counts = [
        _share(sum(entry.verdict == INDISTINGUISHABLE for entry in told), len(told)),
        _share(sum(entry.verdict in (LEAKS, OVER_FORGETS) for entry in told), len(told)),
        _share(sum(entry.failed for entry in mine), len(mine)),
    ]
    missing = f"not ranked: in {len(mine)} of {len(cells)} cells, which others do not share"
    remark = "ok" if ranked or kind == "anchor" else missing
    return Row(row, kind, [row, _reads(mine), group, *ranks, *counts], remark)


def _held(row: str, cells: Sequence[Cell]) -> list[Entry]:
    return [entry for cell in cells for entry in cell.entries if entry.row == row]


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole}" if whole else MISSING


def _reads(entries: Sequence[Entry]) -> str:
    needs = {need for entry in entries for need in entry.needs}
    return " ".join(letter for need, letter in READS.items() if need in needs) or NONE


def _units(ranking: Ranking) -> str:
    if not ranking.tells:
        return f"Cells that hold all methods to rank: {len(ranking.cells)}"
    one = ranking.ranks[ranking.by]
    over = ", ".join(_chance(HEADS[name], found, one.cells) for name, found in ranking.ranks.items())
    return (
        f"Average ranks over {one.cells} cells, in order of {HEADS[ranking.by]}; critical difference "
        f"{ranking.difference:.2f} ranks (Nemenyi, 5 %); p of equal ranks (Friedman): {over}"
    )


def _chance(head: str, found: Ranks, cells: int) -> str:
    fewer = f" ({found.cells} cells)" if found.cells < cells else ""
    return f"{head} {chance(found.p)}{fewer}"


def _warning(cells: Sequence[Cell], ranking: Ranking) -> str:
    """What forbids reading the order as one of merit; nothing where a difference is found."""
    methods, count = len(ranking.rows), len(ranking.cells)
    if all(math.isnan(entry.values[ranking.by]) for cell in cells for entry in cell.entries):
        return f"No cell has a number for {HEADS[ranking.by]}, so there are no ranks; --by names another criterion"
    if methods < 2:
        return "No two methods share a cell, so there is nothing to rank"
    if not ranking.tells:
        cell = "cell" if count == 1 else "cells"
        return (
            f"{count} {cell}: nothing can be told apart, since average ranks of {methods} methods differ by at most "
            f"{methods - 1} and would have to by {ranking.difference:.2f}; rows are in the order of their names"
        )
    if not ranking.ranks[ranking.by].p < comparison.ALPHA:
        return "No method is told from another: the test of all ranks finds no difference"
    if len(ranking.groups) == 1:
        return "No method is told from another: ranks differ, but no two by the critical difference"
    return ""


def _found(scenario: str, cells: Sequence[Cell], ranking: Ranking) -> Table:
    """One line per method and cell with the values that were ranked."""
    heads = [("method", ""), ("cell", ""), ("verdict", ""), (HEADS["attack"], "distance from 0.5 ↓")]
    heads += [(HEADS["forget"], "gap ↓"), (HEADS["test"], "gap ↓"), (HEADS["cost"], "÷ retrain ↓")]
    rows = [
        _value(entry, place)
        for row, _ in _rows(cells, ranking)
        for place, cell in enumerate(cells, start=1)
        for entry in cell.entries
        if entry.row == row
    ]
    units = "Gaps in percentage points, without their sign"
    return Table(f"{scenario}-values", f"{scenario}: what was ranked", units, heads, rows, labels=3)


def _value(entry: Entry, place: int) -> Row:
    numbers = [fixed(entry.values[name]) for name in ("attack", "forget", "test")]
    told = verdicts.SHORT[entry.verdict] if entry.verdict else MISSING
    cells = [entry.row, str(place), "failed" if entry.failed else told, *numbers, share_text(entry.values["cost"])]
    return Row(entry.row, "anchor" if entry.control else "method", cells, "ok")


def _cells(scenario: str, cells: Sequence[Cell], ranking: Ranking) -> Table:
    """One line per cell: what it is, how it was judged, and which runs it comes from."""
    facts = ("data set", "network", "recipe", "request", "attack", "repeats", "retrained", "ranked", "runs")
    rows = [
        Row(str(at + 1), "method", [str(at + 1), *_facts(cell, ranked=at in ranking.cells)], "ok")
        for at, cell in enumerate(cells)
    ]
    heads = [("cell", ""), *((fact, "") for fact in facts)]
    units = "Repeats of every method, and models in the retrained pool that it is compared with"
    return Table(f"{scenario}-cells", f"{scenario}: the cells", units, heads, rows, labels=len(heads))


def _facts(cell: Cell, *, ranked: bool) -> list[str]:
    run = cell.run
    headline = (run.get("audit") or {}).get("headline") or NONE
    setting = [run["dataset"], run["architecture"], words.recipe(run), _request(run), headline]
    counts = [str(len(run["seeds"])), str(run["reference_models"]), "yes" if ranked else "no"]
    return [*setting, *counts, ", ".join(cell.folders)]


def _request(run: Mapping[str, Any]) -> str:
    """The settings of the scenario; long lists only by their length."""
    settings = run.get("config", {}).get("scenario_settings", {})
    told = {
        name: f"{len(value)} values" if isinstance(value, list) and len(value) > MOST else value
        for name, value in settings.items()
    }
    return words.settings(told) or NONE
