"""Plug-ins by name and by path, what a broken one does, and that listing them loads nothing heavy."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from command import ROOT

from bench import arguments, catalog, cli, config, preset, registry, scenarios
from bench.attack import Attack
from bench.interface import Dataset, Method, UsageError
from bench.recipe import recipes

HEAVY = ("torch", "xgboost", "seaborn", "pandas", "matplotlib", "sklearn", "scipy", "torchvision")
METHOD = '''"""Does nothing, at length.

And says more.
"""

from bench.interface import Method


class Mine(Method):
    """Nothing."""

    rate: float = 1.0

    def unlearn(self, model, data, ctx):
        return model
'''
DATASET = '''"""Three classes of noise."""

import numpy as np

from bench.interface import Dataset


def load():
    draw = np.random.default_rng(0)
    parts = [(draw.integers(0, 16, (n, 1, 8, 8), np.uint8), np.arange(n) % 3) for n in (30, 9, 9)]
    arrays = [array for part in parts for array in part]
    return Dataset("noise", *arrays, ("a", "b", "c"), (8.0,), (5.0,), 16)
'''
ARCHITECTURE = '''"""A linear model."""

from torch import nn


def build(channels, size, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, classes))
'''


@pytest.mark.parametrize("kind", registry.KINDS)
def test_every_built_in_plug_in_loads_and_says_what_it_is(kind: str) -> None:
    names = registry.names(kind)
    assert names == sorted(names)
    assert names
    for name in names:
        assert not name.startswith("_")
        assert callable(registry.load(kind, name))
        assert registry.summary(kind, name) not in ("", "no description")
        source = registry.source(kind, name)
        assert source is not None
        assert source.stem == name


def test_plug_ins_are_of_their_kind() -> None:
    assert all(issubclass(registry.load("methods", name), Method) for name in registry.names("methods"))
    assert all(issubclass(registry.load("attacks", name), Attack) for name in registry.names("attacks"))


@pytest.mark.parametrize(
    ("kind", "name", "near"),
    [
        ("methods", "srub", "did you mean scrub?"),
        ("methods", "PGU", "known: "),
        ("methods", "_layers", "unknown method '_layers'"),
        ("attacks", "shadow_xgbost", "did you mean shadow_xgboost?"),
        ("datasets", "digit", "did you mean digits?"),
        ("architectures", "digit_cnn", "did you mean digits_cnn?"),
        ("methods", "", "unknown method ''"),
        ("methods", "../methods/pgu", "unknown method"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(kind: str, name: str, near: str) -> None:
    with pytest.raises(UsageError) as caught:
        registry.load(kind, name)
    assert near in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_method_is_one_file_anywhere(plug_in: Callable[[str, str], str]) -> None:
    path = plug_in("mine.py", METHOD)
    cls = registry.load("methods", path)
    assert cls().rate == 1.0
    assert registry.short_name(path) == "mine"
    assert registry.summary("methods", path) == "Does nothing, at length"
    assert registry.load("methods", path) is cls
    resolved = config.resolve("digits", {"methods": f"pgu,{path}"}, ["mine.rate=3"])
    assert resolved.rows() == ["original", "retrain", "pgu", "mine"]
    assert resolved.method("mine") == cls(rate=3)


def test_a_data_set_is_one_file_anywhere(plug_in: Callable[[str, str], str]) -> None:
    dataset = registry.load("datasets", plug_in("noise.py", DATASET))()
    assert isinstance(dataset, Dataset)
    assert dataset.classes == 3


def test_an_architecture_is_one_file_anywhere(plug_in: Callable[[str, str], str]) -> None:
    net = registry.load("architectures", plug_in("line.py", ARCHITECTURE))(1, 8, 3)
    assert net(torch.zeros(2, 1, 8, 8)).shape == (2, 3)


def test_two_files_of_one_name_are_two_plug_ins(tmp_path: Path) -> None:
    found = []
    for folder, rate in (("a", "1.0"), ("b", "2.0")):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "mine.py"
        path.write_text(METHOD.replace("1.0", rate))
        found.append(registry.load("methods", str(path))().rate)
    assert found == [1.0, 2.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class Mine(", "SyntaxError"),
        ("import nothing_of_this_name", "ModuleNotFoundError"),
        ("1 / 0", "ZeroDivisionError"),
        ("raise ValueError('one\\ntwo')", "ValueError: one"),
        ("x = 1", "must define exactly one subclass of Method; it defines none"),
        (METHOD + "\n\nclass Other(Method):\n    pass\n", "it defines Mine, Other"),
        ("from methods.pgu import PGU", "it defines none"),
        (METHOD.replace("rate: float", "rate: Unknown"), "NameError"),
        ("from __future__ import annotations\n" + METHOD.replace("rate: float", "rate: Unknown"), "not fully defined"),
    ],
)
def test_a_broken_file_is_told_in_one_line(
    plug_in: Callable[[str, str], str], capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    assert cli.main(["--methods", plug_in("mine.py", text), "--dry-run"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "mine" in line
    assert message in line


def test_a_broken_file_that_was_mended_loads(plug_in: Callable[[str, str], str]) -> None:
    path = plug_in("mine.py", "1 / 0")
    with pytest.raises(UsageError):
        registry.load("methods", path)
    plug_in("mine.py", METHOD)
    assert registry.load("methods", path)().rate == 1.0


@pytest.mark.parametrize(("kind", "wanted"), [("datasets", "load"), ("architectures", "build")])
def test_a_file_without_its_function_is_refused(plug_in: Callable[[str, str], str], kind: str, wanted: str) -> None:
    with pytest.raises(UsageError, match=f"defines no function `{wanted}`"):
        registry.load(kind, plug_in("mine.py", "x = 1"))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for kind in registry.KINDS:
        with pytest.raises(UsageError, match="no such file"):
            registry.load(kind, str(tmp_path / "mine.py"))


def test_the_catalog_names_everything() -> None:
    text = catalog.text()
    for kind in registry.KINDS:
        assert f"{kind}:" in text
        assert all(name in text for name in registry.names(kind))
    assert all(name in text for name in [*scenarios.KINDS, *preset.names(), *recipes()])


@pytest.mark.parametrize("kind", arguments.LISTS)
def test_a_section_of_the_catalog_stands_alone(kind: str) -> None:
    assert catalog.text(kind).startswith(f"{kind}:\n")
    assert catalog.text(kind) in catalog.text()


def loaded_and_seconds(*words: str) -> tuple[set[str], float]:
    """The heavy packages that really load on this command line, and its processor seconds."""
    script = (
        "import sys, resource\n"
        "from bench.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        f"heavy = [name for name in {HEAVY!r} if any(m.startswith(name + '.') for m in sys.modules)]\n"
        "print('\\nLOADED', used.ru_utime + used.ru_stime, *heavy)\n"
    )
    command = [sys.executable, "-c", script, *words]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    _, seconds, *heavy = done.stdout.splitlines()[-1].split()
    return set(heavy), float(seconds)


@pytest.mark.parametrize(
    "words",
    [
        *("--help", "run --help", "--version", "list", "list methods", "list methods --markdown"),
        *("--dry-run", "--methods srub", "--seeds 0 --dry-run"),
    ],
)
def test_what_needs_no_model_is_quick_and_loads_nothing_heavy(words: str) -> None:
    tries = []
    for _ in range(3):
        heavy, seconds = loaded_and_seconds(*words.split())
        assert heavy == set()
        tries.append(seconds)
        if seconds < 1.0:
            break
    assert min(tries) < 1.0


def test_an_unused_torch_stays_unloaded_until_an_attribute_is_used() -> None:
    script = (
        "import sys\nfrom bench import registry\nregistry.lazy_torch()\nimport torch\n"
        "assert 'torch._C' not in sys.modules\n"
        "assert torch.ones(2).sum().item() == 2\nassert 'torch._C' in sys.modules\n"
        "from torch import nn\nassert issubclass(nn.Linear, nn.Module)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_digits_are_split_without_overlap_and_balanced(dataset: Dataset) -> None:
    images = np.concatenate([dataset.images(part).reshape(-1, 64) for part in ("train", "validation", "test")])
    assert len(images) == 1797
    assert len(np.unique(images, axis=0)) == 1797
    assert np.bincount(dataset.train_y).tolist() == [60] * 10
    assert np.bincount(dataset.validation_y).tolist() == [40] * 10
    assert images.max() == dataset.pixel_max == 16


def test_attacks_are_listed_with_what_they_know() -> None:
    from bench import catalog

    lines = catalog.text("attacks").splitlines()
    told = {lines[at].split()[0]: lines[at + 1].strip() for at in range(1, len(lines), 2)}
    assert told.keys() == set(registry.names("attacks"))
    assert told["per_example"] == "knows the method, decides; cites hayes2024inexact"
    assert told["label_only"].startswith("knows the method, labels only;")
    assert told["lira"].startswith("knows the original;")
    assert told["loss"].startswith("knows one model;")
