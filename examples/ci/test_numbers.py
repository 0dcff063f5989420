"""No reported number of our methods has moved: every baseline's own command is run again and compared with it.

Copy this file to the tests of your project. A baseline is made once, in the root of the project, and committed:

    unlearning-bench --methods my_method.py --seeds 5 --out results/my_method
    unlearning-bench compare results/my_method --baseline baselines/my_method.json --update-baseline

The file keeps the command that made it, so that nothing here needs to be edited. Trained models are kept in the folder
.unlearning-store (git-ignore it). What did the comparison say? UNLEARNING_RESULTS names a folder that keeps it.
"""

import json
import os
import shlex
from pathlib import Path

import pytest

from bench.cli import main

BASELINES = sorted(Path("baselines").glob("**/*.json"))


def test_there_are_baselines() -> None:
    """Without one, nothing is watched."""
    assert BASELINES, "no baseline in baselines/; the head of this file says how to make one"


@pytest.mark.parametrize("baseline", BASELINES, ids=lambda path: path.stem)
def test_no_number_moved(baseline: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run the baseline's own command again and compare; the table of what moved goes into `compare.md` of the run."""
    out = Path(os.environ.get("UNLEARNING_RESULTS", tmp_path)) / baseline.stem
    words = shlex.split(json.loads(baseline.read_text())["command"])[2:]  # without `python run_benchmark.py`
    ran = main([*words, "--store", ".unlearning-store", "--out", str(out)])
    said = capsys.readouterr()
    assert ran == 0, said.err
    moved = main(["compare", str(out), "--baseline", str(baseline)])
    said = capsys.readouterr()
    (out / "compare.md").write_text(f"## {baseline.stem}\n\n{said.out}", encoding="utf-8")
    assert moved == 0, said.out + said.err
