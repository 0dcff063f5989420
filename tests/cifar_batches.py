"""Miniature batches of CIFAR-10, written as the Python 2 that wrote the published ones did."""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.datasets import cifar10

PER_BATCH, IN_TEST = 20, 100


class Python2Pickler(pickle._Pickler):
    """Writes text and bytes as the Python 2 that wrote CIFAR-10 did."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_text(self, text: str | bytes) -> None:
        """Text and bytes alike."""
        content = text.encode() if isinstance(text, str) else text
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
        self.memoize(text)

    dispatch[str] = dispatch[bytes] = save_text


def dumps(value: object) -> bytes:
    """The pickle of a batch."""
    stream = io.BytesIO()
    Python2Pickler(stream, protocol=2).dump(value)
    return stream.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def batch(name: str, count: int) -> dict[str, Any]:
    """The content of a batch of so many images."""
    generator = np.random.default_rng(sum(name.encode()))
    labels = [i % 10 for i in range(count)]
    names = [f"{name}_{i}.png" for i in range(count)]
    data = generator.integers(0, 256, (count, 3072)).astype(np.uint8)
    return {"batch_label": name, "labels": labels, "data": data, "filenames": names}


def write(root: Path, **replaced: bytes) -> dict[str, str]:
    """Six miniature batches below `root`; returns their MD5 sums."""
    folder = root / cifar10.SOURCE.folder
    folder.mkdir(parents=True)
    sums = {}
    for name in cifar10.MD5:
        content = replaced.get(name) or dumps(batch(name, IN_TEST if name == cifar10.TEST else PER_BATCH))
        (folder / name).write_bytes(content)
        sums[name] = hashlib.md5(content).hexdigest()
    return sums


def pack(root: Path, names: Sequence[str] = tuple(cifar10.MD5)) -> None:
    """Turn the folder of batches into the archive."""
    with tarfile.open(root / cifar10.SOURCE.file, "w:gz") as archive:
        for name in reversed(names):
            archive.add(root / cifar10.SOURCE.folder / name, f"{cifar10.SOURCE.folder}/{name}")
    for path in (root / cifar10.SOURCE.folder).iterdir():
        path.unlink()
    (root / cifar10.SOURCE.folder).rmdir()
