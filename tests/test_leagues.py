"""Methods stand beside those that may read as much, and the cost table says after how many requests one pays."""

from __future__ import annotations

import math
from typing import Any

import pytest
from command import FinishedRun
from hypothesis import given
from hypothesis import strategies as st

from bench import registry
from bench.interface import Need
from reports import leagues, tables
from reports.grid import Row


def entry(name: str, needs: list[str], **more: object) -> dict[str, Any]:
    return {"name": name, "needs": needs, **more}


def test_a_league_is_the_most_that_a_method_may_read() -> None:
    needs = {name: entry(name, registry.load("methods", name).needs.words()) for name in [*NAMED, "first_order"]}
    assert {name: leagues.of(needs[name], "class_removal") for name in NAMED} == NAMED
    assert leagues.of(entry("given", []), "depoisoning") == ""
    assert leagues.of(entry("oracle_ceiling", ["forget", "retain"], ceiling=True), "incremental") == leagues.CEILING
    assert leagues.of(needs["first_order"], "sample_removal") == "forget data only"
    assert leagues.of(needs["first_order"], "depoisoning") == "the true labels of forgotten data"


def test_whatever_a_method_may_read_has_a_league() -> None:
    assert {need for need in Need.words(~Need.NOTHING) if need != "forget"} == set(leagues.NAMES) - {""}


NAMED = {
    "delete": "forget data only",
    "unrolling_sgd": "the weights that training began from",
    "ssd": "training statistics, taken before any request",
    "scrub": "retained data",
    "fine_tune": "retained data",
    "pgu": "held-out data",
    "sisa": "control of the training",
    "original": "",
}


def test_controls_come_first_and_leagues_keep_the_order_of_the_run() -> None:
    rows = [entry("b", ["retain"]), entry("top", ["retain"], ceiling=True), entry("c", ["forget"]),
            entry("a", ["retain"]), entry("retrain", ["retain"]), entry("own", [])]  # fmt: skip
    assert leagues.ordered({"methods": rows, "scenario": "incremental"}) == ["retrain", "own", "c", "b", "a", "top"]


def row(league: str) -> Row:
    return Row("m", "method", ["m"], "ok", league=league)


def test_lines_stand_where_a_league_begins_and_nowhere_if_there_is_one() -> None:
    assert leagues.headed([row(name) for name in ("", "x", "x", "y", "")]) == ["", "x", "", "y", ""]
    assert leagues.headed([row(name) for name in ("", "x", "x")]) == ["", "", ""]


def test_every_format_parts_the_leagues(tiny: FinishedRun) -> None:
    lines = (tiny.out / "table.md").read_text().splitlines()
    [first] = [at for at, line in enumerate(lines) if line.startswith("| retained data") or "*retained data*" in line][
        :1
    ]
    assert lines[first + 1].startswith("| scrub")
    assert any("*held-out data*" in line for line in lines)
    assert r"\itshape retained data" in (tiny.out / "table.tex").read_text()
    assert '<tr class="league"><th scope="colgroup"' in (tiny.out / "report.html").read_text()


@given(st.floats(0, 1e3), st.floats(1e-3, 1e3), st.floats(0, 1e4))
def test_the_break_even_is_the_first_request_that_pays(request: float, retraining: float, prepared: float) -> None:
    told = tables.break_even(request, retraining, prepared)
    if request >= retraining:
        assert told == "never"
        return
    n = int(told.replace(",", ""))
    rounding = 1e-9 * (prepared + n * retraining)
    assert prepared + n * request <= n * retraining + rounding
    assert n == 1 or prepared + (n - 1) * request >= (n - 1) * retraining - rounding


@pytest.mark.parametrize(("request_s", "retraining", "prepared", "told"), [
    (1.0, 3.0, 0.0, "1"), (1.0, 3.0, 2.0, "2"), (1.0, 3.0, 5.0, "3"), (3.0, 3.0, 0.0, "never"),
    (math.nan, 1.0, 0.0, "n/a"),
])  # fmt: skip
def test_break_even_by_hand(request_s: float, retraining: float, prepared: float, told: str) -> None:
    assert tables.break_even(request_s, retraining, prepared) == told
