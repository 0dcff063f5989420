"""Trains many models: narrow nets as one stacked net, wide ones one after the other, behind one call.

Each model has its own generators for initialization and order, and a stack has at least two models, so that on one
machine a model comes out the same, bit for bit, in whatever company it was trained (one thread per process).
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bench import loop, seeds
from bench.dataview import Images, MeteredPart
from bench.interface import Dataset, Outputs
from bench.recipe import Recipe
from bench.stack import Stack

Build = Callable[[int, int, int], nn.Module]

GROUP = 25  # models a stack; more gains nothing and balances worse over workers
STACK_WIDTH = 64  # the widest layer, in channels, for which stacking was faster than a loop on a CPU
SMALL = 16  # pixels a side under which channels-last gains nothing, and up to which stacks fit a CPU's caches


@dataclass(frozen=True)
class Task:
    """One model to train: rows of the training set, the labels that all training rows carry, and a seed."""

    index: np.ndarray
    labels: np.ndarray
    seed: int


@dataclass(frozen=True)
class Trained:
    """A trained model: its weights and buffers by name, its raw logits on all data, and what it took in seconds."""

    weights: dict[str, Tensor]
    outputs: Outputs
    seconds: float


def keep_memory() -> None:
    """Stop glibc from returning every freed block to the kernel: page faults cost a third of a small step."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD
    except (OSError, AttributeError):
        pass  # another C library: only slower


def new_model(build: Build, dataset: Dataset, seed: int, device: str = "cpu") -> nn.Module:
    """A freshly initialized network for this data set; the seed alone decides its weights."""
    return maker(build, dataset, device)(seed)


def group_size(build: Build, dataset: Dataset, recipe: Recipe, device: str) -> int:
    """How many models to hand to `train` at once: a full stack, or one where stacking does not pay.

    On another device than the CPU one process trains model after model, and the data is sent there once a group.
    """
    return GROUP if device != "cpu" or _stackable(build, dataset, recipe) else 1


def _stackable(build: Build, dataset: Dataset, recipe: Recipe) -> bool:
    plain = recipe.augment == "none" and recipe.precision == "float32" and dataset.train_x.shape[2] <= SMALL
    return plain and _widest(new_model(build, dataset, 0)) <= STACK_WIDTH


def train(
    build: Build, dataset: Dataset, recipe: Recipe, tasks: Sequence[Task], device: str = "cpu"
) -> Iterator[Trained]:
    """Train one model a task and run each on all data; the engine depends on the architecture and device only.

    All tasks must train on equally many samples. What is finished is given out before the next model is begun.
    """
    stackable = device == "cpu" and _stackable(build, dataset, recipe)
    stacked = _stack([new_model(build, dataset, task.seed) for task in tasks], dataset) if stackable else None
    if stacked is not None:
        yield from _train_stacked(stacked, dataset, recipe, tasks)
        return
    images = {part: Images(dataset, part, device) for part in _parts(dataset)}
    for task in tasks:
        yield _train_alone(new_model(build, dataset, task.seed, device), dataset, images, recipe, task, device)


def order_generator(seed: int) -> torch.Generator:
    """The generator of the order of examples (and of augmentation) of the model with this seed."""
    return torch.Generator().manual_seed(seeds.derive(seed, "order"))


def maker(build: Build, dataset: Dataset, device: str) -> Callable[[int], nn.Module]:
    """`new_model` as a function of the seed that holds nothing of the data."""
    _, channels, size, _ = dataset.train_x.shape
    classes = dataset.classes

    def make(seed: int) -> nn.Module:
        with loop.seeded(seed, device):
            model = build(channels, size, classes).to(device)
        return model if size < SMALL else channels_last(model, torch.zeros(2, channels, size, size, device=device))

    return make


@torch.no_grad()
def channels_last(model: nn.Module, x: Tensor) -> nn.Module:
    """The model, turning its inputs channels-last, unless its forward function cannot work with that.

    Its weights stay as they are: whoever flattens them with `view` need not know.
    """
    hook = model.register_forward_pre_hook(_turn)
    was_training = model.training
    try:
        model.eval()(x)
    except RuntimeError:  # a `view` of activations
        hook.remove()
    return model.train(was_training)


def _turn(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    try:
        return (inputs[0].contiguous(memory_format=torch.channels_last), *inputs[1:])
    except RuntimeError:  # inside vmap; the order in memory changes no number
        return inputs


def evaluate(model: nn.Module, dataset: Dataset, device: str = "cpu", size: int = 512) -> Outputs:
    """Raw float32 logits of a model on all data, in evaluation mode; the model's mode is put back.

    A part of which the data set holds nothing, as test data where methods are tuned, gives no rows.
    """
    return _evaluated(model, dataset, {part: Images(dataset, part, device) for part in _parts(dataset)}, size)


@torch.no_grad()
def _evaluated(model: nn.Module, dataset: Dataset, images: Mapping[str, Images], size: int = 512) -> Outputs:
    was_training = model.training
    model.eval()
    logits = {}
    with _tensor_cores():
        for part, held in images.items():
            batches = held.pixels.split(size)
            logits[part] = torch.cat([model(held.normalized(pixels)).float() for pixels in batches]).cpu().numpy()
    model.train(was_training)
    return _outputs(dataset, logits)


@contextlib.contextmanager
def _tensor_cores() -> Iterator[None]:
    """Inside, an NVIDIA GPU rounds the factors of convolutions to 11 bits (TF32), which is torch's own default.

    Evaluation would otherwise take a third of the time of a fast training. docs/speed.md has what it does to logits.
    """
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _parts(dataset: Dataset) -> list[str]:
    return [part for part in ("train", "validation", "test") if len(dataset.labels(part))]


def _outputs(dataset: Dataset, logits: dict[str, np.ndarray]) -> Outputs:
    nothing = dict.fromkeys(("train", "validation", "test"), np.empty((0, dataset.classes), dtype=np.float32))
    return Outputs(**nothing | logits)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """A detached copy of a model's weights and buffers on the CPU."""
    return {name: value.detach().cpu().clone().contiguous() for name, value in model.state_dict().items()}


def _train_alone(
    model: nn.Module, dataset: Dataset, images: Mapping[str, Images], recipe: Recipe, task: Task, device: str
) -> Trained:
    start = time.perf_counter()
    index = torch.from_numpy(task.index).to(device)
    labels = torch.from_numpy(task.labels[task.index]).to(device)
    part = MeteredPart(images["train"], index, labels, augment=recipe.augment != "none")
    with loop.seeded(seeds.derive(task.seed, "dropout"), device):
        loop.fit(model.train(), part, recipe, order_generator(task.seed))
    outputs = _evaluated(model, dataset, images)  # what it copies to the CPU has waited for the device
    return Trained(weights_of(model), outputs, time.perf_counter() - start)


def _stack(models: Sequence[nn.Module], dataset: Dataset) -> Stack | None:
    """The models as one net; a single one beside a copy of itself, since a group of one would use other kernels."""
    padded = models if len(models) > 1 else [models[0], copy.deepcopy(models[0])]
    return Stack.build(padded, dataset.train_x.shape[1:])


def _train_stacked(stack: Stack, dataset: Dataset, recipe: Recipe, tasks: Sequence[Task]) -> Iterator[Trained]:
    start = time.perf_counter()
    _fit_stacked(stack, dataset, recipe, [*tasks, *tasks][: len(stack.models)])
    outputs = {part: stack.logits(Images(dataset, part, "cpu")) for part in _parts(dataset)}
    seconds = (time.perf_counter() - start) / len(tasks)
    for i in range(len(tasks)):
        rows = {part: logits[i] for part, logits in outputs.items()}
        yield Trained(stack.weights(i), _outputs(dataset, rows), seconds)


def _fit_stacked(stack: Stack, dataset: Dataset, recipe: Recipe, tasks: Sequence[Task]) -> None:
    images = Images(dataset, "train", "cpu")
    pixels = images.take(torch.arange(len(images.pixels)))
    rows = torch.from_numpy(np.stack([task.index for task in tasks], axis=1))  # [n, models]
    labels = torch.from_numpy(np.stack([task.labels for task in tasks], axis=1))
    generators = [order_generator(task.seed) for task in tasks]
    n, columns = len(rows), torch.arange(len(tasks))
    bounds = loop.batch_bounds(n, recipe.batch_size)
    rates = iter(loop.learning_rates(recipe, len(bounds)))
    stack.net.train()
    update = loop.optimizer(stack.net.parameters(), recipe)
    for _ in range(recipe.epochs):
        order = torch.stack([torch.randperm(n, generator=g) for g in generators], dim=1)
        chosen = rows.gather(0, order)
        for start, stop in bounds:
            index = chosen[start:stop]
            stack.loss(pixels[index], labels[index, columns]).backward()  # type: ignore[no-untyped-call]
            update.step(next(rates))


def _widest(model: nn.Module) -> int:
    return max((max(m.weight.shape[:2]) for m in model.modules() if isinstance(m, nn.Conv2d)), default=0)
