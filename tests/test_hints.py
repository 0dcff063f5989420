"""What the page tells of a number: the same number as the cell's text, of the right record."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest

from bench.interface import SCENARIOS
from bench.records import Results, load
from reports import hints, tables
from reports.grid import Place, Row
from reports.numbers import REFERENCE, Numbers, significant
from tests.fabricated import fabricate

# What is made of several numbers of the records.
MADE_OF_OTHERS = {
    "÷ retrain",
    "pays after",
    "forgetting score",
    "examples read",
    "peak memory",
}


@pytest.fixture(scope="module", params=SCENARIOS)
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    return load(fabricate(tmp_path_factory.mktemp("hints"), request.param, deep=True))


def leading(cell: str) -> float:
    """The first number of a cell, the worst request's `no. 2: ` left out; NaN for words."""
    found = re.match(r"[+−<]? ?[\d,]+(\.\d+)?", re.sub(r"^no\. \d: ", "", cell))
    return float(found[0].replace("−", "-").replace(",", "").lstrip("< ")) if found else math.nan


def test_every_cell_sorts_by_the_number_that_it_shows(results: Results) -> None:
    """With four decimals at most, a cell is half a unit of its last digit from its value."""
    numbers, checked = Numbers(results.records), 0
    for table in tables.build(results):
        assert len(hints.good(table)) == len(hints.titles(table)) == len(table.heads)
        for row in table.rows:
            told = hints.of(results.run, numbers, row)
            assert len(told) == len(row.cells)
            for (head, _), cell, hint in zip(table.heads, row.cells, told, strict=True):
                shown = leading(cell)
                if head in MADE_OF_OTHERS or math.isnan(shown) or cell.startswith("<"):
                    continue
                digits = re.match(r"[^.]*?\d+\.(\d+)", re.sub(r"^no\. \d: ", "", cell))
                assert hint.value == pytest.approx(shown, abs=0.51 * 10.0 ** -len(digits[1] if digits else ""))
                checked += 1
    assert checked > 100


def test_no_number_no_place_to_sort(results: Results) -> None:
    numbers = Numbers(results.records)
    for table in tables.build(results):
        for row in table.rows:
            for cell, hint in zip(row.cells, hints.of(results.run, numbers, row), strict=True):
                assert not cell.startswith("n/a") or math.isnan(hint.value)


def test_the_pool_tells_its_spread_where_it_has_no_gap(results: Results) -> None:
    numbers, step = Numbers(results.records), results.run["steps"] - 1
    row = Row(REFERENCE, "reference", ["pool", "reference"], "ok", places=(None, Place("error_gap", "retain", step)))
    sd = numbers.deviation(REFERENCE, "error", "retain", step)
    [_, hint] = hints.of(results.run, numbers, row)
    assert hint.text == f"standard deviation of its models {significant(sd, 4)}"
    assert math.isnan(hint.value)


def test_the_cost_of_several_requests_is_their_sum(results: Results) -> None:
    numbers, steps = Numbers(results.records), results.run["steps"]
    [cost] = [table for table in tables.build(results) if table.name == "cost"]
    [row] = [row for row in cost.rows if row.method == "pgu"]
    told = hints.of(results.run, numbers, row)
    seconds = [numbers.value("pgu", "seconds_request", None, step) for step in range(steps)]
    assert told[1].value == pytest.approx(sum(seconds))
    assert ("all requests together" in told[1].text) == (steps > 1)
    assert told[5].value == 25_000 * steps + 600
    assert told[5].text == f"{25_000 * steps:,} forget, 600 training set (statistics) examples"


def test_what_was_odd_is_told(results: Results) -> None:
    step = results.run["steps"] - 1
    records = [
        dataclasses.replace(one, status="2 of 5 collapsed") if (one.method, one.metric) == ("pgu", "error") else one
        for one in results.records
    ]
    row = Row("pgu", "method", ["pgu", "0.10"], "ok", places=(None, Place("error", "retain", step)))
    assert hints.of(results.run, Numbers(records), row)[1].text.endswith("; 2 of 5 collapsed")
