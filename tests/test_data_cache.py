"""The cache of decoded data sets: what it gives back, when it is made anew, what damages and races do to it."""

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pictures
import pytest
import torch

from bench import pool, store
from bench.datasets import _cache, folder, subset, without_test
from bench.interface import Dataset

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of images, the data folder for this test."""
    pictures.write(tmp_path / "data", pictures.own())
    monkeypatch.setenv("UNLEARNING_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("UNLEARNING_CACHE", raising=False)
    return tmp_path / "data"


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with every decoding."""
    counted: list[int] = []
    decode = folder._decode
    monkeypatch.setattr(folder, "_decode", lambda *args: (counted.append(1), decode(*args))[1])
    return counted


def entries(home: Path) -> list[Path]:
    return sorted(home.iterdir())


def arrays(dataset: Dataset) -> list[np.ndarray]:
    return [getattr(dataset, name) for name in _cache.ARRAYS]


def same(one: Dataset, other: Dataset) -> bool:
    facts = all(getattr(one, name) == getattr(other, name) for name in _cache.FACTS)
    return facts and all(map(np.array_equal, arrays(one), arrays(other)))


def test_decoding_happens_once(place, decodings, monkeypatch):
    first, second = folder.load(), folder.load()
    assert len(decodings) == 1
    monkeypatch.setenv("UNLEARNING_CACHE", _cache.OFF)
    plain = folder.load()
    assert same(first, plain) and same(second, plain)
    assert len(decodings) == 2
    assert len(entries(place / _cache.NAME)) == 1


def test_arrays_are_mapped_and_cannot_change_the_file(place):
    data = folder.load()
    assert all(isinstance(array.base, np.memmap) and type(array) is np.ndarray for array in arrays(data))
    before = data.train_x[0, 0, 0, 0]
    torch.from_numpy(data.train_x)[0, 0, 0, 0] = int(before) ^ 1
    assert folder.load().train_x[0, 0, 0, 0] == before


def test_the_cache_can_lie_elsewhere(place, tmp_path, monkeypatch, decodings):
    monkeypatch.setenv("UNLEARNING_CACHE", str(tmp_path / "else" / "where"))
    folder.load()
    folder.load()
    assert (len(decodings), len(entries(tmp_path / "else" / "where"))) == (1, 1)
    assert not (place / _cache.NAME).exists()


def test_another_size_is_another_entry(place, decodings):
    assert [folder.load(size).train_x.shape[-1] for size in (None, 16, None, 16)] == [8, 16, 8, 16]
    assert len(decodings) == 2


def test_changed_sources_are_decoded_again(place, decodings):
    before = folder.load()
    path = place / "train" / "dog" / "2.png"
    path.write_bytes(pictures.image(77, (8, 8), kind="PNG"))
    os.utime(path, ns=(1, 1))
    after = folder.load()
    assert len(decodings) == 2
    assert not np.array_equal(before.train_x, after.train_x)
    (place / "train" / "dog" / "3.png").unlink()
    assert len(folder.load().train_y) == 7


def test_a_copy_elsewhere_is_not_mistaken_for_it(place, tmp_path, monkeypatch, decodings):
    """As with archives unpacked with old times: names, sizes and times are equal, contents are not."""
    monkeypatch.setenv("UNLEARNING_CACHE", str(tmp_path / "cache"))
    other = {name: pictures.image(5, (8, 8), kind="BMP") for name in pictures.own()}
    one = {name: pictures.image(6, (8, 8), kind="BMP") for name in pictures.own()}
    for name, files in (("one", one), ("other", other)):
        pictures.write(tmp_path / name, files)
        for path in (tmp_path / name).rglob("*.png"):
            os.utime(path, ns=(0, 0))
    loaded = []
    for name in ("one", "other"):
        monkeypatch.setenv("UNLEARNING_DATA", str(tmp_path / name))
        loaded.append(folder.load())
    assert not np.array_equal(loaded[0].train_x, loaded[1].train_x)


# What a cached data set is known by ---------------------------------------------------------------------------------


def test_the_digest_is_the_fingerprint_of_the_contents(place, monkeypatch):
    cached = folder.load()
    assert cached.digest
    monkeypatch.setenv("UNLEARNING_CACHE", _cache.OFF)
    plain = folder.load()
    assert plain.digest == ""
    assert cached.digest == store.fingerprint(cached) == store.fingerprint(plain)
    assert pickle.loads(pickle.dumps(cached)).digest == cached.digest


CHANGES: dict[str, Callable[[Dataset], Dataset]] = {
    "subset": lambda data: subset(data, train=4),
    "without_test": without_test,
    "an array": lambda data: replace(data, train_x=255 - data.train_x),
    "labels": lambda data: replace(data, test_y=1 - data.test_y),
    "normalization": lambda data: replace(data, mean=(1.0, 2.0, 3.0)),
    "class names": lambda data: replace(data, class_names=("a", "b")),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_changed_data_set_has_no_digest(kind, place):
    data = folder.load()
    changed = CHANGES[kind](data)
    assert changed.digest == ""
    assert store.fingerprint(changed) != store.fingerprint(data)


def test_settings_and_parts_have_fingerprints_of_their_own(place):
    names = ("folder", "folder+train=4", "folder+size=16")
    assert len({store.fingerprint(pool.load_dataset(name)) for name in names}) == 3


def test_settings_of_the_loader_copy_nothing(place):
    data = pool.load_dataset("folder+size=16")
    assert data.digest and isinstance(data.train_x.base, np.memmap)
    assert data.digest == store.fingerprint(replace(data))
    part = pool.load_dataset("folder+size=16+train=4")
    assert not part.digest and isinstance(part.test_x.base, np.memmap)


def test_nobody_can_pass_a_digest_along():
    with pytest.raises(TypeError, match="digest"):
        Dataset(digest="x")  # type: ignore[call-arg]


# Damage -------------------------------------------------------------------------------------------------------------


def alter(path: Path, where: int) -> None:
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 7)


DAMAGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "an altered pixel": ("train_x.npy", lambda path: alter(path, -5)),
    "an altered label": ("test_y.npy", lambda path: alter(path, -8)),
    "an altered header": ("train_x.npy", lambda path: alter(path, 60)),
    "a truncated array": ("train_x.npy", truncate),
    "an empty array": ("train_x.npy", lambda path: os.truncate(path, 0)),
    "altered facts": ("meta.json", lambda path: path.write_text(path.read_text().replace('"cat"', '"cow"'))),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_entry_is_named_with_both_checksums_and_made_again(kind, place, decodings, capsys):
    before = folder.load()
    kept = [array.copy() for array in arrays(before)]
    (entry,) = entries(place / _cache.NAME)
    name, damage = DAMAGES[kind]
    damage(entry / name)
    after = folder.load()
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{name} has SHA-256 " in line and ", written was " in line and str(entry) in line
    found, written = line.split(" has SHA-256 ")[1].split(")")[0].split(", written was ")
    assert len(found) == len(written) == 64 and found != written
    assert len(decodings) == 2
    assert all(map(np.array_equal, kept, arrays(after)))
    assert folder.load().digest == after.digest
    assert len(decodings) == 2
    assert entries(place / _cache.NAME) == [entry]


@pytest.mark.parametrize("name", ["meta.json", "validation_x.npy"])
@pytest.mark.parametrize("text", [None, "", "[]", '{"contents": {}, "sha256": ""}'])
def test_an_entry_with_a_file_missing_or_strange_is_made_again(name, text, place, decodings, capsys):
    folder.load()
    (entry,) = entries(place / _cache.NAME)
    (entry / name).unlink()
    if text is not None:
        (entry / name).write_text(text)
    folder.load()
    assert capsys.readouterr().err.count("\n") == 1
    assert len(decodings) == 2


def test_where_nothing_can_be_written_data_are_decoded_in_memory(place, decodings, capsys):
    (place / _cache.NAME).write_text("in the way")
    assert same(folder.load(), folder.load())
    (line,) = capsys.readouterr().err.splitlines()  # once, not for every load
    assert line.startswith(f"no cache in {place / _cache.NAME} (") and "UNLEARNING_CACHE" in line
    assert len(decodings) == 2


def test_a_full_disk_leaves_nothing_behind(place, monkeypatch, capsys):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    assert len(folder.load().train_y) == 8
    assert "(No space left on device)" in capsys.readouterr().err
    assert entries(place / _cache.NAME) == []


def test_an_interruption_leaves_nothing_behind(place, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        folder.load()
    assert entries(place / _cache.NAME) == []


def test_what_a_killed_process_left_goes_after_a_day(place):
    home = place / _cache.NAME
    old, new = (home / f".folder-{'0' * 24}-{c * 32}" for c in "ab")
    for path in (old, new, home / ".other"):
        path.mkdir(parents=True)
    for path in (old, home / ".other"):
        os.utime(path, (time.time() - 2 * _cache.A_DAY,) * 2)
    folder.load()
    left = {path.name for path in entries(home)}
    assert old.name not in left
    assert {new.name, ".other"} <= left


def test_another_process_may_be_faster(place, monkeypatch, capsys):
    first = folder.load()
    answers = iter([None, first])
    monkeypatch.setattr(_cache, "_cached", lambda _: next(answers))
    assert folder.load() is first
    assert len(entries(place / _cache.NAME)) == 1
    assert capsys.readouterr().err == ""


def test_a_cached_data_set_needs_no_decoder(place):
    folder.load()
    script = "import sys; from bench import plan; plan.load_dataset('folder'); "
    script += "print([name for name in ('PIL', 'pooch', 'requests') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_two_processes_at_once(place):
    script = "from bench import store; from bench.datasets import folder; print(store.fingerprint(folder.load()))"
    start = {"args": [sys.executable, "-c", script], "cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [subprocess.Popen(**start) for _ in range(3)]
    printed = [process.communicate(timeout=60) for process in processes]
    assert len({out for out, _ in printed}) == 1
    assert [err for _, err in printed] == [b""] * 3
    assert len(entries(place / _cache.NAME)) == 1
