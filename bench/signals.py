"""SIGTERM and a closed terminal end a command as Ctrl-C does, a second time at once; workers that it forks do not hear.

The first signal lets finished work be kept and workers be ended in order.
"""

from __future__ import annotations

import _thread
import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

ENDING = ("SIGINT", "SIGTERM", "SIGHUP")
INTERRUPTED = 130  # exit code
APART = 0.5  # seconds: signals closer together are one, as those that a process gets both alone and with its group
_first: list[float] = []  # when the signal came that is being obeyed
_holding: list[bool] = []  # blocks that are not left
_listening: list[int] = []  # the process that obeys


def listen() -> None:
    """Take every signal that ends a command for Ctrl-C from now on, unless it is ignored, as `nohup` has it.

    Nothing outside the main thread, where Python allows no handlers.
    """
    if threading.current_thread() is threading.main_thread():
        _first.clear()
        _listening[:] = [os.getpid()]
        for number in _numbers():
            if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _ended)
        sys.unraisablehook = _unheard
        _spare_workers()


def interrupt() -> None:
    """End the main thread's work from another thread, as Ctrl-C does.

    A shell starts what runs in the background deaf to SIGINT; SIGTERM is handled alike.
    """
    number = signal.SIGINT if callable(signal.getsignal(signal.SIGINT)) else signal.SIGTERM
    if hasattr(signal, "pthread_kill"):  # wakes it, too
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:
        _thread.interrupt_main(number)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Obey a first signal to end only at the end of a block that must not be left half done."""
    before = list(_first)
    _holding.append(True)
    try:
        yield
    finally:
        _holding.pop()
    if _first != before and threading.current_thread() is threading.main_thread():
        raise KeyboardInterrupt


def ending() -> bool:
    """Whether a signal to end has come."""
    return bool(_first)


def _numbers() -> list[signal.Signals]:
    return [getattr(signal, name) for name in ENDING if hasattr(signal, name)]


def _ended(number: int, frame: object) -> None:
    """End as Ctrl-C does; where that takes too long for the user, at once."""
    if os.getpid() not in _listening:  # a worker that is just being forked, before `_forget`
        if number == signal.SIGTERM:
            os._exit(128 + number)
        return
    now = time.monotonic()
    if not _first:
        _first.append(now)
        if not _holding:
            raise KeyboardInterrupt
        return
    if now - _first[0] > APART:
        os.write(2, b"interrupted again: ended at once; finished work is in the store\n")
        for child in multiprocessing.active_children():
            child.kill()
        os._exit(INTERRUPTED)


def _unheard(lost: Any) -> None:
    """Repeat a signal that came while an object was being deleted, where Python ignores every exception."""
    if _first and isinstance(lost.exc_value, KeyboardInterrupt):
        _first.clear()
        threading.Timer(0.05, interrupt).start()
    else:
        sys.__unraisablehook__(lost)


@functools.cache
def _spare_workers() -> None:
    """Keep our handlers out of forked workers.

    A pool ends its idle workers with SIGTERM. Python only notes a signal and runs the handler later: a worker that is
    about to wait for a lock would wait for ever, and the pool for the worker. Ctrl-C and a closed terminal, which all
    processes hear of at once, are for the parent to obey: a worker that died of it first would look killed.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forget)


def _forget() -> None:
    for number in _numbers():
        if signal.getsignal(number) is _ended:
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
