"""Ranks of methods over the cells of a scenario, and how far ranks must be apart to mean anything."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench import comparison
from reports.cells import MEASURES, Cell


@dataclass(frozen=True)
class Ranks:
    """Average ranks by one criterion over `cells` cells, 1 the best, and the p-value of all being equal (Friedman)."""

    average: Mapping[str, float]
    p: float
    cells: int


@dataclass(frozen=True)
class Ranking:
    """The rows of one scenario in order.

    Attributes:
        by: the criterion that the order is by.
        rows: those that all ranked cells hold, best first; in the order of their names where nothing can be told apart.
        cells: positions of the ranked cells.
        ranks: by criterion; without those that no ranked cell has a number for.
        difference: the critical difference of two average ranks by the criterion of the order (Nemenyi).
        groups: positions in `rows` of rows that are not told apart, best group first.
    """

    by: str
    rows: tuple[str, ...]
    cells: tuple[int, ...]
    ranks: Mapping[str, Ranks]
    difference: float
    groups: tuple[tuple[int, ...], ...]

    @property
    def tells(self) -> bool:
        """Whether so few cells could tell any two of these rows apart: ranks differ by at most one less than rows."""
        return self.difference < len(self.rows) - 1

    def letters(self, row: str) -> str:
        """The groups that a row is in, `a` the best; rows that share a letter are not told apart."""
        at = self.rows.index(row)
        return "".join(letter(place) for place, group in enumerate(self.groups) if at in group)


def letter(place: int) -> str:
    """`a`, `b`, ... for the groups of a scenario."""
    return chr(ord("a") + place)


def rank(cells: Sequence[Cell], by: str) -> Ranking:
    """Rank the methods of a scenario by all criteria and order them by one; controls are not ranked.

    Only cells with a number of the criterion of the order count. Ranks over other cells are no comparison: of all
    choices of rows and the cells that hold every one of them, that with the most pairs of rows in cells is taken,
    one that can tell rows apart before any other. Failures come last.
    """
    held = [frozenset(one.row for one in cell.entries if not one.control) for cell in cells]
    known = [_measured(cell, by) for cell in cells]
    rows = _shared([own for own, there in zip(held, known, strict=True) if there])
    chosen = tuple(at for at, own in enumerate(held) if known[at] and rows and rows <= own)
    names = sorted(rows)
    ranks = {criterion: _ranks([cells[at] for at in chosen], names, criterion) for criterion in MEASURES}
    return _ordered(by, names, chosen, {criterion: found for criterion, found in ranks.items() if found.cells})


def _shared(held: Sequence[frozenset[str]]) -> frozenset[str]:
    """The rows to rank, from those that each cell holds."""
    shared: set[frozenset[str]] = set()
    for own in held:
        shared |= {own} | {own & other for other in shared}

    def worth(rows: frozenset[str]) -> tuple[bool, int, list[str]]:
        count = sum(rows <= own for own in held)
        return _tell(len(rows), count), count * len(rows) * (len(rows) - 1), sorted(rows)

    return max(shared, key=worth, default=frozenset())


def _tell(rows: int, cells: int) -> bool:
    return comparison.critical_difference(rows, cells) < rows - 1


def _measured(cell: Cell, criterion: str) -> bool:
    """Whether a cell has the criterion at all, were it on a control alone because all methods failed."""
    return any(not math.isnan(one.values[criterion]) for one in cell.entries)


def _ranks(cells: Sequence[Cell], rows: Sequence[str], criterion: str) -> Ranks:
    found = [{one.row: one.values[criterion] for one in cell.entries} for cell in cells if _measured(cell, criterion)]
    values = np.array([[own[row] for row in rows] for own in found]).reshape(len(found), len(rows))
    average = comparison.average_ranks(values) if len(values) else np.full(len(rows), math.nan)
    return Ranks(dict(zip(rows, map(float, average), strict=True)), comparison.friedman(values), len(values))


def _ordered(by: str, names: Sequence[str], cells: tuple[int, ...], ranks: Mapping[str, Ranks]) -> Ranking:
    difference = comparison.critical_difference(len(names), len(cells))
    if not difference < len(names) - 1:
        return Ranking(by, tuple(names), cells, ranks, difference, ())
    average, p = ranks[by].average, ranks[by].p
    rows = sorted(names, key=lambda row: (average[row], row))
    # Pairs are looked at only where the test of all of them finds a difference.
    needed = difference if p < comparison.ALPHA else math.inf
    groups = comparison.not_told_apart([average[row] for row in rows], needed)
    return Ranking(by, tuple(rows), cells, ranks, difference, tuple(map(tuple, groups)))
