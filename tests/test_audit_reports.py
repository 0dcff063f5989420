"""Reports of runs with an audit: verdicts first, attacks by what they know, and what every number means."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.interface import SCENARIOS, Record
from bench.records import Results, load, save
from bench.verdict import UNCLEAR
from reports import (
    against,
    audit,
    build,
    figures,
    findings,
    markdown,
    metrics,
    page,
    roc,
    tables,
    verdicts,
    words,
)
from reports.grid import Table
from reports.numbers import Numbers, chance
from reports.tex import escape
from tests.fabricated import fabricate
from tests.fabricated_audit import FAMILY, NASTY_ATTACK
from tests.html_page import Page

ROOT = Path(__file__).parents[1]
KNOWN = {
    "reference": "reference",
    "original": "leaks",
    "retrain": "indistinguishable",
    "pgu": "indistinguishable",
    "eu_k": "leaks",
    "scrub": "over-forgets",
    "ntk": "n/a",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A deep audit of every scenario, with everything built."""
    made = {one: fabricate(tmp_path_factory.mktemp(one), one, deep=True) for one in SCENARIOS}
    for folder in made.values():
        build(folder)
    return made


@pytest.fixture(params=SCENARIOS)
def built(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Path:
    return folders[request.param]


@pytest.fixture
def sample(folders: dict[str, Path]) -> Results:
    return load(folders["sample_removal"])


def changed(results: Results, change: Callable[[Record], Record | None]) -> Results:
    """The same with every record changed, or left out where the change is None."""
    return dataclasses.replace(results, records=[new for one in results.records if (new := change(one)) is not None])


def audited(results: Results, **changes: Any) -> Results:
    """The same with other words on its audit."""
    return dataclasses.replace(results, run={**results.run, "audit": {**results.run["audit"], **changes}})


def named(results: Results) -> Mapping[str, Table]:
    return {table.name: table for table in tables.build(results)}


def column(table: Table, head: str) -> dict[str, str]:
    """The cells of the first column with this head, by method."""
    place = [name for name, _ in table.heads].index(head)
    return {row.method: row.cells[place] for row in table.rows}


def test_the_verdict_stands_before_any_number(built: Path) -> None:
    table = named(load(built))["forgotten"]
    assert table.heads[1] == ("verdict", "")
    assert table.labels == 2
    assert column(table, "verdict") == KNOWN
    assert column(table, "attack AUC")["eu_k"].startswith("0.78")


def test_findings_begin_with_the_verdicts(built: Path) -> None:
    said = findings.sentences(load(built))
    assert re.match(r"pgu \(AUC 0\.51 \[.*\) is indistinguishable from retraining: .* within 0\.5 ± 0\.05", said[0])
    assert re.match(r"eu_k \(AUC 0\.78 \[.*\) leaks: ", said[1])
    assert re.match(r"scrub \(AUC 0\.86 \[.*\) over-forgets: less sure .* gives the set away", said[2])
    assert not any("Caution" in sentence or "membership attack" in sentence for sentence in said)


def test_a_control_that_gives_another_answer_is_said(sample: Results) -> None:
    def unclear(one: Record) -> Record:
        lost = one.metric.startswith("attack_equivalence_p") and one.method == "retrain"
        return dataclasses.replace(one, value=0.4) if lost else one

    def leaking(one: Record) -> Record:
        lost = one.metric == "attack_p:rmia" and one.method == "retrain"
        return dataclasses.replace(one, value=1e-4) if lost else unclear(one)

    def unseen(one: Record) -> Record:
        lost = one.metric.startswith("attack_p") and one.method == "original"
        return dataclasses.replace(one, value=0.7) if lost else one

    assert "not even the control row retrain" in " ".join(findings.sentences(changed(sample, unclear)))
    assert "is told from the pool by rmia" in " ".join(findings.sentences(changed(sample, leaking)))
    told = column(named(changed(sample, leaking))["forgotten"], "verdict")
    assert told == KNOWN | {"retrain": f"{told['retrain'].split(' (')[0]} (rmia)"}, "who found it, where another did"
    said = findings.sentences(changed(sample, unseen))
    assert any("do not find the control row original" in sentence for sentence in said)


def test_too_little_data_is_no_success(sample: Results) -> None:
    vague = changed(sample, lambda one: None if one.metric.startswith(("attack_p:", "attack_equivalence_p:")) else one)
    assert column(named(vague)["forgotten"], "verdict")["pgu"] == "not enough data"
    said = findings.sentences(vague)
    assert said[0] == "No method is shown to be indistinguishable from retraining."
    assert "There is not enough data for a verdict on pgu" in said[1]
    assert verdicts.badge(verdicts.of(vague)["pgu"]).word == "not enough data"
    assert verdicts.of(vague)["pgu"].word == UNCLEAR


def test_undetected_poison_makes_retrain_a_method(tmp_path: Path) -> None:
    results = load(fabricate(tmp_path, "depoisoning", missed=20, audit=True))
    groups = {badge.word: names for badge, names in verdicts.grouped(results.run, verdicts.badges(results))}
    assert groups == {
        "indistinguishable": ["retrain", "pgu"],
        "leaks": ["original (control)", "eu_k"],
        "over-forgets": ["scrub"],
    }
    assert "indistinguishable from clean training" in findings.sentences(results)[0]
    assert named(results)["distance"].caption == "How far from clean training"


def test_attacks_are_apart_by_what_they_know(sample: Results) -> None:
    found = named(sample)
    assert [head for head, _ in found["attacks"].heads] == [
        "method", "per_example", "p", "p", "TPR at 1 % FPR", "adaptive_xgboost", "rmia", "label_only",
    ]  # fmt: skip
    assert found["attacks"].heads[-1][1] == "AUC, labels only"
    assert found["attacks"].rows[0].method == "reference"
    assert column(found["attacks"], "per_example")["eu_k"] == "0.78 [0.76, 0.80]"
    assert column(found["attacks"], "p")["eu_k"] == "< 0.001"
    assert column(found["attacks"], "TPR at 1 % FPR")["retrain"] == "1.1 [0.7, 1.5]"
    heads = [head for head, _ in found["population"].heads]
    assert heads == ["method", "shadow_xgboost", "mia_loss_lr", "members", NASTY_ATTACK, "members"]
    assert column(found["population"], "mia_loss_lr")["reference"] == "0.52 [0.50, 0.54]"
    assert column(found["population"], "mia_loss_lr")["pgu"].endswith("*")
    assert column(found["population"], "members")["eu_k"] == "59.1 (+7.1)"
    assert column(found["population"], "members")["pgu"] == "52.3 (+0.3*)"


def test_a_rate_without_enough_negatives_says_so(sample: Results) -> None:
    def refuse(one: Record) -> Record:
        if not one.metric.startswith("attack_tpr_1:"):
            return one
        status = "needs 1000 negatives and has 560"
        return dataclasses.replace(one, value=math.nan, low=math.nan, high=math.nan, status=status)

    refused = changed(sample, refuse)
    assert column(named(refused)["attacks"], "TPR at 1 % FPR")["pgu"] == "n/a, 560 of 1,000"
    text = markdown.page(refused, tables.build(refused))
    assert "needs ten scores" in text
    assert "needs ten scores" not in markdown.page(sample, tables.build(sample))
    assert {row.remark for row in named(refused)["forgotten"].rows if row.method == "pgu"} == {"ok"}


def test_many_attacks_go_on_in_a_second_table(sample: Results) -> None:
    more = [{"name": f"one_{n}", "knows": "unlearned", "labels_only": False} for n in range(5)]
    extra = [Record("pgu", "all", 0, "forget", f"attack_auc:one_{n}", 0.5, 0.4, 0.6, 8) for n in range(5)]
    wide = audited(sample, attacks=[*sample.run["audit"]["attacks"], *more])
    found = named(dataclasses.replace(wide, records=[*sample.records, *extra]))
    assert len(found["attacks"].heads) == 8
    assert found["attacks2"].heads[0] == ("method", "")
    assert found["attacks2"].caption.endswith("continued")


def test_distances_stand_beside_their_floor(sample: Results) -> None:
    found = named(sample)
    assert column(found["distance"], "KLoM, forget")["reference"] == "0.31 [0.28, 0.34]"
    assert column(found["distance"], "forgetting score")["reference"] == "1.00"
    assert column(found["distance"], "forgetting score")["scrub"] == "0.43"
    assert column(found["direction"], "log-odds shift")["scrub"] == "−1.30 [−1.38, −1.22]"
    assert column(found["direction"], "less sure than the pool")["scrub"] == "18.1 [17.5, 18.7]"
    assert column(found["whitebox"], "steps to relearn")["eu_k"] == "28"
    assert column(found["whitebox"], "never relearned")["eu_k"] == "12"
    assert column(found["whitebox"], "changed")["original"] == "0.0"
    assert column(found["distance"], "KLoM, forget")["pgu"] == "0.35"
    assert column(found["distance"], "KLoM, forget")["retrain"] == "0.33*"
    assert column(found["compared"], "p")["eu_k"] == "best"
    assert "reference" not in column(found["compared"], "p")


def test_with_too_few_models_there_is_no_p_value_against_the_best(sample: Results) -> None:
    enough = named(sample)["compared"]
    assert enough.warning == "" and column(enough, "p")["pgu"] == "0.030"
    few = [dataclasses.replace(one, n=4) if one.metric.startswith("compared") else one for one in sample.records]
    table = named(dataclasses.replace(sample, records=few))["compared"]
    assert set(column(table, "p").values()) == {"best", "n/a"}
    assert "4 models of each of 5 methods" in table.warning and table.warning.endswith("is 1.000")
    lines = [words.key(sample, [one]) for one in (enough, table)]
    notes = [next(line for line in own if line.startswith("Average rank")) for own in lines]
    assert "shows no difference" in notes[0] and "no sign of no difference" in notes[1]


def test_one_attack_is_not_one_of_several(sample: Results) -> None:
    alone = sample.run["audit"] | {"family": ["per_example"]}
    [said] = [line for line in words.key(dataclasses.replace(sample, run=sample.run | {"audit": alone}), [])
              if line.startswith("Verdict")]  # fmt: skip
    assert "where the attack that decides (per_example) finds" in said and "Holm" not in said


def test_a_standard_audit_has_no_white_box_table(tmp_path: Path) -> None:
    assert "whitebox" not in named(load(fabricate(tmp_path, "class_removal", audit=True)))


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"headline": "per_example", "family": FAMILY, "margin": 0.05, "attacks": []},
        {"headline": "", "family": [], "margin": 0.05, "attacks": [], "models": {}},
        {"headline": None, "family": [], "margin": 0.05, "level": "standard", "attacks": None},
    ],
)
def test_an_audit_without_attacks_still_builds(tmp_path: Path, told: dict[str, Any]) -> None:
    results = load(fabricate(tmp_path, "class_removal", audit=True))
    bare = changed(results, lambda one: None if one.metric.startswith("attack_") else one)
    save(tmp_path, Results({**results.run, "audit": told}, bare.records, {}))
    text = build(tmp_path)
    assert "How far from retrained" in text
    assert "What the attacks find" not in text
    assert ("not enough data" in text) == bool(told.get("headline"))


def test_an_audit_of_failed_methods_only_builds(tmp_path: Path) -> None:
    results = load(fabricate(tmp_path, "sample_removal", audit=True))
    for entry in results.run["methods"]:
        entry["status"] = "failed: | <b> 100%"
    lost = changed(results, lambda one: one if one.method in ("reference", "ntk") else None)
    save(tmp_path, Results(results.run, lost.records, {}))
    assert "failed" in build(tmp_path)
    assert verdicts.badges(load(tmp_path)) == {}


def test_both_names_of_the_papers_attack_are_understood(tmp_path: Path) -> None:
    new, old = (load(fabricate(tmp_path / str(on), "sample_removal", audit=on)) for on in (True, False))
    for results in (new, old):
        numbers = Numbers(results.records)
        assert numbers.value("eu_k", "attack_auc", "forget") > 0.55
        assert numbers.summary("eu_k", "attack_auc", "forget") is numbers.summary(
            "eu_k", "attack_auc:shadow_xgboost", "forget"
        )
        assert numbers.has("attack_auc") and numbers.has("attack_auc:shadow_xgboost")
    for results in (new, old):
        run = results.run | {"published": "table1", "dataset": "cifar10", "architecture": "allcnn"}
        [table] = against.tables([dataclasses.replace(results, run=run)])
        [row] = [row for row in table.rows if row.method == "PGU" and row.cells[1] == "attack AUC"]
        assert re.match(r"0\.5\d+ ", row.cells[3])
    text = " ".join(words.key(audited(new, headline=""), tables.build(audited(new, headline=""))))
    assert "a membership attack tells the method from the pool" in text
    without = dataclasses.replace(new, run={key: value for key, value in new.run.items() if key != "audit"})
    assert column(named(without)["forgotten"], "attack AUC")["eu_k"].startswith("0.59")


def test_an_old_run_looks_as_before(tmp_path: Path) -> None:
    text = build(fabricate(tmp_path, "sample_removal"))
    html = (tmp_path / "report.html").read_text("utf-8")
    assert "verdict" not in text.lower()
    assert metrics.DOCUMENT not in text + html
    assert 'class="badge' not in html
    assert "<details class" not in html
    assert audit.tables(load(tmp_path)) == []


def test_closing_line_names_the_document(built: Path) -> None:
    assert (built / "table.md").read_text("utf-8").endswith("\nWhat every number means: docs/metrics.md\n")


def test_figures_of_both_attacks(built: Path) -> None:
    names = {path.name for path in (built / "figures").glob("roc*")}
    assert names == {"roc.png", "roc.pdf", "roc_per_example.png", "roc_per_example.pdf"}
    text = (built / "report.html").read_text("utf-8")
    assert "The attack per_example, which knows the method" in text
    assert "The attack shadow_xgboost of the paper" in text


def test_a_figure_named_after_any_attack_is_a_safe_file(tmp_path: Path, sample: Results) -> None:
    (tmp_path / "roc_of_before.png").write_bytes(b"")
    arrays = {name.replace("per_example", NASTY_ATTACK): own for name, own in sample.samples.items()}
    results = audited(dataclasses.replace(sample, samples=arrays), headline=NASTY_ATTACK, family=[NASTY_ATTACK])
    drawn = [figure.name for figure in figures.write(results, tmp_path)]
    assert roc.file_name(NASTY_ATTACK) in drawn
    assert all(re.fullmatch(r"[a-z0-9_]+\.(png|pdf)", path.name) for path in tmp_path.iterdir())
    assert not (tmp_path / "roc_of_before.png").exists()


def test_a_curve_begins_where_its_own_negatives_support_it(sample: Results) -> None:
    drawn = roc.deciding(sample)
    assert drawn is not None
    few = {f"negatives:per_example/{m}": np.zeros((2, 60)) for m in ("pgu",)}
    short = roc.deciding(dataclasses.replace(sample, samples={**sample.samples, **few}))
    assert short is not None
    firsts = [min(line.get_xdata()) for line in short.axes[1].lines if line.get_label().startswith(("pgu", "eu_k"))]
    assert np.allclose(sorted(firsts), [100 * 10 / (28 * 60), 100 * 10 / 120])


def test_the_page_begins_with_the_verdict_and_explains_its_numbers(built: Path) -> None:
    text = (built / "report.html").read_text("utf-8")
    found = Page(text)
    assert text.index('class="verdicts"') < text.index("<table")
    signs = re.findall(r'<span class="badge \w+"><span aria-hidden="true">(.)</span>([\w-]+)</span>', text)
    assert set(signs) == {("≈", "indistinguishable"), ("▲", "leaks"), ("▼", "over-forgets")}
    assert len(signs) == 3 + 5  # one for each kind, one for each card with numbers
    names = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(names) == len(set(names))
    links = [attributes["href"] for tag, attributes in found.tags if tag == "a"]
    assert links
    assert {(link or "").removeprefix("#") for link in links} <= set(names)
    levels = [int(tag[1]) for tag, _ in found.tags if re.fullmatch("h[1-6]", tag)]
    assert all(b - a <= 1 for a, b in pairwise(levels))
    assert not re.search(r"url\(|@import|https?://", text)
    assert {"klom_quantile", "relearn_steps", "attack_auc:NAME", "verdict"} <= set(found.text.split())


def test_names_of_attacks_are_escaped(built: Path) -> None:
    html, text, tex = ((built / name).read_text("utf-8") for name in ("report.html", "table.md", "table.tex"))
    assert "<b>" not in html
    assert NASTY_ATTACK in Page(html).text
    assert "mine_&lt;b>\\|100%_&_$x$" in text
    assert escape(NASTY_ATTACK) in tex


def test_latex_of_an_audit_has_every_table(built: Path) -> None:
    parts = re.findall(r"^% begin table (\w+)$", (built / "table.tex").read_text("utf-8"), flags=re.MULTILINE)
    assert {"forgotten", "attacks", "population", "distance", "direction", "whitebox", "compared"} <= set(parts)
    assert parts == [table.name for table in tables.build(load(built))]


def test_p_values_are_written_without_false_precision() -> None:
    assert [chance(p) for p in (1e-9, 0.0004, 0.0006, 0.05, 1.0, math.nan)] == [
        "< 0.001", "< 0.001", "0.001", "0.050", "1.000", "n/a",
    ]  # fmt: skip


def test_the_page_of_a_run_with_one_sided_numbers_renders(sample: Results) -> None:
    """Half of the records gone: every cell without a number says so."""
    rng = np.random.default_rng(1)
    half = changed(sample, lambda one: one if rng.random() < 0.5 else None)
    built = tables.build(half)
    assert all(all(row.cells) for table in built for row in table.rows)
    assert "verdicts" in page.render(half, built, [])
