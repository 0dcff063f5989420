"""Importances of weights, squared gradients of batches, that sets of different sizes can be compared by."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from bench import loop
from methods._gradients import moments

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.interface import Part, State


def prepared(model: nn.Module, part: Part, batch_size: int) -> State:
    """Mean gradients and importances of a part by parameter, and of how many samples, in batches of which size."""
    count = len(part)
    size = _even(count, min(batch_size, max(1, count // 2)))
    mean, square = moments(model, part, size)
    names = [name for name, _ in model.named_parameters()]
    state = {f"mean.{name}": value for name, value in zip(names, mean, strict=True)}
    state |= {f"square.{name}": value for name, value in zip(names, square, strict=True)}
    return state | {"batches": torch.tensor([count, size])}


def importances(model: nn.Module, forget: Part, state: State) -> tuple[list[Tensor], list[Tensor]]:
    """I_f and I_D by parameter, for batches of the same sizes."""
    size = _even(len(forget), int(state["batches"][1]))
    sizes = _sizes(len(forget), size)
    return moments(model, forget, size)[1], [importance(state, name, sizes) for name, _ in model.named_parameters()]


def importance(state: State, name: str, sizes: list[int]) -> Tensor:
    """I_D of a parameter for batches of these sizes: its mean over all draws from the training set.

    Estimated from the prepared batches, which are such a draw; for batches of the prepared sizes it is theirs.
    """
    count, size = state["batches"].tolist()
    ratio = _spread(count, sizes) / (_spread(count, _sizes(count, size)) or 1.0)
    square, mean = state[f"square.{name}"], state[f"mean.{name}"]
    return (square + (square - mean.square()) * (ratio - 1)).clamp(min=0.0)


def _spread(count: int, sizes: list[int]) -> float:
    """What the variance of a mean of so many of `count` samples is in proportion to, on average over the sizes."""
    return sum((count - size) / size for size in sizes) / len(sizes)


def _sizes(total: int, size: int) -> list[int]:
    return [stop - start for start, stop in loop.batch_bounds(total, size)]


def _even(total: int, size: int) -> int:
    """At most `size`, with the last batch of nearly the size of the others: one of few samples would weigh most."""
    return math.ceil(total / max(1, math.ceil(total / size)))
