"""Runs command lines in processes forked from one that has imported everything, and kills them at chosen moments.

A line of JSON in, a line of JSON out. Run as `python tests/fork_server.py`, from the root.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import cli, whole

MODULES = ("bench.benchmark", "bench.training", "bench.audit", "bench.evaluation", "bench.deep_records",
           "reports.tables", "reports.page", "reports.figures", "xgboost", "sklearn", "matplotlib.figure")  # fmt: skip


def arm(place: str, event: str, count: int, victim: str) -> None:
    """Have a process kill a victim when it writes a file into `place` (a kind of entries, or `out`) for this time.

    Events are `begun` (an empty unfinished file), `written` (a whole one without its name) and `named`. Victims are the
    process that writes, `self`, its `parent`, and the `group` of both.
    """
    main, seen = os.getpid(), 0

    def strike(now: str, folder: Path) -> None:
        nonlocal seen
        if now != event or place not in (folder.name, folder.parent.name):
            return
        seen += 1
        if seen == count:
            if victim == "group":
                os.killpg(0, signal.SIGKILL)
            os.kill(os.getpid() if victim == "self" else main, signal.SIGKILL)
            time.sleep(60)  # until the parent's death is ours

    begin, chmod, replace = whole._unfinished, os.chmod, os.replace

    def begun(folder: Path) -> tuple[int, str]:
        made = begin(folder)
        strike("begun", folder)
        return made

    def written(name: str, mode: int) -> None:
        chmod(name, mode)
        strike("written", Path(name).parent)

    def named(name: str, path: Path) -> None:
        replace(name, path)
        strike("named", Path(path).parent)

    whole._unfinished = begun
    changed: dict[str, Callable[..., Any]] = {"chmod": written, "replace": named}
    for name, function in changed.items():
        setattr(os, name, function)


def carry_out(order: dict[str, Any]) -> tuple[int, int]:
    """Carry out one order in a process group of its own.

    Returns:
        The exit code, or minus the signal that killed it, and the number of the group.
    """
    child = os.fork()
    if not child:
        os.setsid()
        os.chdir(order["folder"])
        for number, name in ((1, "printed"), (2, "told")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        if "moment" in order:
            arm(*order["moment"])
        code = cli.main(order["words"])
        sys.stdout.flush()
        os._exit(code)
    if "seconds" in order:
        time.sleep(order["seconds"])
        os.killpg(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), child


if __name__ == "__main__":
    for module in MODULES:
        importlib.import_module(module)
    for line in sys.stdin:
        print(json.dumps(carry_out(json.loads(line))), flush=True)
