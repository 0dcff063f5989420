"""Image files decoded into one array, by Pillow."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

CHUNK = 256  # images that a thread decodes at a time
MEMORY = 0.8  # of the machine's that the images may take
PATIENCE = 3.0  # seconds without a word
# By content, whatever a file is called. Not all that Pillow knows: for an EPS file it would start Ghostscript.
FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
Read = Callable[[str], bytes]


class Fault(Exception):
    """An image that is of no use; the message begins with its name."""


def decoder() -> str:
    """Name and version of what decodes: another may give other pixels."""
    return f"pillow {version('pillow')}"


def decode(names: Sequence[str], read: Read, side: int, *, resize: bool = False, like: str = "") -> np.ndarray:
    """The images in order, as RGB, uint8 `[n, 3, side, side]`; `read` gives the content of a file by its name.

    With `resize` an image of any size is brought to that size (bilinear, with antialiasing); otherwise it must have
    it, and `like` says why. Raises Fault for the first that is of no use.
    """
    _require_memory(len(names), side)
    images = np.empty((len(names), 3, side, side), np.uint8)

    def fill(start: int) -> None:
        for row in range(start, min(start + CHUNK, len(names))):
            picture = _opened(names[row], read)
            if picture.size != (side, side) and not resize:
                width, height = picture.size
                raise Fault(f"{names[row]} has {width} x {height} pixels, not {side} x {side}{like}")
            images[row] = _pixels(names[row], picture, side)

    starts = range(0, len(names), CHUNK)
    began, said = time.monotonic(), False
    with _strict(), ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:
        for done, _ in enumerate(threads.map(fill, starts), 1):
            passed = time.monotonic() - began
            if passed > PATIENCE and not said:
                said = True
                print(f"decoding {len(names)} images, about {passed * len(starts) / done:.0f} s", file=sys.stderr)
    return images


def _require_memory(count: int, side: int) -> None:
    if not hasattr(os, "sysconf"):
        return
    wanted, there = count * 3 * side * side, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if wanted > MEMORY * there:
        amount = f"{count} images of {side} x {side} pixels take {wanted / 1e9:.1f} GB"
        raise Fault(f"{amount}, this machine has {there / 1e9:.1f} GB; take fewer, or smaller ones")


def size(name: str, read: Read) -> tuple[int, int]:
    """Width and height in pixels. Raises Fault."""
    with _strict():
        return _opened(name, read).size


@contextlib.contextmanager
def _strict() -> Iterator[None]:
    """Images too large to be meant are errors; what else Pillow remarks on is left out."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _opened(name: str, read: Read) -> Image:
    from PIL import Image

    try:
        picture = Image.open(io.BytesIO(read(name)), formats=FORMATS)
    except Exception as error:  # a damaged file fails in any way
        raise _fault(name, error) from error
    if picture.mode[0] in "IF":  # 16 or 32 bits a pixel, which Pillow would cut off, not scale
        raise Fault(f"{name} has more than 8 bits a channel (mode {picture.mode}); convert it to 8 bits")
    return picture


def _pixels(name: str, picture: Image, side: int) -> np.ndarray:
    """Uint8 `[3, side, side]`."""
    from PIL import Image

    try:
        picture = picture.convert("RGB")
        if picture.size != (side, side):
            picture = picture.resize((side, side), Image.Resampling.BILINEAR)
        return np.asarray(picture).transpose(2, 0, 1)
    except Exception as error:  # the file is read only now
        raise _fault(name, error) from error


def _fault(name: str, error: Exception) -> Fault:
    from PIL import Image, UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return Fault(f"{name} is no image")
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return Fault(f"{name} is too large an image ({error})")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    return Fault(f"{name} cannot be read ({reason})")
