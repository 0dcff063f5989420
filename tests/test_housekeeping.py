"""Looking after a store never loses what is to stay, tells what is damaged, and costs no number."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command import TINY, FinishedRun, Place, numbers

from bench import cli, housekeeping, records
from bench.interface import UsageError
from bench.store import Store, key
from reports.numbers import memory

DAY = 86_400


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three models and two audits; the entry number n was last used n days ago."""
    made = Store(tmp_path / "store")
    for number, kind in enumerate(("model", "model", "model", "audit", "audit")):
        made.put(kind, key(number=number), {"x": np.arange(256.0)}, {})
        then = time.time() - number * DAY - 60
        os.utime(made.path(kind, key(number=number)), (then, then))
    return made


def left(store: Store) -> list[int]:
    """The numbers of the entries that are there."""
    known = {one.key for one in housekeeping.entries(store)}
    return [number for number in range(5) if key(number=number) in known]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """The verb in this process, in a folder with the store; returns what it printed, and checks the exit code."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str, code: int = 0) -> str:
        assert cli.main(["store", *words]) == code
        out, err = capsys.readouterr()
        assert code != 2 or (out == "" and err.startswith("error: ") and len(err.splitlines()) == 1), (out, err)
        return out if code != 2 else err

    return run


def test_ls_and_size_tell_every_entry_and_its_bytes(store: Store, call: Callable[..., str]) -> None:
    lines = call("ls").splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [cell[1] for cell in cells] == [one.key for one in housekeeping.entries(store)]
    days = {cell[1]: float(cell[3]) for cell in cells}
    assert [days[key(number=number)] for number in range(5)] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert "| model  |         3 |" in call("size")
    total = sum(path.stat().st_size for path in store.folder.rglob("*.safetensors"))
    assert f"| all    |         5 | {memory(total)} |" in call("size")


def test_verify_names_what_is_damaged_and_leaves_ages_alone(store: Store, call: Callable[..., str]) -> None:
    ages = [one.used for one in housekeeping.entries(store)]
    assert call("verify") == "5 entries read, 0 damaged\n"
    assert [one.used for one in housekeeping.entries(store)] == ages, "or prune would keep all that was verified"
    path = store.path("audit", key(number=3))
    path.write_bytes(path.read_bytes()[:-8] + b"12345678")
    assert call("verify", code=1) == "5 entries read, 1 damaged; prune removes 1 useless file\n"
    assert left(store) == [0, 1, 2, 4]
    assert call("verify") == "4 entries read, 0 damaged; prune removes 1 useless file\n"


@pytest.mark.parametrize(
    ("keep", "stays"),
    [
        (["model"], [0, 1, 2]),
        (["36h"], [0, 1]),
        (["1m"], []),
        (["3d", "audit"], [0, 1, 2, 3, 4]),
        (["1d", "audit"], [0, 3, 4]),
        (["1d", "50h"], [0, 1, 2]),
    ],
)
def test_prune_keeps_what_any_word_names(
    store: Store, call: Callable[..., str], keep: list[str], stays: list[int]
) -> None:
    words = [word for one in keep for word in ("--keep", one)]
    said = call("prune", *words, "--dry-run")
    assert said.startswith(f"would remove {5 - len(stays)} of 5 entries") and left(store) == [0, 1, 2, 3, 4]
    assert call("prune", *words) == said.replace("would remove", "removed")
    assert left(store) == stays


def test_reading_an_entry_makes_it_young_and_does_not_look_like_writing(store: Store, call: Callable[..., str]) -> None:
    path = store.path("audit", key(number=4))
    written = path.stat().st_mtime_ns
    store.get("audit", key(number=4))
    assert path.stat().st_mtime_ns == written
    call("prune", "--keep", "1d")
    assert left(store) == [0, 4]


def test_prune_removes_what_killed_processes_left_and_not_what_is_being_written(
    store: Store, call: Callable[..., str]
) -> None:
    folder = store.path("model", key(number=0)).parent
    old, new = folder / ".writing-old", folder / ".writing-new"
    for path in (old, new):
        path.write_bytes(b"half")
    with new.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as its writer does
        assert call("prune", "--keep", "9d").endswith("removed 0 of 5 entries, 0 B, and 1 useless file\n")
    assert (old.exists(), new.exists()) == (False, True)


@pytest.mark.parametrize(
    ("words", "line"),
    {
        "prune": "the following arguments are required: --keep",
        "prune --keep nothing": "--keep takes a kind (audit, model), an age such as 7d, or a results folder, got",
        "prune --keep 7w": "got '7w'",
        "prune --keep empty": "no results in empty",
        "prune --keep old": "old does not note its entries, being of an earlier version; run its command again",
        "prune --keep broken": "broken is incomplete or damaged",
        "size --store nowhere": "no store at nowhere; --store names another",
        "verify --store ''": "the name of a file or folder is empty",
        "clean": "invalid choice: 'clean'",
        "": "the following arguments are required",
    }.items(),
)
def test_bad_words_are_one_line_and_remove_nothing(
    store: Store, call: Callable[..., str], tiny: FinishedRun, tmp_path: Path, words: str, line: str
) -> None:
    import shlex

    (tmp_path / "empty").mkdir()
    for name in ("old", "broken"):
        shutil.copytree(tiny.out, tmp_path / name)
    run = json.loads((tmp_path / "old" / "run.json").read_text())
    del run["entries"]
    (tmp_path / "old" / "run.json").write_text(json.dumps(run))
    (tmp_path / "broken" / "run.json").write_text("{")
    assert line in call(*shlex.split(words), code=2)
    assert left(store) == [0, 1, 2, 3, 4]


def test_a_run_needs_nothing_anew_of_what_its_results_keep(tiny: FinishedRun, tmp_path: Path) -> None:
    place = Place(tmp_path)
    shutil.copytree(tiny.store, place.store)
    shutil.copytree(tiny.out, tmp_path / "kept")
    Store(place.store).put("model", key(of="another run"), {"x": np.zeros(3)}, {})
    said = place.call("store", "prune", "--keep", "kept")
    assert (said.code, said.out.split(",")[0]) == (0, f"removed 1 of {len(place.entries()) + 1} entries"), said.err
    before = place.entries()
    again = place.benchmark(*TINY)
    assert again.code == 0, again.err
    assert place.entries() == before, "nothing was made anew"
    assert numbers(place.out) == numbers(tiny.out)


@pytest.mark.slow
def test_entries_that_go_during_a_run_are_made_anew_to_the_same_numbers(tiny: FinishedRun, tmp_path: Path) -> None:
    place = Place(tmp_path)
    shutil.copytree(tiny.store, place.store)
    for one in housekeeping.entries(Store(place.store)):
        if one.kind in ("audit", "evaluation", "attack"):
            Store(place.store).drop(one.kind, one.key)
    with place.start(*TINY, "--store", "store", "--out", "out", "--jobs", "1") as process:
        while process.poll() is None and not any((place.store / "evaluation").rglob("*.safetensors")):
            time.sleep(0.01)
        housekeeping.prune(Store(place.store), ["model"], dry_run=False)
        _, err = process.communicate(timeout=place.patience)
    assert process.returncode == 0, err
    assert numbers(place.out) == numbers(tiny.out)


def test_a_damaged_results_folder_is_not_taken_for_one_that_needs_nothing(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "records.csv").write_text(",".join(records.COLUMNS) + "\n")
    store = Store(tmp_path / "store")
    store.put("model", key(number=0), {}, {})
    with pytest.raises(UsageError, match="incomplete or damaged"):
        housekeeping.prune(store, [str(tmp_path / "results")], dry_run=False)
    assert len(housekeeping.entries(store)) == 1
