"""What a command hands to its workers by the environment: where the data is, and whether to get it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping

NAMES = ("UNLEARNING_DATA", "UNLEARNING_DOWNLOAD")


def current() -> dict[str, str]:
    """Those that are set."""
    return {name: os.environ[name] for name in NAMES if name in os.environ}


@contextlib.contextmanager
def having(wanted: Mapping[str, str]) -> Iterator[None]:
    """Have these and no others meanwhile, and afterwards what was there before."""
    before = current()
    try:
        _set(wanted)
        yield
    finally:
        _set(before)


def _set(wanted: Mapping[str, str]) -> None:
    for name in NAMES:
        os.environ.pop(name, None)
    os.environ.update(wanted)
