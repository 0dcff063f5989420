"""Named random streams: every random choice of a run draws from a seed derived from the run's seed and a name."""

from __future__ import annotations

import hashlib

import numpy as np


def derive(root: int, *names: str | int) -> int:
    """A 63-bit seed that depends on the root seed and on every name, and on nothing else."""
    text = "/".join(str(name) for name in (root, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def rng(root: int, *names: str | int) -> np.random.Generator:
    """A numpy generator on the stream of these names."""
    return np.random.default_rng(derive(root, *names))
