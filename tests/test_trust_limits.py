"""Archives that reach outside, and files that claim or unpack to more than can be meant: refused, in one line."""

from __future__ import annotations

import gzip
import io
import os
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import test_cifar10
from command import ROOT

from bench import cli, plan, records, untrusted
from bench.datasets import cifar10, tinyimagenet
from bench.interface import UsageError
from tests import pictures
from tests.test_records import ONE, RUN

pytestmark = pytest.mark.hard
GIB = 1 << 30


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder deep enough that `../../x` still lies in the folder of the test."""
    place = tmp_path / "a" / "b" / "data"
    place.mkdir(parents=True)
    monkeypatch.setenv("UNLEARNING_DATA", str(place))
    monkeypatch.setenv("UNLEARNING_CACHE", "off")
    return place


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# Archives that reach outside


Member = tuple[tarfile.TarInfo, bytes]


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", content: bytes = b"") -> Member:
    told = tarfile.TarInfo(name)
    told.type, told.linkname, told.size = kind, link, len(content)
    return told, content


def outside(folder: Path) -> list[Member]:
    """Members that an unpacker may put elsewhere, or make into what is no file."""
    return [
        member("../../climbed", content=b"x"), member(f"{folder}/absolute", content=b"x"),
        member("cifar-10-batches-py/link", tarfile.SYMTYPE, str(folder)),
        member("cifar-10-batches-py/link/through", content=b"x"),
        member("cifar-10-batches-py/hard", tarfile.LNKTYPE, "/etc/passwd"),
        member("cifar-10-batches-py/fifo", tarfile.FIFOTYPE), member("cifar-10-batches-py/device", tarfile.CHRTYPE),
    ]  # fmt: skip


def packed(data: Path, members: list[Member]) -> dict[str, str]:
    """The archive of CIFAR-10 with these members before the batches; the checksums of the batches."""
    sums = test_cifar10.write(data)
    folder = data / cifar10.SOURCE.folder
    with tarfile.open(data / cifar10.SOURCE.file, "w:gz") as archive:
        for told, content in members:
            archive.addfile(told, io.BytesIO(content))
        for name in cifar10.MD5:
            archive.add(folder / name, f"{folder.name}/{name}")
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    return sums


def test_members_of_a_tar_that_reach_outside_are_left_where_they_are(data: Path, tmp_path: Path) -> None:
    sums = packed(data, outside(tmp_path))
    before = everything(tmp_path)
    assert len(cifar10._load(data, sums).train_x) == 5 * test_cifar10.PER_BATCH
    assert everything(tmp_path) == before
    with tarfile.open(data / cifar10.SOURCE.file) as archive:
        for told in archive.getmembers()[:4]:
            archive.extract(told, data, filter="fully_trusted")
    assert {"a/climbed", "absolute", "through"} <= everything(tmp_path), "an unpacker would have put them there"


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
def test_a_batch_that_is_no_file_is_refused(kind: bytes, data: Path) -> None:
    sums = packed(data, [])
    name = f"{cifar10.SOURCE.folder}/data_batch_1"
    with tarfile.open(data / cifar10.SOURCE.file, "w:gz") as archive:
        archive.addfile(member(name, kind, "/etc/passwd")[0])
    with pytest.raises(UsageError, match=r"data_batch_1 of CIFAR-10 is missing|cannot read CIFAR-10"):
        cifar10._load(data, sums)


def test_names_in_a_zip_that_reach_outside_are_left_where_they_are(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures.pack(data / tinyimagenet.SOURCE.file, tinyimagenet.SOURCE.folder, pictures.tiny())
    names = ("../../climbed", f"{tmp_path}/absolute", f"{tinyimagenet.SOURCE.folder}/train/../../../climbed.JPEG")
    with zipfile.ZipFile(data / tinyimagenet.SOURCE.file, "a") as archive:
        for name in names:
            archive.writestr(name, "x")
    monkeypatch.setattr(type(tinyimagenet.SOURCE), "difference", lambda *_: "")
    before = everything(tmp_path)
    assert len(plan.load_dataset("tinyimagenet").train_x) == 3 * pictures.TRAIN
    assert everything(tmp_path) == before
    with zipfile.ZipFile(data / tinyimagenet.SOURCE.file) as archive:
        assert set(names) < set(archive.namelist())


def test_an_archive_of_another_checksum_is_not_even_opened(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures.pack(data / tinyimagenet.SOURCE.file, tinyimagenet.SOURCE.folder, pictures.tiny())
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("opened"))
    with pytest.raises(UsageError, match="published is"):
        plan.load_dataset("tinyimagenet")


# Archives that unpack to too much


def swollen(told: tarfile.TarInfo, size: int) -> list[Member]:
    told.size = size
    return [(told, bytes(size))]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("data_batch_1", tarfile.REGTYPE), ("of no use", tarfile.REGTYPE), ("header", tarfile.XHDTYPE)],
)
def test_a_tar_that_unpacks_to_too_much_is_refused(
    name: str, kind: bytes, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar10._Capped, "left", 10_000_000)
    sums = packed(data, swollen(member(f"{cifar10.SOURCE.folder}/{name}", kind)[0], 20_000_000))
    assert (data / cifar10.SOURCE.file).stat().st_size < 1_000_000
    with pytest.raises(UsageError, match="it unpacks to more than the data set has"):
        cifar10._load(data, sums)


def test_a_damaged_stream_is_one_line(data: Path) -> None:
    path = data / cifar10.SOURCE.file
    sums = packed(data, [])
    path.write_bytes(gzip.compress(b"")[:10] + b"\xff" * 99)
    with pytest.raises(zlib.error):
        gzip.decompress(path.read_bytes())
    with pytest.raises(UsageError, match="cannot read CIFAR-10"):
        cifar10._load(data, sums)


@pytest.mark.skipif(not (ROOT / "data" / cifar10.SOURCE.folder).is_dir(), reason="needs CIFAR-10 in data/")
def test_the_real_archive_stays_far_below_the_limit() -> None:
    real = sum(path.stat().st_size for path in (ROOT / "data" / cifar10.SOURCE.folder).iterdir())
    assert 180_000_000 < real < cifar10.UNPACKED / 2


# Images that claim too much


def png(width: int, height: int) -> bytes:
    """A PNG whose header claims this size, and that holds nothing."""
    chunks = {b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT": zlib.compress(b""), b"IEND": b""}
    body = (
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


@pytest.mark.parametrize(
    ("side", "fault"), [(60_000, "is too large an image"), (2**31 - 1, "too large"), (8, "cannot be read")]
)
@pytest.mark.parametrize("name", ["folder", "folder+size=8"])
def test_an_image_that_claims_too_much_is_refused(side: int, fault: str, name: str, data: Path) -> None:
    strange = [name for name in pictures.own() if name.endswith("/0.png")]
    pictures.write(data, pictures.own() | dict.fromkeys(strange, png(side, side)))
    with pytest.raises(UsageError, match=fault):
        plan.load_dataset(name)


# Files of results, settings and requests


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole results folder."""
    records.save(tmp_path / "results", records.Results(dict(RUN), [ONE], {"x": np.zeros(3)}))
    return tmp_path / "results"


def archive(*arrays: tuple[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in arrays:
            packed.writestr(name, content)
    return stream.getvalue()


def npy(shape: str, content: bytes = bytes(8), kind: str = "<f8") -> bytes:
    """A NumPy file whose header says this of its contents."""
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
    head += " " * (63 - (10 + len(head)) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + content


def deep(count: int) -> bytes:
    return b"[" * count + b"]" * count


HEADER = ",".join(records.COLUMNS)
TOO_MUCH: dict[str, tuple[str, bytes]] = {
    "shape beyond memory": ("samples.npz", archive(("x.npy", npy("(1099511627776,)")))),
    "shape beyond the file": ("samples.npz", archive(("x.npy", npy("(2147483648,)")))),
    "shape that overflows": ("samples.npz", archive(("x.npy", npy("(4611686018427387904, 8)")))),
    "shape of a program": ("samples.npz", archive(("x.npy", npy("__import__('os')")))),
    "objects": ("samples.npz", archive(("x.npy", npy("(1,)", kind="|O")))),
    "no array": ("samples.npz", archive(("x.txt", b"x"))),
    "deep run": ("run.json", deep(100_000)),
    "deep in a run": ("run.json", b'{"title": ' + deep(100_000) + b"}"),
    "long field": ("records.csv", f"{HEADER}\n{'x' * 10_000_000}\n".encode()),
    "many columns": ("records.csv", f"{HEADER}\n{',' * 1_000_000}\n".encode()),
    "many columns in the head": ("records.csv", b"," * 1_000_000 + b"\n"),
    "open quote": ("records.csv", f'{HEADER}\n"{"x" * 1_000_000}'.encode()),
}


@pytest.mark.parametrize("kind", TOO_MUCH)
def test_results_that_claim_too_much_are_one_line(kind: str, folder: Path) -> None:
    name, content = TOO_MUCH[kind]
    (folder / name).write_bytes(content)
    with pytest.raises(UsageError) as caught:
        records.load(folder)
    assert len(str(caught.value)) < 1_000 and "\n" not in str(caught.value)


def test_samples_that_unpack_to_too_much_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrusted, "MOST_ARRAYS", 1 << 20)
    np.savez_compressed(folder / "samples.npz", x=np.zeros(1 << 18))
    assert (folder / "samples.npz").stat().st_size < 10_000
    with pytest.raises(UsageError, match="unpacks to more than"):
        records.load(folder)


@pytest.mark.parametrize("name", ["records.csv", "run.json", "samples.npz"])
@pytest.mark.parametrize("kind", ["sparse", "pipe"])
def test_a_file_without_end_is_refused(name: str, kind: str, folder: Path) -> None:
    path = folder / name
    if kind == "sparse":
        os.truncate(path, 5 * GIB)
    else:
        path.unlink()
        os.mkfifo(path)
    with pytest.raises(UsageError, match="has more than|is not a file"):
        records.load(folder)


@pytest.mark.parametrize(
    ("words", "content"),
    [
        (("compare", "results", "--baseline", "b.json"), deep(100_000)),
        (("audit", "--model", "x.safetensors", "--request", "r.json"), b'{"forget": ' + deep(100_000) + b"}"),
        (("--dry-run", "--preset", "mine.toml"), b"about = " + deep(100_000)),
        (("--dry-run", "--recipe", "mine.toml"), b"a = " + deep(100_000)),
        (("--dry-run", "--preset", "mine.toml"), b"[" + b"a." * 10_000 + b"a]"),
    ],
)
def test_settings_that_are_nested_without_end_are_one_line(
    words: tuple[str, ...],
    content: bytes,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder.parent)
    (folder.parent / words[-1]).write_bytes(content)
    assert cli.main(list(words)) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_real_results_stay_far_below_the_limits() -> None:
    for path in (ROOT / "docs" / "results").rglob("*.*"):
        assert path.stat().st_size < untrusted.MOST_TEXT / 100
    assert len(records.load(ROOT / "docs" / "results" / "cifar10-small" / "sample_removal").records) > 100
