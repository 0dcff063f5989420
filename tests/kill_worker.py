"""Kills a worker of a pool of two: `kill_worker.py busy FILE` or `idle`; who is busy says so in the file."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path

import joblib

from bench import signals, workers
from bench.interface import UsageError

VICTIM, TOLD = sys.argv[1], Path(sys.argv[2])


def task(number: int) -> None:
    """The first takes long, and says who is at it; the second nothing."""
    if number == 0:
        TOLD.write_text(str(os.getpid()))
        time.sleep(2)


def strike(pids: set[int]) -> None:
    """Kill the victim as soon as one worker is busy and the other waits."""
    while not (TOLD.exists() and TOLD.read_text()):
        time.sleep(0.01)
    time.sleep(0.3)
    busy = int(TOLD.read_text())
    os.kill(busy if VICTIM == "busy" else min(pids - {busy}), signal.SIGKILL)


if __name__ == "__main__":
    signals.listen()
    try:
        with workers.processes(2, "cpu", lambda: None) as parallel:
            pids = {child.pid for child in multiprocessing.active_children()}
            threading.Thread(target=strike, args=(pids,), daemon=True).start()
            parallel(joblib.delayed(task)(number) for number in range(2))
    except UsageError as error:
        sys.exit(str(error))
