"""How the cells of a table's column are set with siunitx: on the decimal point, whatever follows the numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from reports.numbers import MISSING
from reports.tex import escape, width

# What the options must be for our numbers: separators of thousands, signs and zeros as they are written.
SETUP = (
    r"\sisetup{group-digits=integer,group-separator={,},group-minimum-digits=4,input-ignore={,},retain-explicit-plus}"
)
_NUMBER = r"[+−]?[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?(?:e[0-9]+)?"
NUMBER = re.compile(rf"(?<![\w.]){_NUMBER}(?!\w)")  # not a part of a name
UNCERTAIN = re.compile(rf"({_NUMBER}) ± ({_NUMBER})")
LEADING = re.compile(rf"((?:< )?{_NUMBER})(.*)", re.DOTALL)
UNIT = re.compile(" ?[A-Za-z]")
DIGIT, POINT, SIGN = 0.5, 0.27, 0.72  # widths in em
TIMES = 2.0  # that of `x 10`
GAP = 0.5  # em between a number and what follows it


@dataclass(frozen=True)
class Column:
    """A column of a table: its part of the preamble, the columns of LaTeX that it takes, its cells, its width in em."""

    spec: str
    span: int
    cells: list[str]
    width: float


def words(cells: Sequence[str]) -> Column:
    """A column of names or other words, on the left."""
    return Column("l", 1, [escape(cell) for cell in cells], max(map(width, cells), default=0))


def column(cells: Sequence[str]) -> Column:
    """A column of numbers, on the decimal point where all cells begin with a number or are words without any.

    What follows the numbers (intervals, marks) has a column of its own beside them, and so has the deviation where all
    cells are mean and deviation. Numbers with units do not compare by their digits and are set as text.
    """
    found = [match for cell in cells if (match := LEADING.fullmatch(cell))]
    others = [cell for cell in cells if not LEADING.fullmatch(cell) and not cell.startswith(MISSING)]
    if not found or any(re.search("[0-9]", cell) for cell in others) or any(UNIT.match(match[2]) for match in found):
        return _text(cells)
    uncertain = [UNCERTAIN.fullmatch(match[0]) for match in found]
    if all(uncertain):
        return _uncertain(cells, [match for match in uncertain if match])
    if any(match[2] for match in found):
        return _followed(cells, found)
    return _plain(cells, [match[1] for match in found])


def _text(cells: Sequence[str]) -> Column:
    return Column("r", 1, [inline(cell) for cell in cells], max(map(width, cells), default=0))


def _plain(cells: Sequence[str], numbers: Sequence[str]) -> Column:
    shape, room = _format(numbers)
    return Column(f"S[table-format={shape}]", 1, [_alone(cell) for cell in cells], max(room, _words_width(cells)))


def _uncertain(cells: Sequence[str], found: Sequence[re.Match[str]]) -> Column:
    """Mean and deviation, each on its decimal point; words go across both."""
    (means, wide), (deviations, narrow) = (_format([match[part] for match in found]) for part in (1, 2))
    shown = []
    for cell in cells:
        match = UNCERTAIN.fullmatch(cell)
        shown.append(f"{_typed(match[1])} & {_typed(match[2])}" if match else _across(cell))
    room = max(wide + narrow + SIGN + GAP, _words_width(cells))
    return Column(rf"S[table-format={means}]@{{${{}}\pm{{}}$}}S[table-format={deviations}]", 2, shown, room)


def _followed(cells: Sequence[str], found: Sequence[re.Match[str]]) -> Column:
    """Numbers, and on their right what follows them; words go across both."""
    shape, room = _format([match[1] for match in found])
    shown = []
    for cell in cells:
        match = LEADING.fullmatch(cell)
        shown.append(f"{_typed(match[1])} & {_behind(match[2])}" if match else _across(cell))
    room += GAP + max(width(match[2]) for match in found)
    return Column(rf"S[table-format={shape}]@{{}}l", 2, shown, max(room, _words_width(cells)))


def _alone(cell: str) -> str:
    """A number for siunitx to read, or words in braces that it leaves alone."""
    return _typed(cell) if LEADING.fullmatch(cell) else f"{{{escape(cell)}}}"


def _behind(text: str) -> str:
    """What follows a number; the space before it would be lost at the beginning of a cell."""
    return ("~" if text.startswith(" ") else "") + inline(text.strip())


def _across(cell: str) -> str:
    return rf"\multicolumn{{2}}{{c}}{{{escape(cell)}}}"


def _words_width(cells: Sequence[str]) -> float:
    return max((width(cell) for cell in cells if not LEADING.fullmatch(cell)), default=0)


def inline(text: str) -> str:
    """Text with its numbers set by siunitx too, so that signs and separators look the same everywhere."""
    parts, end = [], 0
    for match in NUMBER.finditer(text):
        parts += [_escaped(text[end : match.start()]), rf"\num{{{_typed(match[0])}}}"]
        end = match.end()
    return "".join([*parts, _escaped(text[end:])])


def _escaped(text: str) -> str:
    """A part of a text, with the spaces at its ends that tell it from the next part."""
    inner = escape(text)
    before, after = " " if text[:1] == " " and inner else "", " " if text[-1:] == " " else ""
    return f"{before}{inner}{after}"


def _typed(number: str) -> str:
    """A number as siunitx reads it; `−` is no minus to it."""
    return number.replace("−", "-")


def _format(numbers: Sequence[str]) -> tuple[str, float]:
    """The room that numbers need, as siunitx wants to be told and as a width in em."""
    sign, less = any(n.lstrip("< ")[0] in "+−" for n in numbers), any(n.startswith("<") for n in numbers)
    whole, decimals = max(map(_digits, numbers)), max(map(_decimals, numbers))
    exponent = max(len(number.partition("e")[2]) for number in numbers)
    shape = f"{'<' * less}{'+' * sign}{whole}.{decimals}" + f"e{exponent}" * (exponent > 0)
    room = SIGN * (sign + less) + DIGIT * (whole + decimals) + POINT * (decimals > 0)
    return shape, room + (TIMES + DIGIT * exponent) * (exponent > 0)


def _digits(number: str) -> int:
    """Digits before the point; separators, which siunitx makes no room for, count as one."""
    whole = re.split("[.e]", number.lstrip("<+− "))[0]
    return len(whole.replace(",", "")) + ("," in whole)


def _decimals(number: str) -> int:
    return len(number.partition("e")[0].partition(".")[2])
