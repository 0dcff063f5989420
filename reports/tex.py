"""Any text as TeX that prints it, and about how wide it comes out."""

from __future__ import annotations

import re
import unicodedata

MARK, APART = "\0", "\1"  # not printable, so in no text: where a word may be broken, and no ligature made
SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "[": "{[}", "]": "{]}", "*": r"\textsuperscript{*}", "−": r"\ensuremath{-}", "±": r"\ensuremath{\pm}",
    "→": r"\ensuremath{\rightarrow}", "↓": r"\ensuremath{\downarrow}", "÷": r"\ensuremath{\div}",
    "·": r"\ensuremath{\cdot}", "†": r"\textsuperscript{\dag}", '"': "''", "–": "--", "≠": r"\ensuremath{\neq}",
    "×": r"\ensuremath{\times}", "≤": r"\ensuremath{\leq}", "≥": r"\ensuremath{\geq}", "≈": r"\ensuremath{\approx}",
    "`": r"\textasciigrave{}", MARK: r"\allowbreak{}", APART: "{}",
}  # fmt: skip
LONG = re.compile(r"\S{20,}")  # a word that may have to be broken, such as the name of a part of a data set
# Widths in em of Times, of the characters that are not about half an em wide.
WIDTHS = {
    **dict.fromkeys(" .,:;'|·", 0.27), **dict.fromkeys("ijlft()[]/r-−*†", 0.34), **dict.fromkeys("mwMW%→", 0.95),
    **dict.fromkeys("ABCDEFGHIJKLNOPQRSTUVXYZ+±<>=÷≠×", 0.72),
}  # fmt: skip


def escape(text: str) -> str:
    """Any text as LaTeX that prints it; characters that standard fonts lack lose their accents or become `?`.

    Words of 20 characters or more may be broken.
    """
    apart = re.sub("([-',])(?=\\1)", rf"\1{APART}", " ".join(text.split()))
    whole = LONG.sub(lambda word: _breakable(word[0]), apart).translate(ESCAPES)
    return re.sub(r"(?<=[0-9]) (?=\\%)", "~", whole)  # a number and its percent sign stay together


def _breakable(word: str) -> str:
    """A long word with marks where it may be broken: after punctuation, else after every 20 characters."""
    return re.sub(rf"([_+=/,.:-](?=\w)|[^_+=/,.:{MARK}-]{{20}})", rf"\1{MARK}", word)


class _Escapes(dict[int, str]):
    """The escape of every character, found when it is asked for."""

    def __missing__(self, number: int) -> str:
        self[number] = _printable(chr(number))
        return self[number]


def _printable(character: str) -> str:
    if character.isascii() or ("À" <= character <= "ÿ" and character not in "×÷"):
        return character if character.isprintable() else "?"
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return "".join(SPECIAL.get(letter, letter) for letter in plain) or "?"


ESCAPES = _Escapes({ord(character): tex for character, tex in SPECIAL.items()})


def width(text: str) -> float:
    """About how wide a text is in Times, in em."""
    return sum(WIDTHS.get(character, 0.5) for character in text)
