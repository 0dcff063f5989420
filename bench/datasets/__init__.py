"""Data sets: one file each, with a function `load() -> Dataset`; the file name is the data set's name.

`load` may have arguments with defaults, which `--dataset name+argument=value` sets. Of every data set a part can be
taken, such as `cifar10+classes=5+train=2500`.
"""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import numpy as np

from bench.interface import Dataset, UsageError

SPLIT_SEED = 0
MEAN, STD = (0.5071, 0.4866, 0.4409), (0.2009, 0.1984, 0.2023)  # the PGU authors', of pixels in [0, 1]
SUBSET = ("classes", "train", "validation", "test")


def require_sound(dataset: Dataset) -> None:
    """Raise ValueError with what is wrong, if an array is not as `Dataset` says."""
    for part in ("train", "validation", "test"):
        x, y = dataset.images(part), dataset.labels(part)
        if x.dtype != np.uint8 or x.ndim != 4 or not len(x):
            raise ValueError(f"{part}_x must be uint8 [n, channels, height, width], got {x.dtype} {list(x.shape)}")
        if y.dtype != np.int64 or y.shape != x.shape[:1]:
            raise ValueError(f"{part}_y must be int64 [{len(x)}], got {y.dtype} {list(y.shape)}")
        if y.min() < 0 or y.max() >= dataset.classes:
            raise ValueError(f"{part}_y must lie in 0 to {dataset.classes - 1}, found {y.min()} to {y.max()}")
        if x.shape[1:] != dataset.train_x.shape[1:]:
            raise ValueError(f"{part}_x must be of the same shape as train_x, got {list(x.shape)}")
    if len(set(dataset.class_names)) < dataset.classes or not all(isinstance(one, str) for one in dataset.class_names):
        raise ValueError(f"class_names must be different texts, got {dataset.class_names!r}")
    for name, values in (("mean", dataset.mean), ("std", dataset.std)):
        if np.shape(values) != dataset.train_x.shape[1:2] or not np.isfinite(values).all():
            raise ValueError(f"{name} must be a finite number for each channel, got {values!r}")
    if min(dataset.std) <= 0:
        raise ValueError(f"std must be above 0, got {dataset.std!r}")


def halves(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted indices of the half for test and of the half for validation, balanced; an odd class gives one more here.

    As the PGU authors' code: one generator (Python's own, seeded 0) shuffles the indices of each class in turn; the
    first half of each is for test. These indices go for images and labels; their TinyImageNet halves the images alone.
    """
    generator = random.Random(SPLIT_SEED)
    test: list[int] = []
    validation: list[int] = []
    for number in np.unique(labels):
        members = np.flatnonzero(labels == number).tolist()
        generator.shuffle(members)
        test += members[: len(members) // 2]
        validation += members[len(members) // 2 :]
    return np.sort(np.array(test, dtype=np.int64)), np.sort(np.array(validation, dtype=np.int64))


def photographs(
    name: str,
    train: tuple[np.ndarray, np.ndarray],
    held_out: tuple[np.ndarray, np.ndarray],
    class_names: tuple[str, ...],
) -> Dataset:
    """A data set of the PGU paper: images and labels for training, and those held out, which are halved (`halves`)."""
    (train_x, train_y), (held_out_x, held_out_y) = train, held_out
    test, validation = halves(held_out_y)
    return Dataset(
        name=name,
        train_x=train_x,
        train_y=train_y,
        validation_x=held_out_x[validation],
        validation_y=held_out_y[validation],
        test_x=held_out_x[test],
        test_y=held_out_y[test],
        class_names=class_names,
        mean=tuple(255 * value for value in MEAN),
        std=tuple(255 * value for value in STD),
    )


def without_test(dataset: Dataset) -> Dataset:
    """The data set as tuning holds it: training and validation data, and not one test sample."""
    empty = dataset.test_x[:0].copy(), dataset.test_y[:0].copy()  # a view would keep the whole array
    return dataclasses.replace(dataset, test_x=empty[0], test_y=empty[1])


def subset(
    dataset: Dataset,
    *,
    classes: int | None = None,
    train: int | None = None,
    validation: int | None = None,
    test: int | None = None,
) -> Dataset:
    """The first `classes` classes, and of every part so many images, the first of each class, equally many of each.

    Raises UsageError for more than there are, or fewer than one image of each class (two classes).
    """
    if classes is not None:
        _require_number("classes", classes, 2, dataset.classes)
    count = dataset.classes if classes is None else classes
    parts: dict[str, Any] = {}
    for part, wanted in (("train", train), ("validation", validation), ("test", test)):
        if wanted is None and classes is None:
            continue  # the whole part, without a copy
        labels = dataset.labels(part)
        members = [np.flatnonzero(labels == number) for number in range(count)]
        if wanted is not None:
            _require_number(part, wanted, count, sum(map(len, members)))
            each, more = divmod(wanted, count)
            if short := [c for c, rows in enumerate(members) if len(rows) < each + (c < more)]:
                name, there = dataset.class_names[short[0]], len(members[short[0]])
                raise UsageError(f"{part}={wanted} takes {each} of each class, but there are {there} of {name}")
            members = [rows[: each + (c < more)] for c, rows in enumerate(members)]
        index = np.sort(np.concatenate(members))
        parts |= {f"{part}_x": dataset.images(part)[index], f"{part}_y": labels[index]}
    return dataclasses.replace(dataset, class_names=dataset.class_names[:count], **parts)  # type: ignore[arg-type]


def _require_number(name: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise UsageError(f"{name} of a data set must be a whole number from {least} to {most}, got {value!r}")
