"""Progress: what is counted never goes beyond what there is to do, also where a store has lost a part of a run."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from command import TINY, FinishedRun

from bench import cli
from bench.progress import Progress


def test_what_is_tried_again_is_not_counted_twice(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(3) as progress:
        for jobs in (2, 2, 1):
            progress.done("work", jobs)
    assert (progress.finished, progress.left) == (3, 0)
    assert re.findall(r"\[(\d+)/(\d+)", capsys.readouterr().err) == [("2", "3"), ("3", "3"), ("3", "3")]


def test_what_a_store_has_lost_is_counted_once(
    tiny: FinishedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = shutil.copytree(tiny.store, tmp_path / "store")
    for kind in ("peak", "prepared"):  # belongs to runs that the store still has
        shutil.rmtree(store / kind)
    assert cli.main([*TINY, "--jobs", "1", "--store", str(store), "--out", str(tmp_path / "out")]) == cli.OK
    told = [(int(done), int(total)) for done, total in re.findall(r"^\[(\d+)/(\d+)", capsys.readouterr().err, re.M)]
    assert told == [(done, 6) for done in range(1, 7)]
