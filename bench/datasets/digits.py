"""Handwritten digits, 8 x 8 grey pixels, ten classes: 1,797 real images that ship with scikit-learn.

The split is fixed: per class, in an order shuffled once with a fixed seed, the first 60 images are for training
(600), the next 40 for validation (400), the rest for test (797). `docs/digits.md` shows why so few for training.
Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from bench.interface import Dataset, UsageError

TRAIN, VALIDATION = 60, 40  # images per class
SPLIT_SEED = 20231204


def load() -> Dataset:
    """Read the images from the installed scikit-learn without importing it. Raises UsageError if it is missing."""
    table = _table()
    images, labels = table[:, :-1].astype(np.uint8).reshape(-1, 1, 8, 8), table[:, -1].astype(np.int64)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(labels))
    parts: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for digit in range(10):
        members = order[labels[order] == digit]
        for part, chosen in zip(parts, np.split(members, [TRAIN, TRAIN + VALIDATION]), strict=True):
            parts[part].extend(chosen)
    index = {part: np.sort(np.array(chosen)) for part, chosen in parts.items()}
    train = images[index["train"]]
    return Dataset(
        name="digits",
        train_x=train,
        train_y=labels[index["train"]],
        validation_x=images[index["validation"]],
        validation_y=labels[index["validation"]],
        test_x=images[index["test"]],
        test_y=labels[index["test"]],
        class_names=("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
        mean=(4.9,),  # of the training pixels, in units of 0..16
        std=(6.0,),
        pixel_max=16,
    )


def _table() -> np.ndarray:
    """The packaged table `[1797, 64 pixels + label]`; scikit-learn takes seconds to import, its file does not."""
    package = importlib.util.find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise UsageError("the digits ship with scikit-learn, which is not installed; run: pip install scikit-learn")
    path = Path(package.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    try:
        table = np.loadtxt(path, delimiter=",", dtype=np.int16)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read the digits at {path} ({error}); reinstall scikit-learn") from error
    return table
