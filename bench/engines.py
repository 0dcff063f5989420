"""Connects to what carries tasks out: joblib's loky on this machine, a Dask cluster, or a Ray cluster."""

from __future__ import annotations

import contextlib
import importlib
import logging
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench import cluster, signals, streams
from bench.arguments import PER_GPU
from bench.cluster import Cluster, Terms
from bench.interface import UsageError
from bench.store import Store

SILENCE = 8  # seconds for a first word of a scheduler
WAIT = 15  # seconds for a scheduler that speaks, and for its first worker
PATIENCE = 120  # seconds for another worker when the last one has died
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # of gRPC, which Ray speaks
Joined = tuple[Cluster, dict[str, Any]]  # with what joblib is told


@contextlib.contextmanager
def join(backend: str, scheduler: str, jobs: int, folder: Path, *, device: str, per_gpu: int) -> Iterator[None]:
    """Have the tasks of a command carried out by `backend` meanwhile: `loky`, `dask` or `ray`.

    Args:
        backend: what carries them out.
        scheduler: address of a cluster; without one, a cluster of `jobs` workers is started on this machine.
        jobs: processes on this machine.
        folder: the store's.
        device: that of the config; on CUDA, the processes of loky and Ray share the GPUs in turn.
        per_gpu: processes for every GPU.

    Raises:
        UsageError: the backend is not installed, the scheduler does not answer, or its workers hold other code.
    """
    import joblib

    terms = cluster.terms_of(Store(folder))
    on_gpu = device.startswith("cuda")
    if per_gpu > 1 and not on_gpu:
        raise UsageError(f"--per-gpu shares GPUs among processes, but the device is {device}; add --device cuda")
    with (
        signals.kept_from_children(),
        JOINS[backend](scheduler, jobs, terms, per_gpu if on_gpu else 0) as (found, settings),
    ):
        streams.tell(found.line(), sys.stderr)
        with joblib.parallel_config(**settings), cluster.working_on(found):
            yield


def foreseen(backend: str, scheduler: str, jobs: int, *, device: str, per_gpu: int) -> str:
    """What a plan says of where tasks would be carried out, the arguments being those of `join`; asks nobody."""
    hands = cluster.processes(jobs)
    if scheduler:
        return f"tasks go to the {backend} cluster at {scheduler}, which is not asked now; the time is for {hands}"
    if device.startswith("cuda") and backend in PER_GPU:
        return f"tasks go to {cluster.processes(per_gpu)} of {backend} for every GPU of this machine"
    return f"tasks go to {hands} of {backend} on this machine"


@contextlib.contextmanager
def _loky(scheduler: str, jobs: int, terms: Terms, per_gpu: int) -> Iterator[Joined]:
    """Processes of this machine that start anew instead of being forked, several for every GPU if wanted."""
    from joblib.externals.loky.process_executor import BrokenProcessPool

    gpus = _gpus() if per_gpu else 0
    found = Cluster("loky", gpus * per_gpu or jobs, replace(terms, gpus=gpus), True, (BrokenProcessPool,))
    yield found, {"backend": "loky", "inner_max_num_threads": 1}


def _gpus() -> int:
    import torch

    return int(torch.cuda.device_count())


@contextlib.contextmanager
def _dask(scheduler: str, jobs: int, terms: Terms, per_gpu: int) -> Iterator[Joined]:
    """The workers of a Dask scheduler, or `jobs` new ones."""
    distributed = _required("distributed", "dask")
    for handler in logging.getLogger("distributed").handlers:
        handler.addFilter(lambda record: not signals.ending())  # what ends then was told to end
    _require_voice(scheduler)
    with _answering(scheduler), contextlib.ExitStack() as stack:
        client = stack.enter_context(
            distributed.Client(scheduler, timeout=WAIT) if scheduler else _own_workers(distributed, jobs)
        )
        client.wait_for_workers(1, timeout=WAIT)
        shared = _agreed(client.run(cluster.agrees, terms, on_error="return").values())
        stack.pop_all()
    with client:
        size = len(client.scheduler_info(n_workers=-1)["workers"])
        found = Cluster("dask", size, terms, shared, broken=_Watch(client))
        yield found, {"backend": _dask_backend()(client=client)}


def _own_workers(distributed: Any, jobs: int) -> Any:
    """The client of `jobs` new Dask workers, which are not left half started: Dask could not end them then.

    Of what Dask warns of, workers that keep dying end in a line of ours.
    """
    page = {"dashboard_address": "127.0.0.1:0", "scheduler_kwargs": {"dashboard": False}}  # there is always a server
    with signals.held():
        return distributed.Client(
            n_workers=jobs, threads_per_worker=1, timeout=WAIT, silence_logs=logging.CRITICAL, **page
        )


def _dask_backend() -> Any:
    from joblib._dask import DaskDistributedBackend

    class Backend(DaskDistributedBackend):  # type: ignore[misc]
        def effective_n_jobs(self, n_jobs: int) -> int:
            """At least two, or joblib would do the tasks of a single worker itself."""
            return max(2, int(super().effective_n_jobs(n_jobs)))

    return Backend


class _Watch:
    """Asks, now and then, why a task of a Dask cluster will never be done; of its errors joblib brings none home."""

    def __init__(self, client: Any) -> None:
        self.client, self.alone = client, 0.0

    def __call__(self) -> UsageError | None:
        if signals.ending():
            return None
        if self.client.status in ("closed", "closing"):
            return cluster.died("the scheduler is gone")
        for state in list(self.client.futures.values()):
            if state.status == "error":
                return _given_up(state.exception)
        if self.client.scheduler_info(n_workers=-1)["workers"]:
            self.alone = 0.0
        elif not self.alone:
            self.alone = time.monotonic()
            streams.tell(f"no worker is left; waiting {PATIENCE} s for another", sys.stderr)
        elif time.monotonic() - self.alone > PATIENCE:
            return cluster.died("no worker is left")
        return None


def _given_up(error: BaseException) -> UsageError:
    """Why Dask gave up a task: it killed its workers, or they could not even begin it. What it raises comes home."""
    if type(error).__name__ == "KilledWorker":
        return cluster.died("a task was given up")
    said = f"{type(error).__name__}: {error}"
    fault = UsageError(f"a worker cannot begin a task ({said}); it needs the packages and files that this machine has")
    fault.__cause__ = error
    return fault


@contextlib.contextmanager
def _ray(scheduler: str, jobs: int, terms: Terms, per_gpu: int) -> Iterator[Joined]:
    """The nodes of a Ray cluster, or `jobs` processes of a new one."""
    ray = _required("ray", "ray")
    from joblib.pool import PicklingPool
    from ray.util.joblib import register_ray

    _require_voice(scheduler, GREETING)
    bases = PicklingPool.__bases__  # Ray's backend puts its own in their place, for good
    where = {"address": scheduler} if scheduler else {"num_cpus": jobs, "include_dashboard": False}
    try:
        with _answering(scheduler):
            with signals.held(), signals.kept_from_library():  # half started, it may crash when Python ends
                ray.init(**where, log_to_driver=False, logging_level="error")
            resources = ray.cluster_resources()
            size = int(resources.get("GPU", 0)) * per_gpu or int(resources.get("CPU", 0))
            ask = ray.remote(cluster.agrees).options(num_cpus=1)
            shared = _agreed(ray.get([ask.remote(terms) for _ in range(2 * size)], timeout=60))
        register_ray()
        needs = {"num_gpus": 1 / per_gpu} if per_gpu else {}
        lost = (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError)
        yield Cluster("ray", size, terms, shared, lost), {"backend": "ray", "ray_remote_args": needs}
    finally:
        ray.shutdown()
        PicklingPool.__bases__ = bases


JOINS: dict[str, Callable[[str, int, Terms, int], contextlib.AbstractContextManager[Joined]]] = {
    "loky": _loky,
    "dask": _dask,
    "ray": _ray,
}


def _required(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"--backend {extra} needs {module}, which is not installed: pip install 'unlearning-bench[{extra}]'"
        ) from error


def _require_voice(scheduler: str, greeting: bytes = b"") -> None:
    """Refuse what takes a connection and then says nothing, for which the libraries wait up to minutes.

    A Dask scheduler speaks first, one of Ray answers a greeting. Everything else is for the library to tell, but that
    nobody is there, for which Ray waits minutes and does not hear of signals; Dask waits for one that is starting.
    """
    place = urlsplit(scheduler if "//" in scheduler else f"tcp://{scheduler}")
    with contextlib.suppress(OSError, ValueError):  # no address, nobody there, or a name that is none
        if place.scheme not in ("tcp", "ray") or not place.hostname or not place.port:
            return
        try:
            with socket.create_connection((place.hostname, place.port), timeout=SILENCE) as there:
                there.sendall(greeting)
                there.recv(1)
        except TimeoutError:
            raise UsageError(
                f"the scheduler at {scheduler} does not answer in {SILENCE} s; check --scheduler"
            ) from None
        except OSError as error:
            if greeting:
                raise UsageError(f"nobody answers at {scheduler} ({error}); check --scheduler") from error


@contextlib.contextmanager
def _answering(scheduler: str) -> Iterator[None]:
    """Turn what a scheduler's silence raises into one line."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:  # each library has its own
        if signals.ending():  # all processes were sent it
            raise KeyboardInterrupt from None
        what = f"the scheduler at {scheduler}" if scheduler else "the new cluster"
        said = str(error).split("\n")[0] or type(error).__name__
        raise UsageError(f"{what} does not answer or has no worker: {said}; check --scheduler") from error


def _agreed(answers: Sequence[Any]) -> bool:
    """Whether all workers see the store; raises UsageError where one cannot do what this process would."""
    faults = [f"a worker cannot import this package ({answer})" for answer in answers if isinstance(answer, Exception)]
    faults += [answer[0] for answer in answers if not isinstance(answer, Exception) and answer[0]]
    if faults:
        raise UsageError(f"{faults[0]}; install the same package and libraries there")
    return all(sees for _, sees in answers)
