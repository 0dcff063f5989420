"""CIFAR-10, 32 x 32 color photographs, ten classes: 50,000 for training in file order, 5,000 validation, 5,000 test.

The folder that `--data-dir` or the environment variable UNLEARNING_DATA names (default `data`) holds the archive
`cifar-10-python.tar.gz` or the folder `cifar-10-batches-py` that is in it, there or in a folder `cifar10`; `--download`
gets the archive. Every batch must have its published MD5 sum. Not through torchvision, which runs what a pickle asks.
Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle  # nosec B403 # what loads is `_Unpickler`, which calls nothing that a pickle names
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from bench.datasets import _cache, photographs
from bench.datasets._source import Archive, data_folder, stamp
from bench.interface import Dataset, UsageError

SOURCE = Archive(
    title="CIFAR-10",
    file="cifar-10-python.tar.gz",
    folder="cifar-10-batches-py",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    md5="c58f30108f718f92721af3b95e74349a",
    size="170 MB",
)
TRAIN = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5")
TEST = "test_batch"
UNPACKED = 400_000_000  # bytes; the published archive has 186 million
MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def load() -> Dataset:
    """Read and check the six batches. Raises UsageError, in one line, if they are missing or others."""
    return _load(data_folder(), MD5)


def _load(root: Path, sums: Mapping[str, str] | None) -> Dataset:
    """The data set in `root`; `sums` are the MD5 sums to hold the batches against, None for a test's own batches."""
    place = _place(root) or SOURCE.missing(root)
    inside = [place / name for name in MD5] if place.is_dir() else [place]
    files = [stamp(path, str(path.relative_to(root))) for path in inside]
    return _cache.load(root, "cifar10", {"sums": sums}, files, lambda: _decode(root, place, sums))


def _place(root: Path) -> Path | None:
    """The folder or the archive, whichever is found first."""
    places = (inside / name for inside in (root, root / "cifar10") for name in (SOURCE.folder, SOURCE.file))
    return next((place for place in places if place.exists()), None)


def _decode(root: Path, place: Path, sums: Mapping[str, str] | None) -> Dataset:
    batches = {}
    for name, content in _files(root, place):
        _verify(root, place, name, content, sums)
        try:
            batches[name] = _unpickle(content)
        except Exception as error:  # a damaged pickle fails in any way
            raise UsageError(f"{name} of CIFAR-10 is no batch ({error}); {SOURCE.remedy(root, place)}") from error
    if missing := [name for name in MD5 if name not in batches]:
        raise UsageError(f"{missing[0]} of CIFAR-10 is missing in {place}; {SOURCE.remedy(root, place)}")
    images, labels = (np.concatenate([batches[name][column] for name in TRAIN]) for column in (0, 1))
    return photographs("cifar10", (images, labels), batches[TEST], CLASSES)


def _files(root: Path, place: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each batch, from the folder or else from the archive."""
    remedy = SOURCE.remedy(root, place)
    try:
        if place.is_dir():
            yield from ((name, (place / name).read_bytes()) for name in MD5)
        else:
            yield from _extract(place)
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise UsageError(f"cannot read CIFAR-10 in {place} ({_reason(place, error)}); {remedy}") from error


def _reason(place: Path, error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}"
    return "; ".join(filter(None, (str(error), SOURCE.difference(place) if place.is_file() else "")))


def _extract(path: Path) -> Iterator[tuple[str, bytes]]:
    """The batches in the archive, unpacked into memory in one pass; their order is the archive's."""
    wanted = {f"{SOURCE.folder}/{name}": name for name in MD5}
    with _Capped(path) as packed, tarfile.open(fileobj=packed, mode="r|") as archive:
        for member in archive:
            content = archive.extractfile(member) if member.name in wanted else None
            if content is not None:
                yield wanted[member.name], content.read()


class _Capped(gzip.GzipFile):
    """A packed file of which no more is read than can be meant: it may unpack to more than the memory holds."""

    left = UNPACKED

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes, at most `size`. Raises tarfile.ReadError when there have been too many."""
        content = super().read(size)
        self.left -= len(content)
        if self.left < 0:
            raise tarfile.ReadError("it unpacks to more than the data set has")
        return content


def _verify(root: Path, place: Path, name: str, content: bytes, sums: Mapping[str, str] | None) -> None:
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if sums is not None and found != sums[name]:
        fault = f"{name} of CIFAR-10 has MD5 {found}, published is {sums[name]}"
        raise UsageError(f"{fault}; {SOURCE.remedy(root, place)}")


class _PixelType:
    """Stands for numpy's dtype; there is one type of array in these files, unsigned bytes."""

    def __init__(self, code: bytes | str, *_: object) -> None:
        if code not in (b"u1", "u1"):
            raise pickle.UnpicklingError(f"an array of {code!r}, not of unsigned bytes")

    def __setstate__(self, state: object) -> None:
        """Nothing to restore: unsigned bytes have no byte order."""


class _Pixels:
    """Stands for numpy's array and for the function that makes an empty one."""

    def __init__(self, *_: object) -> None:
        self.array = np.empty((0, 0), np.uint8)

    def __setstate__(self, state: tuple[int, tuple[int, ...], _PixelType, bool, bytes]) -> None:
        _, shape, kind, columns_first, content = state
        if not isinstance(kind, _PixelType) or columns_first:
            raise pickle.UnpicklingError("an array that is not one of unsigned bytes, row after row")
        self.array = np.frombuffer(content, np.uint8).reshape(shape)


class _Unpickler(pickle.Unpickler):
    """Reads plain values and arrays of unsigned bytes. A pickle that names anything else is refused, nothing is run.

    Not even numpy's own functions are called: what the files name is replaced by the two classes above.
    """

    STANDS_FOR = {"_reconstruct": _Pixels, "ndarray": _Pixels, "dtype": _PixelType}

    def find_class(self, module: str, name: str) -> type:
        """The stand-in for what numpy's arrays name in a pickle."""
        if module not in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray") or name not in self.STANDS_FOR:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return self.STANDS_FOR[name]

    def persistent_load(self, pid: object) -> object:
        """Refused: the files have none."""
        raise pickle.UnpicklingError("it refers to something outside")


def _unpickle(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 `[n, 3, 32, 32]` and labels int64 `[n]` of one batch."""
    batch = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    pixels, labels = batch[b"data"], batch[b"labels"]
    images = pixels.array.reshape(-1, 3, 32, 32)
    numbers = np.array(labels, dtype=np.int64)
    if numbers.shape != images.shape[:1] or not np.isin(numbers, range(len(CLASSES))).all():
        raise ValueError("labels that do not fit the images")
    return images, numbers
