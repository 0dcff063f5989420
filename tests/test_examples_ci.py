"""The examples for users' own projects: a workflow that a parser accepts, and a test that passes and fails when due."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from command import ROOT, SMALL_POOL, Place

EXAMPLES = ROOT / "examples" / "ci"
METHOD = '''"""Ascent: passes of gradient ascent on the forget set."""

from typing import ClassVar

from pydantic import Field

from bench import loop
from bench.interface import Method, Need


class Ascent(Method):
    """Climbs the loss of the forget set."""

    needs: ClassVar[Need] = Need.FORGET
    batch_norm: ClassVar[str] = "eval"
    epochs: int = Field(default=1, ge=0, description="passes over the forget set")

    def unlearn(self, model, data, ctx):
        update = loop.SGD(model.eval().parameters())
        for _ in range(self.epochs):
            for x, y in data.forget.batches(32, ctx.generator):
                (-loop.cross_entropy(model(x), y)).backward()
                update.step(0.01)
        return model
'''


def numbers(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the example as a user's project does."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_numbers.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_a_project_of_ones_own_notices_when_its_method_moves(run: Place) -> None:
    (run.folder / "ascent.py").write_text(METHOD)
    (run.folder / "tests").mkdir()
    shutil.copy(EXAMPLES / "test_numbers.py", run.folder / "tests")
    (run.folder / "pytest.ini").write_text(f"[pytest]\npythonpath = {ROOT}\n")
    empty = numbers(run.folder)
    assert empty.returncode == 1
    assert "no baseline in baselines/" in empty.stdout
    made = run.benchmark(
        "--methods", "ascent.py", "--seeds", "3", *SMALL_POOL, "--attacks", "none", store=".unlearning-store"
    )
    assert made.code == 0, made.err
    kept = run.call("compare", "out", "--baseline", "baselines/ascent.json", "--update-baseline")
    assert kept.code == 0, kept.err
    passed = numbers(run.folder)
    assert passed.returncode == 0, passed.stdout
    broken = METHOD.replace("update.step(0.01)", "update.step(1.0)")
    (run.folder / "ascent.py").write_text(broken)
    failed = numbers(run.folder)
    assert failed.returncode == 1
    assert "| ascent: error on " in failed.stdout
    assert "beyond the spread of the repeats" in failed.stdout


@pytest.mark.parametrize("path", [ROOT / ".github" / "workflows" / "ci.yml", EXAMPLES / "github-actions.yml"])
def test_workflows_can_be_read_and_run_what_is_there(path: Path) -> None:
    flow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert set(flow[True]) == {"push", "pull_request"}  # YAML reads the key `on` as true
    [job] = flow["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert all("uses" in step or "run" in step for step in job["steps"])
    if path.name == "ci.yml":
        assert commands == [".ci/run"]
        assert (ROOT / ".ci" / "run").stat().st_mode & 0o100
    else:
        assert any("pytest tests/test_numbers.py" in command for command in commands)
        assert job["env"]["UNLEARNING_RESULTS"] in commands[-1]
