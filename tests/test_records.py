"""The records file: what is written reads back exactly, and what is not whole is refused in one line."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.interface import Record, UsageError
from bench.records import COLUMNS, Results, from_csv, load, save, to_csv

PLACE = {"dataset": "digits", "architecture": "digits_cnn", "scenario": "class_removal"}
RUN = {**PLACE, "title": "t", "config_hash": "0", "steps": 1, "methods": [], "reference_models": 2, "seeds": [0, 1]}
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=20)
RECORDS = st.lists(
    st.builds(
        Record,
        method=TEXT,
        seed=st.sampled_from(["0", "1", "all"]),
        step=st.integers(0, 9),
        part=TEXT,
        metric=TEXT,
        value=st.floats(),
        low=st.floats(),
        high=st.floats(),
        n=st.integers(0, 10**9),
        status=TEXT,
    ),
    max_size=5,
)
ONE = Record("pgu", "0", 0, "forget", "error", 12.5, n=60)


def as_text(record: Record) -> str:
    """A form in which nan equals nan and -0.0 differs from 0.0."""
    return repr(record)


@given(RECORDS)
def test_records_read_back_exactly(tmp_path_factory: pytest.TempPathFactory, records: list[Record]) -> None:
    path = tmp_path_factory.mktemp("records") / "records.csv"
    path.write_bytes(to_csv(records, **PLACE).encode())
    assert [as_text(record) for record in from_csv(path)] == [as_text(record) for record in records]


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\u2028", "\x0b"])
def test_a_status_stays_on_its_line(tmp_path: Path, end: str) -> None:
    path = tmp_path / "records.csv"
    path.write_bytes(to_csv([Record("mine", "0", 0, "a", "b", 1.0, status=f"failed: one{end}two")], **PLACE).encode())
    assert [record.status for record in from_csv(path)] == ["failed: one two"]
    assert len(path.read_text().splitlines()) == 2


def test_every_line_names_its_data_set_architecture_and_scenario() -> None:
    header, line = to_csv([ONE], **PLACE).splitlines()
    assert header == ",".join(COLUMNS)
    assert line.startswith("digits,digits_cnn,class_removal,pgu,0,0,forget,error,12.5,")


def test_a_missing_number_is_an_empty_cell() -> None:
    line = to_csv([Record("pgu", "0", 0, "forget", "error", math.nan)], **PLACE).splitlines()[1]
    assert line.endswith(",error,,,,0,ok")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a records file"),
        ("method,value\n", "not a records file"),
        ("\0\x01garbage", "not a records file"),
        (to_csv([ONE], **PLACE)[:-1], "truncated"),
        (to_csv([ONE, ONE], **PLACE).replace("12.5", "twelve", 1), "line 2 is damaged"),
        (to_csv([ONE], **PLACE) + "digits,digits_cnn\n", "line 3 is damaged"),
        (to_csv([ONE], **PLACE) + to_csv([ONE], **PLACE).splitlines()[1] + ",more\n", "line 3 is damaged"),
        (to_csv([ONE], **PLACE).replace(",60,ok", ",,ok"), "line 2 is damaged"),
    ],
)
def test_a_damaged_records_file_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "records.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        from_csv(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_cut_anywhere_inside_a_line_is_noticed(tmp_path: Path) -> None:
    whole = to_csv([ONE, ONE], **PLACE).encode()
    path = tmp_path / "records.csv"
    for end in range(len(whole)):
        if whole[:end].endswith(b"\n"):
            continue
        path.write_bytes(whole[:end])
        with pytest.raises(UsageError):
            from_csv(path)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "records.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot read"):
        from_csv(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole results folder."""
    samples = {"score/pgu": np.array([[0.1, np.nan]]), "log_entropy/pgu/0": np.zeros((2, 0))}
    save(tmp_path / "results", Results(dict(RUN), [ONE], samples))
    return tmp_path / "results"


def test_a_results_folder_reads_back(folder: Path) -> None:
    results = load(folder)
    assert results.run == {**RUN, "records": 1}
    assert [as_text(record) for record in results.records] == [as_text(ONE)]
    assert results.samples["score/pgu"].tolist()[0][0] == 0.1
    assert results.samples["log_entropy/pgu/0"].shape == (2, 0)
    assert sorted(path.name for path in folder.iterdir()) == ["records.csv", "run.json", "samples.npz"]


@pytest.mark.parametrize("name", ["records.csv", "run.json", "samples.npz"])
@pytest.mark.parametrize("damage", ["gone", "empty", "half", "folder"])
def test_a_damaged_results_folder_is_refused_in_one_line(folder: Path, name: str, damage: str) -> None:
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "gone":
        path.write_bytes(content[: len(content) // 2] if damage == "half" else b"")
    with pytest.raises(UsageError) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_results_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no results folder"):
        load(tmp_path / "nowhere")


def test_records_cut_at_a_line_end_are_noticed(folder: Path) -> None:
    path = folder / "records.csv"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(UsageError, match="0 of 1 records"):
        load(folder)
    (folder / "run.json").write_text("{}")
    with pytest.raises(UsageError, match="run.json has no title"):
        load(folder)
