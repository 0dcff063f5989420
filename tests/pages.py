"""What a page of the tutorial claims, in its order: files to write, commands with what they print, tables of a run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

MARK = re.compile(r"<!-- (file|from): (\S+) -->")
NUMBER = re.compile(r"[−+-]?\d[\d,]*\.?\d*")
Row = dict[str, str]  # cells by the heads of their columns


@dataclass(frozen=True)
class File:
    """A file that the reader is told to write."""

    name: str
    text: str


@dataclass(frozen=True)
class Command:
    """A line that the reader types, and what it prints; `...` stands for anything."""

    typed: str
    printed: str

    def matches(self, text: str) -> bool:
        """Whether the text is what the page shows."""
        lines = (".*?" if line == "..." else _line(line) for line in self.printed.strip("\n").split("\n"))
        return re.fullmatch("\n".join(lines) + "\n*", text, flags=re.DOTALL) is not None


@dataclass(frozen=True)
class Table:
    """Rows that the page shows of the tables of a file."""

    file: str
    rows: list[Row]


def claims(page: Path) -> Iterator[File | Command | Table]:
    """What a page claims, from its top to its end."""
    lines = iter(page.read_text("utf-8").splitlines())
    mark, name = "", ""
    for line in lines:
        if found := MARK.fullmatch(line):
            mark, name = found.groups()
        elif line.startswith("```"):
            body = list(iter(lines.__next__, "```"))
            if mark == "file":
                yield File(name, "\n".join(body) + "\n")
            elif line == "```console":
                yield from _commands(body)
            mark = ""
        elif line.startswith("|") and mark == "from":
            yield Table(name, _rows([line, *iter(lines.__next__, "")]))
            mark = ""


def rows(markdown: str) -> list[Row]:
    """The rows of all tables of a Markdown text."""
    blocks = re.findall(r"(?:^\|.*\n)+", markdown, flags=re.MULTILINE)
    return [row for block in blocks for row in _rows(block.splitlines())]


def agree(shown: Row, made: Row) -> bool:
    """Whether a run's row has all the cells shown: the same words, and numbers as near as on another machine."""
    return all(head in made and _cells_agree(cell, made[head]) for head, cell in shown.items())


def _commands(body: list[str]) -> Iterator[Command]:
    starts = [number for number, line in enumerate(body) if line.startswith("$ ")]
    for start, end in zip(starts, [*starts[1:], len(body)], strict=True):
        yield Command(body[start].removeprefix("$ "), "\n".join(body[start + 1 : end]))


def _line(text: str) -> str:
    return "[^\n]*".join(map(re.escape, text.split("...")))


def _rows(lines: list[str]) -> list[Row]:
    head, _, *rest = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    # A gap belongs to the column before it: tables have several.
    head = [f"{before}: {one}" if one.startswith("gap") else one for before, one in pairwise(["", *head])]
    return [dict(zip(head, row, strict=True)) for row in rest]


def _cells_agree(shown: str, made: str) -> bool:
    if NUMBER.sub("#", shown) != NUMBER.sub("#", made):
        return False
    pairs = zip(NUMBER.findall(shown), NUMBER.findall(made), strict=True)
    return all(abs(_value(a) - _value(b)) <= 0.05 + 0.1 * abs(_value(a)) for a, b in pairs)


def _value(text: str) -> float:
    return float(text.replace(",", "").replace("−", "-"))
