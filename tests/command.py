"""The real command line, run in a folder of its own, and what a test wants to know about it afterwards."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from bench import records

ROOT = Path(__file__).resolve().parents[1]
SMALL_POOL = ("--set", "shadow.train=4", "--set", "shadow.validation=2", "--set", "recipe.epochs=3",
              "--attacks", "shadow_xgboost")  # fmt: skip
TINY = (*SMALL_POOL, "--attacks", "per_example,shadow_xgboost,loss", "--seeds", "2", "--methods", "pgu,scrub")


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The only line of an error; fails when there is another line or a traceback."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: "), self.err
        return lines[0]


def hear(*, deaf: bool = False) -> None:
    """Hear Ctrl-C, or not, and a closed terminal, which processes of tests that run under `nohup` do not."""
    signal.signal(signal.SIGINT, signal.SIG_IGN if deaf else signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@dataclass(frozen=True)
class Place:
    """A folder to run the command line in: it holds the store and the results."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    patience: float = 300  # seconds

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def start(self, *words: str, deaf: bool = False) -> subprocess.Popen[str]:
        """Start `python run_benchmark.py` with these words, in a process group of its own.

        `deaf` to Ctrl-C, as a shell makes what it starts in the background; not so by default, however the tests run.
        """
        return subprocess.Popen(
            [sys.executable, str(ROOT / "run_benchmark.py"), *words],
            cwd=self.folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=functools.partial(hear, deaf=deaf),
        )

    def call(self, *words: str) -> Finished:
        """Run the command line to its end."""
        with self.start(*words) as process:
            out, err = process.communicate(timeout=self.patience)
        return Finished(process.returncode, out, err)

    def benchmark(self, *words: str, out: str = "out", store: str = "store", jobs: int = 1) -> Finished:
        """Run the benchmark with the store and the results inside the folder."""
        return self.call(*words, "--store", store, "--out", out, "--jobs", str(jobs))

    def entries(self) -> dict[str, int]:
        """The entries of the store with the times of their last change, in nanoseconds."""
        found = {}
        for path in self.store.rglob("*.safetensors"):
            with contextlib.suppress(FileNotFoundError):  # what is being written is renamed meanwhile
                if path.is_file():
                    found[str(path.relative_to(self.store))] = path.stat().st_mtime_ns
        return found


@dataclass(frozen=True)
class FinishedRun(Place):
    """The place of the small finished run, and what the command printed."""

    finished: Finished = field(default_factory=lambda: Finished(-1, "", ""))


def numbers(folder: Path) -> list[str]:
    """The lines of a run's records that do not depend on the machine."""
    lines = (folder / "records.csv").read_text().splitlines()
    metric = records.COLUMNS.index("metric")
    return [line for line in lines if line.split(",")[metric] not in records.TIMES]
