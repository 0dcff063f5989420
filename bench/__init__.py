"""The core of the benchmark: data, scenarios, training, the runner and the readouts."""

__version__ = "0.1.0"
