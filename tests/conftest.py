"""What the tests share: one thread, few hypothesis examples, the digits, and the real command line."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import fcntl
import gc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command import TINY, Finished, FinishedRun, Place
from hypothesis import HealthCheck, settings

from bench import registry
from bench.interface import Dataset
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
