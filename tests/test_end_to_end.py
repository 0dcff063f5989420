"""The real command line from end to end: what it writes, what it computes again, and what it survives."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import ROOT, TINY, FinishedRun, Place, numbers
from test_registry import ARCHITECTURE, DATASET

from bench.records import Record, load
from bench.store import Store
from reports import metrics

HEAD = '''"""A method of a third party."""

import torch

from bench.interface import Method, Need


class Mine(Method):
    """Shifts the head."""

    needs = Need.FORGET
'''
WORKS = (
    HEAD
    + """
    def unlearn(self, model, data, ctx):
        for x, y in data.forget.batches(32):
            pass
        with torch.no_grad():
            list(model.parameters())[-1].add_(torch.arange(10.0) * SHIFT)
        return model
"""
)
RAISES = (
    HEAD
    + """
    def unlearn(self, model, data, ctx):
        raise RuntimeError("the forget set, it is cursed\\r\\nTruly")
"""
)
SWALLOWS = (
    HEAD
    + """
    def unlearn(self, model, data, ctx):
        try:
            list(data.retain.batches(32))
        except Exception:
            pass
        return model
"""
)
PICKY = (
    HEAD
    + """    supports = ("sample_removal",)

    def unlearn(self, model, data, ctx):
        return model
"""
)
DIVERGES = (
    HEAD
    + """
    def unlearn(self, model, data, ctx):
        with torch.no_grad():
            list(model.parameters())[-1].fill_(float("nan"))
        return model
"""
)


SMALLEST_POOL = ("--set", "shadow.train=2", "--set", "shadow.validation=1", "--set", "recipe.epochs=3", "--seeds", "2")


@pytest.fixture
def copy(tiny: FinishedRun, tmp_path: Path) -> Place:
    """A copy of the small finished run that may be changed."""
    shutil.copytree(tiny.folder, tmp_path / "copy")
    return Place(tmp_path / "copy")


def run_json(place: Place) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((place.out / "run.json").read_text())
    return content


def statuses(place: Place) -> dict[str, str]:
    """The status of every row."""
    return {row["name"]: row["status"] for row in run_json(place)["methods"]}


def value(records: list[Record], method: str, metric: str, part: str, step: int = 0) -> float:
    """A summary over repeats."""
    [found] = [
        r for r in records if (r.method, r.metric, r.part, r.step, r.seed) == (method, metric, part, step, "all")
    ]
    return found.value


def wait_for_entries(place: Place, process: Any, count: int) -> None:
    """Wait until the store of a running benchmark has so many models."""
    deadline = time.monotonic() + 120
    while len(list(place.store.glob("model/*/*.safetensors"))) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_run_writes_every_artefact(tiny: FinishedRun) -> None:
    files = {str(path.relative_to(tiny.out)) for path in tiny.out.rglob("*") if path.is_file()}
    assert {"records.csv", "run.json", "samples.npz", "table.md", "table.tex", "report.html"} <= files
    figures = {path.removeprefix("figures/") for path in files if path.startswith("figures/")}
    assert figures
    assert {Path(figure).stem for figure in figures if figure.endswith(".png")} == {
        Path(figure).stem for figure in figures if figure.endswith(".pdf")
    }
    assert all((tiny.out / path).stat().st_size > 0 for path in files)
    assert not [path for path in files if ".writing-" in path]


def test_the_first_line_says_what_runs_and_how_to_get_the_papers_setting(tiny: FinishedRun) -> None:
    first = tiny.finished.out.splitlines()[0]
    for said in ("class_removal", "digits", "digits_cnn", "recipe digits", "3 epochs", "--preset paper-table2"):
        assert said in first


def test_the_table_is_printed_and_kept(tiny: FinishedRun) -> None:
    assert (tiny.out / "table.md").read_text().strip() in tiny.finished.out


def test_the_original_and_retraining_are_always_in_the_table(tiny: FinishedRun) -> None:
    assert [row["name"] for row in run_json(tiny)["methods"]] == ["original", "retrain", "pgu", "scrub"]
    for text in (tiny.finished.out, (tiny.out / "table.tex").read_text(), (tiny.out / "report.html").read_text()):
        assert "retrain" in text
        assert "original" in text


def test_the_description_of_a_run_is_complete(tiny: FinishedRun) -> None:
    run = run_json(tiny)
    assert (run["dataset"], run["architecture"], run["scenario"]) == ("digits", "digits_cnn", "class_removal")
    assert (run["seeds"], run["removed_classes"], run["forget_samples"]) == ([0, 1], [8], [60])
    assert run["reference_models"] == 8
    assert run["shadow"] == {"train": 4, "validation": 2, "test": 2}
    assert run["recipe"]["epochs"] == 3
    assert len(run["class_names"]) == 10
    assert {"python", "benchmark", "torch", "numpy"} <= set(run["versions"])
    assert {"cpu", "cores", "system", "device"} <= set(run["hardware"])
    assert {"train", "unlearn", "attack", "read out"} <= set(run["seconds"])
    for row in run["methods"]:
        assert {"name", "summary", "needs", "cite", "settings", "tuned", "status", "notes"} <= set(row)
    assert run["command"].startswith("python run_benchmark.py --methods pgu,scrub --attacks per_example,")


def test_the_numbers_are_plausible(tiny: FinishedRun) -> None:
    records = load(tiny.out).records
    assert value(records, "reference", "error_unmasked", "forget") == 100
    assert value(records, "retrain", "error_unmasked", "forget") == 100
    assert value(records, "original", "error_unmasked", "forget") < 30
    assert value(records, "original", "error", "retain") < 20
    assert value(records, "retrain", "samples_read", "forget") == 0
    assert value(records, "retrain", "samples_read", "retain") == 3 * 540
    assert value(records, "original", "samples_read", "retain") == 0
    assert value(records, "pgu", "samples_read", "retain") == 0
    assert value(records, "pgu", "samples_read", "train") == 600
    assert all(np.isfinite(r.value) for r in records if r.metric == "attack_auc")


def test_every_number_is_explained(tiny: FinishedRun) -> None:
    assert {r.metric for r in load(tiny.out).records if metrics.entry(r.metric) is None} == set()


def test_a_repeat_computes_nothing_and_gives_the_same_records(copy: Place, tiny: FinishedRun) -> None:
    before = copy.entries()
    finished = copy.benchmark(*TINY)
    assert finished.code == 0, finished.err
    assert copy.entries() == before
    assert not [line for line in finished.err.splitlines() if line.startswith("[")]
    assert (copy.out / "records.csv").read_bytes() == (tiny.out / "records.csv").read_bytes()
    assert finished.out == tiny.finished.out


def test_a_kill_processes_and_the_order_of_methods_do_not_change_a_number(run: Place, tiny: FinishedRun) -> None:
    turned = (*TINY[:-1], "scrub,pgu")
    with run.start(*turned, "--store", "store", "--out", "out", "--jobs", "2") as process:
        wait_for_entries(run, process, 3)
        os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (run.out / "records.csv").exists()
    kept = {path: changed for path, changed in run.entries().items() if path.endswith(".safetensors")}
    finished = run.benchmark(*turned, jobs=2)
    assert finished.code == 0, finished.err
    assert len(kept) >= 3
    assert kept.items() <= run.entries().items()
    assert sorted(numbers(run.out)) == sorted(numbers(tiny.out))


def test_ctrl_c_is_one_line_and_keeps_finished_work(run: Place) -> None:
    with run.start(*TINY, "--store", "store", "--out", "out", "--jobs", "2") as process:
        wait_for_entries(run, process, 1)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    told = [line for line in err.splitlines() if not line.startswith("[")]
    assert len(told) == 1, err
    assert told[0].startswith("interrupted; finished work is in the store")
    assert any(path.startswith("model/") for path in run.entries())


NO_ATTACK = ("--attacks", "none")
DAMAGED = ("model", "unlearned", "shadow", "attack", "prepared")


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_damaged_entries_are_named_and_made_again(copy: Place, tiny: FinishedRun) -> None:
    for kind in ("evaluation", "audit"):  # these are read instead of what they come from
        for path in copy.store.glob(f"{kind}/*/*"):
            path.unlink()
    # The first ones made: what was prepared for shadows later is not read again.
    damaged = [min(copy.store.glob(f"{kind}/*/*"), key=lambda path: path.stat().st_mtime_ns) for kind in DAMAGED]
    for path in damaged:
        damage(path)
    finished = copy.benchmark(*TINY)
    assert finished.code == 0, finished.err
    assert numbers(copy.out) == numbers(tiny.out)
    for path in damaged:
        assert f"{path.name} is damaged" in finished.err
        assert (copy.store / "damaged" / path.name).exists()
        Store(copy.store).get(path.parents[1].name, path.stem)  # raises for what is not whole
    assert "Traceback" not in finished.err


def test_what_fails_says_why_and_the_others_go_on(copy: Place, plug_in: Callable[[str, str], str]) -> None:
    files = {"raises.py": RAISES, "swallows.py": SWALLOWS, "picky.py": PICKY, "diverges.py": DIVERGES}
    methods = ",".join(plug_in(name, text) for name, text in files.items())
    finished = copy.benchmark(*TINY[:-1], f"{methods},scrub", *NO_ATTACK)
    assert finished.code == 1
    found = statuses(copy)
    assert found["raises"].startswith("failed: RuntimeError: the forget set, it is cursed")
    assert found["swallows"].startswith("failed: UndeclaredRead")
    assert "retain" in found["swallows"]
    assert found["picky"].startswith("skipped: picky does not support class_removal")
    assert (found["original"], found["retrain"], found["scrub"]) == ("ok", "ok", "ok")
    records = load(copy.out).records
    assert {r.status for r in records if r.method == "diverges" and r.metric == "error_unmasked"} >= {"diverged"}
    for row in found:
        assert row in finished.out
    assert "cursed" in (copy.out / "report.html").read_text()
    assert "Traceback" not in finished.out + finished.err
    assert "failures.txt" in finished.out


def test_the_traceback_of_a_failed_method_is_kept_until_nothing_fails(
    copy: Place, plug_in: Callable[[str, str], str]
) -> None:
    path = plug_in("raises.py", RAISES)
    assert copy.benchmark(*TINY[:-1], path, *NO_ATTACK).code == 1
    text = (copy.out / "failures.txt").read_text()
    assert text.startswith("raises: seed 0, request 1; seed 1, request 1\n\nTraceback (most recent call last):\n")
    assert text.count("Traceback") == 1, "the same traceback once"
    line = 1 + RAISES.splitlines().index(next(line for line in RAISES.splitlines() if "raise" in line))
    assert f'File "{path}", line {line}, in unlearn' in text
    assert text.splitlines()[-1] == "Truly"
    assert statuses(copy)["raises"] == "failed: RuntimeError: the forget set, it is cursed"
    plug_in("raises.py", WORKS.replace("SHIFT", "0.1"))
    finished = copy.benchmark(*TINY[:-1], path, *NO_ATTACK)
    assert finished.code == 0, finished.err
    assert not (copy.out / "failures.txt").exists()
    assert "failures.txt" not in finished.out


def test_a_method_that_does_not_suit_the_scenario_is_no_failure(
    copy: Place, plug_in: Callable[[str, str], str]
) -> None:
    finished = copy.benchmark(*TINY[:-1], f"scrub,{plug_in('picky.py', PICKY)}", *NO_ATTACK)
    assert finished.code == 0, finished.err
    assert "skipped" in finished.out
    assert [r.status for r in load(copy.out).records if r.method == "picky"] == [
        "skipped: picky does not support class_removal (it supports sample_removal)"
    ]


@pytest.mark.slow
def test_four_requests_in_a_row(run: Place) -> None:
    words = ("--scenario", "incremental", "--methods", "pgu", *SMALLEST_POOL)
    finished = run.benchmark(*words, "--set", "pgu.epochs=2")
    assert finished.code == 0, finished.err
    records = load(run.out).records
    assert run_json(run)["forget_samples"] == [30] * 4
    for method in ("reference", "original", "retrain", "pgu"):
        measured = {
            r.step for r in records if (r.method, r.metric, r.part, r.seed) == (method, "error", "forget", "all")
        }
        assert measured == {0, 1, 2, 3}
    read = [value(records, "retrain", "samples_read", "retain", step) for step in range(4)]
    assert read == [3 * (600 - 30 * (step + 1)) for step in range(4)]
    assert value(records, "pgu", "samples_read", "train") == 600
    assert value(records, "pgu", "samples_read", "train", 1) == 0
    for step in range(4):
        chunks = {r.part for r in records if (r.method, r.metric, r.step) == ("pgu", "error_gap", step)}
        assert {part for part in chunks if part.startswith("chunk")} == {f"chunk{k + 1}" for k in range(step + 1)}
        sizes = {r.n for r in records if r.part.startswith("chunk") and r.method == "pgu" and r.seed == "0"}
        assert sizes == {30}
    assert "## Request by request" in finished.out
    assert (run.out / "figures" / "gaps_by_request.pdf").exists()
    assert "gaps_by_request" in (run.out / "report.html").read_text()


RETURNS = (
    HEAD
    + """
    def prepare(self, model, data, ctx):
        return {name: value.clone() for name, value in model.state_dict().items()}

    def unlearn(self, model, data, ctx):
        if ctx.step == 2:
            model.load_state_dict(ctx.state)
            return model
        with torch.no_grad():
            list(model.parameters())[-1].add_(torch.arange(10.0) * 9)
        return model
"""
)


@pytest.mark.slow
def test_a_method_that_remembers_again_is_seen(run: Place, plug_in: Callable[[str, str], str]) -> None:
    words = ("--scenario", "incremental", "--methods", plug_in("returns.py", RETURNS), *SMALLEST_POOL)
    finished = run.benchmark(*words, "--set", "scenario.steps=3")
    assert finished.code == 0, finished.err
    records = load(run.out).records
    assert value(records, "returns", "error", "chunk1", 0) > 50
    assert value(records, "returns", "error", "chunk1", 1) > 50
    for chunk in ("chunk1", "chunk2", "chunk3"):
        assert value(records, "returns", "error", chunk, 2) == value(records, "original", "error", chunk, 2)
    lines = [line for line in finished.out.splitlines() if re.match(r"\| returns +\| +[123] ", line)]
    assert len(lines) == 3
    assert "no. " in lines[2]


def test_a_forked_worker_ends_at_sigterm_whatever_it_waits_for() -> None:
    """A handler in Python runs between two instructions: a worker that waits for a lock could miss it for ever."""
    script = (
        "import os, signal, sys; from bench import cli; cli.main(['list', 'recipes']); child = os.fork()\n"
        "if not child: os._exit(signal.getsignal(signal.SIGTERM) != signal.SIG_DFL)\n"
        "parent = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or parent)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT, capture_output=True)


@pytest.mark.slow
def test_depoisoning_starts_from_wrong_labels(run: Place) -> None:
    words = ("--scenario", "depoisoning", "--methods", "pgu", *SMALLEST_POOL)
    finished = run.benchmark(*words, "--set", "pgu.epochs=2", "--set", "recipe.epochs=8")
    assert finished.code == 0, finished.err
    records = load(run.out).records
    assert run_json(run)["forget_samples"] == [120]
    for method in ("original", "retrain", "pgu"):
        assert np.isfinite(value(records, method, "error", "corrected"))
    assert value(records, "retrain", "error", "forget") > 80  # the forget labels are the wrong ones
    assert value(records, "retrain", "error", "corrected") < 20
    assert value(records, "original", "error", "test") > value(records, "retrain", "error", "test")


@pytest.mark.slow
def test_partly_known_poison_stays_in_the_retain_set_and_out_of_the_pool(run: Place) -> None:
    words = ("--scenario", "depoisoning", "--methods", "fine_tune", *SMALLEST_POOL, "--set", "recipe.epochs=8")
    finished = run.benchmark(*words, "--set", "scenario.known_fraction=0.5")
    assert finished.code == 0, finished.err
    assert (run_json(run)["forget_samples"], run_json(run)["undetected_samples"]) == ([60], [60])
    records = load(run.out).records
    sizes = {r.part: r.n for r in records if (r.method, r.seed, r.metric) == ("retrain", "0", "error")}
    parts = ("forget", "corrected", "undetected", "undetected_corrected")
    assert {part: sizes[part] for part in ("retain", *parts)} == {"retain": 480} | dict.fromkeys(parts, 60)
    assert value(records, "retrain", "samples_read", "retain") == 8 * 540  # the undetected samples are among them
    learned = value(records, "retrain", "error_gap", "undetected")
    assert learned < value(records, "retrain", "error_gap", "forget") - 10, "retrain learns the poison it does not know"
    assert value(records, "retrain", "confusion", "test") > value(records, "reference", "confusion", "test")
    for text in (finished.out, (run.out / "report.tex").read_text(), (run.out / "report.html").read_text()):
        assert "it is no control here" in text
        assert "should look like the pool" not in text
        assert "undetected wrong labels" in text
    models = {path for path in run.entries() if path.startswith("model")}
    finished = run.benchmark(*words, out="all")
    assert finished.code == 0, finished.err
    assert {path for path in run.entries() if path.startswith("model")} == models, "the pool serves every share"
    whole = load(run.folder / "all").records
    assert {r.n for r in whole if (r.method, r.metric, r.part, r.seed) == ("retrain", "error", "forget", "0")} == {120}
    assert not [r for r in whole if r.part.startswith("undetected")]
    assert "should look like the pool" in finished.out


@pytest.mark.parametrize(("share", "fault"), [("0.01", "know at least 0.083"), ("1.2", "less than or equal to 1")])
def test_a_share_of_known_poison_that_cannot_be_is_one_line(run: Place, share: str, fault: str) -> None:
    finished = run.benchmark("--scenario", "depoisoning", "--set", f"scenario.known_fraction={share}")
    assert finished.code == 2
    assert "known_fraction" in finished.error
    assert fault in finished.error


def test_a_data_set_and_an_architecture_of_a_third_party(run: Place, plug_in: Callable[[str, str], str]) -> None:
    layers = "nn.Flatten(), nn.LayerNorm(64), nn.Dropout(0.2), "
    plug_ins = ("--dataset", plug_in("noise.py", DATASET), "--architecture")
    words = (
        *plug_ins,
        plug_in("line.py", ARCHITECTURE.replace("nn.Flatten(), ", layers)),
        "--scenario",
        "sample_removal",
    )
    finished = run.benchmark(*words, *SMALLEST_POOL, "--set", "scenario.count=5", "--methods", "pgu")
    assert finished.code == 0, finished.err
    assert (run_json(run)["dataset"], run_json(run)["architecture"]) == ("noise", "line")
    assert set(statuses(run).values()) <= {"ok"}


@pytest.fixture
def without_torch(copy: Place) -> Place:
    """The copy, where importing torch, methods' or attacks' libraries fails."""
    for name in ("torch", "xgboost", "torchvision"):
        (copy.folder / "fake" / name).mkdir(parents=True)
        (copy.folder / "fake" / name / "__init__.py").write_text(f"raise ImportError('{name} is not here')")
    return Place(copy.folder, {"PYTHONPATH": str(copy.folder / "fake")})


def test_reports_are_rebuilt_alike_without_torch(without_torch: Place, tiny: FinishedRun) -> None:
    out = without_torch.out
    shutil.rmtree(out / "figures")
    for name in ("table.md", "table.tex", "report.html"):
        (out / name).unlink()
    finished = without_torch.call("report", "out")
    assert finished.code == 0, finished.err
    contents = [{p.relative_to(o): p.read_bytes() for p in o.rglob("*") if p.is_file()} for o in (out, tiny.out)]
    assert contents[0] == contents[1]


def test_numbers_compared_with_themselves_have_not_moved(without_torch: Place) -> None:
    written = without_torch.call("compare", "out", "--baseline", "baseline.json", "--update-baseline")
    assert written.code == 0, written.err
    finished = without_torch.call("compare", "out", "--baseline", "baseline.json")
    assert (finished.code, finished.out) == (0, "no number moved; 245 numbers compared\n")


def test_a_method_that_changed_is_noticed(copy: Place, plug_in: Callable[[str, str], str]) -> None:
    words = (*TINY[:-1], plug_in("mine.py", WORKS.replace("SHIFT", "0.001")), *NO_ATTACK)
    assert copy.benchmark(*words).code == 0
    assert copy.call("compare", "out", "--baseline", "b.json", "--update-baseline").code == 0
    plug_in("mine.py", WORKS.replace("SHIFT", "9.0"))
    assert copy.benchmark(*words).code == 0
    finished = copy.call("compare", "out", "--baseline", "b.json")
    assert finished.code == 1
    rows = [line for line in finished.out.splitlines() if line.startswith("| ")][1:]
    assert rows
    assert all(row.startswith("| mine: ") for row in rows)


def test_another_configuration_is_not_compared(copy: Place, tiny: FinishedRun) -> None:
    assert copy.call("compare", "out", "--baseline", "b.json", "--update-baseline").code == 0
    description = run_json(copy)
    description["config"]["recipe"]["lr"] = 0.2
    (copy.out / "run.json").write_text(json.dumps(description))
    finished = copy.call("compare", "out", "--baseline", "b.json")
    assert finished.code == 2
    assert "recipe.lr" in finished.error


@pytest.mark.parametrize("verb", [("report", "out"), ("compare", "out", "--baseline", "b.json")])
def test_truncated_results_are_one_line(copy: Place, verb: tuple[str, ...]) -> None:
    content = (copy.out / "records.csv").read_bytes()
    (copy.out / "records.csv").write_bytes(content[: len(content) // 2])
    finished = copy.call(*verb)
    assert finished.code == 2
    assert "records.csv" in finished.error


def test_a_dry_run_shows_the_work_and_writes_nothing(run: Place, copy: Place) -> None:
    finished = run.benchmark(*TINY, "--dry-run")
    assert finished.code == 0, finished.err
    assert "train original models" in finished.out
    assert list(run.folder.iterdir()) == [copy.folder]
    stages = {line.split("  ")[0] for line in finished.out.splitlines() if " jobs, " in line}
    assert stages >= {
        "unlearn for the attacks, pgu", "fit the attack shadow_xgboost", "audit the retrained pool", "audit scrub",
    }  # fmt: skip
    deep = run.benchmark(*TINY, "--attacks", "label_only", "--audit", "deep", "--dry-run").out
    assert "see the forget set shifted " in deep
    assert re.search(r"^audit weights +10 jobs", deep, re.MULTILINE)
    assert "fit the attack" not in deep
    done = copy.benchmark(*TINY, "--dry-run")
    jobs = [re.search(r"(\d+) jobs, +(\d+) in the store", line) for line in done.out.splitlines()]
    counts = [found.groups() for found in jobs if found]
    assert counts
    assert all(wanted == stored for wanted, stored in counts)


@pytest.mark.slow
def test_force_makes_everything_anew_to_the_same_numbers(copy: Place, tiny: FinishedRun) -> None:
    before = copy.entries()
    finished = copy.benchmark(*TINY, "--force")
    assert finished.code == 0, finished.err
    assert all(changed != before[path] for path, changed in copy.entries().items())
    assert numbers(copy.out) == numbers(tiny.out)


FAKED = '''"""Weights that hardly move, outputs that a hook replaces."""
from bench.interface import Method


class Fake(Method):
    """Answers for the forget set through a hook, which no file of weights carries."""

    budget = None

    def unlearn(self, model, data, ctx):
        next(model.parameters()).data.add_(1e-6)
        model.register_forward_hook(lambda module, x, out: out * 0)
        return model
'''


def test_outputs_are_those_of_the_weights(copy: Place, plug_in: Callable[[str, str], str]) -> None:
    assert copy.benchmark(*TINY[:-1], plug_in("fake.py", FAKED), *NO_ATTACK).code == 0
    records = load(copy.out).records
    original = value(records, "original", "error_unmasked", "forget_test")
    assert value(records, "fake", "error_unmasked", "forget_test") == original


def test_a_damaged_run_is_mended_when_only_its_description_is_read(copy: Place, tiny: FinishedRun) -> None:
    damage(next(path for path in (copy.store / "unlearned").rglob("*.safetensors")))
    finished = copy.benchmark(*TINY)
    assert finished.code == 0, finished.err
    assert "made again" in finished.err
    assert "Traceback" not in finished.err


def test_a_network_that_cannot_be_used_is_one_line(run: Place, plug_in: Callable[[str, str], str]) -> None:
    path = plug_in("net.py", '"""A net."""\n\n\ndef build(channels, size, classes):\n    return 3\n')
    finished = run.benchmark(*TINY, "--architecture", path)
    assert finished.code == 2
    assert finished.error.startswith("error: the architecture")


@pytest.mark.slow
def test_a_time_limit_stops_a_method_that_watches_the_clock(copy: Place) -> None:
    finished = copy.benchmark(*TINY[:-1], "pgu", "--set", "pgu.lr=0.0001", "--time-limit", "0.001")
    assert finished.code == 0, finished.err
    mine = [r for r in load(copy.out).records if r.method == "pgu" and r.seed == "0"]
    assert {r.status for r in mine if not r.metric.startswith("attack_")} == {"late"}


@pytest.mark.slow
def test_a_run_in_pieces_ends_with_the_numbers_of_a_whole_one(run: Place) -> None:
    words = ("--methods", "scrub", "--seeds", "2", "--set", "shadow.train=60", "--set", "shadow.validation=2")
    places = ("--store", "store", "--out", "out", "--jobs", "1", "--attack", "none")
    script = str(ROOT / "benchmarks" / "in_pieces.sh")
    environment = os.environ | {"PYTHON": sys.executable}

    def pieces(seconds: str) -> subprocess.CompletedProcess[str]:
        command = ["sh", script, seconds, *words, *places]
        return subprocess.run(
            command, cwd=run.folder, env=environment, capture_output=True, text=True, timeout=250, check=False
        )

    none = pieces("0.5")  # not even what is imported is there by then
    assert none.returncode == 1
    assert none.stderr.splitlines()[-1] == "nothing was finished in 0.5 seconds; take longer pieces"
    done = pieces("9")
    assert done.returncode == 0, done.stderr
    whole = run.benchmark(*words, "--attack", "none", out="whole", store="other", jobs=2)
    assert whole.code == 0, whole.err
    assert numbers(run.out) == numbers(run.folder / "whole")
    if done.stderr.count("interrupted; finished work is in the store") == 0:
        pytest.skip("this machine did it all in one piece")
