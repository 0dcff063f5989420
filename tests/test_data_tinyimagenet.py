"""TinyImageNet on small trees made here and, where a copy is at hand, on a part of the real one."""

import dataclasses
import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pictures
import pytest
from PIL import Image

from bench import plan, store
from bench.datasets import tinyimagenet
from bench.interface import Dataset, UsageError

FOLDER, ARCHIVE = tinyimagenet.SOURCE.folder, tinyimagenet.SOURCE.file
ROOT = Path(__file__).resolve().parent.parent
HOLDS = Path(os.environ.get("UNLEARNING_DATA") or ROOT / "data") / FOLDER
SOME = ("n01443537", "n02124075", "n04067472", "n04540053")
real = pytest.mark.skipif(
    not all((HOLDS / "train" / wnid).is_dir() for wnid in SOME),
    reason=f"no unpacked TinyImageNet in {HOLDS.parent.name}/{FOLDER}",
)


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Dataset]:
    """Loads from these files, in a folder of their own."""

    def do(files: dict[str, bytes], place: str = "data") -> Dataset:
        pictures.write(tmp_path / place / FOLDER, files)
        monkeypatch.setenv("UNLEARNING_DATA", str(tmp_path / place))
        return plan.load_dataset("tinyimagenet")

    return do


@pytest.fixture
def refused(load: Callable[..., Dataset]) -> Callable[..., str]:
    """The one line that loading these files ends with; it always says what to do."""

    def do(files: dict[str, bytes]) -> str:
        with pytest.raises(UsageError) as caught:
            load(files)
        line = str(caught.value)
        assert "\n" not in line
        for part in (tinyimagenet.SOURCE.url, ARCHIVE, tinyimagenet.SOURCE.md5, "--data-dir", "--preset digits"):
            assert part in line
        return line

    return do


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).transpose(2, 0, 1)


def test_images_and_labels_are_in_the_order_of_class_and_file_name(load):
    files = pictures.tiny()
    data = load(files)
    assert data.train_x.shape == (3 * pictures.TRAIN, 3, 64, 64)
    assert data.train_y.tolist() == [0] * pictures.TRAIN + [1] * pictures.TRAIN + [2] * pictures.TRAIN
    first, third = "train/n00000001/images/n00000001_{}.JPEG", "train/n00000003/images/n00000003_{}.JPEG"
    assert np.array_equal(data.train_x[0], pixels(files[first.format(0)]))
    assert np.array_equal(data.train_x[2], pixels(files[first.format(10)]))  # 10 before 2, as ImageFolder sorts
    assert np.array_equal(data.train_x[-1], pixels(files[third.format(9)]))
    assert data.class_names == ("crane (n00000001)", "crane (n00000002)", "n00000003")
    assert np.allclose(data.mean, [129.3105, 124.083, 112.4295])
    assert data.train_x.flags.writeable


def test_grey_images_become_rgb(load):
    grey = load(pictures.tiny()).train_x[0]
    assert np.array_equal(grey[0], grey[1]) and np.array_equal(grey[1], grey[2])


def test_held_out_images_carry_their_own_labels_in_both_halves(load):
    files = pictures.tiny()
    data = load(files)
    lines = [line.split("\t")[:2] for line in files["val/val_annotations.txt"].decode().splitlines()]
    known = {pixels(files[f"val/images/{name}"]).tobytes(): sorted(pictures.WNIDS).index(wnid) for name, wnid in lines}
    seen = []
    for part in ("validation", "test"):
        assert np.bincount(data.labels(part)).tolist() == [pictures.HELD_OUT // 2] * 3
        for x, y in zip(data.images(part), data.labels(part), strict=True):
            assert known[x.tobytes()] == y
            seen.append(x.tobytes())
    assert set(seen) == set(known)


def test_every_layout_gives_the_same_data_set(load, tmp_path, monkeypatch):
    files = pictures.tiny()
    plain = load(files, "plain")
    others = [load(pictures.rearranged(files), "a"), load(pictures.rearranged(files, "images/"), "b")]
    pictures.pack(tmp_path / "packed" / ARCHIVE, FOLDER, files)
    pictures.pack(tmp_path / "inner" / "tinyimagenet" / ARCHIVE, FOLDER, files)
    for place, path in (("packed", ARCHIVE), ("inner", f"tinyimagenet/{ARCHIVE}")):
        md5 = hashlib.md5((tmp_path / place / path).read_bytes()).hexdigest()
        monkeypatch.setattr(tinyimagenet, "SOURCE", dataclasses.replace(tinyimagenet.SOURCE, md5=md5))
        monkeypatch.setenv("UNLEARNING_DATA", str(tmp_path / place))
        others.append(plan.load_dataset("tinyimagenet"))
        assert sorted(path.name for path in (tmp_path / place).iterdir() if path.name[0] != ".") in (
            [ARCHIVE],
            ["tinyimagenet"],
        )
    assert {store.fingerprint(one) for one in others} == {store.fingerprint(plain)}


def test_named_classes_are_the_same_in_a_copy_of_fewer(load, refused):
    files = pictures.tiny()
    wnids = sorted({name.split("/")[1] for name in files if name.startswith("train/")})
    gone, kept = wnids[0], wnids[1:3]
    fewer = {name: content for name, content in files.items() if f"/{gone}/" not in name}
    fewer["wnids.txt"] = "\n".join(wnids[1:]).encode()
    entry = f"tinyimagenet+only={','.join(reversed(kept))}"
    load(files, "whole")
    whole = plan.load_dataset(entry)
    load(fewer, "fewer")
    part = plan.load_dataset(entry)
    assert store.fingerprint(whole) == store.fingerprint(part)
    assert whole.classes == len(kept)
    assert store.fingerprint(whole) == store.fingerprint(plan.load_dataset(entry))  # from the cache
    with pytest.raises(UsageError, match="there is no class n99, which "):
        plan.load_dataset("tinyimagenet+only=n99")


def test_an_archive_reads_no_member_by_another_name(load, tmp_path, monkeypatch):
    files = pictures.tiny()
    strange = {f"../{FOLDER}/train/n00000001/images/x.JPEG": b"", "train/n00000001/images/../../x.JPEG": b"no image"}
    pictures.pack(tmp_path / "data" / ARCHIVE, FOLDER, files | strange | {"train/x/images/y.JPEG": b"no image"})
    md5 = hashlib.md5((tmp_path / "data" / ARCHIVE).read_bytes()).hexdigest()
    monkeypatch.setattr(tinyimagenet, "SOURCE", dataclasses.replace(tinyimagenet.SOURCE, md5=md5))
    monkeypatch.setenv("UNLEARNING_DATA", str(tmp_path / "data"))
    assert len(tinyimagenet.load().train_y) == 3 * pictures.TRAIN


def test_an_altered_archive_is_refused_with_both_checksums(load, tmp_path, monkeypatch):
    pictures.pack(tmp_path / "data" / ARCHIVE, FOLDER, pictures.tiny())
    md5 = hashlib.md5((tmp_path / "data" / ARCHIVE).read_bytes()).hexdigest()
    monkeypatch.setenv("UNLEARNING_DATA", str(tmp_path / "data"))
    with pytest.raises(UsageError) as caught:
        tinyimagenet.load()
    assert f"{ARCHIVE} has MD5 {md5}, published is {tinyimagenet.SOURCE.md5}; delete " in str(caught.value)


IMAGE = "train/n00000001/images/n00000001_3.JPEG"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({IMAGE: None}, "train has 10 images of n00000001, but 11 of other classes"),
        ({"val/images/val_4.JPEG": None}, "val has 3 images of n00000001, but 4 of other classes"),
        ({"val/val_annotations.txt": None}, "val has 0 labeled images of n00000001, at least 2 are needed"),
        ({"wnids.txt": b"n00000001 n00000002 n00000003 n00000004"}, "no images in train/n00000004/images, a class"),
        ({"wnids.txt": b"n00000001 n00000002"}, "wnids.txt does not list the class train/n00000003"),
        ({IMAGE: pictures.image(0)[:-500]}, f"{IMAGE} cannot be read (image file is truncated"),
        ({"words.txt": b"n00000001\t\xff"}, "'utf-8' codec can't decode byte 0xff"),
        ({IMAGE: b""}, f"{IMAGE} is no image"),
        ({IMAGE: b"<html>not found</html>"}, f"{IMAGE} is no image"),
        ({IMAGE: pictures.image(0, (64, 60))}, f"{IMAGE} has 64 x 60 pixels, not 64 x 64"),
    ],
)
def test_what_is_not_whole_is_refused(change, expected, refused):
    files = pictures.tiny() | change
    assert expected in refused({name: content for name, content in files.items() if content is not None})


def test_folders_that_hold_no_data_set_are_refused(refused):
    assert "No such file" in refused({"wnids.txt": b""})
    assert "no two classes" in refused({"train/x/images/a.JPEG": b"", "val/images/a.JPEG": b""})


def test_missing_data_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARNING_DATA", str(tmp_path))
    with pytest.raises(UsageError, match=f"TinyImageNet is not in the folder {tmp_path}; get '{ARCHIVE}'"):
        plan.load_dataset("tinyimagenet")


def test_a_part_of_it_is_a_data_set(load):
    load(pictures.tiny())
    part = plan.load_dataset("tinyimagenet+classes=2+train=6")
    assert (len(part.train_y), len(part.test_y), part.classes) == (6, 4, 2)


@real
def test_a_part_of_the_real_one(tmp_path, monkeypatch):
    """Four classes through links, so that nothing is written beside the copy."""
    data = tmp_path / FOLDER
    (data / "train").mkdir(parents=True)
    for wnid in SOME:
        (data / "train" / wnid).symlink_to((HOLDS / "train" / wnid).resolve())
    for name in ("val", "words.txt"):
        (data / name).symlink_to((HOLDS / name).resolve())
    (data / "wnids.txt").write_text("\n".join(SOME))
    monkeypatch.setenv("UNLEARNING_DATA", str(tmp_path))
    whole = plan.load_dataset("tinyimagenet")
    assert whole.train_x.shape == (2000, 3, 64, 64)
    assert [np.bincount(whole.labels(part)).tolist() for part in ("validation", "test")] == [[25] * 4] * 2
    assert whole.class_names == ("goldfish", "Egyptian cat", "reel", "volleyball")
    orange = whole.images("test")[whole.test_y == 0].mean((0, 2, 3))
    assert orange[0] > orange[2] + 20  # goldfish are redder than blue
