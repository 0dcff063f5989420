"""Locks of a forked pool: what a dead worker held is released, what a living thread holds is not taken from it."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from bench import workers


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What `_release` reads of joblib's pool, with real locks."""
    monkeypatch.setattr(workers, "HELD", 0.3)
    locks = multiprocessing.get_context("fork")
    queues = {"_inqueue": SimpleNamespace(_rlock=locks.Lock()), "_outqueue": SimpleNamespace(_wlock=locks.Lock())}
    return SimpleNamespace(_backend=SimpleNamespace(_pool=SimpleNamespace(**queues)))


LOCKS: dict[str, Callable[[Any], Any]] = {
    "tasks": lambda pool: pool._backend._pool._inqueue._rlock,
    "results": lambda pool: pool._backend._pool._outqueue._wlock,
}


@pytest.mark.parametrize("which", LOCKS)
def test_what_a_dead_worker_held_is_released(pool: Any, which: str) -> None:
    lock = LOCKS[which](pool)
    dead = multiprocessing.get_context("fork").Process(target=lock.acquire)
    dead.start()
    dead.join()
    assert not lock.acquire(block=False)
    workers._release(pool)
    assert lock.acquire(block=False)


@pytest.mark.parametrize("which", LOCKS)
def test_a_free_lock_stays_free(pool: Any, which: str) -> None:
    workers._release(pool)
    assert LOCKS[which](pool).acquire(block=False)
    assert not LOCKS[which](pool).acquire(block=False)


def test_a_thread_that_holds_a_lock_for_a_moment_keeps_it(pool: Any) -> None:
    lock, holds, failed = LOCKS["results"](pool), threading.Event(), []

    def write() -> None:
        with lock:
            holds.set()
            threading.Event().wait(0.05)

    def work() -> None:
        try:
            write()
        except ValueError as error:  # released too many times
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    assert holds.wait(5)
    workers._release(pool)
    thread.join()
    assert not failed
