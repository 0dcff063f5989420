"""What is built and installed: a wheel that has all that a checkout has, nothing else, and runs without one."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from command import ROOT, Finished

pytest.importorskip("setuptools", minversion="77")
pytestmark = pytest.mark.hard
PACKAGES = ("bench", "methods", "attacks", "reports")
BUILD = "import sys, setuptools.build_meta as backend; getattr(backend, 'build_' + sys.argv[1])(sys.argv[2])"
SMALL = ("--methods", "pgu", "--attacks", "none", "--seeds", "1", "--set", "shadow.train=2", "--set",
         "shadow.validation=1", "--set", "recipe.epochs=1")  # fmt: skip


def source(folder: Path) -> Path:
    """A copy of what a distribution is built from, among files that are not to be in it."""
    for name in (*PACKAGES, "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff",
                 "SECURITY.md", "constraints.txt", "run_benchmark.py"):  # fmt: skip
        shutil.copy(ROOT / name, folder)
    (folder / "data").mkdir()
    (folder / "data" / "private.csv").write_text("1")
    return folder


def built(folder: Path, kind: str, **more: str) -> Path:
    """The distribution that setuptools, and so pip and every other tool, makes of a folder."""
    out = folder / "dist"
    out.mkdir(exist_ok=True)
    words = [sys.executable, "-c", BUILD, kind, str(out)]
    done = subprocess.run(words, cwd=folder, env=os.environ | more, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return max(out.iterdir(), key=lambda path: path.stat().st_mtime_ns)


def files(folder: Path) -> set[str]:
    """The files of the packages, by their names from the folder."""
    found = (path for name in PACKAGES for path in (folder / name).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in found if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(source(tmp_path_factory.mktemp("source") / "checkout"), "wheel")


def test_the_wheel_has_all_that_a_checkout_has_and_nothing_else(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    own = {name for name in held if ".dist-info/" not in name}
    assert own == files(ROOT)
    assert {"attacks/per_example.py", "bench/presets/digits.toml", "reports/page.html.j2"} <= own
    assert any(name.endswith("licenses/LICENSE") for name in held)


def test_the_source_distribution_makes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    path = built(source(tmp_path / "checkout"), "sdist")
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path, filter="data")
    unpacked = tmp_path / path.name.removesuffix(".tar.gz")
    assert {entry.name for entry in unpacked.iterdir()} == {
        *PACKAGES, "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff",
        "SECURITY.md", "constraints.txt", "PKG-INFO", "setup.cfg", "unlearning_bench.egg-info",
    }  # fmt: skip
    again = zipfile.ZipFile(built(unpacked, "wheel"))
    first = zipfile.ZipFile(wheel)
    assert sorted(again.namelist()) == sorted(first.namelist())
    assert all(again.read(name) == first.read(name) for name in first.namelist() if not name.endswith("RECORD"))


@pytest.mark.slow
def test_two_builds_have_the_same_bytes(tmp_path: Path) -> None:
    sums = set()
    for number in (1, 2):
        folder = source(tmp_path / str(number) / "checkout")
        for path in folder.rglob("*"):
            os.utime(path, (number * 1e8, number * 1e8))
        path = built(folder, "wheel", SOURCE_DATE_EPOCH="1700000000")
        sums.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(sums) == 1


# Installed


def call(words: Sequence[str | Path], folder: Path, **more: str) -> Finished:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment = clean | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"} | more
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=900)
    return Finished(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The command of the installed wheel and the environment it needs: the libraries are those of this Python."""
    place = tmp_path_factory.mktemp("installed")
    words = ["install", "-q", "--no-deps", "--no-index", "--target", str(place), str(wheel)]
    done = call([sys.executable, "-m", "pip", *words], place)
    assert done.code == 0, done.err
    return place / "bin" / "unlearning-bench", {"PYTHONPATH": str(place)}


def test_the_installed_command_runs_without_a_checkout(installed: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    command, environment = installed
    where = call([sys.executable, "-c", "import bench; print(bench.__file__)"], tmp_path, **environment)
    assert where.out.startswith(environment["PYTHONPATH"])
    assert "scrub" in call([command, "list", "methods"], tmp_path, **environment).out
    assert "unlearning-bench --scenario class_removal" in call([command, "--help"], tmp_path, **environment).out
    assert call([command, "--seed"], tmp_path, **environment).error.endswith("see unlearning-bench run --help")
    done = call([command, *SMALL, "--out", "out"], tmp_path, **environment)
    assert done.code == 0, done.err
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["command"].startswith("unlearning-bench --methods pgu")
    assert run["git"] == "", "a wheel knows no commit, least of all that of a folder above"
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.slow
def test_the_quick_start_runs_in_an_environment_of_its_own(wheel: Path, tmp_path: Path) -> None:
    call([sys.executable, "-m", "venv", "own"], tmp_path)
    words = ["install", "-q", "--constraint", ROOT / "constraints.txt", wheel]
    done = call([tmp_path / "own" / "bin" / "pip", *words], tmp_path)
    if re.search("No matching distribution|Connection|Temporary failure", done.err):
        pytest.skip("needs the network, or an index of packages")
    assert done.code == 0, done.err
    command = tmp_path / "own" / "bin" / "unlearning-bench"
    done = call([command, "--scenario", "class_removal", "--methods", "pgu,scrub", "--out", "out"], tmp_path)
    assert done.code == 0, done.err
    baseline = ROOT / "baselines" / "quickstart.json"
    assert call([command, "compare", "out", "--baseline", baseline], tmp_path).out.startswith("no number moved")


# Versions


def pins(text: str) -> dict[str, str]:
    """Versions by the names of packages, written alike."""
    found = re.findall(r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)", text, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version.partition("+")[0] for name, version in found}


def test_the_lock_has_the_versions_of_the_constraints_and_a_sum_of_every_file() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    known, locked = pins((ROOT / "constraints.txt").read_text()), pins(lock)
    assert {"torch", "numpy", "safetensors", "joblib"} <= set(locked)
    assert {name: known.get(name) for name in locked} == locked, "make lock"
    entries = re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)[1:]
    assert len(entries) == len(locked)
    assert not [entry for entry in entries if "--hash=sha256:" not in entry]


def test_the_lock_has_all_that_the_package_needs() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.split(r"[<>=\[ ]", one)[0].lower() for one in project["dependencies"]}
    assert needed <= set(pins((ROOT / "requirements.lock").read_text()))


def test_the_weekly_workflow_calls_what_is_there() -> None:
    flow = yaml.safe_load((ROOT / ".github" / "workflows" / "weekly.yml").read_text())
    commands = [step["run"] for job in flow["jobs"].values() for step in job["steps"] if "run" in step]
    targets = {word for command in commands if command.startswith("make ") for word in command.split()[1:]}
    assert targets == {"audit-code", "dist", "sbom"}
    assert targets <= set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    told = (ROOT / "docs" / "install.md").read_text()
    for version in flow["jobs"]["versions"]["strategy"]["matrix"]["include"]:
        assert f"| {version['python']}" in told, version
        assert f"Python :: {version['python']}" in (ROOT / "pyproject.toml").read_text()
