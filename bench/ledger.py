"""What a method cost: seconds by a clock that waits for the device, examples read, and peak tensor memory."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

T = TypeVar("T")


def settle() -> None:
    """Collect garbage, and spare later collections the search of what lives now: imports, data, models."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def timed(work: Callable[[], T], device: str) -> tuple[T, float]:
    """Run `work` alone and return its result and its wall seconds, the device's pending work included."""
    gc.collect()
    _wait(device)
    start = time.perf_counter()
    result = work()
    _wait(device)
    return result, time.perf_counter() - start


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    elif device.startswith("mps"):
        torch.mps.synchronize()


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of all tensors made inside it; `peak` is the most that were alive at once.

    The count is the same on every run and every machine, unlike the process's resident memory, which keeps what
    earlier work freed. It leaves out what was there before (the model, the data) and what an operator uses inside.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alive = 0
        self.peak = 0
        self._known: set[int] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing is compiled in here; saying so spares the import of torch's compiler, a second of CPU."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before = {_storage(t)._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and _storage(leaf)._cdata not in before:
                self._count(_storage(leaf))
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        identity = storage._cdata
        if identity in self._known:
            return
        self._known.add(identity)
        self.alive += storage.nbytes()
        weakref.finalize(storage, self._forget, identity, storage.nbytes())
        if self.alive > self.peak:
            gc.collect()  # tensors in cycles die whenever the collector runs, which depends on all that ran before
            self.peak = max(self.peak, self.alive)

    def _forget(self, identity: int, size: int) -> None:
        self._known.discard(identity)
        self.alive -= size


class DevicePeak:
    """The same on a GPU, whose allocator counts by itself; what a library uses inside is in it too."""

    def __init__(self, device: str) -> None:
        self.device, self.peak = device, 0

    def __enter__(self) -> None:
        self.before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)

    def __exit__(self, *_: object) -> None:
        self.peak = torch.cuda.max_memory_allocated(self.device) - self.before


def meter(device: str) -> PeakMemory | DevicePeak:
    """What counts the memory of a run on this device; `peak` holds the bytes afterwards."""
    return DevicePeak(device) if device.startswith("cuda") else PeakMemory()


def _storage(tensor: torch.Tensor) -> torch.UntypedStorage:
    return tensor.untyped_storage()
