"""Data sets: one file each, with a function `load() -> Dataset`; the file name is the data set's name."""

from __future__ import annotations

import dataclasses

import numpy as np

from bench.interface import Dataset


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


def without_test(dataset: Dataset) -> Dataset:
    """The data set as tuning holds it: training and validation data, and not one test sample."""
    empty = dataset.test_x[:0].copy(), dataset.test_y[:0].copy()  # a view would keep the whole array
    return dataclasses.replace(dataset, test_x=empty[0], test_y=empty[1])
