"""Standard output and error: there from the start, and not missed once their reader has left."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO


def open_missing() -> None:
    """Open the standard streams that a command was started without, so that no file of ours takes their place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, os.O_RDWR)
            if handle != number:
                os.dup2(handle, number)
                os.close(handle)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def tell(line: str, stream: TextIO) -> None:
    """Print a line at once. Where nobody reads it any more (`| head`, a closed terminal) the work goes on without."""
    try:
        print(line, file=stream, flush=True)
    except OSError:
        close(stream)


def close(stream: TextIO) -> None:
    """Send what is printed from now on nowhere."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
