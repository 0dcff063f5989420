"""What is said in one line when the machine refuses: a full disk, a disk that can only be read, no memory left."""

from __future__ import annotations

import errno

REFUSED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
# What is wrong with the name of a file or folder.
NAMED = (errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR)
# What a RuntimeError says: torch's CPU allocator the first, that of a GPU the second, Python the third.
MEMORY = ("can't allocate memory", "out of memory", "can't start new thread")
KEPT = "finished work is in the store, the same command goes on from there"


def reason(error: OSError | MemoryError | RuntimeError) -> str:
    """The line for an error that says nothing of the code; empty for any other."""
    if isinstance(error, MemoryError) or any(words in str(error).casefold() for words in MEMORY):
        return f"out of memory; {KEPT}, perhaps with a smaller --jobs"
    if isinstance(error, OSError) and error.errno in REFUSED:
        place = f" {error.filename}" if error.filename else ""
        return f"cannot write or read{place}: {error.strerror}; {KEPT}"
    if isinstance(error, OSError) and error.errno in NAMED and error.filename:
        return f"cannot use {error.filename}: {error.strerror}; name another file or folder"
    return ""
