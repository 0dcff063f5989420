"""The plain training loop of one model, with the optimizers and schedules that a recipe can name.

The optimizers are torch's, by their functional forms: constructing one of `torch.optim` imports torch's compiler
(1.1 s in every process), which a ten-second benchmark notices.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from bench.step import Loss, Steps
from bench.step import forward as forward  # methods take their own steps in the precision of the recipe

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.interface import Part
    from bench.recipe import Recipe


def _with_gradients(parameters: Sequence[Tensor], before: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The parameters that have a gradient, and their gradients; they must be the same ones at every step."""
    moving = [p for p in parameters if p.grad is not None]
    if before and [id(p) for p in moving] != [id(p) for p in before]:
        raise RuntimeError("other parameters have a gradient than at the step before; use one optimizer for each set")
    return moving, [p.grad for p in moving if p.grad is not None]


def _fused(parameters: Sequence[Tensor]) -> bool:
    """Whether torch takes the step in one kernel; on a CPU it does not make a difference, and rounds otherwise."""
    return bool(parameters) and parameters[0].is_cuda


class SGD:
    """Stochastic gradient descent with momentum, Nesterov's form and L2 weight decay, as `torch.optim.SGD`."""

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        self.parameters = list(parameters)
        self.momentum, self.weight_decay, self.nesterov = momentum, weight_decay, nesterov
        self.velocity: list[Tensor | None] = []
        self.moving: list[Tensor] = []

    def step(self, lr: float | Tensor) -> None:
        """Take one step with the gradients in `.grad`, then drop them. Parameters without one stay.

        On a GPU the learning rate may be a tensor there, which a captured step reads anew at every replay.
        """
        from torch.optim.sgd import sgd

        with torch.no_grad():  # not a decorator: torch stays unimported until it is used
            moving, gradients = _with_gradients(self.parameters, self.moving if self.momentum else ())
            if not (self.momentum and self.velocity):
                self.velocity = [None] * len(moving)
            self.moving = moving
            fused = _fused(moving)
            sgd(
                moving, gradients, self.velocity, foreach=not fused, fused=fused, momentum=self.momentum,
                lr=lr, dampening=0, nesterov=self.nesterov,  # type: ignore[arg-type]
                weight_decay=self.weight_decay, maximize=False,
            )  # fmt: skip
            for p in moving:
                p.grad = None


class Adam:
    """Adam with L2 (not decoupled) weight decay, as `torch.optim.Adam`."""

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        epsilon: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        self.parameters = list(parameters)
        self.betas, self.epsilon, self.weight_decay = betas, epsilon, weight_decay
        self.moving: list[Tensor] = []
        self.first: list[Tensor] = []
        self.second: list[Tensor] = []
        self.steps: list[Tensor] = []

    def step(self, lr: float | Tensor) -> None:
        """Take one step, as `SGD.step` does."""
        from torch.optim.adam import adam

        with torch.no_grad():  # not a decorator: torch stays unimported until it is used
            moving, gradients = _with_gradients(self.parameters, self.moving)
            fused = _fused(moving)
            if not self.moving:
                self.first, self.second = ([torch.zeros_like(g) for g in gradients] for _ in range(2))
                self.steps = [torch.zeros((), device=g.device if fused else "cpu") for g in gradients]
            self.moving = moving
            adam(
                moving, gradients, self.first, self.second, [], self.steps, foreach=not fused, fused=fused,
                amsgrad=False, lr=lr, beta1=self.betas[0], beta2=self.betas[1], eps=self.epsilon,
                weight_decay=self.weight_decay, maximize=False,
            )  # fmt: skip
            for p in moving:
                p.grad = None


def optimizer(parameters: Iterable[Tensor], recipe: Recipe) -> SGD | Adam:
    """The optimizer that a recipe names, over `parameters`."""
    if recipe.optimizer == "adam":
        return Adam(parameters, weight_decay=recipe.weight_decay)
    return SGD(parameters, momentum=recipe.momentum, weight_decay=recipe.weight_decay, nesterov=recipe.nesterov)


def learning_rates(recipe: Recipe, steps_per_epoch: int, epochs: int | None = None) -> list[float]:
    """The learning rate of every step of a training, in order; `epochs` overrides the recipe's.

    `cosine` rises linearly over the first `warmup` share of all steps and falls to zero; `exponential` goes from
    `lr` to `end_lr` by an equal factor after every epoch, as in the paper; `constant` stays.
    """
    epochs = recipe.epochs if epochs is None else epochs
    total = epochs * steps_per_epoch
    if recipe.schedule == "constant":
        return [recipe.lr] * total
    if recipe.schedule == "exponential":
        factor = (recipe.end_lr / recipe.lr) ** (1 / max(epochs, 1))
        return [recipe.lr * factor ** (step // steps_per_epoch) for step in range(total)]
    rising = max(round(recipe.warmup * total), 1)
    return [
        recipe.lr
        * min((step + 1) / rising, 0.5 * (1 + math.cos(math.pi * max(0.0, (step + 1 - rising) / (total + 1 - rising)))))
        for step in range(total)
    ]


def batch_bounds(n: int, size: int) -> list[tuple[int, int]]:
    """Where batches of `size` start and stop; a last batch of a single example joins the one before it.

    BatchNorm in training mode is undefined on one example.
    """
    if not n:
        return []
    starts = list(range(0, n, size))
    if size > 1 and len(starts) > 1 and n - starts[-1] == 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], n], strict=True))


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy over the batch, in nats."""
    return torch.nn.functional.cross_entropy(logits, y)


@contextlib.contextmanager
def seeded(seed: int, device: str) -> Iterator[None]:
    """Inside, torch's own random stream, which dropout draws from, starts from `seed`; afterwards it is as before."""
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        torch.manual_seed(seed)
        yield


def fit(
    model: nn.Module,
    part: Part,
    recipe: Recipe,
    generator: torch.Generator,
    *,
    epochs: int | None = None,
    parameters: Sequence[Tensor] | None = None,
    loss: Loss = cross_entropy,
) -> None:
    """Train `model` in place on `part` by `recipe`; the caller sets train or eval mode of every layer.

    Args:
        part: the examples; read `epochs` times with the recipe's augmentation.
        generator: CPU generator of the order of examples.
        epochs: overrides the recipe's number; the schedule then spans this many.
        parameters: what may move; all parameters that require a gradient by default.
        loss: mean loss of a batch from logits and labels.
    """
    moving = [p for p in model.parameters() if p.requires_grad] if parameters is None else list(parameters)
    rates = learning_rates(recipe, len(batch_bounds(len(part), recipe.batch_size)), epochs)
    steps, rate = Steps(model, optimizer(moving, recipe), loss, recipe, moving[0].device, len(rates)), iter(rates)
    for _ in range(recipe.epochs if epochs is None else epochs):
        for x, y in part.batches(recipe.batch_size, generator, augment=True):
            steps.take(x, y, next(rate))


def error_rate(model: nn.Module, part: Part, size: int = 1024) -> float:
    """Share of `part` that `model` gets wrong, in [0, 1], in the mode the model is in; the reads are counted."""
    with torch.no_grad():  # not a decorator: torch stays unimported until it is used
        wrong = sum(int((model(x).argmax(1) != y).sum()) for x, y in part.batches(size))
        return wrong / max(len(part), 1)
