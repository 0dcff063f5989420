"""Nothing that is read runs code: pickles under any name, files that lie about, settings that name code, links."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import pytest
import test_cifar10
import torch
from command import ROOT, FinishedRun, Place

from bench import claims, cli, housekeeping, machine, plan, registry
from bench.datasets import cifar10
from bench.interface import UsageError
from bench.records import load
from bench.store import Damaged, Store, key
from tests import pictures

pytestmark = pytest.mark.hard
KEY = key(number=1)


class Touch:
    """Pickles to a call that makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.path, "w")


def saved(write: Callable[[io.BytesIO], object]) -> bytes:
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


# What would run when loaded, and the loader that would run it.
TRAPS: dict[str, tuple[Callable[[Touch], bytes], Callable[[bytes], object]]] = {
    "pickle": (pickle.dumps, pickle.loads),
    "old pickle": (lambda trap: pickle.dumps(trap, protocol=0), pickle.loads),
    "torch": (
        lambda trap: saved(lambda stream: torch.save({"0.weight": trap}, stream)),
        lambda content: torch.load(io.BytesIO(content), weights_only=False),
    ),
    "npy": (
        lambda trap: saved(lambda stream: np.save(stream, np.array([trap]), allow_pickle=True)),
        lambda content: np.load(io.BytesIO(content), allow_pickle=True),
    ),
    "npz": (
        lambda trap: saved(lambda stream: np.savez(stream, x=np.array([trap]))),
        lambda content: np.load(io.BytesIO(content), allow_pickle=True)["x"],
    ),
    "joblib": (
        lambda trap: saved(lambda stream: joblib.dump([trap], stream)),
        lambda content: joblib.load(io.BytesIO(content)),
    ),
}


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A file that is there only when something ran."""
    return tmp_path / "ran"


@pytest.mark.parametrize("kind", TRAPS)
def test_the_traps_run_what_they_hold(kind: str, canary: Path) -> None:
    make, naive = TRAPS[kind]
    naive(make(Touch(canary)))
    assert canary.exists()


def entry(place: Path, content: bytes) -> None:
    store = Store(place / "store")
    path = store.path("model", KEY)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(Damaged):
        store.get("model", KEY)


def weights(place: Path, content: bytes) -> None:
    (place / "request.json").write_text('{"forget": [1, 2]}')
    for ending in ("safetensors", "pt", "npz", "pkl"):
        path = place / f"mine.{ending}"
        path.write_bytes(content)
        words = ["audit", "--model", str(path), "--request", str(place / "request.json"), "--dry-run"]
        assert cli.main([*words, "--store", str(place / "store")]) == 2


def batch(place: Path, content: bytes) -> None:
    sums = test_cifar10.write(place, data_batch_2=content)
    with pytest.raises(UsageError, match="data_batch_2 of CIFAR-10 is no batch"):
        cifar10._load(place, sums)


def picture(place: Path, content: bytes) -> None:
    pictures.write(place, pictures.own() | {"train/dog/0.png": content})
    with pytest.raises(UsageError, match=r"train/dog/0\.png is no image"):
        plan.load_dataset("folder")


def cached(place: Path, content: bytes) -> None:
    """An array of the cache, for which the entry's own checksums vouch."""
    pictures.write(place, pictures.own())
    whole = plan.load_dataset("folder").train_x.copy()
    (home,) = (place / ".unlearning-cache").iterdir()
    (home / "train_x.npy").write_bytes(content)
    contents = json.loads((home / "meta.json").read_text())["contents"]
    empty, own = (hashlib.sha256(some).hexdigest() for some in (b"", content))
    contents["arrays"]["train_x"] |= {"offset": len(content), "header": own, "sha256": empty}
    told = hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()
    (home / "meta.json").write_text(json.dumps({"contents": contents, "sha256": told}))
    assert np.array_equal(plan.load_dataset("folder").train_x, whole)


def replaced(name: str) -> Callable[[Path, bytes], None]:
    def act(place: Path, content: bytes) -> None:
        (place / "results" / name).write_bytes(content)
        with pytest.raises(UsageError):
            load(place / "results")

    return act


def read_by(*words: str) -> Callable[[Path, bytes], None]:
    """What a command reads as a file of text, whose name is the last word."""

    def act(place: Path, content: bytes) -> None:
        (place / words[-1]).write_bytes(content)
        assert cli.main([*words[:-1], str(place / words[-1])]) == 2

    return act


PLACES: dict[str, Callable[[Path, bytes], None]] = {
    "entry of the store": entry,
    "weights to audit": weights,
    "batch of CIFAR-10": batch,
    "image": picture,
    "cached array": cached,
    "samples": replaced("samples.npz"),
    "records": replaced("records.csv"),
    "run": replaced("run.json"),
    "request": read_by("audit", "--model", "none.safetensors", "--request", "request.json"),
    "baseline": read_by("compare", "results", "--baseline", "baseline.json"),
    "preset": read_by("--dry-run", "--preset", "mine.toml"),
    "recipe": read_by("--dry-run", "--recipe", "mine.toml"),
}


@pytest.mark.parametrize("where", PLACES)
def test_no_pickle_runs_wherever_it_lies(
    where: str, canary: Path, tiny: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, (make, _) in TRAPS.items():
        place = tmp_path / kind
        place.mkdir()
        monkeypatch.chdir(place)
        monkeypatch.setenv("UNLEARNING_DATA", str(place))
        (place / "results").mkdir()
        for name in ("records.csv", "run.json", "samples.npz"):
            shutil.copy(tiny.out / name, place / "results")
        PLACES[where](place, make(Touch(canary)))
        assert not canary.exists(), kind


def test_an_array_of_objects_among_whole_samples_is_refused(tiny: FinishedRun, canary: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny.out, tmp_path / "results")
    with zipfile.ZipFile(tmp_path / "results" / "samples.npz", "a") as archive:
        archive.writestr("more.npy", TRAPS["npy"][0](Touch(canary)))
    with pytest.raises(UsageError, match="allow_pickle=False"):
        load(tmp_path / "results")
    assert not canary.exists()


def test_an_image_that_is_a_program_is_not_run(canary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch {canary}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(ghostscript.parent), prepend=os.pathsep)
    monkeypatch.setenv("UNLEARNING_DATA", str(tmp_path / "data"))
    picture(tmp_path / "data", program)
    assert not canary.exists()
    with pytest.raises(OSError):
        Image.open(io.BytesIO(program)).load()
    assert canary.exists(), "Pillow starts Ghostscript for what an .eps, by any name, holds"


# Files that lie about

NAMES = ("json", "torch", "numpy", "matplotlib", "joblib", "xgboost", "evil", "sitecustomize", "methods/evil",
         "methods/__init__", "bench/__init__", "attacks/evil")  # fmt: skip


def strew(folder: Path, canary: Path) -> None:
    """Python files by tempting names, an installed package's description, and settings of libraries."""
    for name in NAMES:
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"open({str(canary)!r}, 'a').close()\n")
    points = folder / "evil-1.dist-info" / "entry_points.txt"
    points.parent.mkdir()
    points.write_text("[unlearning_bench.methods]\nevil = evil:Evil\n")
    (points.parent / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1\n")
    (folder / "matplotlibrc").write_text("text.usetex: True\nbackend: module://evil\n")


@pytest.fixture
def strewn(tiny: FinishedRun, tmp_path: Path, canary: Path) -> Place:
    """A working folder, with results and a store, in which Python files lie everywhere."""
    place = Place(tmp_path / "work")
    shutil.copytree(tiny.out, place.out)
    for folder in (place.folder, place.out, place.store):
        folder.mkdir(exist_ok=True)
        strew(folder, canary)
    return place


def none_runs(strewn: Place, canary: Path, *commands: str) -> None:
    for command in commands:
        done = strewn.call(*command.split())
        assert (done.code, canary.exists()) == (0, False), (command, done.err)


def test_files_that_lie_about_are_not_run(strewn: Place, canary: Path) -> None:
    none_runs(strewn, canary, "list", "store verify", "--methods scrub --dry-run")
    assert strewn.call("--methods", "evil", "--dry-run").error.startswith("error: unknown method 'evil'")
    unsafe = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    subprocess.run([sys.executable, "-c", "import evil"], cwd=strewn.folder, check=True, env=unsafe)
    assert canary.exists(), "the files do run where they are asked for"


@pytest.mark.slow
def test_files_that_lie_about_are_not_run_by_what_works_long(strewn: Place, canary: Path) -> None:
    sizes = "--set shadow.train=2 --set shadow.validation=1 --set recipe.epochs=1 --seeds 1 --attacks none"
    run = f"--methods pgu {sizes} --out new --jobs 2"  # several processes, which joblib starts with helpers of its own
    none_runs(strewn, canary, "check original", "report out", "leaderboard out", run)
    assert (strewn.folder / "new" / "table.md").exists()


def test_a_method_file_runs_when_it_is_named(canary: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "methods" / "original.py").read_text()
    store = ["--dry-run", "--store", str(tmp_path / "store")]
    for name, before, after in (("mine", ["check"], []), ("other", ["--methods"], store)):
        path = tmp_path / f"{name}.py"
        path.write_text(f"{text}\nopen({str(canary)!r}, 'a').close()\n")
        words = [*before, str(path), *after]
        assert cli.main(words) == 0
        assert canary.exists()
        canary.unlink()
    assert capsys.readouterr().out.startswith("mine:")


CODE = {"dataset": '"{}"', "architecture": '"{}+width=2"', "methods": '["pgu", "{}"]', "attacks": '"loss,{}"'}


@pytest.mark.parametrize("field", CODE)
@pytest.mark.parametrize("where", ["preset", "base", "part"])
def test_settings_name_no_code(
    field: str, where: str, canary: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, path = tmp_path / "mine.py", tmp_path / "mine.toml"
    code.write_text(f"open({str(canary)!r}, 'a').close()\n")
    line = f"{field} = {CODE[field].format(code)}"
    path.write_text(f'[[part]]\nname = "a"\n[part.run]\n{line}\n' if where == "part" else f"[run]\n{line}\n")
    if where == "base":
        (tmp_path / "above.toml").write_text(f'base = "{path}"\n')
        path = tmp_path / "above.toml"
    assert cli.main(["--preset", str(path), "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert f"names {code}" in said and f"only if you name it yourself: --{field} " in said
    assert not canary.exists()


def test_the_commit_is_that_of_the_benchmark_not_of_a_folder_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert machine.commit()
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    inside = tmp_path / "lib" / "site-packages"
    inside.mkdir(parents=True)
    monkeypatch.setattr(registry, "ROOT", inside)
    monkeypatch.setattr(subprocess, "run", lambda *words, **more: pytest.fail("asked git"))
    assert machine.commit() == ""


def test_every_test_that_is_promised_is_there() -> None:
    promised = set(re.findall(r"`(test_\w+)`", (ROOT / "SECURITY.md").read_text()))
    text = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    assert len(promised) > 15
    assert not [name for name in sorted(promised) if f"def {name}(" not in text]


# Links


def test_prune_and_verify_leave_alone_what_links_lead_to(tmp_path: Path) -> None:
    outside, store = Store(tmp_path / "outside"), Store(tmp_path / "store")
    for number in range(3):
        outside.put("model", key(number=number), {"x": np.zeros(3)}, {})
    inside = store.path("audit", KEY)
    inside.parent.mkdir(parents=True)
    inside.symlink_to(outside.path("model", key(number=0)))
    (store.folder / "model").symlink_to(outside.folder / "model")
    (outside.folder / "precious").write_text("mine")
    (store.folder / claims.FOLDER).symlink_to(outside.folder)
    leftover = outside.path("model", KEY).parent / ".writing-x"
    leftover.touch()
    os.utime(leftover, (0, 0))
    before = sorted(outside.folder.rglob("*"))
    assert list(store.folder.glob("*/*/*.safetensors")), "the links do lead outside"
    assert housekeeping.verify(store) == ("0 entries read, 0 damaged", 0)
    assert housekeeping.prune(store, ["1m"], dry_run=False).startswith("removed 0 of 0 entries")
    assert sorted(outside.folder.rglob("*")) == before
    assert (outside.folder / "precious").read_text() == "mine"


def test_a_report_writes_through_no_link(tiny: FinishedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, precious = tmp_path / "results", tmp_path / "precious"
    shutil.copytree(tiny.out, out)
    precious.write_text("mine")
    for name in ("table.md", "report.html", "table.tex"):
        (out / name).unlink()
        (out / name).symlink_to(precious)
    assert cli.main(["report", str(out)]) == 0
    assert precious.read_text() == "mine" and not (out / "table.md").is_symlink()
    shutil.move(out / "figures", tmp_path / "elsewhere")
    (out / "figures").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "roc.png").write_text("mine")
    for words in (["report", str(out)], ["leaderboard", str(tiny.out), "--out", str(tmp_path / "board")]):
        (tmp_path / "board").mkdir(exist_ok=True)
        (tmp_path / "board" / "figures").unlink(missing_ok=True)
        (tmp_path / "board" / "figures").symlink_to(tmp_path / "elsewhere")
        capsys.readouterr()
        assert cli.main(words) == 2
        assert "figures is a link, through which nothing is written; remove it" in capsys.readouterr().err
    assert (tmp_path / "elsewhere" / "roc.png").read_text() == "mine"
