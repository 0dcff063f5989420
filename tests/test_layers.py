"""What "the last k layers" counts: the lists that architectures publish, a network with shortcuts, and bad lists."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command import SMALL_POOL, Place
from torch import nn

from bench import cli, config, layers, loop, plan, registry, training, unlearning
from bench.dataview import MeteredPart
from bench.interface import Dataset, Method, Request
from bench.recipe import Recipe
from methods import _layers
from methods.cf_k import CFk
from methods.eu_k import EUk

RESIDUAL = '''"""A small residual network: two of its four convolutions are in a block, one on the block's shortcut."""

from torch import nn

LAYERS = ("stem", "block.first", "block.second", "head")


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(4, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8)
        self.second, self.norm2 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.shortcut, self.norm3 = nn.Conv2d(4, 8, 1, stride=2), nn.BatchNorm2d(8)

    def forward(self, x):
        y = self.norm2(self.second(self.norm(self.first(x)).relu()))
        return (y + self.norm3(self.shortcut(x))).relu()


class Net(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.head, self.block = nn.Linear(8, classes), Block()
        self.stem, self.bn = nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.head(self.block(self.bn(self.stem(x)).relu()).mean((2, 3)))


def build(channels, size, classes):
    return Net(channels, classes)
'''
LIST = 'LAYERS = ("stem", "block.first", "block.second", "head")\n'
TAILS = {1: {"head"}, 2: {"block.second", "block.norm2", "block.shortcut", "block.norm3", "head"}}
TAILS[3] = TAILS[2] | {"block.first", "block.norm"}
UNLISTED = {1: {"head"}, 2: {"block.shortcut", "block.norm3", "head"}, 3: TAILS[2], 4: TAILS[3]}
# A method that fails unless the list of this architecture reached it.
NOSY = '''"""Looks at the list."""

from bench.interface import Method


class Nosy(Method):
    """Checks what it is told, and leaves the model as it is."""

    identity = True

    def unlearn(self, model, data, ctx):
        if ctx.layers != NAMES:
            raise ValueError(f"told {ctx.layers}")
        return model
'''


@pytest.fixture
def residual(plug_in: Callable[[str, str], str]) -> str:
    return plug_in("residual.py", RESIDUAL)


def names_of(model: nn.Module, modules: list[nn.Module]) -> set[str]:
    return {name for name, module in model.named_modules() if module in set(modules)}


@pytest.mark.parametrize(
    ("name", "channels", "size", "count"), [("digits_cnn", 1, 8, 4), ("allcnn", 3, 32, 9), ("smallvgg", 3, 32, 5)]
)
def test_the_lists_that_ship_are_the_layers_in_the_order_they_run(
    name: str, channels: int, size: int, count: int
) -> None:
    model = registry.load("architectures", name)(channels, size, 10)
    x = torch.zeros(1, channels, size, size)
    ran = [module for module in _layers.running_order(model, x) if _layers.is_weight_layer(module)]
    listed = layers.published(name)
    assert len(listed) == count
    assert [model.get_submodule(layer) for layer in listed] == ran
    layers.require_sound(model, listed, x)


def test_every_architecture_that_ships_publishes_its_layers() -> None:
    assert all(layers.published(name) for name in registry.names("architectures"))


def test_a_shortcut_is_no_layer_but_belongs_to_the_tail_it_runs_in(residual: str) -> None:
    model, x = registry.load("architectures", residual)(1, 8, 10), torch.zeros(1, 1, 8, 8)
    listed = layers.published(residual)
    assert listed == ("stem", "block.first", "block.second", "head")
    for k, expected in TAILS.items():
        assert names_of(model, _layers.tail(model, x, k, listed)) == expected
    for k, expected in UNLISTED.items():
        assert names_of(model, _layers.tail(model, x, k)) == expected
    assert set(_layers.tail(model, x, 4, listed)) == set(_layers.tail(model, x, 5)) == set(model.modules())


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("method", [EUk(k=2, epochs=1), CFk(k=2, epochs=1)])
def test_what_lies_before_the_tail_stays_bit_for_bit(
    method: Method, listed: bool, residual: str, dataset: Dataset, recipe: Recipe
) -> None:
    make = training.maker(registry.load("architectures", residual), dataset, "cpu")
    setting = unlearning.Setting.of(dataset, dataset.train_y, recipe, "sample_removal", "cpu", make)
    setting = replace(setting, layers=layers.published(residual)) if listed else setting
    model = make(3)
    part = MeteredPart(setting.images["train"], torch.arange(600), torch.from_numpy(dataset.train_y))
    loop.fit(model.train(), part, recipe, torch.Generator().manual_seed(0))
    request = Request(np.arange(60), np.arange(60, 600), np.arange(60))
    done = unlearning.unlearn(setting, "k", method, model.eval(), request, state={}, seed=1, original_seed=3)
    old, new = model.state_dict(), done.model.state_dict()
    moved = {name.rpartition(".")[0] for name in old if not torch.equal(old[name], new[name])}
    assert moved == (TAILS if listed else UNLISTED)[2]


@pytest.mark.slow
def test_the_list_reaches_the_methods_of_a_run(run: Place, residual: str, plug_in: Callable[[str, str], str]) -> None:
    nosy = plug_in("nosy.py", NOSY.replace("NAMES", str(layers.published(residual))))
    words = (*SMALL_POOL, "--seeds", "1", "--attack", "none", "--architecture", residual)
    finished = run.benchmark(*words, "--methods", f"{nosy},eu_k", "--set", "eu_k.k=2")
    assert finished.code == 0, finished.err


def test_another_list_makes_other_models_and_other_runs(residual: str) -> None:
    def keys() -> tuple[set[str], set[str]]:
        planned = plan.make(config.resolve("digits", {"architecture": residual, "methods": "eu_k"}))
        return {model.key for model in planned.models()}, {run.key for row in planned.rows for run in row.runs}

    before = keys()
    assert keys() == before
    Path(residual).write_text(RESIDUAL.replace('"stem", ', ""))
    assert not any(old & new for old, new in zip(before, keys(), strict=True))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('LAYERS = ("stem", "tail")', "LAYERS names 'tail', which is no module of the network"),
        ('LAYERS = ("stem", "block.norm")', "LAYERS names 'block.norm', a BatchNorm2d; only convolutions and linear"),
        ('LAYERS = ("head", "stem")', "LAYERS lists head, stem, but of these run, in this order, stem, head"),
        ('LAYERS = ("stem", "stem")', "LAYERS lists stem, stem, but of these run, in this order, stem"),
        ('LAYERS = tuple(["stem"])', "it must be a tuple of module names, written out"),
        ('LAYERS = "stem"', "it must be a tuple of module names, written out"),
        ("LAYERS: tuple[str, ...] = (1, 2)", "it must be a tuple of module names, written out"),
    ],
)
def test_a_bad_list_is_one_line(
    residual: str, line: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(residual).write_text(RESIDUAL.replace(LIST, line + "\n"))
    places = ["--store", str(tmp_path / "store"), "--out", str(tmp_path / "out")]
    assert cli.main(["--architecture", residual, "--seeds", "1", *places]) == 2
    [error] = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ")
    assert "residual" in error
    assert message in error


def test_an_annotated_list_is_read_and_a_file_without_one_has_none(plug_in: Callable[[str, str], str]) -> None:
    annotated = RESIDUAL.replace("LAYERS =", "LAYERS: tuple[str, ...] =")
    assert layers.published(plug_in("net.py", annotated)) == ("stem", "block.first", "block.second", "head")
    assert layers.published(plug_in("net.py", RESIDUAL.replace(LIST, ""))) == ()
