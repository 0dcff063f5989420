"""Where tasks are carried out besides forked processes: joblib's loky, a Dask cluster or a Ray cluster.

joblib hands the tasks out; this module connects to a cluster, asks whether its workers hold the same code and see the
store, and carries a task out there: alone in its process, with this command's surroundings.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import multiprocessing
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import keys, signals, streams, surroundings
from bench.interface import UsageError
from bench.parcel import Parcel
from bench.store import ROOT, Store

PLACED = "UNLEARNING_GPU"  # the GPU of this process, once it has one
AHEAD = 4  # tasks a process that are sent at a time to workers that share no store
WATCH = 1.0  # seconds between two looks at whether a cluster still works
DEATHS = 3  # of workers in one stage, after which it is not tried again
_alone = threading.Lock()  # random numbers and threads belong to a process: it does one task at a time


@dataclass(frozen=True)
class Terms:
    """What a worker needs to know to do what this process would do.

    `code` is the digest of the package that sends the task; `mark` is that of the store.
    """

    code: str
    mark: str
    folder: str
    environ: Mapping[str, str]
    cwd: str
    gpus: int = 0  # of this machine that its processes share among themselves


def reporting(report: Callable[[], None]) -> Any:
    """joblib's class of a pool, which calls `report` after every task."""
    import joblib

    class Parallel(joblib.Parallel):  # type: ignore[misc]
        def print_progress(self) -> None:
            """joblib calls this whenever a task is finished."""
            report()

    return Parallel


class Pool:
    """joblib's pool of a cluster's processes, opened on first need and again after a death, for a whole command.

    Opening one takes seconds on Ray, whose processes then import torch.
    """

    def __init__(self) -> None:
        self._opened = contextlib.ExitStack()
        self._parallel: Any = None
        self._report: Callable[[], None] = lambda: None

    def __call__(self, there: Cluster, tasks: Sequence[Any], report: Callable[[], None]) -> list[Any]:
        """What the tasks return, in their order; `report` is called after every one."""
        self._report = report
        if self._parallel is None:
            ahead = "all" if there.shared else "2*n_jobs"
            make = reporting(lambda: self._report())
            parallel = make(n_jobs=there.size, pre_dispatch=ahead, batch_size=1, max_nbytes=None)
            with signals.held():
                self._parallel = self._opened.enter_context(parallel)
        return list(self._parallel(tasks))

    def close(self) -> None:
        """End the processes, or leave the cluster's own."""
        self._parallel = None
        self._opened.close()


@dataclass(frozen=True)
class Cluster:
    """What carries tasks out: `size` processes that see the store (`shared`), or get what they read and send it back.

    `lost` are the exceptions that say a worker died; `broken` tells why the cluster will never answer, if so.
    """

    backend: str
    size: int
    terms: Terms
    shared: bool
    lost: tuple[type[BaseException], ...] = ()
    broken: Callable[[], UsageError | None] = lambda: None
    pool: Pool = field(default_factory=Pool)

    def line(self) -> str:
        """What the user is told."""
        store = "share the store" if self.shared else "do not see the store: results are sent back, audits stay here"
        return f"on {self.hands()}, which {store}"

    def hands(self) -> str:
        """How many processes of what."""
        return f"{processes(self.size)} of {self.backend}"


def processes(number: int) -> str:
    """So many processes, in words."""
    return f"{number} process{'' if number == 1 else 'es'}"


_joined: Cluster | None = None


def told() -> dict[str, str]:
    """What a results folder says of where the tasks were carried out; nothing for processes of this machine."""
    return {"workers": _joined.hands()} if _joined else {}


def joined() -> Cluster | None:
    """The cluster that the command works on, or None: forked processes of this machine."""
    return _joined


@contextlib.contextmanager
def working_on(found: Cluster) -> Iterator[None]:
    """Have tasks carried out there meanwhile."""
    global _joined
    _joined = found
    try:
        yield
    finally:
        _joined = None
        found.pool.close()


def terms_of(store: Store) -> Terms:
    """The terms of this process; relative paths on the command line are those of its working folder."""
    return Terms(package(), store.mark(), str(store.folder.resolve()), surroundings.current(), os.getcwd())


@functools.cache
def package() -> str:
    """The digest of the package's own code and of the libraries that numbers depend on, as this process holds them."""
    whole = hashlib.sha256()
    for path in sorted(path for name in ("bench", "methods", "attacks") for path in (ROOT / name).rglob("*.py")):
        whole.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    for name in ("torch", "numpy", "scipy", "xgboost-cpu", "scikit-learn"):
        whole.update(f"{name} {keys.version_of(name)}\0".encode())
    return whole.hexdigest()[:16]


def agrees(terms: Terms) -> tuple[str, bool]:
    """What is wrong with this worker, in a few words, or nothing; and whether it sees the store."""
    host = socket.gethostname()
    if package() != terms.code:
        return f"the worker on {host} holds another version of this package, or of torch or numpy", False
    return "", bool(terms.mark) and Store(Path(terms.folder), create=False).marked(terms.mark)


def do(
    work: Callable[[Any, Store], Any], task: Any, parcel: Parcel | None, terms: Terms
) -> tuple[Any, dict[tuple[str, str], bytes]]:
    """Carry a task out in a worker process; returns what `work` does, and the entries to be sent back.

    Raises UsageError on a worker that came later and holds other code or does not see the store.
    """
    fault, sees = agrees(terms)
    if not fault and parcel is None and not sees:
        fault = f"the worker on {socket.gethostname()} does not see the store {terms.folder}"
    if fault:
        raise UsageError(f"{fault}; make it like the others, or take it out of the cluster")
    with _alone, _place(terms.cwd), surroundings.having(terms.environ):
        place_on_gpu(terms.gpus)
        value = work(task, Store(Path(terms.folder)) if parcel is None else parcel)
        return value, {} if parcel is None else parcel.made


def place_on_gpu(gpus: int) -> None:
    """Have this process use one of the `gpus` that the command sees, in turn by its number, before it touches any.

    CUDA reads the variable when it is first used, not when torch is imported. Raises UsageError when that has been.
    """
    if gpus > 1 and PLACED not in os.environ:
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            raise UsageError("a plug-in uses a GPU when it is imported, before its process is given one; use it later")
        number = int(multiprocessing.current_process().name.rpartition("-")[2] or 0)
        given = os.environ.get("CUDA_VISIBLE_DEVICES")  # set, but empty, it gives none
        ours = [str(one) for one in range(gpus)] if given is None else given.split(",")[:gpus]
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ[PLACED] = ours[number % len(ours)].strip()


def share_out(
    there: Cluster,
    work: Callable[[Any, Store], Any],
    tasks: Sequence[Any],
    store: Store,
    report: Callable[[], None],
    reads: Callable[[Any], Sequence[tuple[str, str]]],
) -> list[Any]:
    """Do the tasks on a cluster; the arguments are those of `bench.workers.share_out`.

    Where the store is not shared, a few tasks a process are sent at a time, so that what they make is kept soon.
    Raises UsageError when workers keep dying.
    """
    import joblib

    found: dict[int, Any] = {}
    deaths = 0
    while left := [at for at in range(len(tasks)) if at not in found]:
        now = left if there.shared else left[: AHEAD * there.size]
        sent = [(tasks[at], _parcel(there, store, reads(tasks[at])), there.terms) for at in now]
        try:
            with _heard(there):
                answers = there.pool(there, [joblib.delayed(do)(work, *one) for one in sent], report)
        except there.lost as error:
            deaths += 1
            there.pool.close()
            if deaths == DEATHS:
                raise died(type(error).__name__) from error
            streams.tell(f"a worker died ({type(error).__name__}); its task begins again", sys.stderr)
            continue
        for at, (value, made) in zip(now, answers, strict=True):
            for (kind, key), raw in made.items():
                store.add(kind, key, raw)
            found[at] = value
    return [found[at] for at in range(len(tasks))]


def _parcel(there: Cluster, store: Store, names: Sequence[tuple[str, str]]) -> Parcel | None:
    return None if there.shared else Parcel.of(store, names)


def died(said: str) -> UsageError:
    """What to raise when workers keep dying."""
    advice = "finished work is in the store: repeat the command, perhaps with larger workers"
    return UsageError(f"workers keep dying ({said}), perhaps for want of memory; {advice}")


@contextlib.contextmanager
def _heard(there: Cluster) -> Iterator[None]:
    """End waiting for what will never come: joblib is not told of a task that Dask has given up.

    Nobody is interrupted once the waiting is over: the lock is held for both.
    """
    over, lock, faults = threading.Event(), threading.Lock(), list[UsageError]()

    def watch() -> None:
        while not over.wait(WATCH):
            if fault := there.broken():
                with lock:
                    if not over.is_set():
                        faults.append(fault)
                        signals.interrupt()
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        try:
            yield
        finally:
            with lock:
                over.set()
    except KeyboardInterrupt:
        if not faults:
            raise
        raise faults[0] from faults[0].__cause__


def _place(cwd: str) -> contextlib.AbstractContextManager[None]:
    """Be in the working folder of the command, where this machine has it."""
    return contextlib.chdir(cwd) if os.path.isdir(cwd) else contextlib.nullcontext()
