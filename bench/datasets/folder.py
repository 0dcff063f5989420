"""A folder of your own images: `--dataset folder --data-dir DIR`, with `DIR/train/CLASS/` and `DIR/test/CLASS/`.

The names of the folders in `train` are the classes, in sorted order. Validation images lie in `validation/CLASS` (or
`val/CLASS`); where only one held-out folder exists, it is halved per class into validation and test. Images are square
and of one size, or are brought to N x N pixels by `--dataset folder+size=N`; all become RGB.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench.datasets import _cache, _images, halves
from bench.datasets._source import Stamp, data_folder
from bench.interface import Dataset, UsageError

ENDINGS = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
SMALLEST, LARGEST = 8, 512  # pixels a side
LAYOUT = "DIR/train/CLASS/*.png and DIR/test/CLASS/*.png, perhaps DIR/validation/CLASS/*.png"
Part = list[tuple[str, str]]  # class and name of each image


def load(size: int | None = None) -> Dataset:
    """Decode the images, or find them decoded. Raises UsageError, in one line, for what cannot serve."""
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or not SMALLEST <= size <= LARGEST):
        raise UsageError(f"size of a folder's images must be a whole number from {SMALLEST} to {LARGEST}, got {size!r}")
    root = data_folder()
    try:
        held_out = _held_out(root)
        stamps = {part: sorted(_stamps(root, part)) for part in ("train", *held_out)}
        files = [one for part in stamps.values() for one in part]
        settings = {"decoder": _images.decoder(), "size": size}
        parts = {part: [(name.split("/")[1], name) for name, _, _ in found] for part, found in stamps.items()}
        _require_classes(root, parts)
        return _cache.load(root, "folder", settings, files, lambda: _decode(root, parts, size))
    except _images.Fault as error:
        raise UsageError(f"{root}: {error}") from error
    except OSError as error:
        raise UsageError(f"cannot read the images in {root} ({error.strerror}: {error.filename})") from error


def _held_out(root: Path) -> list[str]:
    """The folders of held-out images: one, or that of the validation images and that of the test images."""
    if not (root / "train").is_dir():
        raise UsageError(f"no folder {root / 'train'}; --dataset folder --data-dir DIR takes {LAYOUT}")
    there = [name for name in ("validation", "val", "test") if (root / name).is_dir()]
    if not there:
        raise UsageError(f"no held-out images: {root} has no folder 'test'; the layout is {LAYOUT}")
    if there[:2] == ["validation", "val"]:
        raise UsageError(f"{root} has both 'validation' and 'val'; remove one, the layout is {LAYOUT}")
    return there


def _stamps(root: Path, part: str) -> Iterator[Stamp]:
    """Every image of a part. Raises UsageError for folders within a class, whose images would be left out."""
    for folder in _seen(root / part):
        if not folder.is_dir():
            continue
        for entry in _seen(root / part / folder.name):
            name = f"{part}/{folder.name}/{entry.name}"
            if entry.is_dir():
                raise UsageError(f"{root}: {name} is a folder; images lie directly in their class, as in {LAYOUT}")
            if entry.name.lower().endswith(ENDINGS):
                status = entry.stat()
                yield name, status.st_size, status.st_mtime_ns


def _seen(folder: Path) -> Iterator[os.DirEntry[str]]:
    """What is in a folder and is not hidden."""
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not entry.name.startswith("."))


def _require_classes(root: Path, parts: dict[str, Part]) -> None:
    """Every part has the classes of `train`, and of each what it takes to halve it."""
    classes = {name for name, _ in parts["train"]}
    if empty := sorted(one.name for one in _seen(root / "train") if one.is_dir() and one.name not in classes):
        raise UsageError(f"{root / 'train' / empty[0]} has no image ({', '.join(ENDINGS)}); fill or remove it")
    if len(classes) < 2:
        raise UsageError(f"{root / 'train'} has images of {len(classes)} classes, at least 2 are needed; {LAYOUT}")
    least = 2 if len(parts) == 2 else 1
    for part, images in parts.items():
        found = Counter(name for name, _ in images)
        if strange := sorted(set(found) - classes):
            raise UsageError(f"{root / part} has a class '{strange[0]}' that {root / 'train'} has no image of")
        needed = 1 if part == "train" else least
        if few := sorted(name for name in classes if found[name] < needed):
            raise UsageError(
                f"{root / part / few[0]} has {found[few[0]]} images ({', '.join(ENDINGS)}), {needed} are needed"
            )


def _decode(root: Path, parts: dict[str, Part], size: int | None) -> Dataset:
    side, like = (size, "") if size else _side(root, parts["train"][0][1])
    numbers = {name: number for number, name in enumerate(sorted({name for name, _ in parts["train"]}))}
    arrays: dict[str, np.ndarray] = {}
    for part, images in parts.items():
        names = [name for _, name in images]
        pixels = _images.decode(
            names, lambda name: (root / name).read_bytes(), side, resize=size is not None, like=like
        )
        arrays |= {f"{part}_x": pixels, f"{part}_y": np.array([numbers[name] for name, _ in images], dtype=np.int64)}
    mean, std = _mean_std(arrays["train_x"])
    return Dataset(name="folder", class_names=tuple(numbers), mean=mean, std=std, **_three(arrays))  # type: ignore[arg-type]


def _side(root: Path, first: str) -> tuple[int, str]:
    """Pixels a side of the first image, and the words that tell others why they must have as many."""
    width, height = _images.size(first, lambda name: (root / name).read_bytes())
    remedy = "--dataset folder+size=32 brings all to one size"
    if width != height or not SMALLEST <= width <= LARGEST:
        allowed = f"square images of {SMALLEST} to {LARGEST} pixels a side"
        raise _images.Fault(f"{first} has {width} x {height} pixels, but networks here take {allowed}; {remedy}")
    return width, f" as {first}; {remedy}"


def _three(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays by their names in `Dataset`; a single held-out part is halved."""
    renamed = {name.replace("val_", "validation_"): array for name, array in arrays.items()}
    if len(renamed) == 6:
        return renamed
    (part,) = {name[:-2] for name in renamed} - {"train"}
    x, y = renamed.pop(f"{part}_x"), renamed.pop(f"{part}_y")
    for name, chosen in zip(("test", "validation"), halves(y), strict=True):
        renamed |= {f"{name}_x": x[chosen], f"{name}_y": y[chosen]}
    return renamed


def _mean_std(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per channel, of all pixels, from exact sums; a channel without variation is divided by one."""
    counts = np.zeros((3, 256), dtype=np.int64)
    for some in np.array_split(images, -(-len(images) // 1000)):
        for channel in range(3):
            counts[channel] += np.bincount(some[:, channel].ravel(), minlength=256)
    values, total = np.arange(256), int(counts[0].sum())
    sums, squares = (counts @ values).tolist(), (counts @ values**2).tolist()
    variances = [(total * square - one * one) / total**2 for one, square in zip(sums, squares, strict=True)]
    return tuple(one / total for one in sums), tuple(value**0.5 if value else 1.0 for value in variances)
