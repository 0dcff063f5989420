"""An upper bound is marked as no method wherever a report names it, and competes with nobody."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import fabricated
import numpy as np
import pytest

from bench.records import Results
from reports import cells, findings, markdown, tables, tradeoff, words

MARK = "scrub (no method)"


@pytest.fixture
def marked() -> Results:
    """A run whose row scrub is an upper bound."""
    run = fabricated.run("sample_removal", 1)
    for entry in run["methods"]:
        entry |= {"ceiling": True} if entry["name"] == "scrub" else {}
    return Results(run, fabricated.records("sample_removal", 1, np.random.default_rng(0)), {})


def test_every_table_says_that_it_is_no_method(marked: Results) -> None:
    for table in tables.build(marked):
        rows = {row.method: row for row in table.rows}
        if "scrub" in rows:
            assert rows["scrub"].cells[0] == MARK and rows["scrub"].kind == "anchor", table.name
            assert rows["pgu"].cells[0].startswith("pgu") and rows["pgu"].kind == "method"
    assert sum(MARK in line for line in markdown.page(marked, tables.build(marked)).splitlines()) >= 3
    [note] = [line for line in words.key(marked, tables.build(marked)) if line.startswith("No method: ")]
    assert "scrub" in note


def test_it_beats_no_row_is_found_to_be_nothing_and_is_not_ranked(marked: Results) -> None:
    plain = dataclasses.replace(
        marked, run=marked.run | {"methods": [{**m, "ceiling": False} for m in marked.run["methods"]]}
    )
    before, after = (" ".join(findings.sentences(results)) for results in (plain, marked))
    assert "scrub" in before and "scrub" not in after
    beaten = tradeoff.measure(marked).dominated
    assert beaten and not any("scrub" in names for names in beaten.values())
    control = {entry.row.split()[0]: entry.control for entry in cells._entries(marked)}
    assert control["scrub"] and control["retrain"] and not control["pgu"]


def test_runs_without_one_say_nothing_of_it(tmp_path: Path) -> None:
    run = fabricated.run("sample_removal", 1)
    assert words.ceilings(run) == () and "no method" not in words.row_name(run, "scrub")
