"""Files that appear whole or not at all, and what killed writers have left of them.

A writer holds a lock on its unfinished file, which the system takes from it when it dies, however that happens: an
unfinished file that can be locked has no writer any more. Whoever writes into a folder next removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

UNFINISHED = ".writing-"
A_DAY = 24 * 3600  # seconds; nobody takes that long, even where the file system has no locks


def write_whole(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader sees the old file or the whole new one, never a part.

    Nothing is forced onto the disk: after a power cut a new file can be empty or torn, as every reader of what counts
    (the store's entries, `records.load`) notices.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in abandoned(path.parent):
        left.unlink(missing_ok=True)
    handle, name = _unfinished(path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.chmod(name, 0o644)
            os.replace(name, path)  # while the lock is held, or it could be taken for abandoned
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _unfinished(folder: Path) -> tuple[int, str]:
    """A new locked file; its descriptor and its path."""
    while True:
        handle, name = tempfile.mkstemp(dir=folder, prefix=UNFINISHED)
        with contextlib.suppress(OSError):  # a file system without locks: age decides
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, name
        os.close(handle)  # another process took it for abandoned before it was locked


def abandoned(folder: Path) -> Iterator[Path]:
    """The unfinished files in a folder that nobody writes; nobody can begin to before the next is asked for."""
    for path in folder.glob(f"{UNFINISHED}*"):
        with contextlib.suppress(OSError), path.open("r+b") as file:  # finished meanwhile, or another user's
            if _nobody_writes(file):
                yield path


def _nobody_writes(file: BinaryIO) -> bool:
    """Whether nobody holds the lock; we do from now on."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks here
        return os.fstat(file.fileno()).st_mtime < time.time() - A_DAY
    return True
