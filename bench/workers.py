"""The processes that work: a pool that joblib runs, what its workers do first, and a watch over workers that die."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection
from multiprocessing.pool import RUN
from typing import Any

from bench import claims, cluster, signals
from bench.interface import UsageError
from bench.store import Damaged, Store, StoreError

HELD = 1.0  # seconds: a lock of the pool that is held for longer is a dead worker's
FORKED = getattr(multiprocessing.context, "ForkProcess", ())


@contextlib.contextmanager
def processes(jobs: int, device: str, report: Callable[[], None]) -> Iterator[Any]:
    """A joblib pool of `jobs` workers, one on another device than the CPU; `report` is called after every task.

    Raises UsageError when a worker is killed, for which joblib's forked pool would wait for ever.
    """
    # joblib starts a Python of its own, which would import what lies in the working folder under a library's name.
    os.environ.setdefault("PYTHONSAFEPATH", "1")

    jobs = jobs if device == "cpu" else 1  # one process a device: a forked one could not use it
    # Forking shares the imports that this process has already paid for; elsewhere joblib's own default serves.
    backend = "multiprocessing" if sys.platform == "linux" and jobs > 1 else None
    killed, over = threading.Event(), threading.Event()
    parallel = cluster.reporting(report)(n_jobs=jobs, backend=backend, batch_size=1, max_nbytes=None)
    try:
        with contextlib.ExitStack() as opened:
            with signals.held():
                opened.enter_context(parallel)
                for guard in (_watch, _end):  # not before: a thread must not be caught in a fork
                    threading.Thread(target=guard, args=(parallel, killed, over), daemon=True).start()
            yield parallel
    except KeyboardInterrupt:
        if not killed.is_set():
            raise
        message = "a worker process was killed, perhaps for want of memory; finished work is in the store: "
        raise UsageError(message + "repeat the command, perhaps with a smaller --jobs") from None
    finally:
        over.set()


def hands(jobs: int, device: str, tasks: int) -> int:
    """How many processes so many tasks are shared out to."""
    there = cluster.joined()
    return max(1, min(tasks, there.size if there else jobs if device == "cpu" else 1))


def share_out(
    work: Callable[..., str | None],
    tasks: Sequence[Any],
    store: Store,
    jobs: int,
    device: str,
    report: Callable[[], None],
    *,
    reads: Callable[[Any], Sequence[tuple[str, str]]] = lambda task: (),
    meanwhile: Callable[[], None] = lambda: None,
) -> list[str]:
    """Do the tasks, on `jobs` processes or on the cluster that was joined; returns why each failed, or nothing.

    Args:
        work: a function of a module, `work(task, store, wait=...)`, which returns as `claims.carry_out`.
        tasks: what can be sent to another process.
        store: where the work's results go.
        jobs: processes on this machine.
        device: that of the work; see `processes`.
        report: called after every task.
        reads: kinds and keys of the entries that a task reads, for workers that share no store.
        meanwhile: called once when the workers exist: what it starts cannot be caught in a fork.

    Raises:
        UsageError: workers were killed. Otherwise what `work` raises.
    """
    import joblib

    if not tasks:
        return []
    there = cluster.joined()
    if there is not None:
        meanwhile()
        return claims.share_out(
            lambda some, wait: cluster.share_out(there, functools.partial(work, wait=wait), some, store, report, reads),
            tasks,
        )
    with processes(min(jobs, len(tasks)), device, report) as parallel:
        meanwhile()
        return claims.share_out(
            lambda some, wait: list(parallel(joblib.delayed(work)(task, store, wait=wait) for task in some)), tasks
        )


def _watch(parallel: Any, killed: threading.Event, over: threading.Event) -> None:
    """Interrupt the main thread when a worker dies of itself; the pool's own end of a worker is SIGTERM.

    The pool replaces the dead worker at once, and waits for its task for ever.
    """
    left, pool = multiprocessing.active_children(), getattr(parallel._backend, "_pool", None)
    while left:
        ended = connection.wait([child.sentinel for child in left])
        for child in [child for child in left if child.sentinel in ended]:
            left.remove(child)
            while child.exitcode is None:  # the pool's own thread is about to say
                time.sleep(0.01)
            by_pool = child.exitcode == -signal.SIGTERM and getattr(pool, "_state", "") != RUN
            if child.exitcode == 0 or by_pool or over.wait(signals.APART):
                continue
            if not (signals.ending() or killed.is_set()):  # a signal to all processes is for the main thread to obey
                killed.set()
                signals.interrupt()


def _end(parallel: Any, killed: threading.Event, over: threading.Event) -> None:
    """Kill what is left when a worker was killed or a signal to end has come, until all is over.

    The pool would wait for ever for a SIGTERM that is lost on a process that is just being forked, and for a lock that
    a dead worker held. Nothing is lost by killing: locks are, and are released.
    """
    while not over.wait(0.2):
        if killed.is_set() or signals.ending():
            others = multiprocessing.active_children()
            for other in others:
                other.kill()
            for other in others:
                other.join()
            _release(parallel)


def _release(parallel: Any) -> None:
    """Release what dead workers of a forked pool held, such as one that was killed while it waited for a task.

    The pool's own end waits for that. Neither joblib nor Python lets one ask for it.
    """
    pool = getattr(parallel._backend, "_pool", None)
    for queue, name in (("_inqueue", "_rlock"), ("_outqueue", "_wlock")):
        lock = getattr(getattr(pool, queue, None), name, None)
        if lock is not None:
            lock.acquire(timeout=HELD)  # a thread of the pool's own may hold it, and releases it soon
            with contextlib.suppress(ValueError):  # it is free
                lock.release()


def one_thread() -> None:
    """One thread a process and no shortcuts in arithmetic: results then do not depend on the number of processes."""
    import torch

    from bench import training

    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    training.keep_memory()


def counted(total: int, tell: Callable[[int], None]) -> Callable[[], None]:
    """A `report` for `processes` that tells how many of `total` tasks are finished.

    With one process joblib reports once more at the end, which is not told.
    """
    finished = 0

    def report() -> None:
        nonlocal finished
        if finished < total:
            finished += 1
            tell(finished)

    return report


def attempt(work: Callable[[], None]) -> str:
    """Do a task in a worker process; returns why it failed, in one line, or nothing.

    Raises StoreError and Damaged: a full disk or a damaged entry is not the fault of a method or a model.
    """
    begin()
    try:
        work()
    except (StoreError, Damaged):
        raise
    except (Exception, SystemExit) as error:
        return failed(error)
    return ""


def failed(error: BaseException) -> str:
    """What a table says of a run that raised this, one line."""
    return f"failed: {type(error).__name__}: {error}".splitlines()[0]


def begin() -> None:
    """What a worker does first: one thread; leave Ctrl-C to the parent; end when it is gone, not to train on alone."""
    one_thread()
    if not isinstance(multiprocessing.current_process(), FORKED):  # others look after their own
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
