"""Runs the methods of a plan, one after the other and alone, so that their times mean something."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import claims, layers, pool, streams, workers
from bench.interface import Dataset, State
from bench.plan import Place, Plan, Row, Run, place
from bench.progress import Progress
from bench.store import Damaged, Store, StoreError, key

if TYPE_CHECKING:
    from torch import nn

    from bench.ledger import DevicePeak, PeakMemory
    from bench.unlearning import Done, Setting


@dataclass(frozen=True)
class Failure:
    """Why a run of a method failed: one line for the tables, and the traceback for the method's author."""

    reason: str
    traceback: str = ""


DISTURBED = (
    "another run is at work on this store and machine: it may have slowed down the methods that were timed; "
    "for times to rely on, run one command at a time"
)
REHEARSE_BELOW = 60.0  # seconds of training one model; what a rehearsal may take of a method that watches the clock


NONE: Mapping[str, Failure] = {}


class Clock:
    """Adds up the wall seconds of the phases of a run, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Everything inside counts for `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


def missing(plan: Plan, store: Store) -> int:
    """How many entries the store lacks."""
    return len({(kind, key) for _, kind, key in plan.jobs() if not store.has(kind, key)})


def _finished(store: Store, run: Run) -> bool:
    """Whether the store has the run, its peak memory if wanted, and the preparation whose cost belongs to it."""
    wanted = [("unlearned", run.key), ("peak", run.peak), ("prepared", None if run.previous else run.prepared)]
    return all(store.has(kind, key) for kind, key in wanted if key is not None)


def run_methods(plan: Plan, store: Store, progress: Progress) -> dict[str, Failure]:
    """Run what the store lacks of every row; returns why runs failed, by their keys."""
    if all(_finished(store, run) for row in plan.rows for run in row.runs):
        return {}
    methods = MethodRunner(plan, store, progress)
    failures: dict[str, Failure] = {}
    disturbed = claims.others(store)
    for wait in (False, True):  # what another machine is at comes last, and is then waited for
        for row in plan.rows:
            missing = sum(not store.has("unlearned", run.key) for run in row.runs)
            with progress.stage(f"unlearn with {row.name}", missing):
                failures |= methods.row(row, failures, wait=wait)
    if disturbed or claims.others(store):
        streams.tell(DISTURBED, sys.stderr)
    return failures


def tracebacks(plan: Plan, failures: Mapping[str, Failure]) -> str:
    """The tracebacks of failed runs as text, each once with the runs that it is of; empty where none failed."""
    places: dict[tuple[str, str], list[str]] = {}
    for run in (run for row in plan.rows for run in row.runs if run.key in failures):
        failure = failures[run.key]
        place = f"seed {run.repeat}, request {run.request.step + 1}"
        places.setdefault((run.method, failure.traceback or f"{failure.reason}\n"), []).append(place)
    return "\n".join(f"{method}: {'; '.join(at)}\n\n{text}" for (method, text), at in places.items())


class MethodRunner:
    """Runs the methods of a plan one after the other; nothing else runs meanwhile, so that times mean something."""

    def __init__(self, plan: Plan, store: Store, progress: Progress) -> None:
        workers.one_thread()
        self.plan, self.store, self.progress = plan, store, progress
        self.setting: Setting = replace(
            setting_of(place(plan.config), plan.dataset, plan.labels), progress=progress.say
        )
        limit = min(self.setting.time_limit or REHEARSE_BELOW, REHEARSE_BELOW)
        self._rehearsal = replace(self.setting, time_limit=limit)  # a solver need not come to its end for it
        self.warm: set[str] = set()
        self.session = key(host=platform.node(), process=os.getpid(), started=time.time())[:8]
        # Where one training takes minutes, a run that is not timed costs too much, and a warm-up changes nothing.
        meta = store.meta("model", plan.originals[-1].key)
        self.slow = bool(meta["seconds"] > REHEARSE_BELOW)

    def row(self, row: Row, known: Mapping[str, Failure] = NONE, *, wait: bool = True) -> dict[str, Failure]:
        """Run what the store lacks of one row; returns why runs failed, by their keys, aside from those `known`.

        A method may raise anything; its row then says so, and the others go on. Runs that another machine is at are
        left out, or waited for.
        """
        failures: dict[str, Failure] = {}
        for run in row.runs:
            before = run.previous.key if run.previous else ""
            if run.key in known or _finished(self.store, run):
                continue
            if before in failures or before in known:
                failures[run.key] = Failure("failed: the request before it failed")
                continue
            if before and not self.store.has("unlearned", before):  # another machine is at it
                continue
            missing = not self.store.has("unlearned", run.key)  # or else what belongs to it, which counts itself
            try:
                if not self._once(row, run, wait=wait):
                    continue
            except (StoreError, Damaged):  # a full disk or a damaged entry is not the method's fault
                raise
            except (Exception, SystemExit) as error:
                failures[run.key] = Failure(workers.failed(error), "".join(traceback.format_exception(error)))
            if missing:
                lost = " failed" if run.key in failures else ""
                self.progress.done(f"{row.name} repeat {run.repeat} request {run.request.step}{lost}")
        return failures

    def _once(self, row: Row, run: Run, *, wait: bool) -> bool:
        """Carry a run out, with nothing else timed on this machine meanwhile; returns whether it is finished.

        It is not where another process is at it, unless that is waited for.
        """
        while not _finished(self.store, run):
            with claims.clock(self.store), claims.claimed(self.store, "unlearned", [run.key]) as mine:
                if mine or self.store.has("unlearned", run.key):
                    if not _finished(self.store, run):
                        self._run(row, run)
                    return True
            if not wait:
                return False
            time.sleep(claims.PAUSE)
        return True

    def _run(self, row: Row, run: Run) -> None:
        from bench import unlearning

        model, state = self._start(row, run)

        def work(meter: PeakMemory | DevicePeak | None = None) -> Done:
            return unlearning.unlearn(
                self.setting if meter is None else self._rehearsal,
                row.name,
                row.method,
                model,
                run.request,
                state=state,
                seed=run.seed,
                original_seed=run.original.seed,
                meter=meter,
            )

        self._rehearse(row, run, work)
        if not self.store.has("unlearned", run.key):
            self._put(run, work())

    def _put(self, run: Run, done: Done) -> None:
        """Keep a run. Its outputs are those of the weights that are kept, whatever else the method returned."""
        from bench import training

        arrays = {f"weights/{name}": value.numpy() for name, value in training.weights_of(done.model).items()}
        outputs = training.evaluate(model_of(self.setting, arrays), self.plan.dataset, self.setting.device)
        arrays |= {f"logits/{part}": rows for part, rows in outputs.arrays().items()}
        if not run.last:
            arrays |= {f"state/{name}": value.cpu().numpy() for name, value in done.state.items()}
        meta = {
            "status": done.status,
            "notes": done.notes,
            "seconds_request": done.seconds,
            "samples_read": done.taken,
            "session": self.session,
        }
        self.store.put("unlearned", run.key, arrays, meta)

    def _rehearse(self, row: Row, run: Run, work: Callable[[PeakMemory | DevicePeak | None], object]) -> None:
        """Count the tensors of the first repeat's requests in a run that is not timed, which also warms up."""
        from bench import ledger

        wanted = run.peak is not None and not self.store.has("peak", run.peak)
        if wanted and self.slow:
            self.store.put("peak", str(run.peak), {}, {"peak_bytes": None})
        if self.slow or not (wanted or row.name not in self.warm):
            return
        self.warm.add(row.name)
        meter = ledger.meter(self.setting.device)
        ledger.settle()  # the last method's imports too: the meter collects at every new peak
        with contextlib.suppress(Exception):  # the timed run will raise it again
            work(meter)
            if wanted:
                self.store.put("peak", str(run.peak), {}, {"peak_bytes": meter.peak})
                self.progress.done(f"counted the memory of {row.name}")

    def _start(self, row: Row, run: Run) -> tuple[nn.Module, dict[str, Any]]:
        """The model and the state that a run starts from."""
        import torch

        if run.previous:
            arrays, _ = self.store.get("unlearned", run.previous.key)
            kept = {name[6:]: torch.from_numpy(value) for name, value in arrays.items() if name.startswith("state/")}
            return model_of(self.setting, arrays), kept
        arrays, _ = self.store.get("model", run.original.key)
        model = model_of(self.setting, arrays)
        if run.prepared is None:
            return model, {}
        claims.once(self.store, "prepared", run.prepared, lambda: self._prepare(row, run, model))
        return model, prepared(self.store, run.prepared, self.setting.device)

    def _prepare(self, row: Row, run: Run, model: nn.Module) -> None:
        from bench import unlearning

        assert run.prepared is not None
        if row.name not in self.warm and not self.slow:  # the first call pays for loading libraries; time the second
            unlearning.prepare(self.setting, run.method, row.method, model, run.original.seed)
        made = unlearning.prepare(self.setting, run.method, row.method, model, run.original.seed)
        keep_prepared(self.store, run.prepared, *made)
        self.progress.done(f"{row.name} prepared repeat {run.repeat}")


def setting_of(where: Place, dataset: Dataset, labels: np.ndarray) -> Setting:
    """The setting in which methods run at this place, on this data with these training labels int64 `[n]`."""
    from bench import training
    from bench.unlearning import Setting

    _, architecture, recipe, device, scenario, time_limit = where
    make = training.maker(pool.network(architecture), dataset, device)
    setting = Setting.of(dataset, labels, recipe, scenario, device, make)
    return replace(setting, layers=layers.published(architecture), time_limit=time_limit)


def keep_prepared(store: Store, key: str, state: State, seconds: float, taken: dict[str, int]) -> None:
    """Keep what a method prepared, with what that cost."""
    arrays = {name: value.cpu().numpy() for name, value in state.items()}
    store.put("prepared", key, arrays, {"seconds_prepare": seconds, "samples_read": taken})


def prepared(store: Store, key: str, device: str) -> State:
    """What a method prepared, on the device."""
    import torch

    arrays, _ = store.get("prepared", key)
    return {name: torch.from_numpy(value).to(device) for name, value in arrays.items()}


def model_of(setting: Setting, arrays: Mapping[str, np.ndarray]) -> nn.Module:
    """The network, or ensemble of networks, whose weights an entry of the store holds."""
    import torch

    from bench import ensemble

    weights = {name[8:]: torch.from_numpy(value) for name, value in arrays.items() if name.startswith("weights/")}
    model = ensemble.shaped(lambda: setting.build(0), weights)
    model.load_state_dict(weights)
    return model
