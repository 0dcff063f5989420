"""A part of a data set made of tensors, as a method sees it, for identities that are checked to rounding."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from bench.loop import batch_bounds


class Rows:
    """Examples in memory, cut into batches as the harness cuts them; counts passes and examples.

    There is no augmentation: asking for it is a fault, unless the part is one that may be augmented.
    """

    def __init__(self, x: Tensor, y: Tensor, *, augmentable: bool = False) -> None:
        self.x, self.y, self.reads, self.taken, self.augmentable = x, y, 0, 0, augmentable

    def __len__(self) -> int:
        return len(self.y)

    def batches(
        self, size: int, generator: torch.Generator | None = None, *, augment: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `bench.interface.Part.batches`."""
        assert self.augmentable or not augment
        self.reads += 1
        order = torch.arange(len(self)) if generator is None else torch.randperm(len(self), generator=generator)
        for start, stop in batch_bounds(len(self), size):
            self.taken += stop - start
            yield self.x[order[start:stop]], self.y[order[start:stop]]
