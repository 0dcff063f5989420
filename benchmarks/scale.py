"""How a run's cost grows: with shadow models, samples, seeds, methods; on one and two workers; a task's overhead.

    python benchmarks/scale.py            # some 15 minutes on two idle cores; prints the tables of docs/scale.md

Everything is measured in one go, on the digits, on this machine; stores and results are in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

BASE = {"shadow.train": 8, "shadow.validation": 2, "shadow.unlearned": 10}
FOURFOLD = {"shadow__train": 32, "shadow__validation": 8, "shadow__unlearned": 40}
CELL = ("--scenario", "class_removal", "--attacks", "per_example,shadow_xgboost,loss,lira")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("growth", "workers", "overhead", "estimate"))
    only = parser.parse_args().only
    print(f"{os.cpu_count()} cores, {json.dumps(_versions())}\n")
    for name, measure in (("growth", growth), ("workers", workers), ("overhead", overhead), ("estimate", estimate)):
        if only in (None, name):
            measure()


def _versions() -> dict[str, str]:
    from bench import machine

    return machine.versions()


def run(folder: Path, *words: str, **sets: float) -> tuple[float, dict[str, float]]:
    """Run the benchmark in a store of the folder; returns the wall seconds and those of its phases."""
    out = Path(tempfile.mkdtemp(dir=folder))
    start = time.perf_counter()
    _benchmark(folder, "--out", str(out), *words, **sets)
    wall = time.perf_counter() - start
    return wall, json.loads((out / "run.json").read_text())["seconds"]


def _benchmark(folder: Path, *words: str, **sets: float) -> str:
    """Run the command line; returns what it prints."""
    settings = BASE | {name.replace("__", "."): value for name, value in sets.items()}
    changes = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    command = [
        sys.executable,
        str(ROOT / "run_benchmark.py"),
        *CELL,
        *changes,
        "--store",
        str(folder / "store"),
        *words,
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder).stdout


def growth() -> None:
    """Twice as much of one thing at a time, each from an empty store."""
    print("| shadow models | training samples | seeds | methods | wall, s | train | for the attacks | attack |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for models, samples, seeds, methods in (
        (10, 600, 2, "pgu,scrub"),
        (20, 600, 2, "pgu,scrub"),
        (40, 600, 2, "pgu,scrub"),
        (80, 600, 2, "pgu,scrub"),
        (10, 300, 2, "pgu,scrub"),
        (10, 600, 4, "pgu,scrub"),
        (10, 600, 8, "pgu,scrub"),
        (10, 600, 2, "pgu,scrub,neg_grad,fine_tune"),
        (10, 600, 2, "pgu,scrub,neg_grad,fine_tune,eu_k,ssd,random_labels,l1_sparse"),
    ):
        with tempfile.TemporaryDirectory() as folder:
            pool = {"shadow__train": models * 4 // 5, "shadow__validation": models // 5, "shadow__unlearned": models}
            words = ("--methods", methods, "--seeds", str(seeds), "--dataset", f"digits+train={samples}")
            wall, seconds = run(Path(folder), *words, **pool)
        parts = " | ".join(f"{seconds[name]:.1f}" for name in ("train", "unlearn for the attacks", "attack"))
        count = len(methods.split(","))
        print(f"| {models} | {samples} | {seeds} | {count} | {wall:.1f} | {parts} |", flush=True)


def workers() -> None:
    """Training a pool on one and two workers of every backend; the seconds are those of the training alone."""
    print("\n| backend | one worker, s | two workers, s | throughput | ")
    print("| --- | --- | --- | --- |")
    for backend in ("dask", "local", "loky", "ray"):
        took = [_training(backend, jobs) for jobs in (1, 2)]
        print(f"| {backend} | {took[0]:.1f} | {took[1]:.1f} | {took[0] / took[1]:.2f} |", flush=True)


def _training(backend: str, jobs: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        pool = {"shadow__train": 200, "shadow__validation": 50, "shadow__unlearned": 0}
        words = ("--attacks", "shadow_xgboost", "--methods", "original", "--seeds", "2")
        return run(Path(folder), *words, "--backend", backend, "--jobs", str(jobs), **pool)[1]["train"]


def overhead() -> None:
    """Tasks that do nothing, on two workers: what handing a task out costs."""
    from bench import engines, workers
    from bench.store import Store

    print("\n| backend | start, s | a task, ms |")
    print("| --- | --- | --- |")
    for backend in ("local", "loky", "dask", "ray"):
        with tempfile.TemporaryDirectory() as folder:
            store, start = Store(Path(folder)), time.perf_counter()

            def hand_out(count: int, store: Store = store) -> float:
                before = time.perf_counter()
                workers.share_out(_nothing, list(range(count)), store, 2, "cpu", lambda: None)
                return time.perf_counter() - before

            if backend == "local":
                first = hand_out(2)
                each = (hand_out(500) - first) / 500
            else:
                with engines.join(backend, "", 2, Path(folder), device="cpu", per_gpu=1):
                    hand_out(2)
                    first = time.perf_counter() - start
                    each = hand_out(500) / 500
        print(f"| {backend} | {first:.1f} | {1000 * each:.1f} |", flush=True)


def _nothing(task: int, store: object, *, wait: bool) -> str:
    return ""


def estimate() -> None:
    """The estimate of a dry run against what the run then takes, in a store that has seen one small run."""
    print("\n| after one small run | estimated, s | took, s | ratio |")
    print("| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        run(folder, "--methods", "pgu,scrub", "--seeds", "2")
        for what, words, sets in (
            (
                "four times the shadow models",
                (),
                {"shadow__train": 32, "shadow__validation": 8, "shadow__unlearned": 40},
            ),
            ("other shadow models", ("--set", "shadow.first=100"), {}),
            ("half as many epochs", ("--set", "recipe.epochs=5"), {}),
            ("three other methods", ("--methods", "neg_grad,fine_tune,ssd"), {}),
            ("another scenario", ("--scenario", "sample_removal"), {}),
        ):
            told = dry(folder, "--methods", "pgu,scrub", "--seeds", "2", *words, **sets)
            wall, _ = run(folder, "--methods", "pgu,scrub", "--seeds", "2", *words, **sets)
            print(f"| {what} | {told:.0f} | {wall:.0f} | {told / wall:.2f} |", flush=True)


def dry(folder: Path, *words: str, **sets: float) -> float:
    """The seconds that `--dry-run` estimates."""
    return float(_benchmark(folder, "--dry-run", *words, **sets).splitlines()[-1].split()[1])


if __name__ == "__main__":
    main()
