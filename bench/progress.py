"""Tells the user where a run is: a bar on a terminal, one line a finished job elsewhere; always on stderr."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from bench import streams


@dataclass(frozen=True)
class Spent:
    """What a stage took: so many jobs, in so many seconds, on so many processes."""

    jobs: int
    seconds: float
    processes: int


class Progress:
    """Counts finished jobs. Use it as a context manager; `done` says that one job is finished."""

    def __init__(self, total: int, *, quiet: bool = False) -> None:
        self.total, self.quiet = total, quiet
        self.finished = 0
        self.start = time.perf_counter()
        self.bar: Any = None
        self.task: Any = None
        self.spent: dict[str, Spent] = {}

    def __enter__(self) -> Progress:
        if sys.stderr.isatty() and not self.quiet and self.total:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self.bar.start()
            self.task = self.bar.add_task("starting", total=self.total)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    @property
    def left(self) -> int:
        """Jobs still to do."""
        return self.total - self.finished

    @contextlib.contextmanager
    def stage(self, name: str, jobs: int, processes: int = 1) -> Iterator[None]:
        """Everything inside is a stage of so many jobs on so many processes; what it took is kept in `spent`."""
        start = time.perf_counter()
        yield
        if jobs:
            self.spent[name] = Spent(jobs, time.perf_counter() - start, processes)

    def say(self, what: str) -> None:
        """Show on a terminal where a long job is; elsewhere nothing, one line a finished job is enough."""
        if self.bar is not None:
            self.bar.update(self.task, description=what[:40])

    def done(self, what: str, jobs: int = 1) -> None:
        """`what` is finished, which counts for `jobs` jobs; what is tried again after it failed was counted before."""
        self.finished = min(self.finished + jobs, self.total)
        if self.bar is not None:
            self.bar.update(self.task, completed=self.finished, description=what[:40])
        elif not self.quiet:
            seconds = time.perf_counter() - self.start
            streams.tell(f"[{self.finished}/{self.total} {seconds:6.1f} s] {what}", sys.stderr)
