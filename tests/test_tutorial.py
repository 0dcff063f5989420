"""The tutorial does what it says: its files are written, its commands typed, its output and tables compared."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from command import ROOT, Finished
from pages import Command, File, Table, agree, claims, rows

CHAPTERS = ("first_run", "reading", "method", "dataset", "paper", "audit")
TINY_POOL = "--set shadow.train=2 --set shadow.validation=1 --set recipe.epochs=1 --seeds 1 --jobs 1 --attacks none"


def page(chapter: str) -> Path:
    return ROOT / "docs" / "tutorial" / f"{chapter}.md"


def call(typed: str, folder: Path) -> Finished:
    """Type a command in a folder that is not a checkout; `python` is this one."""
    words = {"run_benchmark.py": str(ROOT / "run_benchmark.py"), "python": sys.executable}
    done = subprocess.run(
        ["bash", "-c", " ".join(shlex.quote(words[word]) if word in words else word for word in typed.split(" "))],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def follow(chapter: str, folder: Path, *, tiny: bool) -> int:
    """Do what a chapter says and compare; returns how many commands were typed.

    When tiny, the commands that train models are the reader's with few models, one epoch and no attack, and the tables
    are left alone.
    """
    typed = 0
    for claim in claims(page(chapter)):
        if isinstance(claim, File):
            (folder / claim.name).write_text(claim.text, "utf-8")
        elif isinstance(claim, Command):
            trains = "--out" in claim.typed
            done = call(f"{claim.typed} {TINY_POOL}" if trains and tiny else claim.typed, folder)
            _require_printed(claim, done, progress=trains)
            typed += 1
        elif not tiny:
            _require_rows(claim, folder)
    return typed


def _require_printed(claim: Command, done: Finished, *, progress: bool) -> None:
    """The output as shown; lines on the way, which tell seconds, are left out."""
    told = [line for line in done.err.splitlines(keepends=True) if not (progress and line.startswith("["))]
    assert done.code == (2 if claim.printed.startswith("error: ") else 0), done.err
    assert claim.matches(done.out + "".join(told)), f"$ {claim.typed}\n{done.out}{''.join(told)}"


def _require_rows(table: Table, folder: Path) -> None:
    made = rows((folder / table.file).read_text("utf-8"))
    for shown in table.rows:
        assert any(agree(shown, row) for row in made), f"{table.file} has no row {shown}"


@pytest.mark.parametrize(("chapter", "commands"), [("method", 3), pytest.param("dataset", 6, marks=pytest.mark.slow)])
def test_chapters_for_authors_do_what_they_say_with_few_models(chapter: str, commands: int, tmp_path: Path) -> None:
    assert follow(chapter, tmp_path, tiny=True) == commands


@pytest.mark.slow
def test_the_whole_tutorial_does_what_it_says_in_its_order(tmp_path: Path) -> None:
    typed = {chapter: follow(chapter, tmp_path, tiny=False) for chapter in CHAPTERS}
    assert all(typed[chapter] for chapter in CHAPTERS if chapter != "reading"), typed


def test_every_chapter_is_followed() -> None:
    assert sorted(CHAPTERS) == sorted(path.stem for path in page("any").parent.glob("*.md"))


def test_what_a_page_claims_can_be_refuted() -> None:
    command = Command("any", "first ...\n...\nlast")
    assert command.matches("first line\nsecond\n\nthird\nlast\n")
    assert command.matches("first \n\nlast")
    assert not command.matches("first line\nlast")
    assert not command.matches("first\nlast\nmore")
    shown = {"method": "pgu †", "gap → 0": "−4.67 [−8.07, −1.27]"}
    assert agree(shown, shown | {"other": "1"})
    assert agree(shown, {"method": "pgu †", "gap → 0": "−4.50 [−8.00, −1.30]"})
    assert not agree(shown, {"method": "pgu †", "gap → 0": "−3.00 [−8.07, −1.27]"})
    assert not agree(shown, {"method": "pgu", "gap → 0": "−4.67 [−8.07, −1.27]"})
    assert not agree(shown, {"method": "pgu †"})
