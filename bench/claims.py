"""Claims on work: of several runs on one store, one makes an entry and the others wait for it.

A claim is a lock on a file below the store. The system takes it from a process that dies, however that happens, so that
nobody waits for the dead. Whoever does a piece of work claims it where it is done, be that another machine that shares
the folder. Claims are taken in one order (`clock`, a run, what is prepared for it; an audit, what its attacks learn):
so no two processes wait for each other. A store whose file system has no locks is refused.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import platform
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import streams
from bench.interface import UsageError
from bench.store import Store

if TYPE_CHECKING:
    from filelock import BaseFileLock

FOLDER = "claims"
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)  # what a file system without locks says
UNLOCKED = (
    "is on a file system without locks, so runs would not see each other; choose another store with --store, "
    "or have it mounted with locks (Lustre: -o flock; NFS: version 4)"
)
PAUSE = 0.1  # seconds between two looks at what another process is making


@contextlib.contextmanager
def claimed(store: Store, kind: str, keys: Sequence[str]) -> Iterator[list[str]]:
    """Claim the entries that the store lacks; gives those that are ours to make, the others are there or claimed."""
    with contextlib.ExitStack() as held:
        mine = [key for key in keys if not store.has(kind, key) and _take(held, _path(store, f"{kind}-{key}"))]
        yield [key for key in mine if not store.has(kind, key)]  # it may have been made just before we took the claim


def carry_out(
    store: Store, kind: str, keys: Sequence[str], work: Callable[[list[str]], str], *, wait: bool
) -> str | None:
    """Have `work` make the entries that the store lacks and that nobody else is making.

    Nothing is held while waiting, so that two processes cannot wait for each other.

    Returns:
        Why the work failed, or nothing; None where another process is at a part of it, unless told to wait for that.
    """
    reason, left = "", list(keys)
    while True:
        with claimed(store, kind, left) as mine:
            if mine:
                reason = work(mine) or reason
        left = [key for key in left if key not in mine and not store.has(kind, key)]
        if not left:
            return reason
        if not wait:
            return None
        if not mine:
            time.sleep(PAUSE)


def once(store: Store, kind: str, key: str, make: Callable[[], object]) -> None:
    """Have `make` put the entry, unless the store has it or another process makes it, which is waited for."""

    def work(_: list[str]) -> str:
        make()
        return ""

    carry_out(store, kind, [key], work, wait=True)


def share_out(carry: Callable[[Sequence[Any], bool], Sequence[str | None]], tasks: Sequence[Any]) -> list[str]:
    """What `carry(tasks, wait)` says of every task, as `carry_out` does.

    Tasks that another run is at come again at the end, and are then waited for.
    """
    found = list(carry(tasks, False))
    busy = [at for at, reason in enumerate(found) if reason is None]
    if busy:
        _say("another run is at work on this store: what it is making is waited for, not made twice")
        again = carry([tasks[at] for at in busy], True)
        for at, reason in zip(busy, again, strict=True):
            found[at] = reason
    return [reason or "" for reason in found]


@functools.cache
def _say(line: str) -> None:
    """Tell the user, once, why nothing happens for a while."""
    streams.tell(line, sys.stderr)


@contextlib.contextmanager
def clock(store: Store) -> Iterator[None]:
    """Wait until no other run on this store and machine times anything, and keep them from it."""
    with contextlib.ExitStack() as held:
        while not _take(held, _path(store, f"clock-{platform.node()}")):
            _say("another run is timing methods on this machine, which this one waits for")
            time.sleep(PAUSE)
        yield


@contextlib.contextmanager
def at_work(store: Store) -> Iterator[None]:
    """Let other runs on this machine know that one is at work on this store; removes what killed runs have left."""
    for path in abandoned(store):
        path.unlink(missing_ok=True)
    with contextlib.ExitStack() as held:
        while not _take(held, _own(store)):  # another run that removes what is left has just looked at it
            time.sleep(PAUSE)
        yield


def others(store: Store) -> bool:
    """Whether another run is at work on this store and machine."""
    own = _own(store)
    runs = [path for path in own.parent.glob("run-*") if path.name.rpartition("-")[0] == own.name.rpartition("-")[0]]
    return any(path != own and _held(path) for path in runs)


def _own(store: Store) -> Path:
    """The claim of this run. Containers may share the name of a machine and the numbers of processes."""
    return _path(store, f"run-{platform.node()}-{os.getpid()}.{_token()}")


@functools.cache
def _token() -> str:
    return secrets.token_hex(4)


def abandoned(store: Store) -> Iterator[Path]:
    """The files of claims that nobody has; nobody can take one before the next is asked for."""
    for path in (store.folder / FOLDER).glob("*"):
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            lock = _lock(path)
            if _acquired(lock):
                held.callback(lock.release)
                yield path


def _held(path: Path) -> bool:
    with contextlib.ExitStack() as held:
        return path.exists() and not _take(held, path)


def _path(store: Store, name: str) -> Path:
    return store.folder / FOLDER / name


def _take(held: contextlib.ExitStack, path: Path) -> bool:
    """Take the claim for as long as `held` is open, unless somebody has it.

    Raises UsageError where there are no locks.
    """
    lock = _lock(path)
    try:
        path.parent.mkdir(exist_ok=True)
        if not _acquired(lock):
            return False
    except OSError as error:
        if error.errno in NO_LOCKS:
            path.unlink(missing_ok=True)
            raise UsageError(f"{path.parent.parent} {UNLOCKED}") from error
        return True  # what refuses a file refuses the entry too, which then says so
    held.callback(_give_back, lock, path)
    return True


def _give_back(lock: BaseFileLock, path: Path) -> None:
    """Remove the file while it is locked: whoever has opened it already sees that it is gone and begins again."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
    lock.release()


def _lock(path: Path) -> BaseFileLock:
    from filelock import FileLock

    return FileLock(path, fallback_to_soft=False)  # a soft lock outlives the process that has it


def _acquired(lock: BaseFileLock) -> bool:
    from filelock import Timeout

    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True
