"""Measures the two forms of NTK scrubbing on growing retained sets: memory, CPU time, and how near retrained they end.

    python benchmarks/ntk_scaling.py [--data-dir DIR] [--seeds 3] [--jobs 2]

Digits, and where DIR holds CIFAR-10 (see bench/datasets/cifar10.py), a convolutional net on its first 2,000 images.
Defaults of the method unless a row says otherwise. Every row is over the same originals; the first of them runs under
the memory meter and is not timed. docs/ntk.md reads the tables. Five minutes on two cores, one thread a process.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import functools
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from bench import ledger, registry, scenarios, training, unlearning
from bench.interface import Dataset, Outputs, Request, UsageError
from bench.recipe import Recipe, load_recipe
from methods.ntk import NTK
from reports.numbers import memory

HEADS = (
    "form", "retained used", "CPU s", "peak memory", "weights moved, %", "forget error, %", "retained error, %",
    "test error, %", "KL", "status",
)  # fmt: skip


class Study(NamedTuple):
    """One data set with a net and a request, trained models, and the rows of its table."""

    title: str
    dataset: Dataset
    build: training.Build
    recipe: Recipe
    request: Request
    originals: list[training.Trained]
    retrained: list[training.Trained]


class Row(NamedTuple):
    """What a row of a table is: its name, how many retained examples are used, and the method's settings."""

    name: str
    n: int
    settings: dict[str, Any]


class Run(NamedTuple):
    """One model on the request: errors and motion in percent, KL in nats, CPU seconds, bytes."""

    forget: float
    retained: float
    test: float
    divergence: float
    moved: float = 0.0
    seconds: float = float("nan")
    peak: float = float("nan")
    status: str = ""


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", default="", help="folder that holds CIFAR-10")
    parser.add_argument("--seeds", type=int, default=3, help="originals per row, at least 2")
    parser.add_argument("--retrained", type=int, default=6, help="retrained models to compare with, at least 2")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    args = parser.parse_args()
    start = time.perf_counter()
    print(f"{processor()}, Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}")
    jobs = [("", row) for row in digits_rows()] + ([(args.data_dir, row) for row in cifar_rows()] * bool(args.data_dir))
    work = functools.partial(scrubbed, seeds=args.seeds, retrained=args.retrained)
    with concurrent.futures.ProcessPoolExecutor(args.jobs) as processes:
        found = list(processes.map(work, *zip(*reversed(jobs), strict=True)))[::-1]  # the long ones first
        anchors = list(
            processes.map(functools.partial(known, seeds=args.seeds, retrained=args.retrained), places(args))
        )
    for place, (title, rows) in zip(places(args), anchors, strict=True):
        rows += [cells(job[1], runs) for job, runs in zip(jobs, found, strict=True) if job[0] == place]
        print(f"\n### {title}\n")
        print("\n".join("| " + " | ".join(line) + " |" for line in [HEADS, ["---"] * len(HEADS), *rows]))
    print(f"\n{time.perf_counter() - start:.0f} s on {args.jobs} processes")


def places(args: argparse.Namespace) -> list[str]:
    """Where the data of each table is; the digits need no folder."""
    return ["", args.data_dir] if args.data_dir else [""]


def digits_rows() -> list[Row]:
    """All retained data, samples of it, and the authors' form."""
    identity = {"curvature": "identity", "iterations": 1000}
    return [
        Row("matrix_free", 540, {}),
        Row("matrix_free, damping 10", 540, {"damping": (10.0,)}),
        Row("matrix_free, identity, 1,000 iterations", 540, identity),
        *samples((100, 200, 400), (100, 200, 400, 540)),
    ]


def cifar_rows() -> list[Row]:
    """The same; 58 of 1,900 is the share that the PGU paper's 1,500 of 49,500 is."""
    return [
        Row("matrix_free", 1900, {}),
        Row("matrix_free, 100 iterations", 1900, {"iterations": 100}),
        *samples((58, 250, 500), (58, 250, 500)),
    ]


def samples(free: Sequence[int], dense: Sequence[int]) -> list[Row]:
    """Both forms on samples of the retained data."""
    rows = [Row("matrix_free, of a sample", n, {}) for n in free]
    return rows + [Row("dense", n, {"form": "dense", "samples": n}) for n in dense]


@functools.cache
def study(folder: str, seeds: int, retrained: int) -> Study:
    """The digits, or CIFAR-10 in `folder`, with its models; made once a process."""
    torch.set_num_threads(1)
    training.keep_memory()
    title, dataset, draw, recipe = cifar(folder) if folder else digits()
    (request,) = draw.requests(dataset.train_y, dataset.classes, 0)
    build = registry.load("architectures", "digits_cnn")

    def train(index: np.ndarray, numbers: Sequence[int]) -> list[training.Trained]:
        return list(training.train(build, dataset, recipe, [training.Task(index, dataset.train_y, s) for s in numbers]))

    originals = train(np.arange(len(dataset.train_y)), range(1, 1 + seeds))
    return Study(title, dataset, build, recipe, request, originals, train(request.retain, range(101, 101 + retrained)))


def digits() -> tuple[str, Dataset, scenarios.SampleRemoval, Recipe]:
    """The digits of the quick start; 60 of 600 images go, a development draw."""
    draw = scenarios.SampleRemoval(count=60, draw_seed=101)
    return "Digits, 600 images", registry.load("datasets", "digits")(), draw, load_recipe("digits")


def cifar(folder: str) -> tuple[str, Dataset, scenarios.SampleRemoval, Recipe]:
    """The first 2,000 images of CIFAR-10, of which 100 airplanes go; the digits' net and recipe, for 15 epochs."""
    os.environ["UNLEARNING_DATA"] = folder
    try:
        whole: Dataset = registry.load("datasets", "cifar10")()
    except UsageError as error:
        sys.exit(f"error: {error}")
    dataset = dataclasses.replace(
        whole, train_x=whole.train_x[:2000], train_y=whole.train_y[:2000],
        validation_x=whole.validation_x[:10], validation_y=whole.validation_y[:10],
    )  # fmt: skip
    draw = scenarios.SampleRemoval(count=100, draw="class_first", target_class=0)
    return "CIFAR-10, 2,000 images", dataset, draw, load_recipe("digits", {"epochs": 15})


def known(folder: str, seeds: int, retrained: int) -> tuple[str, list[list[str]]]:
    """The title of a table, and its rows of retrained models (each against the others) and of originals."""
    made = study(folder, seeds, retrained)
    answers = references(made)
    floor = [judged(made, model.outputs, np.delete(answers, at, 0)) for at, model in enumerate(made.retrained)]
    originals = [judged(made, model.outputs, answers) for model in made.originals]
    gone, stay = len(made.request.forget), len(made.request.retain)
    parameters = sum(value.numel() for value in training.new_model(made.build, made.dataset, 0).parameters())
    title = f"{made.title}: {gone} forgotten, {stay:,} retained; {parameters:,} parameters; "
    title += f"{seeds} originals, {retrained} retrained models"
    return title, [cells(Row("retrained", stay, {}), floor), cells(Row("original", gone + stay, {}), originals)]


def scrubbed(folder: str, row: Row, seeds: int, retrained: int) -> list[Run]:
    """A row's method on every original; the first run is metered, not timed."""
    made = study(folder, seeds, retrained)
    data, request, method, runs = made.dataset, made.request, NTK(**row.settings), []
    make = training.maker(made.build, data, "cpu")
    setting = unlearning.Setting.of(data, data.train_y, made.recipe, "sample_removal", "cpu", make)
    if method.form == "matrix_free":  # the dense form draws its own sample
        chosen = np.random.default_rng(0).permutation(request.retain)[: row.n]
        request = dataclasses.replace(request, retain=np.sort(chosen))
    for seed, original in enumerate(made.originals, start=1):
        model = setting.build(0)
        model.load_state_dict(original.weights)
        meter, start = ledger.PeakMemory() if seed == 1 else None, time.process_time()
        done = unlearning.unlearn(
            setting, "ntk", method, model, request, state={}, seed=seed, original_seed=seed, meter=meter
        )
        cost = {"peak": float(meter.peak)} if meter else {"seconds": time.process_time() - start}
        run = judged(made, training.evaluate(done.model, data), references(made))
        runs.append(run._replace(moved=100 * done.notes["relative_change"], status=done.status, **cost))
    return runs


def references(made: Study) -> np.ndarray:
    """Answers of the retrained models on the forget set, `[models, n, classes]`."""
    return np.stack([softmax(model.outputs.train[made.request.forget]) for model in made.retrained])


def judged(made: Study, outputs: Outputs, answers: np.ndarray) -> Run:
    """Errors of a model, and KL(mean retrained answer || its answer), mean over the forget set."""
    data, request, mean = made.dataset, made.request, answers.mean(0)
    wrong = 100.0 * (outputs.train.argmax(1) != data.train_y)
    divergence = float((mean * np.log(mean / softmax(outputs.train[request.forget]))).sum(1).mean())
    test = 100 * float(np.mean(outputs.test.argmax(1) != data.test_y))
    return Run(float(wrong[request.forget].mean()), float(wrong[request.retain].mean()), test, divergence)


def softmax(logits: np.ndarray) -> np.ndarray:
    """float64 `[n, classes]`, never exactly 0."""
    p: np.ndarray = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return np.maximum(p / p.sum(1, keepdims=True), 1e-300)


def cells(row: Row, runs: Sequence[Run]) -> list[str]:
    """A row as text: means, and standard deviations over the models where errors are shown."""

    def spread(of: Callable[[Run], float], digits: int = 1) -> str:
        values = [of(run) for run in runs]
        return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"

    seconds = [run.seconds for run in runs if run.seconds == run.seconds]
    words = sorted({run.status for run in runs} - {""})
    return [
        row.name,
        f"{row.n:,}",
        f"{np.mean(seconds):.1f}" if seconds else "",
        memory(runs[0].peak) if seconds else "",
        spread(lambda run: run.moved) if seconds else "",
        spread(lambda run: run.forget),
        spread(lambda run: run.retained),
        spread(lambda run: run.test),
        spread(lambda run: run.divergence, 2),
        ", ".join(f"{word} ({sum(run.status == word for run in runs)})" for word in words),
    ]


def processor() -> str:
    """The processor's name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
