"""Looks after a store: what is in it, whether it is whole, and what of it may go. All of it is safe during a run.

A run that misses an entry which was removed under it plans again and makes it anew, so that removing costs time and
never a number.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate  # type: ignore[import-untyped, unused-ignore]

from bench import claims, records, untrusted, whole
from bench.interface import UsageError
from bench.store import ASIDE, Damaged, Store
from reports.numbers import memory

UNITS = {"m": 60, "h": 3600, "d": 86_400}
AGE = re.compile(r"(\d{1,9})([mhd])")


@dataclass(frozen=True)
class Entry:
    """One entry: its kind and key, its bytes, and when it was last made or read, in seconds since 1970."""

    kind: str
    key: str
    size: int
    used: float


def entries(store: Store) -> list[Entry]:
    """Every entry, by kind and key; raises UsageError where there is no such folder."""
    if not store.folder.is_dir():
        raise UsageError(f"no store at {store.folder}; --store names another")
    return sorted(_found(store), key=lambda one: (one.kind, one.key))


def _found(store: Store) -> Iterator[Entry]:
    for path in _inside(store, "*/*/*.safetensors"):
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            told = path.stat()
            yield Entry(path.parts[-3], path.stem, told.st_size, max(told.st_mtime, told.st_atime))


def _inside(store: Store, pattern: str) -> Iterator[Path]:
    """The files that match and lie in the store: nothing that a link leads to is looked after, least of all removed."""
    return (path for path in store.folder.glob(pattern) if path.is_file() and _own(store, path))


def _own(store: Store, path: Path) -> bool:
    """Whether what is in the store under this path lies there too, and not where a link leads."""
    return path.resolve() == store.folder.resolve() / path.relative_to(store.folder)


def listing(store: Store) -> str:
    """A line an entry: kind, key, size and the days since it was used."""
    now, found = time.time(), entries(store)
    days = [max(0.0, now - one.used) / 86_400 for one in found]  # a clock may have been set back
    lines = [[one.kind, one.key, memory(one.size), f"{age:.1f}"] for one, age in zip(found, days, strict=True)]
    return _table(lines, ["kind", "key", "size", "used, days ago"])


def sizes(store: Store) -> str:
    """A line a kind with the number of its entries and their bytes, then all of them."""
    found = entries(store)
    kinds = sorted({one.kind for one in found})
    groups = [(kind, [one for one in found if one.kind == kind]) for kind in kinds] + [("all", found)]
    return _table([[kind, len(own), memory(_bytes(own))] for kind, own in groups], ["kind", "entries", "size"])


def verify(store: Store) -> tuple[str, int]:
    """Read every entry; what is damaged is named, moved aside, and made again by the next run that needs it.

    Returns:
        What was found, in one line, and how many entries were damaged.
    """
    found, damaged = entries(store), 0
    for one in found:
        try:
            _check(store, one)
        except Damaged:
            damaged += (store.folder / ASIDE / f"{one.key}.safetensors").is_file()  # or else it was removed meanwhile
    left = _useless(store, remove=False)
    useless = f"; prune removes {_files(left)}" if left else ""
    return f"{len(found)} entries read, {damaged} damaged{useless}", damaged


def _check(store: Store, one: Entry) -> None:
    """Read an entry and leave the time of its last use as it was; raises Damaged."""
    path = store.path(one.kind, one.key)
    with contextlib.suppress(FileNotFoundError):
        before = path.stat()
        store.read(one.kind, one.key)
        with contextlib.suppress(OSError):  # a store that can only be read
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def prune(store: Store, keep: Sequence[str], *, dry_run: bool) -> str:
    """Remove every entry that nothing in `keep` names, what was moved aside, and what killed processes left behind.

    Args:
        keep: each a kind (`model`), an age (`12h`, `7d`: entries made or read since), or a results folder, whose run
            then needs to make nothing anew.
        dry_run: only say what would go.

    Raises:
        UsageError: a word of `keep` is none of these, or the results are of a version that did not note its entries.
    """
    found = entries(store)
    kinds, since, keys = _kept(keep, {one.kind for one in found})
    gone = [one for one in found if not (one.kind in kinds or one.used >= since or (one.kind, one.key) in keys)]
    try:
        left = _useless(store, remove=not dry_run)
        for one in gone if not dry_run else ():
            store.drop(one.kind, one.key)
    except OSError as error:
        raise UsageError(f"cannot remove from the store {store.folder}: {error.strerror}") from error
    verb = "would remove" if dry_run else "removed"
    useless = f", and {_files(left)}" if left else ""
    return f"{verb} {len(gone)} of {len(found)} entries, {memory(_bytes(gone))}{useless}"


def _kept(keep: Sequence[str], there: Collection[str]) -> tuple[set[str], float, set[tuple[str, str]]]:
    """Kinds, the time since which entries stay, and single entries."""
    kinds: set[str] = set()
    since, keys = float("inf"), set[tuple[str, str]]()
    for word in keep:
        if word in there:
            kinds.add(word)
        elif age := AGE.fullmatch(word):
            since = min(since, time.time() - int(age[1]) * UNITS[age[2]])
        elif word.strip() and os.path.isdir(word):
            keys |= _needed(Path(word))
        else:
            known = ", ".join(sorted(there)) or "none yet"
            raise UsageError(f"--keep takes a kind ({known}), an age such as 7d, or a results folder, got '{word}'")
    return kinds, since, keys


def _needed(results: Path) -> set[tuple[str, str]]:
    """The entries that a run read or made; those of all runs below a folder of parts."""
    folders = [path.parent for path in results.rglob("records.csv")]
    if not folders:
        raise UsageError(f"no results in {results}; --keep takes a results folder, a kind or an age such as 7d")
    found: set[tuple[str, str]] = set()
    for folder in folders:
        noted = records.load(folder).run.get("entries")
        if noted is None:
            raise UsageError(f"{folder} does not note its entries, being of an earlier version; run its command again")
        found |= {(kind, key) for kind, keys in noted.items() for key in keys}
    return found


def _files(useless: int) -> str:
    return f"{useless} useless file{'' if useless == 1 else 's'}"


def _useless(store: Store, *, remove: bool) -> int:
    """How many files are of no use: damaged entries that were moved aside, and what killed processes left behind."""
    folders = [store.folder, *(path for deep in ("*", "*/*") for path in store.folder.glob(deep) if path.is_dir())]
    left = (path for folder in folders if _own(store, folder) for path in whole.abandoned(folder))
    claimed = claims.abandoned(store) if _own(store, store.folder / claims.FOLDER) else ()
    count = 0
    for path in itertools.chain(_inside(store, f"{ASIDE}/*.safetensors"), left, claimed):
        count += 1
        if remove:
            path.unlink(missing_ok=True)
    return count


def _bytes(found: Sequence[Entry]) -> int:
    return sum(one.size for one in found)


def _table(lines: Sequence[Sequence[object]], heads: Sequence[str]) -> str:
    text: str = tabulate(
        [[untrusted.printable(str(cell)) for cell in line] for line in lines],
        heads,
        tablefmt="github",
        disable_numparse=True,
        colalign=["left"] + ["right"] * (len(heads) - 1),
    )
    return text
