"""The results that the repository keeps: they load, are what their baselines say, and show what the docs say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import reports
from bench import preset, records, regression, verdict
from bench.records import Results
from reports import against, markdown, pack, tables

ROOT = Path(__file__).resolve().parent.parent
KEPT = sorted(path.parent for path in (ROOT / "docs" / "results").rglob("run.json"))
BASELINES = sorted((ROOT / "baselines").glob("*/*.json"))


def kept(name: str) -> Results:
    return records.load(ROOT / "docs" / "results" / name)


def value(results: Results, method: str, metric: str, part: str) -> records.Record:
    """The summary over the repeats, with its interval."""
    wanted = (method, "all", metric, part, 0)
    (found,) = (r for r in results.records if (r.method, r.seed, r.metric, r.part, r.step) == wanted)
    return found


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: str(folder.relative_to(ROOT / "docs" / "results")))
def test_kept_results_say_where_they_come_from(folder: Path) -> None:
    run = records.load(folder).run
    assert run["command"].startswith("python run_benchmark.py --preset ")
    assert run["config"]["preset"] in preset.names()
    assert run["versions"]["torch"]
    assert run["hardware"]["cpu"]
    assert run["seeds"]
    assert all(method["status"].split(":")[0] in ("ok", "skipped") for method in run["methods"])


@pytest.mark.parametrize("path", BASELINES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_kept_results_are_what_their_baselines_were_made_from(path: Path) -> None:
    results = kept(f"{path.parent.name}/{path.stem}")
    assert regression.compare(results, path).moved == []
    assert json.loads(path.read_text())  # and a changed one is noticed
    moved = [r if r.metric != "error" else r.__class__(**{**vars(r), "value": r.value + 30}) for r in results.records]
    assert regression.compare(Results(results.run, moved, results.samples, ""), path).moved


def test_table_1_on_a_gpu_shows_what_the_page_says() -> None:
    results = kept("paper-table1-fast")
    assert results.run["hardware"]["gpu"] == "NVIDIA H200"
    assert value(results, "eu_k", "attack_auc", "forget").low > 0.55
    assert value(results, "original", "attack_auc", "forget").low > 0.52
    retrain = value(results, "retrain", "attack_auc", "forget")
    assert retrain.low < 0.5 < retrain.high


def test_a_narrow_net_on_photographs_shows_the_papers_findings() -> None:
    removal, poison = kept("cifar10-small/sample_removal"), kept("cifar10-small/depoisoning")
    paper = "attack_auc:shadow_xgboost"
    retrain, original = (value(removal, method, paper, "forget") for method in ("retrain", "original"))
    assert retrain.low < 0.5 < retrain.high
    assert original.low > 0.8
    assert value(removal, "eu_k", paper, "forget").low > 0.55  # it leaks
    pool = value(removal, "retrain", "error", "forget").value
    assert abs(value(removal, "pgu", "error", "forget").value - pool) < 8 < pool  # near retrained; the original has 0
    assert value(poison, "pgu", "restored", "test").low > 0.2


def test_what_errors_and_population_attacks_do_not_see_is_found_on_photographs() -> None:
    removal = kept("cifar10-small/sample_removal")
    found = verdict.verdicts(removal.run, removal.records)
    assert {name: one.word for name, one in found.items()} == {
        "retrain": verdict.INDISTINGUISHABLE,
        **dict.fromkeys(("original", "pgu", "scrub", "eu_k"), verdict.LEAKS),
    }
    gap = value(removal, "pgu", "error_gap", "forget")
    assert gap.low < 0 < gap.high, "by error PGU is like retraining"
    loss, usual = (value(removal, method, "attack_auc:loss", "forget") for method in ("pgu", "reference"))
    assert abs(loss.value - usual.value) < 0.02, "and to a threshold on the loss"
    assert value(removal, "pgu", "attack_auc:per_example", "forget").low > 0.7, "to who knows the method it is not"


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: str(folder.relative_to(ROOT / "docs" / "results")))
def test_kept_tables_are_what_report_makes_of_the_records(folder: Path, tmp_path: Path) -> None:
    results = records.load(folder)
    text = markdown.page(results, [*tables.build(results), *against.tables([results])])
    assert text == (folder / "table.md").read_text()
    assert bool(pack.reproduces(results)) == (folder / "paper.md").exists()
    if (folder / "paper.md").exists():
        shutil.copytree(folder, tmp_path / folder.name, ignore=shutil.ignore_patterns("*.md"))
        reports.build(tmp_path / folder.name)
        assert (tmp_path / folder.name / "paper.md").read_text() == (folder / "paper.md").read_text()
