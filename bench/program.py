"""How one types the command: in a checkout `python run_benchmark.py`, installed `unlearning-bench`."""

from __future__ import annotations

import sys
from pathlib import Path

CHECKOUT, INSTALLED = "python run_benchmark.py", "unlearning-bench"


def name() -> str:
    """What was typed to start this process; what a checkout has where it was neither, as in a notebook."""
    return INSTALLED if Path(sys.argv[0]).stem == INSTALLED else CHECKOUT
