"""Looks for a short schedule that reaches the test error of the paper's recipe in a tenth of its epochs.

    python benchmarks/fast_recipe.py --architecture allcnn --data-dir DIR --device cuda [--seeds 2] [--write]

Every candidate trains on all of CIFAR-10 by SGD with Nesterov's momentum, a cosine schedule with a fifth of warm-up,
crops and flips, in bfloat16. Among those whose validation error is within the paper's standard deviation of its
retrained models' test error the one with the lowest training error is chosen, since what a model has memorized is what
unlearning is about; if there is none, the nearest. Test errors are printed and choose nothing. `--write`
makes it the recipe ARCHITECTURE_fast.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench import machine, plan, registry, training, workers
from bench.interface import Dataset
from bench.readings import error_percent
from bench.recipe import Recipe


class Target(NamedTuple):
    """What the paper's recipe takes and reaches: epochs of the authors' code, test error of retrained models."""

    epochs: int
    error: float
    spread: float


TARGETS = {"allcnn": Target(100, 9.78, 0.19), "smallvgg": Target(200, 9.62, 0.52)}
RATES = (0.05, 0.1, 0.2, 0.4)
DECAYS = (1e-4, 5e-4)


class Tried(NamedTuple):
    """A candidate with its mean errors in percent and the seconds of one model."""

    recipe: Recipe
    training: float
    validation: float
    test: float
    seconds: float

    def cells(self) -> list[str]:
        """What the table says of it."""
        own = self.recipe
        errors = (f"{value:.2f}" for value in (self.training, self.validation, self.test))
        return [
            f"{own.epochs}",
            f"{own.batch_size}",
            f"{own.lr:g}",
            f"{own.weight_decay:g}",
            *errors,
            f"{self.seconds:.1f}",
        ]


def candidates(architecture: str, batch: int, epochs: int, compiled: bool) -> list[Recipe]:
    """The schedules to try."""
    return [
        Recipe(
            name=f"{architecture}_fast",
            lr=lr,
            epochs=epochs,
            batch_size=batch,
            weight_decay=decay,
            warmup=0.2,
            augment="crop_flip",
            precision="bfloat16",
            compile=compiled,
        )
        for lr, decay in itertools.product(RATES, DECAYS)
    ]


def attempt(recipe: Recipe, dataset: Dataset, architecture: str, device: str, seeds: int) -> Tried:
    """Train `seeds` models by a candidate."""
    everything = np.arange(len(dataset.train_y))
    tasks = [training.Task(everything, dataset.train_y, seed) for seed in range(1000, 1000 + seeds)]
    build = registry.function("architectures", architecture)
    trained = list(training.train(build, dataset, recipe, tasks, device))
    errors = [
        [
            float(error_percent(one.outputs.arrays()[part], dataset.labels(part)))
            for part in ("train", "validation", "test")
        ]
        for one in trained
    ]
    means = [statistics.mean(column) for column in zip(*errors, strict=True)]
    return Tried(recipe, *means, seconds=min(one.seconds for one in trained))


def choose(tried: list[Tried], target: Target) -> Tried:
    """See the module's docstring."""
    near = sorted(tried, key=lambda one: abs(one.validation - target.error))
    fitting = [one for one in near if abs(one.validation - target.error) <= target.spread] or near[:1]
    return min(fitting, key=lambda one: one.training)


def write(chosen: Tried, target: Target, device: str) -> None:
    """Keep the chosen schedule as a recipe."""
    own = chosen.recipe
    where = machine.hardware(device)
    words = [
        f"# {own.epochs} epochs for the {target.epochs} of {own.name.replace('fast', 'code')}: "
        f"{chosen.test:.2f} % test error here, {target.error} +- {target.spread} in the paper.",
        f"# Found by benchmarks/fast_recipe.py on validation data ({where.get('gpu', where['cpu'])}); training error "
        f"{chosen.training:.2f} %.",
    ]
    fields = own.model_dump(exclude={"end_lr"})
    lines = [
        f"{name} = {str(value).lower() if isinstance(value, bool) else repr(value)}" for name, value in fields.items()
    ]
    text = "\n".join([*words, *lines]).replace("'", '"') + "\n"
    (ROOT / "bench" / "recipes" / f"{own.name}.toml").write_text(text)


def main() -> None:
    """Print the table and the choice."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--architecture", choices=TARGETS, default="allcnn")
    parser.add_argument("--dataset", default="cifar10", help="cifar10+train=500 tries the script itself")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--epochs", type=int, help="default: a tenth of the authors'")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", type=int, help="so many candidates, to try the script itself")
    parser.add_argument("--write", action="store_true")
    chosen = parser.parse_args()
    if chosen.data_dir:
        os.environ["UNLEARNING_DATA"] = str(chosen.data_dir)
    workers.one_thread()
    dataset, name = plan.load_dataset(chosen.dataset), chosen.architecture
    heads = ["epochs", "batch", "lr", "weight decay", "training error", "validation error", "test error", "s a model"]
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    tried = []
    epochs = chosen.epochs or TARGETS[name].epochs // 10
    for recipe in candidates(name, chosen.batch, epochs, chosen.device != "cpu")[: chosen.only]:
        tried.append(attempt(recipe, dataset, name, chosen.device, chosen.seeds))
        print(f"| {' | '.join(tried[-1].cells())} |", flush=True)
    best = choose(tried, TARGETS[name])
    print(f"\nchosen: {' '.join(best.cells())}")
    if chosen.write:
        write(best, TARGETS[name], chosen.device)


if __name__ == "__main__":
    main()
