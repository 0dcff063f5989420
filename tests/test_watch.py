"""The measurement of `compare`: what it plants is what it says, and its tables count right."""

import dataclasses
import sys
from pathlib import Path

import pytest
from command import ROOT

from bench import registry, regression
from bench.recipe import Recipe

sys.path.insert(0, str(ROOT / "benchmarks"))
import watch


@pytest.fixture
def work(tmp_path: Path) -> watch.Work:
    return watch.Work(ROOT / "baselines" / "ci.json", tmp_path)


def test_what_is_planted_and_where(work: watch.Work) -> None:
    assert work.trained() == ["eu_k", "neg_grad", "pgu", "scrub"]
    mixed = "labels of retained data mixed up"
    assert [mixed in work.faults(method) for method in work.trained()] == [True, False, False, True]


@pytest.mark.parametrize(("method", "field"), [("pgu", "lr"), ("scrub", "lr"), ("neg_grad", "epochs")])
def test_a_planted_file_changes_what_it_says_and_no_setting(
    work: watch.Work, method: str, field: str, recipe: Recipe
) -> None:
    fault = {"lr": "learning rate × 10", "epochs": "half the epochs"}[field]
    planted = registry.load("methods", str(work.plant(method, fault)))
    real = registry.load("methods", method)
    assert planted().model_dump() == real().model_dump()
    changed = sys.modules[planted.__module__].scaled(planted())
    factor = watch.FAULTS[fault][1]
    assert getattr(changed, field) == type(getattr(real(), field))(factor * getattr(real(), field))
    assert sys.modules[planted.__module__].scaled(recipe).momentum == recipe.momentum


def test_alarms_are_counted_by_file() -> None:
    one = regression.Moved("pgu", 0, "test", "error", 1.0, 9.0, 2.0, "beyond the spread of the repeats")
    found = [regression.Comparison([one, one], 100), *[regression.Comparison([], 100)] * 49]
    assert watch._alarms("reruns", found)[1:] == ["1", "2.0", "0.1 to 10.6", "5,000", "2", "4.00"]
    gone = dataclasses.replace(one, method="scrub")
    assert watch._own(regression.Comparison([one, gone], 2), "pgu") == [one]


def test_tables_go_between_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- measured: ci -->\nold\n<!-- end of measured: ci -->\nz\n")
    watch.write(page, "ci", "new")
    watch.write(page, "ci", "newer")
    assert page.read_text() == "a\n<!-- measured: ci -->\n\nnewer\n\n<!-- end of measured: ci -->\nz\n"
    assert watch._without(["--seeds", "5", "--methods", "a,b"], "--seeds") == ["--methods", "a,b"]
