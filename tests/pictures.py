"""Small image files made for tests: a TinyImageNet of a few classes, and a folder of one's own."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

WNIDS = ("n00000003", "n00000001", "n00000002")  # as wnids.txt lists them: in no order
TRAIN, HELD_OUT = 11, 4  # images per class


def image(seed: int, size: tuple[int, int] = (64, 64), mode: str = "RGB", kind: str = "JPEG") -> bytes:
    """The file of an image that nothing else looks like."""
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    pixels = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def write(root: Path, files: dict[str, bytes]) -> None:
    """These files below `root`."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def tiny() -> dict[str, bytes]:
    """A TinyImageNet of three classes as it comes; the first image of each is grey."""
    files, annotations, number = {}, [], 0
    for c, wnid in enumerate(WNIDS):
        for i in range(TRAIN):
            files[f"train/{wnid}/images/{wnid}_{i}.JPEG"] = image(100 * c + i, mode="L" if i == 0 else "RGB")
        files[f"train/{wnid}/{wnid}_boxes.txt"] = b"no image"
    for _ in range(HELD_OUT):
        for c, wnid in enumerate(WNIDS):
            name = f"val_{number}.JPEG"
            files[f"val/images/{name}"] = image(1000 + 100 * c + number)
            annotations.append(f"{name}\t{wnid}\t0\t0\t63\t63\n")
            number += 1
    files["val/val_annotations.txt"] = "".join(annotations).encode()
    files["wnids.txt"] = "\n".join(WNIDS).encode()
    files["words.txt"] = b"n00000001\tcrane, bird\nn00000002\tcrane\nn00000009\telsewhere\n"
    return files


def rearranged(files: dict[str, bytes], inner: str = "") -> dict[str, bytes]:
    """The same with the held-out images by class, as users of ImageFolder arrange them."""
    lines = [line.split("\t")[:2] for line in files["val/val_annotations.txt"].decode().splitlines()]
    moved = {f"val/{wnid}/{inner}{name}": files[f"val/images/{name}"] for name, wnid in lines}
    return {name: content for name, content in files.items() if not name.startswith("val/")} | moved


def pack(path: Path, folder: str, files: dict[str, bytes]) -> None:
    """An archive that holds these files in a folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"{folder}/{name}", content)


def own(
    per_class: int = 4, size: tuple[int, int] = (8, 8), parts: tuple[str, ...] = ("train", "test")
) -> dict[str, bytes]:
    """A folder of two classes, PNG files."""
    return {
        f"{part}/{name}/{i}.png": image(1000 * len(part) + 100 * (name == "dog") + i, size, kind="PNG")
        for part in parts
        for name in ("cat", "dog")
        for i in range(per_class)
    }
