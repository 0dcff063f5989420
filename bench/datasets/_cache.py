"""Decoded data sets on disk, memory-mapped and checked: decoding happens once, loading is then instant.

An entry is a folder of one `.npy` file an array and a `meta.json` with their SHA-256 sums. It appears whole or not at
all, and its name is the hash of what made it: the loader's code and settings, and name, size and time of every file.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import store
from bench.datasets._source import Stamp
from bench.interface import Dataset

NAME = ".unlearning-cache"
OFF = "off"
ARRAYS = ("train_x", "train_y", "validation_x", "validation_y", "test_x", "test_y")
FACTS = ("name", "class_names", "mean", "std", "pixel_max")
UNFINISHED = re.compile(r"\.\w+-[0-9a-f]{24}-[0-9a-f]{32}")
A_DAY = 24 * 3600  # seconds
HERE = Path(__file__).resolve().parent


class _Damaged(Exception):
    """An entry is not what was written."""


def load(
    root: Path, name: str, settings: Mapping[str, Any], files: Sequence[Stamp], decode: Callable[[], Dataset]
) -> Dataset:
    """The data set that `decode` makes of the files in `root`, from the cache if it is there.

    What comes from the cache has a `digest`. Where the cache cannot be written, the data set is the decoded one.
    """
    home = os.environ.get("UNLEARNING_CACHE") or str(root / NAME)
    if home == OFF:
        return decode()
    folder = Path(home) / f"{name}-{_key(root, name, settings, files)}"
    if (cached := _cached(folder)) is not None:
        return cached
    dataset = decode()
    try:
        _write(folder, dataset)
    except OSError as error:
        reason = error.strerror or error
        remedy = f"name a folder for it with the environment variable UNLEARNING_CACHE, or set it to {OFF}"
        _say(f"no cache in {home} ({reason}), so {name} is decoded at every start; {remedy}")
        return dataset
    cached = _cached(folder)
    return dataset if cached is None else cached


def _key(root: Path, name: str, settings: Mapping[str, Any], files: Sequence[Stamp]) -> str:
    code = store.code_version(*(HERE / file for file in ("__init__.py", "_cache.py", "_images.py", f"{name}.py")))
    return store.key(root=str(root.resolve()), name=name, settings=dict(settings), files=list(files), code=code)


def _cached(folder: Path) -> Dataset | None:
    """The entry, or None where there is none, or one that is damaged, which is thrown away."""
    if not folder.is_dir():
        return None
    try:
        return _read(folder)
    except Exception as error:  # whatever is wrong inside, the entry is of no use
        _say(f"cache: {folder} is damaged ({error}); it is thrown away and decoded again")
        aside = _beside(folder)
        with contextlib.suppress(OSError):  # another process was faster, or it is not ours to remove
            os.replace(folder, aside)
        shutil.rmtree(aside, ignore_errors=True)
        return None


def _read(folder: Path) -> Dataset:
    """The entry's arrays, mapped copy-on-write: torch does not warn, and nobody can change the file through them."""
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    contents = meta["contents"]
    _require("meta.json", _sum(_text(contents).encode()), meta["sha256"])
    arrays: dict[str, Any] = {}
    for name, known in contents["arrays"].items():
        path = folder / f"{name}.npy"
        with path.open("rb") as file:
            _require(f"the header of {path.name}", _sum(file.read(known["offset"])), known["header"])
            _require(path.name, hashlib.file_digest(file, "sha256").hexdigest(), known["sha256"])
        arrays[name] = np.asarray(np.lib.format.open_memmap(path, mode="c"))  # refuses objects
    facts: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in contents["facts"].items()
    }
    digest = store.contents_key([_canonical(contents["arrays"][name]) for name in ARRAYS], facts)
    return Dataset(**arrays, **facts).verified(digest)


def _canonical(known: Mapping[str, Any]) -> list[Any]:
    return [known["dtype"], known["shape"], known["sha256"]]


def _sum(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()


def _require(name: str, found: str, written: str) -> None:
    if found != written:
        raise _Damaged(f"{name} has SHA-256 {found}, written was {written}")


def _write(folder: Path, dataset: Dataset) -> None:
    """Make the entry under another name, then give it its own. Raises OSError where the disk refuses."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder.parent)
    making = _beside(folder)
    try:
        making.mkdir()
        arrays = {name: _save(making / f"{name}.npy", getattr(dataset, name)) for name in ARRAYS}
        contents = {"arrays": arrays, "facts": {name: getattr(dataset, name) for name in FACTS}}
        meta = {"sha256": _sum(_text(contents).encode()), "contents": contents}
        (making / "meta.json").write_text(_text(meta), encoding="utf-8")
        os.replace(making, folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process was faster, and its entry holds the same
            raise
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _save(path: Path, array: np.ndarray) -> dict[str, Any]:
    """Write one array; returns what reading holds it against."""
    array = np.ascontiguousarray(array)
    np.save(path, array, allow_pickle=False)
    offset = path.stat().st_size - array.nbytes
    with path.open("rb") as file:
        header = file.read(offset)
    return {
        "dtype": str(array.dtype),
        "shape": list(array.shape),
        "offset": offset,
        "header": _sum(header),
        "sha256": _sum(array.reshape(-1).view(np.uint8).data),
    }


def _sweep(home: Path) -> None:
    """Remove what killed processes have left half made; nobody takes a day to write an entry."""
    for path in home.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            if UNFINISHED.fullmatch(path.name) and time.time() - path.stat().st_mtime > A_DAY:
                shutil.rmtree(path, ignore_errors=True)


def _beside(folder: Path) -> Path:
    """A free name in the same folder, that of no entry, which UNFINISHED matches."""
    return folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")


def _text(contents: Mapping[str, Any]) -> str:
    return json.dumps(contents, sort_keys=True)


@functools.cache
def _say(line: str) -> None:
    """Print a line to standard error, once a process and not again in those forked from it."""
    print(" ".join(line.split()), file=sys.stderr)
