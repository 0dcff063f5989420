"""Measures what docs/digits.md says about the split, the recipe and the scenarios of the digits preset.

    python benchmarks/recipe_study.py [--table size] [--jobs 2]

All forget sets are development draws and all models come from development streams. Test data is not read. Unlike the
tuning of methods, this looks at retrained models: it asks whether there is anything to see, not which method is best.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from bench import registry, scenarios, seeds, statistics, training, unlearning
from bench.attack import Known, Seen
from bench.datasets import digits
from bench.interface import Dataset, Request
from bench.pool import one_thread
from bench.recipe import Recipe, load_recipe

SHADOW, CHOOSING, REPORTED = 40, 5, 5  # pairs that the attack learns from, chooses on, and is measured on
MODELS = SHADOW + CHOOSING + REPORTED
DRAWS = (101, 102)
Models = list[training.Trained]


def main() -> None:
    """Print the tables that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", choices=TABLES, help="only this table")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    args = parser.parse_args()
    import joblib

    start = time.perf_counter()
    for name in [args.table] if args.table else TABLES:
        row, heads, cases = TABLES[name]
        rows = joblib.Parallel(args.jobs, backend="multiprocessing", batch_size=1)(
            joblib.delayed(alone)(row, values) for values in cases
        )
        print(f"### {name}\n\n| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
        for values, numbers in zip(cases, rows, strict=True):
            print(f"| {' | '.join([*map(str, values), *(f'{number:.2f}' for number in numbers)])} |")
        print()
    print(f"{time.perf_counter() - start:.0f} s on {args.jobs} processes")


def alone(row: Callable[..., list[float]], values: tuple[int, ...]) -> list[float]:
    """One row of a table, mean over the draws, in a process with one thread."""
    one_thread()
    numbers: list[float] = np.mean([row(*values, draw=draw) for draw in DRAWS], axis=0).tolist()
    return numbers


def size_row(size: int, epochs: int, *, draw: int) -> list[float]:
    """Training-set size and epochs; a tenth of the training set is forgotten."""
    data = dataset(size)
    recipe = load_recipe("digits", {"epochs": epochs})
    request = sample_request(data, draw)
    start = time.process_time()
    members, others = pool(data, recipe, "original"), pool(data, recipe, "retrained", request.retain)
    seconds = (time.process_time() - start) / (2 * MODELS)
    everything = np.arange(len(data.train_y))
    return [
        mean_error(members, data, "train", everything),
        mean_error(members, data, "validation"),
        mean_error(others, data, "train", request.forget),
        attack_auc(data, request, members, others, forget_logits(members, request)),
        100 * seconds,
    ]


def eu_k_row(k: int, *, draw: int) -> list[float]:
    """EU-k on the preset's split and recipe, beside what the same attack says of originals."""
    data, recipe = dataset(600), load_recipe("digits")
    request = sample_request(data, draw)
    members, others = pool(data, recipe, "original"), pool(data, recipe, "retrained", request.retain)
    setting = unlearning.Setting.of(
        data, data.train_y, recipe, "sample_removal", "cpu", lambda seed: training.new_model(build(), data, seed)
    )
    method = registry.load("methods", "eu_k")(k=k)
    cut = []
    for original, seed in list(zip(members, model_seeds("original"), strict=True))[-REPORTED:]:
        model = setting.build(0)
        model.load_state_dict(original.weights)
        done = unlearning.unlearn(
            setting, "eu_k", method, model, request, state={}, seed=seeds.derive(seed, "eu_k"), original_seed=seed
        )
        cut.append(training.Trained({}, training.evaluate(done.model, data)))
    found = forget_logits(cut, request)
    return [
        mean_error(cut, data, "train", request.forget),
        mean_error(others, data, "train", request.forget),
        mean_error(cut, data, "validation"),
        attack_auc(data, request, members, others, found),
        attack_auc(data, request, members, others, forget_logits(members, request)),
    ]


def flips_row(flips: int, *, draw: int) -> list[float]:
    """Depoisoning with so many wrong labels a class."""
    data, recipe = dataset(600), load_recipe("digits")
    request = scenarios.Depoisoning(flips=flips, draw_seed=draw).requests(data.train_y, data.classes, 0)[0]
    labels = scenarios.training_labels([request], data.train_y)
    poisoned = pool(data, recipe, "original", labels=labels)
    clean = pool(data, recipe, "retrained", request.retain)
    return [
        mean_error(poisoned, data, "train", request.forget, labels),
        mean_error(poisoned, data, "train", request.forget),
        mean_error(poisoned, data, "validation"),
        mean_error(clean, data, "train", request.forget),
        mean_error(clean, data, "validation"),
    ]


def incremental_row(per_class: int, *, draw: int) -> list[float]:
    """Incremental removal of so many samples a class and request: the models retrained after the last request."""
    data, recipe = dataset(600), load_recipe("digits")
    request = scenarios.Incremental(per_class=per_class, draw_seed=draw).requests(data.train_y, data.classes, 0)[-1]
    others = pool(data, recipe, "retrained", request.retain)
    return [mean_error(others, data, "train", request.forgotten), mean_error(others, data, "validation")]


def dataset(size: int) -> Dataset:
    """The digits with so many training images, the next 400 for validation; 600 is the split of the benchmark."""
    digits.TRAIN = size // 10
    return digits.load()


def sample_request(data: Dataset, draw: int) -> Request:
    """A tenth of the training set, drawn at random."""
    return scenarios.SampleRemoval(count=len(data.train_y) // 10, draw_seed=draw).requests(
        data.train_y, data.classes, 0
    )[0]


def build() -> Any:
    """The architecture's constructor."""
    return registry.load("architectures", "digits_cnn")


def model_seeds(role: str) -> list[int]:
    """Seeds of development models."""
    return [seeds.derive(0, role, f"development{j}") for j in range(MODELS)]


def pool(
    data: Dataset, recipe: Recipe, role: str, index: np.ndarray | None = None, labels: np.ndarray | None = None
) -> Models:
    """Originals, or models retrained on the rows `index`."""
    rows = np.arange(len(data.train_y)) if index is None else index
    truth = data.train_y if labels is None else labels
    return list(training.train(build(), data, recipe, [training.Task(rows, truth, seed) for seed in model_seeds(role)]))


def mean_error(
    models: Models, data: Dataset, part: str, rows: np.ndarray | None = None, labels: np.ndarray | None = None
) -> float:
    """Mean error in percent on rows of a part, by its labels or by others."""
    truth = data.labels(part) if labels is None else labels
    chosen = np.arange(len(truth)) if rows is None else rows
    wrong = [model.outputs.arrays()[part][chosen].argmax(1) != truth[chosen] for model in models]
    return 100 * float(np.mean(wrong))


def forget_logits(models: Models, request: Request) -> np.ndarray:
    """Logits `[models, n_forget, classes]` on the forget set."""
    return np.stack([model.outputs.train[request.forget] for model in models])


def attack_auc(data: Dataset, request: Request, members: Models, others: Models, judged: np.ndarray) -> float:
    """AUC of the shadow attack on the last models of `judged` against as many retrained ones, mean over models."""
    labels, retrained = data.train_y[request.forget], forget_logits(others, request)
    known = forget_logits(members, request)[:-REPORTED]
    attack = registry.load("attacks", "shadow_xgboost")(n_threads=1, candidates=3)
    others, positives, negatives = (
        Seen.of(logits, labels) for logits in (retrained[:-REPORTED], judged[-REPORTED:], retrained[-REPORTED:])
    )
    fitted = attack.fit(Known(Seen.of(known, labels), others, CHOOSING), 0)
    positive = attack.score(fitted, positives, positives.forget)
    negative = attack.score(fitted, negatives, negatives.forget)
    return float(np.mean([statistics.auc(a, b) for a, b in zip(positive, negative, strict=True)]))


Cases = Iterable[tuple[int, ...]]
RETRAINED = ["retrained: forget error", "retrained: validation error"]
TABLES: dict[str, tuple[Callable[..., list[float]], list[str], list[tuple[int, ...]]]] = {
    "size": (
        size_row,
        ["images", "epochs", "training error", "validation error", RETRAINED[0], "attack AUC", "CPU s per 100 models"],
        [(size, epochs) for size in (300, 600, 1300) for epochs in (5, 10, 20)],
    ),
    "eu_k": (
        eu_k_row,
        ["k", "forget error", RETRAINED[0], "validation error", "attack AUC", "original's AUC"],
        [(1,), (2,), (3,)],
    ),
    "flips": (
        flips_row,
        ["flips per class", "wrong-label error", "right-label error", "validation error", *RETRAINED],
        [(6,), (12,), (18,)],
    ),
    "incremental": (incremental_row, ["per class", *RETRAINED], [(1,), (3,), (5,)]),
}

if __name__ == "__main__":
    main()
