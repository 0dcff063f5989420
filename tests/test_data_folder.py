"""A folder of one's own images: layouts, sizes, kinds of files, and what is refused."""

import io
import itertools
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pictures
import pytest
from command import Place
from PIL import Image

from bench import plan
from bench.datasets import _images
from bench.interface import Dataset, UsageError


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Dataset]:
    """Loads from a folder of these files."""
    places = itertools.count()

    def do(files: dict[str, bytes], name: str = "folder") -> Dataset:
        place = tmp_path / str(next(places))
        place.mkdir()
        pictures.write(place, files)
        monkeypatch.setenv("UNLEARNING_DATA", str(place))
        return plan.load_dataset(name)

    return do


@pytest.fixture
def refused(load: Callable[..., Dataset]) -> Callable[..., str]:
    """The one line that loading these files ends with."""

    def do(files: dict[str, bytes], name: str = "folder") -> str:
        with pytest.raises(UsageError) as caught:
            load(files, name)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return do


def saved(picture: Image.Image, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind)
    return stream.getvalue()


def test_one_held_out_folder_is_halved(load):
    files = pictures.own(per_class=5)
    data = load(files)
    assert (data.class_names, data.name, data.pixel_max) == (("cat", "dog"), "folder", 255)
    assert data.train_y.tolist() == [0] * 5 + [1] * 5
    assert np.array_equal(
        data.train_x[7], np.asarray(Image.open(io.BytesIO(files["train/dog/2.png"]))).transpose(2, 0, 1)
    )
    assert (np.bincount(data.test_y).tolist(), np.bincount(data.validation_y).tolist()) == ([2, 2], [3, 3])
    both = {image.tobytes() for image in np.concatenate([data.test_x, data.validation_x])}
    assert len(both) == 10


@pytest.mark.parametrize("name", ["validation", "val"])
def test_two_held_out_folders_serve_as_they_are(name, load):
    data = load(pictures.own(parts=("train", name, "test")))
    assert [len(data.labels(part)) for part in ("train", "validation", "test")] == [8, 8, 8]
    assert not np.array_equal(data.validation_x, data.test_x)


@pytest.mark.parametrize("name", ["validation", "val", "test"])
def test_any_held_out_folder_serves_alone(name, load):
    assert len(load(pictures.own(parts=("train", name))).test_y) == 4


def test_mean_and_std_are_those_of_the_training_pixels(load):
    data = load(pictures.own())
    assert np.allclose(data.mean, data.train_x.mean((0, 2, 3)), rtol=1e-12)
    assert np.allclose(data.std, data.train_x.std((0, 2, 3)), rtol=1e-9)


def test_a_channel_without_variation_is_not_divided_by_zero(load):
    black = {name: saved(Image.new("RGB", (8, 8), (0, 7, 255))) for name in pictures.own()}
    data = load(black)
    assert (data.mean, data.std) == ((0.0, 7.0, 255.0), (1.0, 1.0, 1.0))


def test_size_brings_all_images_to_one(load):
    wide = {"train/cat/0.png": pictures.image(1, (40, 20), kind="PNG")}
    data = load(pictures.own() | wide, "folder+size=16")
    assert data.train_x.shape == (8, 3, 16, 16)
    assert data.name == "folder+size=16"
    flat = {name: saved(Image.new("RGB", (31, 17), (1, 2, 3))) for name in pictures.own()}
    assert np.unique(load(flat, "folder+size=8").train_x[:, 1]).tolist() == [2]


def test_settings_of_the_loader_and_of_a_part_go_together(load):
    data = load(pictures.own(per_class=6), "folder+train=4+size=8")
    assert (len(data.train_y), data.name) == (4, "folder+train=4+size=8")


@pytest.mark.parametrize(
    ("ending", "mode", "kind"),
    [
        ("JPEG", "L", "JPEG"),
        ("jpg", "CMYK", "JPEG"),
        ("png", "RGBA", "PNG"),
        ("png", "P", "PNG"),
        ("png", "1", "PNG"),
        ("bmp", "RGB", "BMP"),
        ("webp", "RGB", "WEBP"),
        ("tif", "LA", "TIFF"),
        ("PPM", "RGB", "PPM"),
    ],
)
def test_images_of_many_kinds_become_rgb(ending, mode, kind, load):
    picture = Image.effect_noise((8, 8), 90).convert(mode)
    files = {f"train/cat/0.{ending}": saved(picture, kind), "train/cat/notes.txt": b"", "train/cat/.x.png": b""}
    data = load({name: content for name, content in pictures.own().items() if "cat/0" not in name} | files)
    assert data.train_x.shape == (8, 3, 8, 8)


def without(part: str) -> dict[str, bytes]:
    return {name: content for name, content in pictures.own().items() if not name.startswith(part)}


FIRST = "train/cat/0.png"
REFUSALS = {
    "nothing": ({}, "no folder ", "DIR/train/CLASS/"),
    "no training images": (without("train"), "no folder ", "DIR/train/CLASS/"),
    "no held-out images": (without("test"), "no held-out images: ", "DIR/test/CLASS/"),
    "val and validation": (pictures.own(parts=("train", "val", "validation")), "has both 'validation' and 'val'"),
    "images without a class": ({"train/0.png": b"", "test/0.png": b""}, "has images of 0 classes, at least 2"),
    "one class": ({n: c for n, c in pictures.own().items() if "cat" in n}, "has images of 1 classes, at least 2"),
    "an empty class": (
        {name: content for name, content in pictures.own().items() if "dog" not in name}
        | {"train/cow/0.png": pictures.image(0, (8, 8), kind="PNG"), "train/dog/notes.txt": b"later"},
        "train/dog has no image (.bmp, ",
    ),
    "another class": (pictures.own() | {"test/cow/0.png": b""}, "has a class 'cow' that ", "train has no image of"),
    "a class less": (without("test/dog"), "dog has 0 images (.bmp, ", "2 are needed"),
    "nothing to halve": (
        {n: c for n, c in pictures.own().items() if "train" in n or "0" in n},
        "cat has 1 images",
        "2 are needed",
    ),
    "folders in a class": (pictures.own() | {"train/cat/more/0.png": b""}, "train/cat/more is a folder"),
    "sizes that differ": (
        pictures.own() | {"train/dog/1.png": pictures.image(0, (9, 8), kind="PNG")},
        "train/dog/1.png has 9 x 8 pixels, not 8 x 8 as train/cat/0.png; --dataset folder+size=32",
    ),
    "images that are not square": (pictures.own(size=(8, 12)), f"{FIRST} has 8 x 12 pixels", "folder+size=32"),
    "images too small": (pictures.own(size=(4, 4)), f"{FIRST} has 4 x 4 pixels, but", "folder+size=32"),
    "no image": (pictures.own() | {FIRST: b"hello"}, f"{FIRST} is no image"),
    "a truncated image": (
        pictures.own() | {"train/cat/2.png": pictures.image(0, (8, 8), kind="PNG")[:-90]},
        "train/cat/2.png cannot be read (",
    ),
    "16 bits": (
        pictures.own() | {FIRST: saved(Image.fromarray(np.full((8, 8), 999, np.uint16)))},
        f"{FIRST} has more than 8 bits a channel",
    ),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_what_cannot_serve_is_refused(kind, refused):
    files, *expected = REFUSALS[kind]
    line = refused(files)
    for part in expected:
        assert part in line


@pytest.mark.parametrize("size", ["7", "513", "1.5", "true", "big"])
def test_sizes_that_cannot_serve_are_refused(size, refused):
    assert "must be a whole number from 8 to 512" in refused(pictures.own(), f"folder+size={size}")


@pytest.mark.parametrize("factor", [1.5, 3])
@pytest.mark.filterwarnings("error")
def test_an_image_too_large_to_be_meant_is_refused(factor, refused, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    side = int((400 * factor) ** 0.5)
    bomb = {"train/dog/3.png": pictures.image(1, (side, side), kind="PNG")}
    assert "train/dog/3.png is too large an image (" in refused(pictures.own() | bomb, "folder+size=16")


def test_more_images_than_memory_are_refused(refused, monkeypatch):
    monkeypatch.setattr(_images, "MEMORY", 1e-9)
    assert "8 images of 8 x 8 pixels take 0.0 GB, this machine has " in refused(pictures.own())


def test_an_unreadable_image_is_named(refused, monkeypatch):
    read = Path.read_bytes

    def deny(path: Path) -> bytes:
        if path.name == "3.png":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", deny)
    assert "train/cat/3.png cannot be read (Permission denied)" in refused(pictures.own())


def test_the_first_image_that_differs_is_named_whatever_threads_do(monkeypatch):
    monkeypatch.setattr(_images, "CHUNK", 1)
    contents = {f"{i}.png": pictures.image(i, (9, 9) if i > 5 else (8, 8), kind="PNG") for i in range(40)}
    for _ in range(5):
        with pytest.raises(_images.Fault, match=r"^6\.png has 9 x 9 pixels, not 8 x 8$"):
            _images.decode(list(contents), contents.__getitem__, 8)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        warnings.warn("heard again", UserWarning, stacklevel=1)
    assert len(seen) == 1


def test_decoding_that_takes_long_is_said_once(load, monkeypatch, capsys):
    load(pictures.own())
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(_images, "PATIENCE", -1.0)
    monkeypatch.setattr(_images, "CHUNK", 2)
    load(pictures.own(), "folder+size=16")
    assert capsys.readouterr().err.splitlines() == ["decoding 8 images, about 0 s"] * 2  # training, held out


def test_the_command_line_runs_on_a_folder(run: Place):
    pictures.write(run.folder / "mine", pictures.own(per_class=12))
    words = ("--scenario", "sample_removal", "--set", "scenario.count=4", "--dry-run", "--dataset", "folder")
    finished = run.call(*words, "--data-dir", "mine")
    assert finished.code == 0, finished.err
    assert "folder (24 training images)" in finished.out
    assert (run.folder / "mine" / ".unlearning-cache").is_dir()
    refusal = run.call(*words, "--data-dir", "nowhere")
    assert (refusal.code, "no folder nowhere/train; --dataset folder" in refusal.error) == (2, True)
