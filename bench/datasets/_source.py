"""Where the files of a data set come from: the user's data folder, or an archive with its address and checksum."""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.interface import UsageError
from bench.records import require_folder

MEANWHILE = "--preset digits needs no download"
PATIENCE = 30  # seconds without an answer

Stamp = tuple[str, int, int]  # a file's name, size in bytes and time of last change in nanoseconds


def data_folder() -> Path:
    """The folder that `--data-dir` or UNLEARNING_DATA names, else `data`."""
    return Path(os.environ.get("UNLEARNING_DATA") or "data")


def stamp(path: Path, name: str) -> Stamp:
    """What tells that a file has changed; a file that is missing has a stamp too."""
    try:
        status = path.stat()
    except OSError:
        return name, -1, -1
    return name, status.st_size, status.st_mtime_ns


@dataclass(frozen=True)
class Archive:
    """A published archive.

    Attributes:
        title: what people call the data set.
        file: the archive's name; `folder` is the folder that it holds.
        size: of the download, as one says it.
    """

    title: str
    file: str
    folder: str
    url: str
    md5: str
    size: str

    def missing(self, root: Path) -> Path:
        """Download the archive into `root`, if `--download` asks for it. Raises UsageError in one line if it cannot."""
        if os.environ.get("UNLEARNING_DOWNLOAD", "") in ("", "0"):
            raise UsageError(f"{self.title} is not in the folder {root}; {self.remedy(root)}")
        require_folder(root, "the data folder", "--data-dir")
        print(f"downloading {self.title}, {self.size}, from {self.url} into {root}", file=sys.stderr, flush=True)
        try:
            _retrieve(self.url, self.md5, root / self.file)
        except Exception as error:  # libraries of several layers fail in their own ways
            reason = " ".join(str(error).split()).split(". Deleted")[0]
            raise UsageError(f"cannot download {self.title} ({reason}); {self.remedy(root, again=False)}") from error
        return root / self.file

    def difference(self, path: Path) -> str:
        """How a copy of the archive differs from the published one; nothing if it does not."""
        with path.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        return "" if found == self.md5 else f"{path.name} has MD5 {found}, published is {self.md5}"

    def remedy(self, root: Path, damaged: Path | None = None, *, again: bool = True) -> str:
        """What the user can do: which file to put where, from which address, with which checksum; or `--download`."""
        delete = f"delete {damaged}, " if damaged else ""
        get = f"get '{self.file}' (MD5 {self.md5}) from {self.url}, put it or its '{self.folder}' folder into {root}"
        download = f", or add --download ({self.size})" if again else ""
        return f"{delete}{get} or name another folder with --data-dir{download}; {MEANWHILE}"


def _retrieve(url: str, md5: str, path: Path) -> None:
    """Pooch writes to a temporary file, and gives it its name when the checksum is right."""
    try:
        import pooch
    except ImportError as error:
        raise ImportError("it takes pooch, which is not installed: pip install pooch") from error
    pooch.get_logger().setLevel("ERROR")
    pooch.retrieve(
        url, f"md5:{md5}", fname=path.name, path=path.parent, downloader=pooch.HTTPDownloader(timeout=PATIENCE)
    )
