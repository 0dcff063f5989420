"""What methods share that take plain SGD steps: their fields, and how batches of two sets meet in a step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from pydantic import Field

from bench import loop
from bench.interface import DataView, Method

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.interface import Part

    Batch = tuple[Tensor, Tensor]


class Steps(Method):
    """Base of methods that train by SGD at a constant learning rate, as the OPTML group's code does."""

    lr: float = Field(default=0.01, gt=0, le=10, description="constant learning rate")
    epochs: int = Field(default=10, ge=0, le=10_000, description="passes over the data")
    batch_size: int = Field(default=256, ge=2, le=100_000, description="examples per step")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="momentum of SGD, not Nesterov's")
    weight_decay: float = Field(default=5e-4, ge=0, le=1, description="L2 weight decay of the mean loss")

    def sgd(self, model: nn.Module) -> loop.SGD:
        """The optimizer over all parameters that require a gradient."""
        moving = (p for p in model.parameters() if p.requires_grad)
        return loop.SGD(moving, momentum=self.momentum, weight_decay=self.weight_decay)


def require_forget(data: DataView) -> None:
    """Raise ValueError for an empty forget set."""
    if not len(data.forget):
        raise ValueError("nothing to forget: the forget set is empty")


def some(part: Part, count: int, generator: torch.Generator) -> Part:
    """So many random examples of a part, or all where it has fewer, as one more part."""
    chosen = torch.randperm(len(part), generator=generator)[:count]
    return part.only(part.rows[chosen.to(part.rows.device)])


def paired(data: DataView, size: int, generator: torch.Generator) -> Iterator[tuple[Batch, Batch]]:
    """Once over the retained set, a batch of the forget set beside each, which begins again when it is through."""

    def forgotten() -> Iterator[Batch]:
        while True:
            yield from data.forget.batches(size, generator, augment=True)

    yield from zip(data.retain.batches(size, generator, augment=True), forgotten(), strict=False)


def mixed(
    data: DataView, size: int, generator: torch.Generator, *, share: float = 1.0
) -> Iterator[tuple[Batch | None, Batch | None]]:
    """Once over the forget set and a `share` of the retained one, in batches that hold both in their proportion.

    Yields what a batch of `size` holds of the forget and of the retained set; None where one has run out.
    """
    forget, retain = len(data.forget), math.ceil(share * len(data.retain))
    steps = max(1, math.ceil((forget + retain) / size))
    parts: list[tuple[Part, int]] = [(data.forget, forget), (data.retain, retain)]
    passes = (part.batches(max(2, math.ceil(n / steps)), generator, augment=True) for part, n in parts)
    yield from itertools.islice(itertools.zip_longest(*passes), steps)


def spread(part: Part, steps: int, generator: torch.Generator) -> list[Batch]:
    """All of a part, augmented and in random order, in `steps` pieces of nearly the same size, some of them empty."""
    pairs = list(part.batches(1024, generator, augment=True))
    x, y = (torch.cat(side) for side in zip(*pairs, strict=True))
    return list(zip(x.tensor_split(steps), y.tensor_split(steps), strict=True))


def shuffled(x: Tensor, y: Tensor, steps: int, generator: torch.Generator) -> list[Batch]:
    """These examples in random order, in `steps` pieces of nearly the same size, some of them empty."""
    order = torch.randperm(len(y), generator=generator).to(y.device).tensor_split(steps)
    return [(x[rows], y[rows]) for rows in order]
