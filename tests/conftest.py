"""What the tests share: one thread, few hypothesis examples, the digits, and the real command line."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import fcntl
import functools
import gc
import operator
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import TINY, Finished, FinishedRun, Place
from hypothesis import HealthCheck, settings
from torch import nn
from trying import network

from bench import registry
from bench.dataview import OPENS, Images, MeteredPart, MeteredView
from bench.interface import Context, Dataset
from bench.recipe import Recipe, load_recipe

torch.set_num_threads(1)
settings.register_profile(
    "few",
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("few")


def pytest_collection_finish() -> None:
    """Every timed run begins with a collection of garbage, which need not search all that the imports left."""
    gc.freeze()


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """The digits."""
    digits: Dataset = registry.load("datasets", "digits")()
    return digits


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """The recipe of the digits, but two epochs long."""
    return load_recipe("digits", {"epochs": 2})


@pytest.fixture
def run(tmp_path: Path) -> Place:
    """The command line in an empty folder of its own."""
    return Place(tmp_path)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """A small finished run that many tests read and none changes; made once, also by several test processes."""
    inside_worker = "PYTEST_XDIST_WORKER" in os.environ
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if inside_worker else base) / "tiny"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        printed = folder / "printed"
        if not printed.exists():
            finished = Place(folder).benchmark(*TINY)
            assert finished.code == 0, finished.err
            printed.write_text("\0".join((finished.out, finished.err)))
        out, err = printed.read_text().split("\0")
    return FinishedRun(folder, finished=Finished(0, out, err))


@pytest.fixture
def plug_in(tmp_path: Path) -> Callable[[str, str], str]:
    """Writes a plug-in's file and returns the path to it, as a user types it."""

    def write(name: str, text: str) -> str:
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


@pytest.fixture(scope="session")
def images(dataset: Dataset) -> dict[str, Images]:
    """The digits to train and to validate on, as methods are handed them."""
    return {part: Images(dataset, part, "cpu") for part in ("train", "validation")}


@pytest.fixture
def view(images: dict[str, Images], dataset: Dataset) -> Callable[..., MeteredView]:
    """A view that opens everything, with these training samples to go and those that went `before`."""

    def make(forget: Any = range(60), total: int = 300, before: Any = ()) -> MeteredView:
        def part(name: str, rows: Any) -> MeteredPart:
            chosen = np.asarray(rows, dtype=np.int64)
            return MeteredPart(images[name], torch.from_numpy(chosen), torch.from_numpy(dataset.labels(name)[chosen]))

        gone = set(forget)
        parts = {"forget": part("train", sorted(gone)), "train": part("train", range(total))}
        parts |= {"retain": part("train", [row for row in range(total) if row not in gone | set(before)])}
        parts |= {"validation": part("validation", range(100))}
        return MeteredView("method", functools.reduce(operator.or_, OPENS.values()), parts)

    return make


@pytest.fixture
def context(recipe: Recipe, dataset: Dataset) -> Callable[..., Context]:
    """What a method may know besides the data, on the network that a test names."""

    def make(seed: int = 0, build: Callable[[int], nn.Module] = network, **changes: Any) -> Context:
        mean, std, top = dataset.mean, dataset.std, dataset.pixel_max
        ctx = Context(
            device="cpu", seed=seed, generator=torch.Generator().manual_seed(seed), recipe=recipe, classes=10,
            scenario="sample_removal", initial_model=lambda: build(1),
            new_model=lambda number=0: build(seed + 100 + number),
            black=tuple(-m / s for m, s in zip(mean, std, strict=True)),
            white=tuple((top - m) / s for m, s in zip(mean, std, strict=True)),
        )  # fmt: skip
        return replace(ctx, **changes)

    return make
