"""SIGTERM ends a command as Ctrl-C does; the workers that it forks end at once."""

from __future__ import annotations

import functools
import os
import signal
import threading


def listen() -> None:
    """Take SIGTERM for Ctrl-C from now on; nothing outside the main thread, where Python allows no handlers."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminated)
        _spare_workers()


def _terminated(number: int, frame: object) -> None:
    """End as Ctrl-C does."""
    raise KeyboardInterrupt


@functools.cache
def _spare_workers() -> None:
    """Keep our handler of SIGTERM out of forked workers.

    A pool ends its idle workers with SIGTERM. Python only notes a signal and runs the handler later: a worker that is
    about to wait for a lock would wait for ever, and the pool for the worker.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_default_sigterm)


def _default_sigterm() -> None:
    if signal.getsignal(signal.SIGTERM) is _terminated:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
