"""A store that travels: what a task reads goes to a worker that shares no folder, and what it makes comes back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.store import Damaged, Store, packed, unpacked

Name = tuple[str, str]  # kind and key of an entry


class Parcel(Store):
    """Holds entries as the bytes of their files; `made` are those that were put in on the way."""

    def __init__(self, held: Mapping[Name, bytes]) -> None:
        super().__init__(Path("nowhere"), create=False)
        self.held = dict(held)
        self.made: dict[Name, bytes] = {}

    @classmethod
    def of(cls, store: Store, names: Iterable[Name]) -> Parcel:
        """The entries of these names that the store has."""
        return cls({name: store.path(*name).read_bytes() for name in names if store.has(*name)})

    def has(self, kind: str, key: str) -> bool:
        """Whether the entry is here."""
        return (kind, key) in self.held

    def put(self, kind: str, key: str, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
        """Add an entry, to be sent back."""
        self.held[kind, key] = self.made[kind, key] = packed(arrays, meta)

    def get(self, kind: str, key: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and meta of an entry. Raises Damaged when it is missing, or not whole where it came from."""
        return self.read(kind, key)

    def read(self, kind: str, key: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The same."""
        try:
            return unpacked(self.held[kind, key])
        except Exception as error:  # whatever is wrong inside, the entry is of no use
            raise Damaged(f"{kind} {key}") from error
