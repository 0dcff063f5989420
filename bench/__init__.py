"""The core of the benchmark: data, scenarios, training, the runner and the readouts.

In a notebook, `from bench import run, load` gives the results as data frames; see `bench.notebook`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.notebook import load as load
    from bench.notebook import run as run

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Load what notebooks use when it is asked for, so that importing `bench` costs nothing."""
    if name in ("load", "run"):
        from bench import notebook

        return getattr(notebook, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
