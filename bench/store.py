"""A content-addressed folder of finished work: an entry's key is the hash of what made it; nothing is made twice.

An entry is one safetensors file: arrays plus a JSON header, written whole or not at all, with a digest checked on
reading. Nothing in it can execute code. A damaged entry is moved aside, named, and made again.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import json
import os
import secrets
import struct
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from bench.interface import Dataset, UsageError
from bench.records import require_folder, write_whole
from bench.streams import tell

ROOT = Path(__file__).resolve().parent.parent
PLUGINS = (ROOT / "methods", ROOT / "attacks")
ASIDE = "damaged"  # folder below the store of the entries that were moved aside
MARK = ".mark"  # file in the store that says which one it is
ATTEMPTS = 100  # damaged entries that one command mends before it gives up
T = TypeVar("T")


class StoreError(UsageError):
    """The store cannot be written or read any more: a full disk, missing rights."""


class Damaged(Exception):
    """An entry could not be read; it has been moved aside, so that planning again makes it anew."""


def key(**what: Any) -> str:
    """The key of the thing that these values make: numbers, text, lists, dicts and numpy arrays."""
    text = json.dumps(what, sort_keys=True, default=_canonical)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _canonical(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [str(value.dtype), list(value.shape), hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()]
    if isinstance(value, np.integer | np.floating):
        return value.item()
    raise TypeError(f"cannot make a key from {type(value).__name__}")


def fingerprint(dataset: Dataset) -> str:
    """The key of a data set's contents: its digest, if its loader has checked them already."""
    if dataset.digest:
        return dataset.digest
    arrays = [
        array for part in ("train", "validation", "test") for array in (dataset.images(part), dataset.labels(part))
    ]
    return contents_key(arrays, {"mean": dataset.mean, "std": dataset.std, "class_names": dataset.class_names})


def contents_key(arrays: Sequence[Any], facts: Mapping[str, Any]) -> str:
    """The key of a data set with these facts; an array may be given as type, shape and SHA-256 of its bytes."""
    return key(arrays=arrays, mean=facts["mean"], std=facts["std"], classes=facts["class_names"])


def sources(path: Path) -> list[Path]:
    """A plug-in's file and the plug-in helpers that it imports, theirs included: what its results depend on."""
    found: dict[Path, None] = {}
    todo = [path]
    while todo:
        file = todo.pop()
        if file not in found and file.is_file():
            found[file] = None
            names = _imported(file, file.stat().st_mtime_ns)
            todo += [folder / f"{name}.py" for name in names for folder in (file.parent, *PLUGINS)]
    return sorted(found)


@functools.cache
def _imported(path: Path, _changed: int) -> set[str]:
    """Last parts of the names of modules that a file may import."""
    nodes = list(ast.walk(_tree(path)))
    froms = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    names = {alias.name for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names}
    return {name.rpartition(".")[2] for name in names | {node.module or "" for node in froms}} - {"", "*"}


def _tree(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError) as error:  # a plug-in's file can be anything
        raise UsageError(f"cannot load {path}: {type(error).__name__}: {error}") from error


def code_version(*paths: Path) -> str:
    """The key of some source files, blind to comments, docstrings and layout, so that only a change of code counts."""
    return key(code=[_meaning(path, path.stat().st_mtime_ns) for path in paths])


@functools.cache
def _meaning(path: Path, _changed: int) -> str:
    tree = _tree(path)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()


class Store:
    """The folder. Safe for several writers: equal keys hold equal contents, and files appear whole."""

    def __init__(self, folder: Path, *, create: bool = True) -> None:
        """Open or make the folder; raises UsageError if it cannot be written. Without `create`, only for asking."""
        self.folder = folder
        if create:
            require_folder(folder, "the store", "--store")

    def mending(self, work: Callable[[], T]) -> T:
        """What `work` returns, begun again whenever an entry that it reads is damaged: planning makes that one anew."""
        for _ in range(ATTEMPTS):
            with contextlib.suppress(Damaged):
                return work()
        raise UsageError(f"the store {self.folder} keeps losing entries; check the disk or choose another with --store")

    def path(self, kind: str, key: str) -> Path:
        """Where the entry is or would be."""
        return self.folder / kind / key[:2] / f"{key}.safetensors"

    def has(self, kind: str, key: str) -> bool:
        """Whether the entry exists."""
        return self.path(kind, key).is_file()

    def put(self, kind: str, key: str, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
        """Write an entry; `meta` is anything JSON can hold. Raises StoreError when the disk refuses."""
        self.add(kind, key, packed(arrays, meta))

    def add(self, kind: str, key: str, raw: bytes) -> None:
        """Write an entry that is packed already. Raises StoreError when the disk refuses."""
        try:
            write_whole(self.path(kind, key), raw)
        except OSError as error:
            raise StoreError(
                f"cannot write to the store {self.folder}: {error.strerror}; finished work is kept"
            ) from error

    def get(self, kind: str, key: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and meta of an entry. Raises Damaged, after moving it aside, when it is not whole, and StoreError."""
        found, path = self.read(kind, key), self.path(kind, key)
        with contextlib.suppress(OSError):  # when it was used, which many file systems do not note by themselves
            os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))
        return found

    def read(self, kind: str, key: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The same, without a note that the entry was used."""
        path = self.path(kind, key)
        try:
            with path.open("rb") as file:
                opened, raw = os.fstat(file.fileno()), file.read()
        except FileNotFoundError as error:
            raise Damaged(f"{path} is gone") from error
        except OSError as error:
            raise StoreError(f"cannot read {path} of the store: {error.strerror}; finished work is kept") from error
        try:
            return unpacked(raw)
        except Exception as error:  # whatever is wrong inside, the entry is of no use
            self._set_aside(path, error, opened)
            raise Damaged(str(path)) from error

    def meta(self, kind: str, key: str) -> dict[str, Any]:
        """Meta of an entry."""
        return self.get(kind, key)[1]

    def drop(self, kind: str, key: str) -> None:
        """Remove an entry, if it is there. Raises StoreError when the disk refuses."""
        try:
            self.path(kind, key).unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"cannot remove from the store {self.folder}: {error.strerror}") from error

    def mark(self) -> str:
        """The name that this folder bears wherever it is seen from, given on first need. Raises StoreError."""
        path = self.folder / MARK
        if not path.is_file():
            try:
                write_whole(path, secrets.token_hex(16).encode())
            except OSError as error:
                raise StoreError(f"cannot write to the store {self.folder}: {error.strerror}") from error
        return path.read_text(encoding="ascii")

    def marked(self, mark: str) -> bool:
        """Whether this is the folder that bears the mark."""
        try:
            return (self.folder / MARK).read_text(encoding="ascii") == mark
        except (OSError, ValueError):
            return False

    def _set_aside(self, path: Path, error: Exception, read: os.stat_result) -> None:
        aside, reason = self.folder / ASIDE / path.name, str(error).split("\n")[0]
        try:
            aside.parent.mkdir(exist_ok=True)
            if os.stat(path).st_ino != read.st_ino:  # another process has made it again meanwhile
                return
            os.replace(path, aside)
        except FileNotFoundError:  # another process was faster
            return
        except OSError as refused:
            raise StoreError(f"{path} is damaged ({reason}) and cannot be moved aside: {refused.strerror}") from error
        tell(f"store: {path.name} is damaged ({reason}); moved to {aside}, to be made again", sys.stderr)


def packed(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> bytes:
    """An entry as the bytes of its file."""
    from safetensors.numpy import save

    text = json.dumps(meta, sort_keys=True)
    whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    return save(whole, metadata={"meta": text, "sha256": _digest(text, whole)})


def unpacked(raw: bytes) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and meta of an entry's bytes. Raises all kinds of errors when they are not whole."""
    from safetensors.numpy import load

    (size,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + size])["__metadata__"]
    arrays = load(raw)
    if _digest(header["meta"], arrays) != header["sha256"]:
        raise ValueError("its digest does not match its contents")
    return arrays, json.loads(header["meta"])


def _digest(meta: str, arrays: Mapping[str, np.ndarray]) -> str:
    """Over everything that reading gives back: names, types and shapes of the arrays too, not their bytes alone."""
    whole = hashlib.sha256(meta.encode())
    for name, array in sorted(arrays.items()):
        whole.update(f"\0{name} {array.dtype} {array.shape}\0".encode())
        whole.update(array.tobytes())
    return whole.hexdigest()
