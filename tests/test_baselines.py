"""The stored baselines: each says how it was made, and none changes without a line in the changelog."""

import json
import re
import shlex
from pathlib import Path

import pytest
from command import ROOT, FinishedRun, Place

from bench import baseline
from bench.arguments import parser
from bench.interface import UsageError

STORED = sorted((ROOT / "baselines").glob("**/*.json"))
LINE = re.compile(r"^\| `(?P<path>[^`]+)` \| (?P<digest>[0-9a-f]{12}) \| (?P<reason>.+) \|$", re.MULTILINE)


def unexplained(root: Path) -> list[str]:
    """The lines that the changelog lacks, for the baselines that have changed since somebody said why."""
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    told = {(one["path"], one["digest"]) for one in LINE.finditer(changelog) if one["reason"] != "why it moved"}
    now = [(str(path.relative_to(root)), baseline.digest(path)) for path in sorted(root.glob("baselines/**/*.json"))]
    return [f"| `{path}` | {digest} | why it moved |" for path, digest in now if (path, digest) not in told]


def test_every_baseline_is_explained_in_the_changelog() -> None:
    assert unexplained(ROOT) == [], "a baseline moved: CHANGELOG.md needs these lines, with the reason"


def test_a_baseline_that_moves_needs_a_reason(tmp_path: Path) -> None:
    kept = STORED[0].read_text(encoding="utf-8")
    (tmp_path / "baselines").mkdir()
    path, changelog = tmp_path / "baselines" / "mine.json", tmp_path / "CHANGELOG.md"
    path.write_text(kept, encoding="utf-8")
    changelog.write_text("# Changelog\n", encoding="utf-8")
    [line] = unexplained(tmp_path)
    changelog.write_text(f"# Changelog\n\n{line}\n", encoding="utf-8")
    assert unexplained(tmp_path) == [line]
    changelog.write_text(line.replace("why it moved", "first made"), encoding="utf-8")
    assert unexplained(tmp_path) == []
    content = json.loads(kept)
    content["command"] = "another way to type it"  # moves no number
    path.write_text(json.dumps(content), encoding="utf-8")
    assert unexplained(tmp_path) == []
    content["numbers"][0]["value"] += 1
    path.write_text(json.dumps(content), encoding="utf-8")
    assert len(unexplained(tmp_path)) == 1


@pytest.mark.parametrize("path", STORED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_baseline_says_how_it_was_made(path: Path) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    python, script, *words = shlex.split(content["command"])
    assert (python, script) == ("python", "run_benchmark.py")
    assert parser().parse_args(["run", *words]).preset
    assert content["versions"]["torch"]
    assert content["seeds"] == content["config"]["seeds"]
    assert baseline.read(path).numbers


def test_the_quick_start_has_one() -> None:
    command = json.loads((ROOT / "baselines" / "quickstart.json").read_text(encoding="utf-8"))["command"]
    assert command in (ROOT / "README.md").read_text(encoding="utf-8")


def test_a_missing_or_damaged_baseline_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no baseline"):
        baseline.digest(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(UsageError, match="damaged"):
        baseline.digest(tmp_path / "bad.json")


def test_updating_a_baseline_prints_the_line_to_paste(tiny: FinishedRun, run: Place) -> None:
    made = run.call("compare", str(tiny.out), "--baseline", "mine.json", "--update-baseline")
    assert made.code == 0, made.err
    digest = baseline.digest(run.folder / "mine.json")
    assert made.out.splitlines()[-1] == f"| `mine.json` | {digest} | why it moved |"
    same = run.call("compare", str(tiny.out), "--baseline", "mine.json", "--exact")
    assert (same.code, same.out.splitlines()[0].split(";")[0]) == (0, "no number moved")


def test_what_moved_is_a_table_and_exit_code_1(tiny: FinishedRun, run: Place) -> None:
    run.call("compare", str(tiny.out), "--baseline", "mine.json", "--update-baseline")
    path = run.folder / "mine.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    entry = next(e for e in content["numbers"] if (e["method"], e["metric"]) == ("reference", "error"))
    entry["value"] += 50
    path.write_text(json.dumps(content), encoding="utf-8")
    found = run.call("compare", str(tiny.out), "--baseline", "mine.json")
    assert found.code == 1
    assert f"| reference: error on {entry['part']} |" in found.out
    assert found.out.splitlines()[-1].startswith("1 moved; ")
