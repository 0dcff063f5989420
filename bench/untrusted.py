"""Reads files that others may have made: no more of them than can be meant, and no text that steers a terminal."""

from __future__ import annotations

import json
import re
import stat
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MOST_TEXT = 256 << 20  # bytes; the largest file of results that is kept with the project has 0.3 MB
MOST_ARRAYS = 4 << 30  # bytes that an archive of arrays may unpack to
STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # control characters other than tab and line feed


def printable(text: str) -> str:
    """The text with a replacement character for each that a terminal takes for a command."""
    return STEERING.sub("\N{REPLACEMENT CHARACTER}", text)


def text(path: Path) -> str:
    """The text of a UTF-8 file, printable. Raises OSError, and ValueError for what cannot be meant."""
    return printable(_text(path))


def from_json(path: Path) -> Any:
    """What a JSON file holds, all text in it printable. Raises OSError, and ValueError for what cannot be meant."""
    return _parsed(path, json.loads)


def from_toml(path: Path) -> Any:
    """The same of a TOML file."""
    return _parsed(path, tomllib.loads)


def arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an `.npz` file by their names, printable. Objects, which numpy would have pickle make, are refused.

    Raises OSError, EOFError, zipfile.BadZipFile, and ValueError for what cannot be meant.
    """
    _require_file(path, MOST_ARRAYS)
    with zipfile.ZipFile(path) as archive:
        if strange := [name for name in archive.namelist() if not name.endswith(".npy")]:
            raise ValueError(f"{path.name} holds {printable(strange[0])}, which is no array")
        if sum(member.file_size for member in archive.infolist()) > MOST_ARRAYS:
            raise ValueError(f"{path.name} unpacks to more than {MOST_ARRAYS >> 30} GiB")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {printable(name): archive[name] for name in archive.files}
    except MemoryError as error:
        raise ValueError(f"an array of {path.name} has a shape that cannot be") from error


def _require_file(path: Path, most: int) -> None:
    """Raise ValueError for a pipe or a device, which may never end, and for a file of more than `most` bytes."""
    told = path.stat()
    if not (stat.S_ISREG(told.st_mode) or stat.S_ISDIR(told.st_mode)):  # the system has its own words for a folder
        raise ValueError(f"{path.name} is not a file")
    if told.st_size > most:
        raise ValueError(f"{path.name} has more than {most >> 20} MiB")


def _text(path: Path) -> str:
    _require_file(path, MOST_TEXT)
    return path.read_text(encoding="utf-8")


def _parsed(path: Path, parse: Callable[[str], Any]) -> Any:
    try:
        return _printable(parse(_text(path)))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [_printable(one) for one in value]
    if isinstance(value, dict):
        return {printable(name): _printable(one) for name, one in value.items()}
    return value
