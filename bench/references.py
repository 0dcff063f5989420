"""The papers behind methods and attacks: `reports/references.bib`, read and written out for people."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Collection, Mapping
from pathlib import Path

FILE = Path(__file__).resolve().parent.parent / "reports" / "references.bib"
ENTRY = re.compile(r"^@\w+\{([^,]+),\n(.*?)^\}", re.MULTILINE | re.DOTALL)
VENUES = ("booktitle", "journal", "publisher", "howpublished")
ACCENTS = {"`": "\u0300", "'": "\u0301", "^": "\u0302", "~": "\u0303", '"': "\u0308", "c": "\u0327"}


@functools.cache
def load() -> dict[str, dict[str, str]]:
    """The fields of every entry by its key, without TeX; one field a line, as the file is written."""
    entries = ENTRY.findall(FILE.read_text(encoding="utf-8"))
    return {
        key: {name.lower(): plain(value) for name, value in re.findall(r"^\s*(\w+)\s*=\s*\{(.*)\},?$", body, re.M)}
        for key, body in entries
    }


def source(keys: Collection[str]) -> str:
    """BibTeX of the entries with these keys, in the order of the file."""
    entries = ENTRY.finditer(FILE.read_text(encoding="utf-8"))
    return "\n\n".join(entry[0] for entry in entries if entry[1] in keys) + "\n"


def plain(tex: str) -> str:
    """Text without TeX's accents and braces."""
    accented = re.sub(r"\\([`'^~\"c])\s*\{?\\?(\w)\}?", lambda found: found[2] + ACCENTS[found[1]], tex)
    return unicodedata.normalize("NFC", accented).replace("{", "").replace("}", "").replace("--", "–")


def short(entry: Mapping[str, str]) -> str:
    """Family names and year, as in a text: "Goel et al. 2022"."""
    names = [author.partition(",")[0] for author in _authors(entry)]
    return f"{f'{names[0]} et al.' if len(names) > 2 else ' and '.join(names)} {entry['year']}"


def full(entry: Mapping[str, str], *, italics: str = "*") -> str:
    """Authors, title between the marks of Markdown for italics, venue and year."""
    names = [" ".join(reversed(author.split(", "))) for author in _authors(entry)]
    venue = next((entry[name] for name in VENUES if name in entry), "")
    return f"{', '.join(names)}: {italics}{entry['title']}{italics}. {venue + ', ' if venue else ''}{entry['year']}"


def _authors(entry: Mapping[str, str]) -> list[str]:
    return entry["author"].split(" and ")
