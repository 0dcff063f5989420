"""A folder with one sound file of every kind that a command reads, for tests that damage them one at a time."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path

import cifar_batches
import numpy as np
import pictures
from safetensors.torch import save

from bench import baseline, records, registry, training
from bench.preset import NOTHING
from bench.store import Store
from tests.fabricated import fabricate

METHOD = '''"""A method for tests."""

from bench.interface import Method, Need


class Mine(Method):
    """A method for tests."""

    needs = Need.FORGET
    lr: float = 0.1

    def unlearn(self, model, data, ctx):
        """Return the model as it is."""
        return model
'''
PRESET = """about = "a preset for tests"
base = "digits"

[run]
scenario = "sample_removal"
methods = ["pgu"]
seeds = 2

[recipe]
epochs = 3

[scenario.sample_removal]
count = 20

[method.pgu]
gamma = 0.9
"""
TUNED = f'''{PRESET}
[tuned.sample_removal.pgu]
epochs = 3

[provenance]
command = "python run_benchmark.py tune"
date = "2026-01-02"
commit = "{NOTHING}"
versions = {{ torch = "2.13.0" }}
hardware = {{ cores = 2 }}
dataset = "digits"
architecture = "digits_cnn"
recipe = "digits"
seed = 0
trials = 4
draws = 1
originals = 1
development = {{ sample_removal = [{{ draw_seed = 1 }}] }}
scores = {{ sample_removal = {{ pgu = {{ settings = "tuned", defaults = 2.0, chosen = 1.0, trials = 4 }} }} }}
'''
RECIPE = 'name = "mine"\nlr = 0.05\nepochs = 3\nbatch_size = 64\n'


@functools.cache
def weights(seed: int = 0, architecture: str = "digits_cnn") -> bytes:
    """The safetensors file of a network for the digits."""
    digits = registry.load("datasets", "digits")()
    return save(training.weights_of(training.new_model(registry.function("architectures", architecture), digits, seed)))


def data(folder: Path) -> None:
    """Three data sets of few images, each in its own folder."""
    cifar_batches.write(folder / "cifar")
    pictures.write(folder / "tiny" / "tiny-imagenet-200", pictures.tiny())
    pictures.write(folder / "own", pictures.own())


def write(folder: Path) -> None:
    """Every file: results with an audit, a baseline of them, weights, requests, presets, a method, a store, data."""
    fabricate(folder / "results", "sample_removal", audit=True)
    fabricate(folder / "many/a", "class_removal", audit=True)
    shutil.copytree(folder / "results", folder / "many/b")
    baseline.write(records.load(folder / "results"), folder / "baseline.json")
    (folder / "one.safetensors").write_bytes(weights(0))
    (folder / "two.safetensors").write_bytes(weights(1))
    (folder / "forget.json").write_text(json.dumps({"forget": [3, 1, 2]}))
    for name, text in {"mine.toml": PRESET, "tuned.toml": TUNED, "recipe.toml": RECIPE, "mine.py": METHOD}.items():
        (folder / name).write_text(text)
    entries = Store(folder / "store")
    entries.put("model", "0123456789abcdef", {"weights/a": np.arange(6.0)}, {"seconds": 1.0})
    data(folder)
