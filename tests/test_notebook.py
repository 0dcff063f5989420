"""The benchmark from Python: the same numbers as the command line, as data frames, and the examples."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from command import ROOT, FinishedRun, numbers

import bench
from bench import records, verdict
from bench.interface import UsageError
from tests.fabricated import fabricate

EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py") if path.stem != "ascent")
SAYS = {
    "sample_removal": "not enough data to say",
    "class_removal": "taken_for",
    "incremental": "after 4",
    "depoisoning": "50% known",
    "own_method": "ascent+lr=1.0",
}


def test_frames_hold_every_number(tiny: FinishedRun) -> None:
    found, kept = bench.load(str(tiny.out)), records.load(tiny.out)
    assert list(found.records.columns) == list(records.COLUMNS) and len(found.records) == len(kept.records)
    assert found.records["scenario"].unique().tolist() == ["class_removal"]
    for record in kept.records:
        if record.seed == "all":
            row = found.summary.loc[(record.method, record.metric, record.part, record.step)]
            assert row["value"] == record.value or (row["value"] != row["value"] and record.value != record.value)
            assert (row["n"], row["status"]) == (record.n, record.status)
    words = {method: one.word for method, one in verdict.verdicts(kept.run, kept.records).items()}
    assert words and found.verdicts["verdict"].to_dict() == words
    assert found.verdicts.loc["scrub", "may_read"] == "forget, retain" and found.info == kept.run


def test_a_run_without_an_audit_has_no_verdicts_and_says_what_failed(tmp_path: Path) -> None:
    found = bench.load(fabricate(tmp_path, "sample_removal"))
    assert set(found.verdicts["verdict"]) == {""}
    assert found.verdicts.loc["ntk", "status"].startswith("failed: out of memory")
    assert found.verdicts.loc["pgu", "tuned"] == "lr=0.05"


def test_run_is_the_command_line_and_works_in_a_thread(tiny: FinishedRun, tmp_path: Path) -> None:
    found: list[bench.notebook.Frames] = []  # type: ignore[name-defined]

    def cell() -> None:
        small = {"shadow.train": 4, "shadow.validation": 2, "recipe.epochs": 3}
        found.append(
            bench.run(methods=["pgu", "scrub"], attacks=["per_example", "shadow_xgboost", "loss"], seeds=2, set=small,
                      store=tiny.store, out=tmp_path / "out", jobs=1)
        )  # fmt: skip

    thread = threading.Thread(target=cell)
    thread.start()
    thread.join()
    (frames,) = found
    assert numbers(frames.folder) == numbers(tiny.out)
    assert frames.info["config_hash"] == records.load(tiny.out).run["config_hash"]
    assert {"table.md", "table.tex", "report.html"} <= {path.name for path in frames.folder.iterdir()}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"scenario": "nothing"}, "unknown scenario 'nothing'"),
        ({"methods": ["pgu", "scrb"]}, "did you mean scrub?"),
        ({"set": {"scrub.rewind": "perhaps"}}, "rewind"),
        ({"set": {"scenario.removed": [99]}}, "99"),
        ({"set": ["pgu.gamma=0.9"]}, 'set must be a table such as {"pgu.gamma": 0.9}'),
        ({"jobs": 0}, "--jobs must be at least 1"),
        ({"seeds": 1.5}, "--seeds must be a whole number from 0, got '1.5'"),
        ({"seeds": [0.5]}, "--seeds must be a whole number from 0, got '0.5'"),
        ({"seeds": []}, "--seeds must be a whole number from 0, got ''"),
        ({"preset": "paper-table4"}, "run from Python takes one setting"),
    ],
)
def test_what_is_impossible_is_refused_before_any_work(
    asked: dict[str, object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        bench.run(**asked)  # type: ignore[arg-type]
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_place_of_the_data_is_forgotten_after_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNLEARNING_DATA", "before")
    with pytest.raises(UsageError):
        bench.run(data_dir=tmp_path / "elsewhere", dataset="cifar10", architecture="allcnn", recipe="fast")
    assert os.environ["UNLEARNING_DATA"] == "before"


def test_without_pandas_one_line_says_so(tiny: FinishedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    for call in (lambda: bench.load(tiny.out), lambda: bench.run(methods="pgu")):
        with pytest.raises(UsageError, match="pip install pandas"):
            call()


def test_importing_bench_loads_nothing_heavy() -> None:
    script = "import sys, bench; print({'numpy', 'pandas', 'torch', 'pydantic'} & set(sys.modules), bench.__version__)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["set()", bench.__version__]
    with pytest.raises(AttributeError, match="no attribute 'runn'"):
        bench.runn  # noqa: B018


@pytest.mark.parametrize(
    "name", [name if name == "own_method" else pytest.param(name, marks=pytest.mark.slow) for name in EXAMPLES]
)
def test_examples_run_and_say_what_they_are_about(name: str, tmp_path: Path) -> None:
    setting = {"PRESET": str(ROOT / "tests" / "small.toml"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(ROOT / "examples" / f"{name}.py")]
    done = subprocess.run(words, cwd=tmp_path, env=os.environ | setting, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert SAYS[name] in done.stdout
    assert list((tmp_path / "results").glob("*/records.csv")), "the results are kept"


def test_every_scenario_has_an_example() -> None:
    assert set(EXAMPLES) == set(SAYS)
