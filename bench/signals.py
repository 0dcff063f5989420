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
from multiprocessing import resource_tracker
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

    By SIGTERM where `listen` was called: a shell starts what runs in the background deaf to SIGINT, and so does
    `kept_from_children` the main thread.
    """
    heard = signal.getsignal(signal.SIGTERM) is _ended or not callable(signal.getsignal(signal.SIGINT))
    number = signal.SIGTERM if heard else signal.SIGINT
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
    if _first != before and not _holding and threading.current_thread() is threading.main_thread():
        raise KeyboardInterrupt


@contextlib.contextmanager
def kept_from_children() -> Iterator[None]:
    """Leave Ctrl-C and a closed terminal to this process: programs that are started meanwhile do not hear of them.

    Threads and programs inherit which signals are blocked. So the main thread blocks them, and one thread listens for
    all and passes what it hears on as SIGUSR1, which no library takes for something else.
    """
    numbers = {number for number in _numbers() if number != signal.SIGTERM and signal.getsignal(number) is _ended}
    if not numbers or not hasattr(signal, "sigwait") or threading.current_thread() is not threading.main_thread():
        yield
        return
    over = threading.Event()
    heard = signal.signal(signal.SIGUSR1, _ended)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    listener = threading.Thread(target=_pass_on, args=(numbers, over), daemon=True)
    listener.start()
    try:
        resource_tracker.ensure_running()  # Python 3.11 unblocks Ctrl-C in the thread that starts it: not later, then
        signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        yield
    finally:
        over.set()
        signal.pthread_kill(listener.ident or 0, max(numbers))
        listener.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGUSR1, heard)


def _pass_on(numbers: set[signal.Signals], over: threading.Event) -> None:
    main = threading.main_thread().ident or 0
    while signal.sigwait(numbers) and not over.is_set():
        signal.pthread_kill(main, signal.SIGUSR1)


@contextlib.contextmanager
def kept_from_library() -> Iterator[None]:
    """Obey SIGTERM after a block in which a library takes it for `sys.exit`, and take that for Ctrl-C within it."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


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
