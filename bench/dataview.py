"""Hands a method only the data it declared, and counts every example it takes."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from bench.interface import Dataset, Need, UndeclaredRead
from bench.loop import batch_bounds

# Which need opens which part. `train` is the whole training set, for `prepare` only.
OPENS = {
    "forget": Need.FORGET,
    "retain": Need.RETAIN,
    "validation": Need.VALIDATION,
    "corrected": Need.CORRECTED,
    "train": Need.STATISTICS,
}
WHEN = {
    "train": "only in prepare, before a request is known",
    "corrected": "only in unlearn, and only in depoisoning",
}


class Images:
    """Images of a part of a data set on a device: uint8 `pixels` `[n, c, h, w]`, normalized when a batch is taken."""

    def __init__(self, dataset: Dataset, part: str, device: str) -> None:
        self.pixels = torch.from_numpy(dataset.images(part)).to(device)
        shape = (1, -1, 1, 1)
        self.mean = torch.tensor(dataset.mean, device=device).view(shape)
        self.std = torch.tensor(dataset.std, device=device).view(shape)

    def only(self, index: Tensor) -> Images:
        """These rows alone, copied."""
        rows = copy.copy(self)
        rows.pixels = self.pixels[index]
        return rows

    def take(self, index: Tensor, augment: torch.Generator | None = None) -> Tensor:
        """Normalized images `[len(index), c, h, w]`, float32 unless torch's default is another type.

        With a generator, each is cropped and flipped at random first.
        """
        pixels = self.pixels[index]
        if augment is not None:
            pixels = crop_flip(pixels, augment)
        return (pixels.to(self.mean.dtype) - self.mean) / self.std


def crop_flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """Random crop after padding raw pixels with black by an eighth of the side, and flip, for a whole batch at once."""
    n, _, height, width = x.shape
    pad = height // 8
    padded = torch.nn.functional.pad(x, (pad, pad, pad, pad))
    offsets = torch.randint(0, 2 * pad + 1, (2, n), generator=generator).to(x.device)
    flip = (torch.rand(n, generator=generator) < 0.5).to(x.device)
    rows = offsets[0, :, None] + torch.arange(height, device=x.device)
    columns = offsets[1, :, None] + torch.arange(width, device=x.device)
    columns = torch.where(flip[:, None], columns.flip(1), columns)
    picked = padded[torch.arange(n, device=x.device)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)


class MeteredPart:
    """One set of examples, and no others; `taken` counts the examples handed out so far."""

    def __init__(self, images: Images, index: Tensor, labels: Tensor, *, augment: bool = False) -> None:
        """`index` int64 `[n]` are rows of `images`, `labels` int64 `[n]` theirs; `augment` allows augmentation."""
        self.images, self.labels, self.may_augment = images.only(index), labels, augment
        self.taken = 0

    def __len__(self) -> int:
        return len(self.labels)

    def batches(
        self, size: int, generator: torch.Generator | None = None, *, augment: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """See `bench.interface.Part.batches`."""
        if size < 1:
            raise ValueError(f"batch size must be at least 1, got {size}")
        if augment and self.may_augment and generator is None:
            raise ValueError("augmentation is random: pass a generator")
        count = len(self)
        order = torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
        order = order.to(self.labels.device)
        for start, stop in batch_bounds(count, size):
            chosen = order[start:stop]
            self.taken += len(chosen)
            yield self.images.take(chosen, generator if augment and self.may_augment else None), self.labels[chosen]


class MeteredView:
    """The parts that a method declared; reading another raises and is remembered in `refused`.

    The memory matters: a method that swallows the exception still fails.
    """

    def __init__(self, method: str, needs: Need, parts: Mapping[str, MeteredPart]) -> None:
        self.method, self._needs, self._there = method, needs, tuple(parts)
        self._parts = {name: part for name, part in parts.items() if OPENS[name] in needs}
        self.refused: list[str] = []

    @property
    def forget(self) -> MeteredPart:
        """The data to forget."""
        return self._part("forget")

    @property
    def retain(self) -> MeteredPart:
        """The training data that stays."""
        return self._part("retain")

    @property
    def validation(self) -> MeteredPart:
        """Held-out data for stopping and choosing."""
        return self._part("validation")

    @property
    def corrected(self) -> MeteredPart:
        """The forget set with its true labels, in depoisoning only."""
        return self._part("corrected")

    @property
    def train(self) -> MeteredPart:
        """The whole training set, in `prepare` only."""
        return self._part("train")

    def taken(self) -> dict[str, int]:
        """Examples handed out so far, by part."""
        return {name: self._parts[name].taken if name in self._parts else 0 for name in self._there}

    def _part(self, name: str) -> MeteredPart:
        need = OPENS[name]
        if need not in self._needs:
            self.refused.append(name)
            message = f"method {self.method} reads {name} data but does not declare Need.{need.name} in its needs"
            raise UndeclaredRead(message)
        if name not in self._parts:
            when = WHEN.get(name, "only in unlearn")
            raise UndeclaredRead(f"method {self.method} reads {name} data, which exists {when}")
        return self._parts[name]
