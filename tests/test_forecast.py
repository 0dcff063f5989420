"""Estimates of time: what earlier runs of the store took, scaled to what is asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from command import TINY, FinishedRun
from hypothesis import given
from hypothesis import strategies as st

from bench import cli, history
from bench.history import Noted
from bench.progress import Progress, Spent
from bench.store import Store

SETTING = {"what": "a", "recipe": "r", "scenario": "class_removal", "attacks": ["x"], "samples": 100, "host": "h"}


def noted(stages: dict[str, Spent], **changed: object) -> Noted:
    return Noted(0.0, SETTING | changed, stages, 5.0)


@given(st.integers(1, 50), st.floats(0.1, 100), st.integers(1, 8), st.floats(0.1, 10))
def test_a_job_takes_what_it_took_and_longer_training_takes_longer(
    jobs: int, seconds: float, processes: int, longer: float
) -> None:
    spent = Spent(jobs, seconds, processes)
    known = [noted({"train": spent, "unlearn with pgu": spent})]
    one = seconds * processes / jobs
    begun = max(1 - history.START / seconds, 0.5) * one  # without what the first stage pays for processes
    assert history.per_job(known, "train", SETTING) == pytest.approx(begun)
    wanted = SETTING | {"samples": 100 * longer, "recipe": "another"}
    assert history.per_job(known, "train", wanted) == pytest.approx(longer * begun)
    assert history.per_job(known, "unlearn with pgu", wanted) == pytest.approx(one)


def test_the_runs_that_resemble_most_tell_and_of_those_the_median() -> None:
    def took(seconds: float, **changed: object) -> Noted:
        return noted({"audit": Spent(1, seconds, 1)}, **changed)

    known = [took(9.0, scenario="sample_removal"), took(1.0), took(3.0), took(2.0), took(70.0, what="other")]
    assert history.per_job(known, "audit", SETTING) == 2.0
    assert history.per_job(known, "audit", SETTING | {"scenario": "sample_removal"}) == 9.0
    assert history.per_job(known, "audit", SETTING | {"what": "unseen"}) is None


def test_a_method_that_no_run_had_takes_what_methods_take() -> None:
    known = [noted({f"unlearn with {name}": Spent(2, 2.0 * at, 1) for at, name in enumerate(("a", "b", "c"), 1)})]
    assert history.per_job(known, "unlearn with d", SETTING) == 2.0
    assert history.per_job(known, "d for the attacks", SETTING) is None


def test_stages_are_timed_with_their_jobs_and_processes() -> None:
    with Progress(0) as progress:
        with progress.stage("train", 3, 2):
            pass
        with progress.stage("nothing", 0):
            pass
    assert list(progress.spent) == ["train"]
    assert (progress.spent["train"].jobs, progress.spent["train"].processes) == (3, 2)


def test_a_run_is_noted_once_and_damaged_notes_are_passed_over(tiny: FinishedRun, tmp_path: Path) -> None:
    [note] = (tiny.store / history.FOLDER).iterdir()
    told = json.loads(note.read_text())
    assert told["stages"]["train"][0] == len(list((tiny.store / "model").rglob("*.safetensors")))
    assert {"unlearn with pgu", "pgu for the attacks", "read out", "audit"} <= set(told["stages"])
    assert told["rest"] > 0
    folder = tmp_path / history.FOLDER
    folder.mkdir()
    for at, text in enumerate(("", "[]", "{}", '{"stages": 3}', "\0", json.dumps(told))):
        (folder / f"{at}.json").write_text(text)
    assert [run.rest for run in history.runs(Store(tmp_path))] == [told["rest"]]


def test_the_estimate_is_by_what_the_store_has_seen(
    tiny: FinishedRun, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(os.listdir(tiny.store))
    assert cli.main([*TINY, "--set", "shadow.train=400", "--store", str(tiny.store), "--jobs", "2", "--dry-run"]) == 0
    [note] = history.runs(Store(tiny.store))
    lines = capsys.readouterr().out.splitlines()
    train = next(line for line in lines if line.startswith("train original models"))
    spent = note.stages["train"]
    expected = 396 * history.per_job([note], "train", note.setting)  # type: ignore[operator]
    assert expected == pytest.approx(396 * (spent.seconds - 1) * spent.processes / spent.jobs) or spent.seconds < 2
    assert float(train.split(",")[-1].split()[0]) == pytest.approx(expected, abs=0.06)
    assert lines[-1].endswith("on 2 processes, by what earlier runs took")
    assert sorted(os.listdir(tiny.store)) == before


OWN = """
from typing import ClassVar
from bench.interface import Method, Need

class {name}(Method):
    needs: ClassVar[Need] = Need.STATISTICS{own}

    def prepare(self, model, data, ctx):
        return {{}}

    def unlearn(self, model, data, ctx):
        return model
"""

OWN_STAGES = ("prepare {}", "count the memory of {}", "unlearn for the attacks, {}")


def work(printed: str) -> dict[str, float]:
    """Seconds of work by stage."""
    lines = [line for line in printed.splitlines() if line.endswith("s of work to do")]
    return {line.split("  ")[0]: float(line.split(",")[-1].split()[0]) for line in lines}


def test_a_method_that_trains_its_own_model_takes_trainings_more(
    tiny: FinishedRun, tmp_path: Path, plug_in: Callable[[str, str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    """On an empty store, and on one whose runs had other methods only."""
    own = plug_in("owner.py", OWN.format(name="Owner", own=" | Need.OWN_TRAINING"))
    plain = plug_in("plain.py", OWN.format(name="Plain", own=""))
    long = ("--set", "recipe.epochs=100", "--dry-run")
    for store in (tmp_path / "none", tiny.store):
        assert cli.main([*TINY, "--methods", f"{own},{plain}", "--store", str(store), *long]) == 0
        told = work(capsys.readouterr().out)
        one = told["train original models"] / 8  # which are four shadows, two to validate on, two repeats
        more = {stage: told[stage.format("owner")] - told[stage.format("plain")] for stage in OWN_STAGES}
        assert all(seconds > one for seconds in more.values()), "each of their jobs trains"
        assert told["unlearn with owner"] == told["unlearn with plain"]


def test_what_a_run_told_of_a_methods_own_training_is_not_added_again(tiny: FinishedRun) -> None:
    [note] = history.runs(Store(tiny.store))
    assert history.seen([note], "unlearn with pgu", note.setting)
    assert not history.seen([note], "unlearn with sisa", note.setting)
    assert not history.seen([note], "unlearn with pgu", dict(note.setting) | {"what": "another"})
