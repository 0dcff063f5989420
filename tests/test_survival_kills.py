"""A run that is killed, whenever and whoever of it, goes on to the same numbers and leaves nothing behind."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import ROOT, SMALL_POOL, Place, numbers

from bench import cli, records
from reports import against, markdown, tables

pytestmark = [pytest.mark.slow, pytest.mark.hard]

WORDS = (*SMALL_POOL, "--attacks", "per_example,shadow_xgboost,label_only", "--seeds", "2", "--methods", "pgu,scrub",
         "--store", "store", "--out", "out", "--jobs", "2")  # fmt: skip
# In the order of making: a kill at one of them needs a store without it and what comes later.
KINDS = ("model", "prepared", "peak", "unlearned", "shadow", "views", "evaluation", "attack", "audit")
MOMENTS = [
    ("model", "begun", 1, "self"),
    ("model", "written", 2, "group"),
    ("model", "named", 3, "parent"),
    ("prepared", "written", 1, "self"),
    ("peak", "named", 2, "self"),
    ("unlearned", "begun", 3, "self"),
    ("unlearned", "written", 2, "self"),
    ("shadow", "begun", 1, "self"),
    ("shadow", "written", 2, "parent"),
    ("shadow", "named", 1, "group"),
    ("views", "written", 3, "group"),
    ("evaluation", "begun", 2, "self"),
    ("attack", "written", 1, "self"),
    ("audit", "begun", 1, "parent"),
    ("audit", "written", 2, "self"),
    ("audit", "named", 1, "group"),
    ("out", "begun", 1, "self"),  # run.json
    ("out", "written", 2, "self"),  # samples.npz
    ("out", "named", 3, "self"),  # records.csv, then nothing is missing but the report
    ("out", "written", 4, "self"),  # table.md
    ("figures", "begun", 2, "self"),
    ("out", "named", 8, "self"),  # report.html
]
SECONDS = [random.Random(seed).random() for seed in range(3)]  # shares of an undisturbed run


class Server:
    """Runs command lines in processes that need to import nothing."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def __call__(self, folder: Path, *words: str, **order: Any) -> tuple[int, int]:
        """The exit code and the process group of a command line in a folder."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({"folder": str(folder), "words": words, **order}) + "\n")
        self.process.stdin.flush()
        code, group = json.loads(self.process.stdout.readline())
        return code, group


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "fork_server.py")],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        yield Server(process)
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture(scope="module")
def undisturbed(server: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, float]:
    """A run that nobody kills, and its seconds."""
    place = Place(tmp_path_factory.mktemp("undisturbed"))
    start = time.perf_counter()
    assert server(place.folder, *WORDS)[0] == 0, (place.folder / "told").read_text()
    return place, time.perf_counter() - start


def page(folder: Path, run: dict[str, Any]) -> str:
    """The page of a run's tables as if it had taken no time, of the run that `run` tells of."""
    found = records.load(folder)
    timeless = [dataclasses.replace(r, value=1.0) if r.metric in records.TIMES else r for r in found.records]
    results = records.Results(run, timeless, found.samples)
    return markdown.page(results, [*tables.build(results), *against.tables([results])])


def require_gone(group: int) -> None:
    """No process of the group is left, soon at least."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail(f"processes of the group {group} are left")


def files(place: Place) -> set[str]:
    """All files but the notes of what stages took, one for every run."""
    found = {str(path.relative_to(place.folder)) for path in place.folder.rglob("*")}
    return {path for path in found if not path.startswith("store/history")}


def require_same(place: Place, reference: Place, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """The same command goes on to the numbers of an undisturbed run and leaves nothing behind."""
    code, _ = server(place.folder, *WORDS)
    told = (place.folder / "told").read_text()
    assert code == 0, told
    assert "damaged" not in told
    assert numbers(place.out) == numbers(reference.out)
    run = records.load(reference.out).run
    assert page(place.out, run) == page(reference.out, run)
    assert files(place) == files(reference), "of the store and of the results"
    capsys.readouterr()
    assert cli.main(["store", "verify", "--store", str(place.store)]) == 0
    assert capsys.readouterr().out.endswith("entries read, 0 damaged\n")


@pytest.mark.parametrize(("kind", "event", "count", "victim"), MOMENTS)
def test_killed_at_an_exact_moment(
    kind: str, event: str, count: int, victim: str, server: Server, undisturbed: tuple[Place, float], tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    reference, place = undisturbed[0], Place(tmp_path)
    missing = KINDS[KINDS.index(kind) :] if kind in KINDS else ()
    shutil.copytree(reference.store, place.store, ignore=shutil.ignore_patterns(*missing))
    code, group = server(place.folder, *WORDS, moment=(kind, event, count, victim))
    require_gone(group)
    worker = code != -signal.SIGKILL
    if worker:  # only a worker was killed
        assert code == 2 and victim == "self"
        last = (place.folder / "told").read_text().splitlines()[-1]
        assert last.startswith("error: a worker process was killed, perhaps for want of memory")
    assert worker == (victim == "self" and kind in ("model", "shadow", "views", "attack", "audit"))
    require_same(place, reference, server, capsys)


@pytest.mark.parametrize("share", SECONDS)
def test_killed_at_any_moment(
    share: float, server: Server, undisturbed: tuple[Place, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference, seconds = undisturbed
    place = Place(tmp_path)
    code, group = server(place.folder, *WORDS, seconds=share * seconds)
    assert code in (0, -signal.SIGKILL)
    require_gone(group)
    require_same(place, reference, server, capsys)
