"""Measures the training engine against a plain in-memory loop and an ordinary DataLoader loop, in one run.

    python benchmarks/training_engine.py [--models 25] [--rounds 3] [--architecture digits_cnn]

All three train the same models by the same recipe on one thread; the rounds alternate, so that a machine whose speed
drifts treats all alike. Reported are CPU seconds per model and the ratios to the engine, as medians over the rounds.
Run it with nothing else on the machine.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import loop, registry, training
from bench.interface import Dataset
from bench.recipe import Recipe, load_recipe


class PerSample(TorchDataset):  # type: ignore[type-arg]
    """One image at a time, converted and normalized on the way, as public code for this task does it."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset.train_y)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        x = torch.from_numpy(self.dataset.train_x[i]).float() / self.dataset.pixel_max
        mean = torch.tensor(self.dataset.mean).view(-1, 1, 1) / self.dataset.pixel_max
        std = torch.tensor(self.dataset.std).view(-1, 1, 1) / self.dataset.pixel_max
        return (x - mean) / std, int(self.dataset.train_y[i])


def engine(build: training.Build, dataset: Dataset, recipe: Recipe, models: int) -> list[float]:
    """Test errors in percent of models trained by the engine."""
    tasks = [training.Task(np.arange(len(dataset.train_y)), dataset.train_y, seed) for seed in range(models)]
    trained = training.train(build, dataset, recipe, tasks)
    return [_error(result.outputs.test, dataset) for result in trained]


def in_memory(build: training.Build, dataset: Dataset, recipe: Recipe, models: int) -> list[float]:
    """The same with one model after the other: tensors in memory, shuffled indices, torch.optim.SGD."""
    images = training.Images(dataset, "train", "cpu")
    x, y = images.take(torch.arange(len(dataset.train_y))), torch.from_numpy(dataset.train_y)

    def batches(seed: int) -> Callable[[], list[tuple[torch.Tensor, torch.Tensor]]]:
        generator = torch.Generator().manual_seed(seed)
        return lambda: [(x[i], y[i]) for i in torch.randperm(len(y), generator=generator).split(recipe.batch_size)]

    return [_error(_ordinary(build, dataset, recipe, seed, batches(seed)), dataset) for seed in range(models)]


def data_loader(build: training.Build, dataset: Dataset, recipe: Recipe, models: int) -> list[float]:
    """The same with a DataLoader over single examples and a loss read back every step."""
    loader = DataLoader(PerSample(dataset), batch_size=recipe.batch_size, shuffle=True)
    return [
        _error(_ordinary(build, dataset, recipe, seed, lambda: loader, log=True), dataset) for seed in range(models)
    ]


def _ordinary(build, dataset, recipe, seed, batches, log=False) -> np.ndarray:  # type: ignore[no-untyped-def]
    model = training.new_model(build, dataset, seed).train()
    update = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=recipe.momentum, nesterov=recipe.nesterov, weight_decay=recipe.weight_decay
    )
    steps = -(-len(dataset.train_y) // recipe.batch_size)
    rates = iter([*loop.learning_rates(recipe, steps), 0.0])
    losses = []
    for _ in range(recipe.epochs):
        for x, y in batches():
            for group in update.param_groups:
                group["lr"] = next(rates)
            update.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            update.step()
            if log:
                losses.append(loss.item())
    return training.evaluate(model, dataset).test


def _error(logits: np.ndarray, dataset: Dataset) -> float:
    return 100 * float((logits.argmax(1) != dataset.test_y).mean())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--models", type=int, default=25, help="models the engine trains at once")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--architecture", default="digits_cnn")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    training.keep_memory()
    dataset, build = registry.load("datasets", "digits")(), registry.load("architectures", chosen.architecture)
    recipe = load_recipe("digits")
    ways = {
        "engine, stacked": (engine, chosen.models),
        "in-memory loop": (in_memory, 3),
        "DataLoader loop": (data_loader, 2),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    errors: dict[str, float] = {}
    for way, models in ways.values():  # warm up: imports, kernels
        way(build, dataset, recipe.model_copy(update={"epochs": 1}), min(models, 2))
    for _ in range(chosen.rounds):
        for name, (way, models) in ways.items():
            start = time.process_time()
            errors[name] = statistics.mean(way(build, dataset, recipe, models))
            seconds[name].append((time.process_time() - start) / models)
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, 1 thread, {recipe.line()}")
    print(f"{len(dataset.train_y)} images, {chosen.models} models a stack, median of {chosen.rounds} rounds\n")
    print("| loop | CPU s per model | us per image | ratio to the engine | test error % |")
    print("| --- | --- | --- | --- | --- |")
    for name, times in seconds.items():
        ratio = statistics.median(t / e for t, e in zip(times, seconds["engine, stacked"], strict=True))
        image = 1e6 * statistics.median(times) / len(dataset.train_y) / recipe.epochs
        print(f"| {name} | {statistics.median(times):.3f} | {image:.1f} | {ratio:.1f} | {errors[name]:.2f} |")


if __name__ == "__main__":
    main()
