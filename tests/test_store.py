"""The store: what goes in comes out, equal things have equal keys, and what is damaged is never used."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from bench.interface import UsageError
from bench.store import Damaged, Store, code_version, fingerprint, key

KEY = "a" * 24
ARRAYS = st.dictionaries(
    st.from_regex(r"[a-z]+(/[a-z]+)?", fullmatch=True),
    st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_]).flatmap(
        lambda kind: arrays(kind, array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
    ),
    max_size=3,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def equal(one: Any, other: Any) -> bool:
    """Same names, types, shapes and bytes."""
    return {k: (v.dtype, v.shape, v.tobytes()) for k, v in one.items()} == {
        k: (v.dtype, v.shape, v.tobytes()) for k, v in other.items()
    }


@pytest.fixture
def filled(tmp_path: Path) -> Store:
    """A store with one entry."""
    store = Store(tmp_path / "store")
    store.put("model", KEY, {"weights/w": np.arange(6, dtype=np.float32).reshape(2, 3)}, {"seconds": 0.5})
    return store


@given(ARRAYS, st.dictionaries(st.text(max_size=5), JSON, max_size=3))
def test_an_entry_reads_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, content: Any, meta: Any) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    assert not store.has("model", KEY)
    store.put("model", KEY, content, meta)
    found, found_meta = store.get("model", KEY)
    assert store.has("model", KEY)
    assert equal(found, content)
    assert found_meta == meta == store.meta("model", KEY)


def test_a_transposed_array_reads_back_as_it_was(tmp_path: Path) -> None:
    array = np.arange(6).reshape(2, 3).T
    store = Store(tmp_path)
    store.put("model", KEY, {"a": array}, {})
    assert np.array_equal(store.get("model", KEY)[0]["a"], array)


def test_writing_leaves_nothing_behind_but_the_entry(filled: Store) -> None:
    assert [path for path in filled.folder.rglob("*") if path.is_file()] == [filled.path("model", KEY)]


def test_a_failed_write_leaves_the_old_entry_whole(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(UsageError, match="No space left on device"):
        filled.put("model", KEY, {"weights/w": np.zeros(3)}, {})
    monkeypatch.undo()
    assert filled.get("model", KEY)[1] == {"seconds": 0.5}
    assert [path for path in filled.folder.rglob("*") if path.is_file()] == [filled.path("model", KEY)]


def test_kinds_and_keys_do_not_mix(filled: Store) -> None:
    assert not filled.has("unlearned", KEY)
    assert not filled.has("model", "b" * 24)
    filled.drop("model", "b" * 24)
    assert filled.has("model", KEY)
    filled.drop("model", KEY)
    assert not filled.has("model", KEY)


@given(JSON, JSON)
def test_keys_are_equal_for_equal_values_only(one: Any, other: Any) -> None:
    assert (key(what=one) == key(what=other)) == (repr(one) == repr(other) or _same_json(one, other))


def _same_json(one: Any, other: Any) -> bool:
    """Equal, where 1, 1.0 and True are three things, and so are 0.0 and -0.0."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same_json(one[k], other[k]) for k in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same_json, one, other))
    return repr(one) == repr(other)


def test_a_key_knows_names_but_not_their_order() -> None:
    assert key(a=1, b={"c": 2, "d": 3}) == key(b={"d": 3, "c": 2}, a=1)
    assert key(a=1) != key(b=1)


@given(arrays(np.int64, st.integers(1, 6)), st.data())
def test_a_key_knows_every_element_type_and_shape_of_an_array(array: np.ndarray, data: st.DataObject) -> None:
    changed = array.copy()
    changed[data.draw(st.integers(0, len(array) - 1))] ^= 1
    others = [changed, array.astype(np.float64), array[None], array[:-1]]
    keys = {key(what=other) for other in [array, *others]}
    assert len(keys) == 1 + len(others)
    assert key(what=array.copy()) == key(what=np.repeat(array, 2)[::2]) == key(what=array)


def test_what_has_no_canonical_form_makes_no_key() -> None:
    with pytest.raises(TypeError, match="cannot make a key"):
        key(what=object())


def test_a_data_set_is_known_by_every_pixel_and_label(dataset: Any) -> None:
    from dataclasses import replace

    pixels, labels = dataset.train_x.copy(), dataset.test_y.copy()
    pixels[3, 0, 2, 2] += 1
    labels[-1] = (labels[-1] + 1) % 10
    changed = [replace(dataset, train_x=pixels), replace(dataset, test_y=labels), replace(dataset, mean=(4.8,))]
    assert len({fingerprint(one) for one in [dataset, *changed]}) == 4
    assert fingerprint(replace(dataset, train_x=dataset.train_x.copy())) == fingerprint(dataset)


def cut(raw: bytes) -> bytes:
    return raw[: len(raw) - 3]


def hostile(size: int) -> Any:
    return lambda raw: struct.pack("<Q", size) + raw[8:]


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        lambda raw: raw[:4],
        lambda raw: raw[:100],
        lambda raw: b"",
        lambda raw: b"\0" * len(raw),
        lambda raw: b"garbage" * 50,
        lambda raw: raw + b"\0",
        hostile(0),
        hostile(2**20),
        hostile(2**62),
        hostile(2**64 - 1),
        lambda raw: raw.replace(b'"seconds', b'"secondz'),
        lambda raw: raw.replace(b"weights/w", b"weights/v"),
        lambda raw: raw.replace(b"[2,3]", b"[3,2]"),
        lambda raw: raw.replace(b"F32", b"I32"),
        lambda raw: struct.pack("<Q", 100_000) + b"[" * 100_000,
    ],
)
def test_a_damaged_entry_is_moved_aside_and_named(filled: Store, capsys: Any, damage: Any) -> None:
    path = filled.path("model", KEY)
    before = path.read_bytes()
    after = damage(before)
    assert after != before
    path.write_bytes(after)
    with pytest.raises(Damaged):
        filled.get("model", KEY)
    assert not filled.has("model", KEY)
    assert (filled.folder / "damaged" / path.name).read_bytes() == after
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert path.name in told


@settings(max_examples=150)
@given(st.data())
def test_no_flipped_bit_changes_what_is_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    content = {"a": np.arange(4, dtype=np.float32), "b": np.arange(4)}
    store.put("model", KEY, content, {"n": 1})
    path = store.path("model", KEY)
    raw = bytearray(path.read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(raw)
    try:
        found, meta = store.get("model", KEY)
    except Damaged:
        return
    assert equal(found, content)  # such as a space of the header that has become a tab
    assert meta == {"n": 1}


def test_an_entry_that_has_gone_is_damaged(filled: Store) -> None:
    filled.path("model", KEY).unlink()
    with pytest.raises(Damaged, match="gone"):
        filled.get("model", KEY)


def test_a_store_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="choose another with --store"):
        Store(tmp_path / "file" / "store")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="not writable"):
        Store(tmp_path)


def test_asking_creates_no_folder(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", create=False)
    assert not store.has("model", KEY)
    assert not store.folder.exists()


CODE = '''"""A module."""


def double(x: int) -> int:
    """Twice."""
    return 2 * x  # as it says


class Thing:
    """A thing."""

    name = "thing"
'''


@pytest.fixture
def version(tmp_path: Path) -> Any:
    """The version of some source text."""

    def of(text: str) -> str:
        path = tmp_path / f"code{len(list(tmp_path.iterdir()))}.py"
        path.write_text(text)
        return code_version(path)

    return of


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# as it says", "# for good"),
        ('"""Twice."""', '"""The double, at some\n    length."""'),
        ('"""A module."""', ""),
        ('    """A thing."""\n', ""),
        ("2 * x", "(2\n        * x)"),
        ("\n\n\ndef", "\n\ndef"),
    ],
)
def test_comments_docstrings_and_layout_do_not_change_the_version(version: Any, old: str, new: str) -> None:
    assert old in CODE
    assert version(CODE.replace(old, new)) == version(CODE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("2 * x", "3 * x"),
        ("2 * x", "x * 2"),
        ('= "thing"', '= "other"'),
        ("x: int)", "x: int = 0)"),
        ("double", "twice"),
    ],
)
def test_a_change_of_code_changes_the_version(version: Any, old: str, new: str) -> None:
    assert old in CODE
    assert version(CODE.replace(old, new)) != version(CODE)


def test_a_file_changed_in_the_same_process_has_a_new_version(tmp_path: Path) -> None:
    path = tmp_path / "code.py"
    path.write_text("x = 1")
    first = code_version(path)
    path.write_text("x = 2")
    os.utime(path, ns=(1, 1))
    assert code_version(path) != first


@pytest.mark.parametrize("text", [b"def (", b"\xff\xfe", b"\0"])
def test_a_file_that_is_no_python_is_refused_in_one_line(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "code.py"
    path.write_bytes(text)
    with pytest.raises(UsageError, match="cannot load") as caught:
        code_version(path)
    assert "\n" not in str(caught.value)
