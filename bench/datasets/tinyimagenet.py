"""TinyImageNet, 64 x 64 color photographs, 200 classes: 100,000 for training, 5,000 validation, 5,000 test.

The folder that `--data-dir` or the environment variable UNLEARNING_DATA names (default `data`) holds the archive
`tiny-imagenet-200.zip`, which must have its published MD5 sum and is read as it is, or the folder `tiny-imagenet-200`
that is in it; `--download` gets the archive. The archive's labeled validation images, halved, are validation and test;
its test images have no labels. Grey images become RGB. A copy of fewer classes serves too, if it is whole for each.
Source: Y. Le and X. Yang, "Tiny ImageNet Visual Recognition Challenge", Stanford CS 231N, 2015.
"""

from __future__ import annotations

import contextlib
import os
import re
import zipfile
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from bench.datasets import _cache, _images, photographs
from bench.datasets._images import Read
from bench.datasets._source import Archive, Stamp, data_folder, stamp
from bench.interface import Dataset, UsageError

SOURCE = Archive(
    title="TinyImageNet",
    file="tiny-imagenet-200.zip",
    folder="tiny-imagenet-200",
    url="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    md5="90528d7ca1a48142e341f4ef8d21d0de",
    size="240 MB",
)
SIDE = 64
CLASSES, WORDS, ANNOTATIONS = "wnids.txt", "words.txt", "val/val_annotations.txt"
TRAIN = re.compile(r"train/(n\d+)/images/[^/]+\.JPEG")
HELD_OUT = re.compile(r"val/(?:images|(n\d+)(?:/images)?)/[^/]+\.JPEG")  # as it comes, or by class as for ImageFolder


class _Fault(Exception):
    """What is wrong with the files."""


def load(only: str = "") -> Dataset:
    """Decode the images, or find them decoded. Raises UsageError, in one line, if they are missing or incomplete.

    `only` is a comma list of WordNet numbers. These classes alone are taken, before the held-out images are halved: the
    first N classes are others in a copy of fewer, and so are its halves, but these are the same in every copy.
    """
    wanted = frozenset(part.strip() for part in str(only).split(",") if part.strip())
    root = data_folder()
    places = (inside / name for inside in (root, root / "tinyimagenet") for name in (SOURCE.folder, SOURCE.file))
    place = next((place for place in places if place.exists()), None) or SOURCE.missing(root)
    settings = {"decoder": _images.decoder(), "md5": SOURCE.md5, "place": str(place.relative_to(root))}
    settings |= {"only": ",".join(sorted(wanted))} if wanted else {}
    try:
        files = _stamps(place) if place.is_dir() else [stamp(place, place.name)]
        return _cache.load(root, "tinyimagenet", settings, files, lambda: _decode(place, wanted))
    except (_Fault, _images.Fault, OSError, UnicodeDecodeError, zipfile.BadZipFile) as error:
        raise UsageError(f"TinyImageNet in {place}: {error}; {SOURCE.remedy(root, place)}") from error


def _stamps(place: Path) -> list[Stamp]:
    """Every file that counts, by its name from the folder."""
    lists = [stamp(place / name, name) for name in (CLASSES, WORDS, ANNOTATIONS)]
    return lists + sorted(_walk(place / "train", "train/")) + sorted(_walk(place / "val", "val/"))


def _walk(folder: Path, prefix: str) -> Iterator[Stamp]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/")
            elif entry.name.endswith(".JPEG"):
                status = entry.stat()
                yield f"{prefix}{entry.name}", status.st_size, status.st_mtime_ns


@contextlib.contextmanager
def _opened(place: Path) -> Iterator[tuple[list[str], Read]]:
    """Names of the files in the folder or the archive, and what reads one; an archive is unpacked nowhere."""
    if place.is_dir():
        names = [name for name, size, _ in _stamps(place) if size >= 0]
        yield names, lambda name: (place / name).read_bytes()
        return
    if difference := SOURCE.difference(place):
        raise _Fault(difference)
    with zipfile.ZipFile(place) as archive:
        prefix = f"{SOURCE.folder}/"
        inside = [name.removeprefix(prefix) for name in archive.namelist() if name.startswith(prefix)]
        yield inside, lambda name: archive.read(prefix + name)


def _decode(place: Path, wanted: Collection[str]) -> Dataset:
    with _opened(place) as (names, read):
        train = sorted((match[1], name) for name in names if (match := TRAIN.fullmatch(name)))
        classes = sorted({wnid for wnid, _ in train})
        _require_listed(classes, read(CLASSES).decode().split() if CLASSES in names else classes)
        if strange := sorted(set(wanted) - set(classes)):
            raise _Fault(f"there is no class {strange[0]}, which +only= names")
        classes = [wnid for wnid in classes if not wanted or wnid in wanted]
        train = [(wnid, name) for wnid, name in train if wnid in classes]
        held_out = _held_out(names, read(ANNOTATIONS).decode() if ANNOTATIONS in names else "", classes)
        train_y, held_out_y = _labels("train", train, classes), _labels("val", held_out, classes)
        class_names = _class_names(classes, read(WORDS).decode() if WORDS in names else "")
        train_x = _images.decode([name for _, name in train], read, SIDE)
        held_out_x = _images.decode([name for _, name in held_out], read, SIDE)
    return photographs("tinyimagenet", (train_x, train_y), (held_out_x, held_out_y), class_names)


def _require_listed(classes: Sequence[str], listed: Sequence[str]) -> None:
    """The folders of the training images are the classes that the list names."""
    if missing := sorted(set(listed) - set(classes)):
        raise _Fault(f"no images in train/{missing[0]}/images, a class that {CLASSES} lists")
    if strange := sorted(set(classes) - set(listed)):
        raise _Fault(f"{CLASSES} does not list the class train/{strange[0]}")
    if len(classes) < 2:
        raise _Fault("it holds no two classes train/<class>/images/*.JPEG")


def _held_out(names: Sequence[str], annotations: str, classes: Sequence[str]) -> list[tuple[str, str]]:
    """Class and name of each labeled held-out image, by class and file name however the folder is arranged."""
    lines = [line.split("\t") for line in annotations.splitlines()]
    annotated = {line[0]: line[1] for line in lines if len(line) > 1}
    found = []
    for name in names:
        if match := HELD_OUT.fullmatch(name):
            file = name.rpartition("/")[2]
            found.append((match[1] or annotated.get(file, ""), file, name))
    return [(wnid, name) for wnid, _, name in sorted(found) if wnid in classes]


def _labels(part: str, images: Sequence[tuple[str, str]], classes: Sequence[str]) -> np.ndarray:
    """Number of each image's class. Raises _Fault unless every class has as many images, at least two."""
    counts = Counter(wnid for wnid, _ in images)
    usual = max(counts.values(), default=0)
    if odd := [wnid for wnid in classes if counts[wnid] != usual]:
        raise _Fault(f"{part} has {counts[odd[0]]} images of {odd[0]}, but {usual} of other classes")
    if usual < 2:
        raise _Fault(f"{part} has {usual} labeled images of {classes[0]}, at least 2 are needed")
    return np.searchsorted(np.array(classes), [wnid for wnid, _ in images]).astype(np.int64)


def _class_names(classes: Sequence[str], words: str) -> tuple[str, ...]:
    """The first word for each class; the WordNet number is added where two share it, and stands where there is none."""
    lines = (line.partition("\t") for line in words.splitlines())
    first = {wnid: text.split(",")[0].strip() for wnid, _, text in lines}
    names = [first.get(wnid) or wnid for wnid in classes]
    shared = Counter(names)
    return tuple(f"{name} ({wnid})" if shared[name] > 1 else name for wnid, name in zip(classes, names, strict=True))
