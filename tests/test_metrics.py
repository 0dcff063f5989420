"""What every number means: no metric without its five lines, and a document that says the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.interface import SCENARIOS
from bench.records import load
from reports import metrics
from tests.fabricated import fabricate

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_metric_of_a_made_up_run_is_explained(tmp_path: Path, scenario: str) -> None:
    made = load(fabricate(tmp_path, scenario, deep=True)).records
    assert {one.metric for one in made if metrics.entry(one.metric) is None} == set()


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "results").rglob("records.csv")), ids=lambda p: p.parent.name)
def test_every_metric_of_a_kept_run_is_explained(path: Path) -> None:
    assert {one.metric for one in load(path.parent).records if metrics.entry(one.metric) is None} == set()


def test_metrics_are_found_by_their_whole_name() -> None:
    keys = {
        "error": "error", "error_gap": "gap", "error_unmasked_sd": "sd", "predicted_share:a_gap": "predicted_share",
        "predicted_share:cat_sd": "sd", "attack_auc": "attack_auc", "attack_auc:x": "attack_auc",
        "attack_rate_gap:x": "attack_rate_gap", "recovered_error_gap": "recovered_error_gap", "klom_mean": "klom_mean",
    }  # fmt: skip
    assert {metric: getattr(metrics.entry(metric), "key", None) for metric in keys} == keys
    assert metrics.entry("nonsense") is None
    assert metrics.entry("nonsense_gap") is None


def test_every_metric_has_five_short_lines_and_the_document_is_up_to_date() -> None:
    for one in metrics.entries().values():
        assert len(one.lines) == 5
        assert all(text and len(text) < 260 for _, text in one.lines), one.name
    assert (ROOT / metrics.DOCUMENT).read_text("utf-8") == metrics.document()
