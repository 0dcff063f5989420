"""Bad input on the command line: one clear line, exit code 2, and nothing lost, changed or left behind."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest

from bench import cli
from tests import bad_inputs, good_inputs
from tests.bad_inputs import Bad

pytestmark = pytest.mark.hard


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one sound file of every kind."""
    folder = tmp_path_factory.mktemp("sound")
    good_inputs.write(folder)
    return folder


@pytest.fixture
def place(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, where the command line is."""
    monkeypatch.chdir(shutil.copytree(sound, tmp_path / "place", copy_function=os.link))  # `damage` writes new files
    monkeypatch.setenv("UNLEARNING_CACHE", "off")
    for name in ("UNLEARNING_DATA", "UNLEARNING_DOWNLOAD"):  # what a command hands to its workers is taken back
        monkeypatch.setenv(name, "")
    return Path.cwd()


def contents(folder: Path) -> dict[str, str]:
    """What is in a folder: the SHA-256 of every file, and the folders."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in folder.rglob("*")
    }


def damage(place: Path, files: dict[str, bad_inputs.Change]) -> None:
    """Carry the changes out."""
    for name, change in files.items():
        path = place / name
        if change is None:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            continue
        content = change(path.read_bytes()) if callable(change) else change
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.mark.parametrize("bad", bad_inputs.EVERY, ids=lambda bad: f"{bad.words[:40]}: {bad.says[:40]}")
def test_bad_input_is_one_line_and_changes_nothing(bad: Bad, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(place, bad.files)
    before = contents(place)
    code = cli.main(shlex.split(bad.words))
    error = capsys.readouterr().err
    assert re.search(bad.says, error), error
    assert code == cli.USAGE
    assert error.startswith("error: ") and error.count("\n") == 1 and error.endswith("\n")
    assert "Traceback" not in error
    assert contents(place) == before


SOUND = """\
--dry-run
--preset ./mine.toml --dry-run
--preset tuned.toml --dry-run
--recipe recipe.toml --dry-run
--methods ./mine.py --dry-run
audit --model one.safetensors --model two.safetensors --request forget.json --dry-run
--dataset folder --data-dir own --scenario sample_removal --set scenario.count=3 --dry-run
--dataset tinyimagenet --data-dir tiny --scenario sample_removal --set scenario.count=5 --dry-run
compare results --baseline baseline.json
store ls
store verify
list presets"""


@pytest.mark.parametrize("words", SOUND.splitlines())
def test_the_sound_files_are_sound(words: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(shlex.split(words)) == cli.OK, capsys.readouterr().err
