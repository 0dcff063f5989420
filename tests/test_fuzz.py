"""Damaged files of every kind that is read: a right result or one clear line, never another error, hang or huge claim.

Each file is replaced by random bytes, damaged at random (bytes flipped, cut out, put in), or, where it is text with a
structure, given a random value of another type at a random place.
"""

from __future__ import annotations

import contextlib
import copy
import csv
import io
import json
import os
import resource
import shutil
import signal
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import baseline, config, plan, preset, records
from bench import given as models
from bench.datasets import cifar10
from bench.interface import UsageError
from bench.store import Damaged, Store
from reports import cells, document, latex, markdown, page, tables
from tests import good_inputs

pytestmark = [pytest.mark.hard, pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")]

PATIENCE = 30  # seconds after which a reader hangs
MOST = 2 << 30  # bytes that a reader of these small files may claim on top
KEY = ("model", "0123456789abcdef")

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([0, -1, 10**9, 10**30])
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


def report(folder: Path) -> None:
    """Read a results folder and write every text that is made of it."""
    results = records.load(folder)
    rows = tables.build(results)
    markdown.page(results, rows)
    latex.tables_file(results, rows)
    latex.bibliography(results.run)
    document.text(results, rows, [])
    page.render(results, rows, [])
    baseline.of(results)
    cells.collect({"run": results})


def data_set(name: str, folder: Path) -> None:
    """Read a data set as a run does."""
    os.environ["UNLEARNING_DATA"] = str(folder)
    plan.load_dataset(name)


def stored(folder: Path) -> None:
    """Read an entry of the store, which is right where it is whole."""
    before = Store(folder.parent / "sound-store").read(*KEY)
    arrays, meta = Store(folder).read(*KEY)
    assert meta == before[1] and all((arrays[name] == array).all() for name, array in before[0].items())


# The file that is damaged, and what reads it in the folder that holds all.
READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "store": (f"store/model/01/{KEY[1]}.safetensors", lambda folder: stored(folder / "store")),
    "records.csv": ("results/records.csv", lambda folder: report(folder / "results")),
    "run.json": ("results/run.json", lambda folder: report(folder / "results")),
    "samples.npz": ("results/samples.npz", lambda folder: report(folder / "results")),
    "baseline": ("baseline.json", lambda folder: baseline.read(folder / "baseline.json")),
    "request": ("forget.json", lambda folder: models.request(folder / "forget.json")),
    "weights": ("one.safetensors", lambda folder: models.read([folder / "one.safetensors"])),
    "preset": ("mine.toml", lambda folder: config.resolve(str(folder / "mine.toml"), {})),
    "tuned preset": ("tuned.toml", lambda folder: config.resolve(str(folder / "tuned.toml"), {})),
    "recipe": ("recipe.toml", lambda folder: config.resolve("digits", {"recipe": str(folder / "recipe.toml")})),
    "cifar10": ("cifar/cifar-10-batches-py/data_batch_2", lambda folder: cifar10._load(folder / "cifar", None)),
    "wnids": ("tiny/tiny-imagenet-200/wnids.txt", lambda folder: data_set("tinyimagenet", folder / "tiny")),
    "annotations": (
        "tiny/tiny-imagenet-200/val/val_annotations.txt",
        lambda folder: data_set("tinyimagenet", folder / "tiny"),
    ),
    "JPEG": ("tiny/tiny-imagenet-200/val/images/val_1.JPEG", lambda folder: data_set("tinyimagenet", folder / "tiny")),
    "PNG": ("own/train/cat/1.png", lambda folder: data_set("folder", folder / "own")),
}
STRUCTURED = [name for name, (file, _) in READERS.items() if Path(file).suffix in (".json", ".toml", ".csv")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one sound file of every kind."""
    folder = tmp_path_factory.mktemp("fuzz")
    good_inputs.write(folder)
    shutil.copytree(folder / "store", folder / "sound-store")
    return folder


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNLEARNING_CACHE", "off")
    monkeypatch.setenv("UNLEARNING_DATA", "")


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """An end to whatever takes too much time or memory."""

    def stop(*_: object) -> None:
        raise AssertionError(f"no answer after {PATIENCE} s")

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before, old = resource.getrlimit(resource.RLIMIT_AS), signal.signal(signal.SIGALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST, before[1]))
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.signal(signal.SIGALRM, old)


def check(place: Path, name: str, content: bytes) -> None:
    """Read the file with this content: it is read, or refused in one line."""
    file, read = READERS[name]
    path = place / file
    sound = path.read_bytes()
    path.write_bytes(content)
    answer = "read"
    try:
        with bounded():
            read(place)
    except (UsageError, Damaged) as error:
        answer = str(error)
    finally:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(sound)
    assert answer and "\n" not in answer and len(answer) < 2000, answer


@st.composite
def damaged(draw: st.DrawFn, sound: bytes) -> bytes:
    """The file with some bytes changed, cut out or put in, or cut off."""
    content = bytearray(sound)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        some = draw(st.binary(min_size=1, max_size=9))
        match draw(st.sampled_from(("change", "insert", "remove", "cut"))):
            case "change":
                content[at : at + len(some)] = some
            case "insert":
                content[at:at] = some
            case "remove":
                del content[at : at + draw(st.integers(1, 200))]
            case _:
                del content[at:]
    return bytes(content)


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to every value within lists and tables."""
    if above:
        yield above
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inner:
        yield from places(one, (*above, name))


@st.composite
def changed(draw: st.DrawFn, file: str, sound: bytes) -> bytes:
    """The file with a random value at a random place, or without what was there."""
    if file.endswith(".csv"):
        rows = list(csv.reader(io.StringIO(sound.decode())))
        row = rows[draw(st.integers(0, len(rows) - 1))]
        row[draw(st.integers(0, len(row) - 1))] = draw(
            st.sampled_from(["", "inf", "-1", "1e999", "x", "9" * 30]) | st.text(max_size=5)
        )
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        return text.getvalue().encode(errors="replace")
    whole = copy.deepcopy(tomllib.loads(sound.decode()) if file.endswith(".toml") else json.loads(sound))
    *way, last = draw(st.sampled_from(list(places(whole))))
    inner = whole
    for name in way:
        inner = inner[name]
    if draw(st.integers(0, 4)) == 0:
        del inner[last]
    else:
        inner[last] = draw(values)
    text = preset.text(whole) if file.endswith(".toml") else json.dumps(whole)
    return text.encode(errors="replace")


def fuzz(place: Path, name: str, data: st.DataObject) -> None:
    """Read one damaged file."""
    file, _ = READERS[name]
    sound = (place / file).read_bytes()
    kinds = [st.binary(max_size=500), damaged(sound)]
    if name in STRUCTURED:
        kinds += 2 * [changed(file, sound)]
    check(place, name, data.draw(st.one_of(kinds)))


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=15)
@given(data=st.data())
def test_a_damaged_file_is_read_right_or_refused(place: Path, name: str, data: st.DataObject) -> None:
    fuzz(place, name, data)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
@settings(max_examples=300)
@given(data=st.data())
def test_many_damaged_files_are_read_right_or_refused(place: Path, name: str, data: st.DataObject) -> None:
    fuzz(place, name, data)


@pytest.mark.parametrize("name", READERS)
def test_the_sound_file_is_read(place: Path, name: str) -> None:
    READERS[name][1](place)
