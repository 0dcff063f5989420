"""The tables as LaTeX: escapes that let nothing through, columns on the decimal point, and what a table carries."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import references
from bench.interface import SCENARIOS
from bench.records import load
from reports import build, columns, latex, tex
from reports.grid import Row, Table
from reports.numbers import chance, fixed, mean_sd
from tests.fabricated import fabricate

PLAIN = r"[A-Za-z0-9 .,:;!?@()|/=+'À-ÿ-]"
SAFE = re.compile(f"(?:{'|'.join(map(re.escape, tex.SPECIAL.values()))}|{PLAIN}|(?<=[0-9])~)*")
VALUES = st.floats(-2000, 2000, allow_nan=False)
RUN = {"dataset": "d", "architecture": "a", "scenario": "s", "config_hash": "ab12", "seeds": [0], "methods": []}


@pytest.fixture(scope="module", params=SCENARIOS)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder of every scenario with everything built in it, those of class removal with an audit."""
    scenario = request.param
    folder = fabricate(tmp_path_factory.mktemp(scenario), scenario, deep=scenario == "class_removal")
    build(folder)
    return folder


@given(st.text())
def test_escaped_text_holds_no_command_but_those_that_print(text: str) -> None:
    escaped = tex.escape(text)
    assert SAFE.fullmatch(escaped)
    assert not re.search(
        r"--(?!-)|,,|''", escaped.replace("''", "", text.count('"')).replace("--", "", text.count("–"))
    )


@given(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=99))
def test_long_words_can_be_broken_and_lose_nothing(word: str) -> None:
    pieces = tex.escape(word).split(r"\allowbreak{}")
    assert "".join(pieces) == word
    assert max(map(len, pieces)) <= 20


def test_escapes_print_what_they_stand_for() -> None:
    assert tex.escape("a_b 50% #1 \\ é 日 --set") == r"a\_b 50\% \#1 \textbackslash{} é ? -{}-set"
    assert tex.escape("cifar10+train=2500+test=2000").count(r"\allowbreak{}") == 4
    assert tex.escape("at 1 % or %") == r"at 1~\% or \%"
    assert tex.escape(" two\n lines ") == "two lines"


def _columns(spec: str) -> list[str]:
    """The columns of a preamble, without what stands between them."""
    bare = re.sub(r"[@>]\{(?:[^{}]|\{[^{}]*\})*\}", "", spec)
    return re.findall(r"S\[table-format=[^\]]*\]|p\{[^}]*\}|[lcr]", bare)


def _taken(row: str) -> int:
    """How many columns the cells of a row take."""
    row = row.replace(r"\&", "")
    return row.count("&") + 1 + sum(int(span) - 1 for span in re.findall(r"\\multicolumn\{(\d+)\}", row))


@given(st.lists(st.tuples(VALUES, st.floats(0, 2000)), min_size=1, max_size=6), st.integers(0, 4))
def test_mean_and_deviation_stand_each_on_its_point(pairs: list[tuple[float, float]], digits: int) -> None:
    shown = [mean_sd(value, deviation, digits) for value, deviation in pairs]
    column = columns.column([*shown, "n/a"])
    assert column.span == len(_columns(column.spec)) == 2
    assert [cell.replace(" & ", " ± ").replace("-", "−") for cell in column.cells[:-1]] == shown
    assert column.cells[-1] == r"\multicolumn{2}{c}{n/a}"


@given(st.lists(VALUES, min_size=1, max_size=6), st.integers(0, 4), st.booleans())
def test_the_format_has_room_for_every_number(values: list[float], digits: int, signed: bool) -> None:
    shown = [fixed(value, digits, signed=signed) for value in values]
    column = columns.column(shown)
    (form,) = re.findall(r"table-format=(\+?)(\d+)\.(\d+)", column.spec)
    for text in shown:
        whole, _, decimals = text.lstrip("+−").partition(".")
        assert len(whole.replace(",", "")) <= int(form[1])
        assert len(decimals) <= int(form[2])
        assert form[0] or text[0] not in "+−"
    assert column.cells == [text.replace("−", "-") for text in shown]


def test_what_follows_a_number_keeps_its_place() -> None:
    column = columns.column(["+0.00 [+0.00, +0.00]*", "−88.29 [−90.41, −86.18]", "reference"])
    assert column.spec == r"S[table-format=+2.2]@{}l"
    assert column.cells == [
        r"+0.00 & ~{[}\num{+0.00}, \num{+0.00}{]}\textsuperscript{*}",
        r"-88.29 & ~{[}\num{-90.41}, \num{-86.18}{]}",
        r"\multicolumn{2}{c}{reference}",
    ]
    assert columns.column(["0.80*", "0.91"]).cells == [r"0.80 & \textsuperscript{*}", "0.91 & "]
    assert columns.column([chance(0.0001), chance(0.02), "best"]).spec == "S[table-format=<1.3]"
    huge = columns.column([fixed(1.62e16), "0.31"])
    assert (huge.spec, huge.cells) == ("S[table-format=1.2e2]", ["1.62e16", "0.31"])
    assert columns.column(["441 KiB", "2.15 MiB"]).spec == "r"
    assert columns.column(["F 0 · R 5,400", "n/a"]).cells[0] == r"F \num{0} \ensuremath{\cdot} R \num{5,400}"
    assert columns.column(["no. 2: 9.35 (+0.07*)", "9.30 ± 0.21"]).spec == "r"
    assert columns.column(["n/a, 780 of 1,000", "1.4 [0.3, 2.7]"]).span == 2


def test_every_row_of_a_table_fills_its_columns(built: Path) -> None:
    text = (built / "table.tex").read_text(encoding="utf-8")
    found = re.findall(r"\\begin\{tabular\}\{([^\n]*)\}\n(.*?)\\end\{tabular\}", text, flags=re.DOTALL)
    found = [(spec, [line for line in body.splitlines() if line.endswith(r" \\")]) for spec, body in found]
    assert len(found) >= 3
    for spec, rows in found:
        assert {_taken(row) for row in rows} == {len(_columns(spec))}, spec
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")


def test_a_table_can_be_traced_and_cited_alone(built: Path) -> None:
    text = (built / "table.tex").read_text(encoding="utf-8")
    parts = re.findall(r"% begin table (\w+)\n(.*?)% end table \1", text, flags=re.DOTALL)
    run = load(built).run
    for name, part in parts:
        (caption,) = re.findall(r"\\caption\{(.*)\}", part)
        assert "configuration ab12cd34, seeds 0, 1, 2, 3, 4; benchmark d7d3380, torch 2.13.0" in caption
        assert rf"\label{{tab:{name}-ab12cd34}}" in part
        assert f"% made by: {run['command']}" in part
        assert r"pgu \textsuperscript{\dag}~\cite{hoang2024pgu}" in part
    cited = set(re.findall(r"\\cite\{(\w+)\}", text))
    written = (built / "references.bib").read_text(encoding="utf-8")
    assert cited == set(re.findall(r"^@\w+\{(\w+),$", written, re.MULTILINE)) == {"hoang2024pgu"}
    assert written.strip() in references.FILE.read_text(encoding="utf-8")


def _table(columns: int, rows: int, cell: str = "0.50 [0.47, 0.54]", name: str = "m") -> Table:
    heads = [("method", ""), *((f"area {place}", "→ 0.5") for place in range(columns))]
    return Table("made", "Made", "In nothing", heads, [Row(name, "method", [name, *[cell] * columns], "ok")] * rows)


def test_a_table_takes_the_room_that_it_needs() -> None:
    narrow, wide, wider = (latex.table_environment(_table(columns, 4), RUN, {}) for columns in (2, 5, 12))
    assert [text.count(r"\begin{table}") for text in (narrow, wide, wider)] == [1, 0, 0]
    assert [text.count(r"\begin{table*}") for text in (narrow, wide, wider)] == [0, 1, 1]
    assert [text.count(r"\begin{tabular}") for text in (narrow, wide, wider)] == [1, 1, 2]
    long = latex.table_environment(_table(2, 100), RUN, {})
    assert long.count(r"\label") == 1
    assert long.count("(continued)") == long.count(r"\begin{table}") - 1 == 1
    assert long.count("m & 0.50") == 100


def test_a_league_that_goes_over_a_page_is_named_on_each() -> None:
    table = _table(2, 100)
    rows = [
        dataclasses.replace(row, league="first" if place < 20 else "second") for place, row in enumerate(table.rows)
    ]
    text = latex.table_environment(dataclasses.replace(table, rows=rows), RUN, {})
    pages = text.split(r"\end{table}")[:-1]
    named = [re.findall(r"\\itshape (\w+)", page) for page in pages]
    assert named == [["first", "second"], ["second"]]
    assert pages[1].index("second") < pages[1].index("m & 0.50")


def test_a_gap_stays_with_what_it_is_a_gap_of() -> None:
    table = _table(12, 2)
    heads = [("method", ""), *([("error", "→ retrained"), ("gap", "→ 0")] * 6)]
    text = latex.table_environment(Table(**{**vars(table), "heads": heads}), RUN, {})
    panels = re.findall(r"\\toprule\n(.*)\n", text)
    assert len(panels) > 1
    assert all(panel.count("error") == panel.count("gap") for panel in panels)
