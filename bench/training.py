"""Trains many models: narrow nets as one stacked net, wide ones one after the other, behind one call.

Stacking N models puts them side by side: convolutions become one grouped channels-last convolution, BatchNorm
works on N x C channels, linear layers become one batched product. The sum of the N mean losses gives every model
the gradient it would have alone. Each model has its own generators for initialization and order, and a stack has
at least two models, so that on one machine a model comes out the same, bit for bit, in whatever company it was
trained (one thread per process).
"""

from __future__ import annotations

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

Build = Callable[[int, int, int], nn.Module]

GROUP = 25  # models a stack; more gains nothing and balances worse over workers
STACK_WIDTH = 64  # the widest layer, in channels, for which stacking was faster than a loop on a CPU
SMALL = 16  # pixels a side under which channels-last gains nothing, and up to which stacks fit a CPU's caches
CACHE_LINE = 16  # float32 numbers
PLAIN_LEAVES = (nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Identity)


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
        return model if size < SMALL else model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    return make


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
    for part, held in images.items():
        batches = held.pixels.split(size)
        logits[part] = torch.cat([model(held.normalized(pixels)).float() for pixels in batches]).cpu().numpy()
    model.train(was_training)
    return _outputs(dataset, logits)


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


class _Linear(nn.Module):
    """N linear layers side by side: `[b, N * in]` to `[b, N * out]`."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))
        biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
        self.bias = nn.Parameter(torch.stack(biases)) if biases else None

    def forward(self, x: Tensor) -> Tensor:
        models, outputs, inputs = self.weight.shape
        x = x.reshape(-1, models, inputs).transpose(0, 1)
        weight: Tensor = self.weight
        if self.bias is not None:
            # The bias as one more input: summing its gradient in a reduction of its own would round by N.
            x = torch.cat([x, x.new_ones(models, x.shape[1], 1)], dim=2)
            weight = torch.cat([weight, self.bias[:, :, None]], dim=2)
        # A product rounds by where its matrices begin in memory: zeros bring those of every model to a cache line.
        beside = -x.shape[2] % CACHE_LINE
        x = nn.functional.pad(x, (0, beside))
        weight = nn.functional.pad(weight, (0, beside, 0, -outputs % CACHE_LINE))
        y = torch.bmm(x, weight.transpose(1, 2))[:, :, :outputs]
        return y.transpose(0, 1).flatten(1)


class Stack:
    """N models of one architecture as one net with N times the channels."""

    def __init__(self, net: nn.Module, models: Sequence[nn.Module]) -> None:
        self.net, self.models = net, models

    @classmethod
    def build(cls, models: Sequence[nn.Module], shape: Sequence[int]) -> Stack | None:
        """Stack the models, or return None where the architecture does not allow it.

        Layers of a known kind are widened; whatever the forward function does besides is tried out: the stacked
        net must reproduce every single model, in training mode too (which unmasks dropout and the like).
        """
        net = copy.deepcopy(models[0])
        for name, leaf in list(net.named_modules()):
            if any(True for _ in leaf.children()):
                if any(True for _ in leaf.parameters(recurse=False)):
                    return None
                continue
            wide = _widen([model.get_submodule(name) for model in models])
            if wide is None:
                return None
            if name == "":
                net = wide
            else:
                parent, _, last = name.rpartition(".")
                setattr(net.get_submodule(parent), last, wide)
        stack = cls(net, models)
        return stack if stack._reproduces(shape) else None

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Sum over the models of each one's mean cross-entropy; `x` `[b, N, c, h, w]`, `y` `[b, N]`."""
        logits = self._forward(x)
        return nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum") / len(y)

    @torch.no_grad()
    def logits(self, images: Images, size: int = 256) -> list[np.ndarray]:
        """Raw logits of every model on the same images, in evaluation mode: N arrays `[n, classes]`."""
        self.net.eval()
        batches = torch.arange(len(images.pixels)).split(size)
        wide = [images.take(rows)[:, None].expand(-1, len(self.models), -1, -1, -1) for rows in batches]
        return list(torch.cat([self._forward(x) for x in wide]).transpose(0, 1).contiguous().numpy())

    def weights(self, i: int) -> dict[str, Tensor]:
        """Weights and buffers of model `i`, named and shaped as in the single net."""
        single = self.models[i].state_dict()
        count = len(self.models)
        wide = self.net.state_dict()
        return {
            name: (wide[name] if not value.dim() else wide[name].reshape(count, *value.shape)[i]).clone().contiguous()
            for name, value in single.items()
        }

    def _forward(self, x: Tensor) -> Tensor:
        """Logits `[b, N, classes]` of inputs `[b, N, c, h, w]`."""
        wide = x.flatten(1, 2).contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.net(wide)
        return logits.reshape(len(x), len(self.models), -1)

    @torch.no_grad()
    def _reproduces(self, shape: Sequence[int]) -> bool:
        x = torch.randn(8, len(self.models), *shape, generator=torch.Generator().manual_seed(0))
        net, pairs = self.net, [copy.deepcopy(model) for model in self.models[:3]]
        for training in (False, True):
            self.net = copy.deepcopy(net).train(training)
            try:
                ours = self._forward(x)[:, : len(pairs)]
                theirs = torch.stack([model.train(training)(x[:, i]) for i, model in enumerate(pairs)], dim=1)
                same = ours.shape == theirs.shape and bool(torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4))
            except RuntimeError:  # a hard-coded shape somewhere in the forward function
                same = False
            finally:
                self.net = net
            if not same:
                return False
        return True


def _widen(layers: Sequence[nn.Module]) -> nn.Module | None:
    """One layer that does the work of all; None for a kind that cannot be stacked."""
    first, count = layers[0], len(layers)
    if type(first) is nn.Conv2d and first.padding_mode == "zeros":
        shape = (count * first.in_channels, count * first.out_channels, first.kernel_size)
        rest = (first.stride, first.padding, first.dilation, count * first.groups, first.bias is not None)
        wide: nn.Module = nn.Conv2d(*shape, *rest)  # type: ignore[arg-type]
    elif type(first) in (nn.BatchNorm2d, nn.BatchNorm1d):
        assert isinstance(first, nn.BatchNorm2d | nn.BatchNorm1d)
        wide = type(first)(
            count * first.num_features, first.eps, first.momentum, first.affine, first.track_running_stats
        )
    elif type(first) is nn.Linear:
        return _Linear([layer for layer in layers if isinstance(layer, nn.Linear)])
    elif type(first) in PLAIN_LEAVES or (type(first) is nn.Dropout and not first.p):
        return copy.deepcopy(first)
    else:
        return None
    states = [layer.state_dict() for layer in layers]
    joined = {name: torch.cat([s[name] for s in states]) if v.dim() else v for name, v in states[0].items()}
    wide.load_state_dict(joined)
    return wide
