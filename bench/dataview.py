"""Hands a method only the data it declared, and counts every example it takes."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from bench.interface import Dataset, Need, UndeclaredRead
from bench.loop import batch_bounds

SLAB = 1 << 24  # bytes of pixels that are gathered at once

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

    def take(self, index: Tensor) -> Tensor:
        """Normalized images `[len(index), c, h, w]`."""
        return self.normalized(self.pixels[index])

    def normalized(self, pixels: Tensor) -> Tensor:
        """uint8 pixels `[n, c, h, w]` as a network wants them, float32 unless torch's default is another type."""
        return (pixels.to(self.mean.dtype) - self.mean) / self.std


def draw_crops(n: int, side: int, generator: torch.Generator) -> Tensor:
    """What `crop_flip` does to each of `n` images of this height, drawn at once: row, column and flip, `[3, n]`."""
    offsets = torch.randint(0, 2 * (side // 8) + 1, (2, n), generator=generator)
    return torch.cat([offsets, torch.randint(0, 2, (1, n), generator=generator)])


def crop_flip(x: Tensor, crops: Tensor) -> Tensor:
    """Crop after padding raw pixels with black by an eighth of the side, and flip, for all of `x` at once."""
    n, _, height, width = x.shape
    pad = height // 8
    padded = torch.nn.functional.pad(x, (pad, pad, pad, pad))
    rows = crops[0, :, None] + torch.arange(height, device=x.device)
    columns = crops[1, :, None] + torch.arange(width, device=x.device)
    columns = torch.where(crops[2, :, None] == 1, columns.flip(1), columns)
    picked = padded[torch.arange(n, device=x.device)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)


class MeteredPart:
    """One set of examples, and no others, whose readings are counted."""

    def __init__(self, images: Images, index: Tensor, labels: Tensor, *, augment: bool = False) -> None:
        """`index` int64 `[n]` are rows of `images`, `labels` int64 `[n]` theirs; `augment` allows augmentation."""
        self.images, self.rows, self.labels, self.may_augment = images.only(index), index, labels, augment
        self._taken = [0]  # one count for this part and all that are made of it

    @property
    def taken(self) -> int:
        """Examples handed out so far."""
        return self._taken[0]

    def __len__(self) -> int:
        return len(self.labels)

    def only(self, rows: Tensor) -> MeteredPart:
        """See `bench.interface.Part.only`."""
        chosen = torch.isin(self.rows, rows.to(self.rows.device)).nonzero()[:, 0]
        part = copy.copy(self)
        part.images, part.rows, part.labels = self.images.only(chosen), self.rows[chosen], self.labels[chosen]
        return part

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
        # All that is random in a pass is drawn on the CPU and sent at once: a copy a batch would make the GPU wait.
        order = order.to(self.labels.device)
        crops = None
        if generator is not None and augment and self.may_augment:
            crops = draw_crops(count, self.images.pixels.shape[2], generator).to(order.device)
        for bounds in self._slabs(batch_bounds(count, size)):
            first, last = bounds[0][0], bounds[-1][1]
            pixels, labels = self.images.pixels[order[first:last]], self.labels[order[first:last]]
            if crops is not None:
                pixels = crop_flip(pixels, crops[:, first:last])
            for start, stop in bounds:
                self._taken[0] += stop - start
                chosen = slice(start - first, stop - first)
                yield self.images.normalized(pixels[chosen]), labels[chosen]

    def _slabs(self, bounds: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
        """The batches in runs that are gathered, cropped and flipped together, which takes a few calls for many."""
        each = bounds[0][1] * self.images.pixels[0].numel() if bounds else 1
        batches = max(1, SLAB // max(each, 1))
        yield from (bounds[at : at + batches] for at in range(0, len(bounds), batches))


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
