"""Trains the pool: the models that the store lacks, in groups, on several processes."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import claims, layers, machine, registry, workers
from bench.config import Config
from bench.datasets import without_test
from bench.interface import Dataset, UsageError
from bench.plan import Model, Plan, load_dataset
from bench.progress import Progress
from bench.store import Store

if TYPE_CHECKING:
    from bench.training import Build

TRAINED = 12  # bytes that training takes for a weight: itself, its gradient and its momentum


def train_pool(
    plan: Plan, store: Store, jobs: int, progress: Progress, while_training: Callable[[], None] = lambda: None
) -> None:
    """Train the models of a plan that the store lacks; see `train_models`."""
    train_models(plan.config, plan.dataset, plan.models(), store, jobs, progress, while_training)


def train_models(
    config: Config,
    dataset: Dataset,
    models: Sequence[Model],
    store: Store,
    jobs: int,
    progress: Progress,
    while_training: Callable[[], None] = lambda: None,
) -> None:
    """Train the models that the store lacks, in groups, on `jobs` processes; `while_training` runs beside them."""
    todo = list({model.key: model for model in models if not store.has("model", model.key)}.values())
    if not todo:
        return
    groups, others = _groups(config, dataset, todo), progress.left - len(todo)

    def report() -> None:
        left = sum(not store.has("model", model.key) for model in todo)
        if finished := progress.left - left - others:
            progress.done(f"trained {len(todo) - left} of {len(todo)} models", finished)

    place = (config.dataset, len(dataset.test_y) > 0, config.architecture, config.recipe, config.device)
    tasks = [(place, group) for group in groups]
    with progress.stage("train", len(todo), workers.hands(jobs, config.device, len(tasks))):
        workers.share_out(_train_group, tasks, store, jobs, config.device, report, meanwhile=while_training)


def _groups(config: Config, dataset: Dataset, todo: Sequence[Model]) -> list[list[Model]]:
    """Models of equal training-set size together, so many that a stack is worth it and few enough to share out."""
    from bench import training

    build = network(config.architecture)
    most = training.group_size(build, dataset, config.recipe, config.device)
    by_size: dict[int, list[Model]] = {}
    for model in todo:
        by_size.setdefault(len(model.index), []).append(model)
    groups = []
    for models in by_size.values():
        parts = -(-len(models) // most)
        groups += [list(part) for part in np.array_split(np.array(models, dtype=object), parts)]
    return groups


def require_trainable(plan: Plan, store: Store) -> None:
    """Raise UsageError, before anything is written, where models must be trained and their network cannot be built."""
    if any(not store.has("model", model.key) for model in plan.models()):
        require_network(plan.config.architecture, plan.dataset, network(plan.config.architecture))


def require_network(name: str, dataset: Dataset, build: Build) -> None:
    """Raise UsageError, in one line, for a network that cannot be built or is not what it must be."""
    import torch

    from bench import training
    from bench.dataview import Images

    classes = dataset.classes
    listed = layers.published(name)
    try:
        _require_size(build, dataset)
        images = Images(dataset, "train", "cpu").take(torch.arange(2))
        model = training.new_model(build, dataset, 0).eval()
        logits = model(images)
        if tuple(logits.shape) != (2, classes):
            raise ValueError(f"two images give outputs of shape {list(logits.shape)}, not [2, {classes}]")
        layers.require_sound(model, listed, images)
    except (Exception, SystemExit) as error:  # a plug-in may return or raise anything
        fault = str(error).split("\n")[0]
        raise UsageError(f"the architecture {name} cannot be used: {type(error).__name__}: {fault}") from error


def _require_size(build: Build, dataset: Dataset) -> None:
    """Raise ValueError for a network with an empty layer, or of more weights than can be trained, before it is made."""
    import torch

    try:
        channels, side = dataset.train_x.shape[1:3]
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, on empty layers
            sizes = [one.numel() for one in build(channels, side, dataset.classes).parameters()]
    except (Exception, SystemExit):  # what cannot be laid out without memory says what is wrong when it is made
        return
    if 0 in sizes:
        raise ValueError("it has a layer without weights; make it wider")
    wanted, there = TRAINED * sum(sizes), machine.memory()
    if wanted > there:
        raise ValueError(
            f"training it takes {wanted / 1e9:.0f} GB, this machine has {there / 1e9:.0f}; make it narrower"
        )


def _train_group(
    task: tuple[tuple[str, bool, str, Any, str], Sequence[Model]], store: Store, *, wait: bool
) -> str | None:
    """Train what nobody else is training of a group, as `claims.carry_out`; runs in a worker process."""
    workers.begin()
    place, group = task

    def work(keys: list[str]) -> str:
        _train(place, store, [model for model in group if model.key in keys])
        return ""

    return claims.carry_out(store, "model", [model.key for model in group], work, wait=wait)


def _train(place: tuple[str, bool, str, Any, str], store: Store, group: Sequence[Model]) -> None:
    """Train models together and put every one into the store."""
    from bench import training

    dataset_name, test, architecture, recipe, device = place
    tasks = [training.Task(model.index, model.labels, model.seed) for model in group]
    trained = training.train(network(architecture), loaded(dataset_name, test=test), recipe, tasks, device)
    for model, result in zip(group, trained, strict=True):
        arrays = {f"weights/{name}": value.numpy() for name, value in result.weights.items()}
        arrays |= {f"logits/{part}": rows for part, rows in result.outputs.arrays().items()}
        store.put("model", model.key, arrays, {"role": model.role, "number": model.number, "seconds": result.seconds})


@functools.cache
def loaded(name: str, *, test: bool) -> Dataset:
    """The data set of this name, once a process; without its test data where that plays no part."""
    dataset = load_dataset(name)
    return dataset if test else without_test(dataset)


@functools.cache
def network(name: str) -> Build:
    """The function that builds the architecture of this name; `allcnn+width=0.5` is a narrower one."""
    build: Build = registry.function("architectures", name)
    return build
