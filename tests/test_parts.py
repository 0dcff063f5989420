"""Presets of several parts, and those of the paper's tables: one command, several runs, one comparison."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command import Place

from bench import benchmark, cli, config, description, parts, plan, preset, recipe, registry, scenarios
from bench.interface import UsageError

ON_DIGITS = (
    *("--dataset", "digits", "--architecture", "digits_cnn", "--recipe", "digits", "--seeds", "2"),
    *("--set", "shadow.train=2", "--set", "shadow.validation=1", "--set", "recipe.epochs=3"),
)
DIGITS: dict[str, Any] = {"dataset": "digits", "architecture": "digits_cnn", "recipe": "digits"}
PAPER = [f"paper-table{number}" for number in (1, 2, 3, 4)]
PENDING = not {"tinyimagenet", "resnet18"} <= {*registry.names("datasets"), *registry.names("architectures")}
WITHOUT_TABLE2 = pytest.mark.skipif(PENDING, reason="the data set or the architecture of Table 2 is not there")
TWO = """
[run]
methods = ["pgu"]
[method.pgu]
gamma = 0.8
[[part]]
name = "classes"
set = ["pgu.lr=0.1", "recipe.epochs=2"]
[[part]]
name = "samples"
run = { scenario = "sample_removal", methods = ["pgu", "scrub"] }
set = ["scenario.count=20"]
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], str]:
    """Writes a preset and returns the path to it, as a user types it."""

    def put(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return put


def test_a_part_is_the_preset_with_changes(write: Callable[[str, str], str]) -> None:
    found = parts.resolve(write("two.toml", TWO), {"seeds": "1"})
    one, other = found["classes"], found["samples"]
    assert (one.scenario, other.scenario) == ("class_removal", "sample_removal")
    assert (one.recipe.epochs, other.recipe.epochs) == (2, 10)
    assert [c.method("pgu").lr for c in (one, other)] == [0.1, 0.05]  # type: ignore[attr-defined]
    assert [c.method("pgu").gamma for c in (one, other)] == [0.8, 0.8]  # type: ignore[attr-defined]
    assert other.scenario_settings.count == 20  # type: ignore[attr-defined]
    assert one.seeds == other.seeds == (0,)
    assert one.changes == ()  # the preset's own are not by hand


def test_flags_hold_for_every_part_and_changes_for_those_they_fit(write: Callable[[str, str], str]) -> None:
    changes = ["pgu.lr=0.3", "scrub.lr=0.2", "scenario.removed=3", "sample_removal.count=9", "shadow.train=4"]
    found = parts.resolve(write("two.toml", TWO), {}, changes)
    one, other = found["classes"], found["samples"]
    assert [c.method("pgu").lr for c in (one, other)] == [0.3, 0.3]  # type: ignore[attr-defined]
    assert one.scenario_settings.removed == (3,)  # type: ignore[attr-defined]
    assert other.scenario_settings.count == 9  # type: ignore[attr-defined]
    assert other.method("scrub").lr == 0.2  # type: ignore[attr-defined]
    assert one.shadow.train == other.shadow.train == 4
    assert one.changes == ("pgu.lr=0.3", "scenario.removed=3", "shadow.train=4")


def test_a_part_may_set_what_methods_on_the_command_line_leave_out(write: Callable[[str, str], str]) -> None:
    found = parts.resolve(write("two.toml", TWO), {"methods": "scrub"})
    assert [one.rows()[2:] for one in found.values()] == [["scrub"], ["scrub"]]


def test_names_that_would_collide_in_the_results_are_refused(write: Callable[[str, str], str]) -> None:
    for names, said in ((("paper.md", "b"), "is a file of the results"), (("a", "A"), "two parts called A")):
        text = "".join(f'[[part]]\nname = "{name}"\n' for name in names)
        with pytest.raises(UsageError, match=said):
            parts.cells(write("names.toml", text))


@pytest.mark.parametrize(
    ("flags", "changes", "said"),
    [
        ({}, ["srub.lr=1"], "did you mean scrub?"),
        ({}, ["scenario.flips=3"], "unknown field of scenario 'flips'"),
        ({}, ["depoisoning.flips=3"], "unknown part in --set"),
        ({}, ["pgu"], "--set takes part.field=value"),
        ({}, ["pgu.gamma"], "--set takes part.field=value"),
        ({"methods": "pgu"}, ["scrub.lr=1"], "unknown part in --set"),
        ({"scenario": "incremental"}, [], "--scenario does not go with the preset"),
        ({"methods": "srub"}, [], "did you mean scrub?"),
    ],
)
def test_what_fits_no_part_is_refused(
    write: Callable[[str, str], str], flags: dict[str, Any], changes: list[str], said: str
) -> None:
    with pytest.raises(UsageError) as caught:
        parts.resolve(write("two.toml", TWO), flags, changes)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parts_may_have_parts_and_outer_changes_go_over_inner_ones(write: Callable[[str, str], str]) -> None:
    two = write("two.toml", TWO)
    outer = write(
        "outer.toml",
        f"[[part]]\nname = 'mine'\npreset = '{two}'\nset = ['pgu.lr=0.7']\n"
        "[[part]]\nname = 'quick'\npreset = 'digits'\nrun = { methods = ['eu_k'] }\n",
    )
    found = parts.resolve(outer, {})
    assert list(found) == ["mine/classes", "mine/samples", "quick"]
    assert found["mine/classes"].method("pgu").lr == 0.7  # type: ignore[attr-defined]
    assert found["mine/classes"].recipe.epochs == 2
    assert found["quick"].rows() == ["original", "retrain", "eu_k"]


def test_a_base_hands_on_everything_but_its_parts(write: Callable[[str, str], str]) -> None:
    mine = write("mine.toml", f"base = '{write('two.toml', TWO)}'\n")
    assert parts.cells(mine) == []
    assert config.resolve(mine, {}).method("pgu").gamma == 0.8  # type: ignore[attr-defined]


def test_tuning_takes_one_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tune", "--preset", "paper-all"]) == cli.USAGE
    assert "name the preset of one of them" in capsys.readouterr().err
    assert cli.main(["tune", "--preset", "paper-table4"]) == cli.USAGE
    assert "has paper-table4 as its base" in capsys.readouterr().err


@pytest.mark.slow
def test_the_parts_of_a_run_share_the_store_and_one_comparison(run: Place, write: Callable[[str, str], str]) -> None:
    write("two.toml", TWO.replace("gamma = 0.8", "layer_gamma = { nowhere = 0.5 }\ngamma = 0.8"))
    words = ("--preset", "two.toml", "--seeds", "1", "--attack", "none", *ON_DIGITS[-6:])
    preview = run.benchmark(*words, "--dry-run")
    assert preview.code == 0
    assert [line for line in preview.out.splitlines() if line.startswith("===")] == [
        "=== classes ===",
        "=== samples ===",
    ]
    assert not run.out.exists()
    finished = run.benchmark(*words)
    assert finished.code == 1, finished.err  # PGU has no such layer in either part, and the rest is done
    for part in ("classes", "samples"):
        assert "failed" in (run.out / part / "table.md").read_text()
        assert (run.out / part / "report.html").exists()
    assert "scrub" in (run.out / "samples" / "table.md").read_text()
    assert (run.out / "paper.md").read_text().strip() in finished.out
    before = run.entries()
    again = run.benchmark("--preset", "digits", "--scenario", "sample_removal", "--methods", "scrub", "--seeds", "1",
                          "--attack", "none", *ON_DIGITS[-6:], "--set", "scenario.count=20", out="other")  # fmt: skip
    assert again.code == 0
    trained = [name for name in run.entries() if name not in before and name.startswith("model")]
    assert trained == []


def test_a_mistake_in_the_last_part_stops_all_before_any_work(run: Place, write: Callable[[str, str], str]) -> None:
    write("two.toml", TWO.replace("scenario.count=20", "scenario.count=100000"))
    finished = run.benchmark("--preset", "two.toml")
    assert finished.code == 2
    assert "cannot forget 100000 samples" in finished.error
    assert not list(run.out.rglob("records.csv"))
    assert not run.store.exists() or not run.entries()


# The paper


def cells(name: str) -> dict[str, config.Config]:
    """The runs of one of the paper's presets, on the digits, so that they need no data."""
    changes = ["pgu.layer_gamma={}"] if name == "paper-table2" else []
    found = parts.cells(name)
    return parts.resolve(name, DIGITS, changes) if found else {"": config.resolve(name, DIGITS, changes)}


@pytest.mark.parametrize("name", [*PAPER, "paper-figure4"])
def test_the_papers_presets_have_its_rows_and_settings(name: str) -> None:
    rows = {
        "paper-table1": ["eu_k", "ntk+form=dense", "ntk", "scrub", "pgu"],
        "paper-table2": ["eu_k", "scrub", "pgu"],
        "paper-table3": ["pgu"],
        "paper-table4": ["first_order", "second_order", "pgu"],
        "paper-figure4": ["pgu"],
    }
    rates = {"paper-table1": (0.9, 0.1, 0.01), "paper-table2": (0.9, 0.05, 0.01), "paper-table4": (0.95, 0.1, 0.05)}
    for one in cells(name).values():
        assert one.rows() == ["original", "retrain", *rows[name]]
        assert len(one.seeds) == 5
        pgu = one.method("pgu").model_dump()
        assert (pgu["gamma"], pgu["lr"], pgu["end_lr"]) == rates.get(name, (0.95, 0.05, 0.01))
        assert (one.shadow.train, one.shadow.validation) == ((40, 5) if one.attacks else (2, 1))
        assert (not one.attacks) == (name in ("paper-table4", "paper-figure4"))


def test_table_4_has_a_part_for_each_number_of_wrong_labels() -> None:
    found = cells("paper-table4")
    flips = {part: one.scenario_settings.flips for part, one in found.items()}  # type: ignore[attr-defined]
    assert flips == {"5k": 500, "10k": 1000, "15k": 1500, "20k": 2000, "25k": 2500}
    assert {part: one.published for part, one in found.items()} == {part: f"table4.{part}" for part in flips}
    assert {one.scenario_settings.pairing for one in found.values()} == {"pgu"}  # type: ignore[attr-defined]


def test_the_whole_paper_is_all_of_them() -> None:
    found = [cell.folder for cell in parts.cells("paper-all")]
    assert found == ["table1", "table2", "table3", *(f"table4/{n}k" for n in (5, 10, 15, 20, 25)), "figure4"]
    assert [part.preset for part in preset.parts("paper-all")] == [*PAPER, "paper-figure4"]


def test_the_whole_paper_is_previewed_with_changes_where_they_fit(capsys: pytest.CaptureFixture[str]) -> None:
    changes = ["scenario.count=20", "scenario.per_class=3", "scenario.flips=3", "scrub.lr=0.1", "ntk.memory=0.5"]
    words = [word for change in changes for word in ("--set", change)]
    assert cli.main(["--preset", "paper-all", "--dry-run", *ON_DIGITS, *words]) == cli.OK
    out = capsys.readouterr().out
    assert out.count("=== ") == len(parts.cells("paper-all"))
    assert "incremental on digits" in out
    assert "trained once" in out


@WITHOUT_TABLE2
def test_table_2_protects_two_layers_more_as_the_authors_code() -> None:
    found = config.resolve("paper-table2", {})
    pgu = found.method("pgu").model_dump()
    assert pgu["layer_gamma"] == {"conv1": 0.95, "layer2.0.conv1": 0.95}
    assert pgu["batch_size"] == 100
    assert found.scenario_settings.removed == (0, 1, 2, 3, 4)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "wanted"),
    {
        "smallvgg_code": ("sgd", 0.01, 5e-4, 200, 256, False, 1e-4),
        "smallvgg_paper": ("sgd", 0.01, 5e-4, 200, 250, True, 1e-4),
        "resnet18_code": ("adam", 0.001, 1e-4, 200, 256, None, 2e-4),
        "resnet18_paper": ("adam", 0.001, 5e-4, 200, 250, None, 2e-4),
    }.items(),
)
def test_the_recipes_are_those_of_the_code_and_of_the_paper(name: str, wanted: tuple[Any, ...]) -> None:
    one = recipe.load_recipe(name)
    nesterov = None if one.optimizer == "adam" else one.nesterov
    assert wanted == (one.optimizer, one.lr, one.end_lr, one.epochs, one.batch_size, nesterov, one.weight_decay)
    assert (one.schedule, one.augment, one.momentum, one.name) == ("exponential", "crop_flip", 0.9, name)


def test_what_is_compared_does_not_change_the_configuration() -> None:
    plain = config.resolve("paper-table3", DIGITS)
    assert description.config_hash(plain) == description.config_hash(plain.model_copy(update={"published": ""}))


@pytest.mark.parametrize("scenario", scenarios.KINDS)
def test_the_first_line_names_the_preset_of_the_scenario(scenario: str) -> None:
    line = benchmark.first_line(plan.make(config.resolve("digits", {"scenario": scenario})))
    names = dict(zip(("sample_removal", "class_removal", "incremental", "depoisoning"), PAPER, strict=True))
    assert line.endswith(f"; for the paper's setting: --preset {names[scenario]}")
    papers = benchmark.first_line(plan.make(config.resolve("paper-table3", DIGITS, ["scenario.per_class=3"])))
    assert "--preset" not in papers


SMALL = {
    "paper-table1": ("--set", "scenario.count=20", "--set", "ntk.iterations=2", "--set", "ntk.samples=20"),
    "paper-table2": ("--set", "scenario.removed=0,1", "--set", "pgu.layer_gamma={}"),
    "paper-table3": ("--set", "scenario.per_class=3"),
    "paper-table4": ("--set", "scenario.flips=3"),
}


@pytest.mark.slow  # the presets digits-table1 and so on go through the same code
@pytest.mark.parametrize("name", PAPER)
def test_a_table_of_the_paper_in_small_on_the_digits(run: Place, name: str) -> None:
    finished = run.benchmark("--preset", name, *ON_DIGITS, *SMALL[name], "--set", "pgu.epochs=3")
    assert finished.code == 0, finished.err
    assert f"Against the paper: Table {name[-1]}" in finished.out
    assert "Not the paper's setting: data set digits, architecture digits_cnn, recipe digits" in finished.out
    if name == "paper-table4":
        assert (run.out / "paper.md").read_text().strip() in finished.out
        assert finished.out.count("Poisoned (original)") == 5  # each part's own
        assert "Table 4 of the paper, and ours" in (run.out / "paper.md").read_text()
    places = [run.out] if name != "paper-table4" else [run.out / f"{n}k" for n in (5, 10, 15, 20, 25)]
    for place in places:
        assert json.loads((place / "run.json").read_text())["published"].startswith(f"table{name[-1]}")
        assert "Against the paper" in (place / "report.html").read_text()
