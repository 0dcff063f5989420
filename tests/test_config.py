"""Every mistake a user can make is one line on stderr that says what is wrong, and exit code 2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from command import Place

from bench import cli, config, description, parts, plan, preset, registry
from bench import recipe as recipe_module
from bench.interface import UsageError

SAMPLES, CLASSES = ("--scenario", "sample_removal"), ("--scenario", "class_removal")
MISTAKES = {
    # names
    "--scenario class_remval": "unknown scenario 'class_remval'; did you mean class_removal?",
    "--methods srub": "unknown method 'srub'; did you mean scrub?",
    "--methods pgu,nothing_like_it": "unknown method 'nothing_like_it'",
    "--methods nowhere.py": "no such file: nowhere.py",
    "--dataset digit": "unknown data set 'digit'; did you mean digits?",
    "--dataset nowhere.py": "no such file: nowhere.py",
    "--architecture resnt18": "unknown architecture 'resnt18'",
    "--architecture nowhere.py": "no such file: nowhere.py",
    "--attacks shadow": "unknown attack 'shadow'",
    "--attacks nowhere.py": "no such file: nowhere.py",
    "--preset digit": "unknown preset 'digit'; did you mean digits?",
    "--preset nowhere.toml": "cannot read the preset nowhere.toml",
    "--recipe digit": "unknown recipe 'digit'; did you mean digits?",
    "--recipe nowhere.toml": "cannot read the recipe nowhere.toml",
    "runn": "unknown command 'runn'; did you mean run?",
    "list method": "unknown section 'method'; did you mean methods?",
    "--method pgu --nonsense": "unrecognized arguments",
    # --set
    "--set gamma": "--set takes part.field=value",
    "--set pgu=0.9": "--set takes part.field=value",
    "--set .gamma=0.9": "--set takes part.field=value",
    "--set pgu.=0.9": "--set takes part.field=value",
    "--set": "expected one argument",
    "--set pgo.gamma=0.9": "did you mean pgu?",
    "--set eu_k.epochs=1": "unknown part in --set",
    "--set pgu.gama=0.9": "did you mean gamma?",
    "--set pgu.gamma=1.5": "pgu.gamma: Input should be less than or equal to 1, got 1.5",
    "--set pgu.gamma=high": "pgu.gamma: Input should be a valid number",
    "--set pgu.lr=nan": "pgu.lr: Input should be a finite number",
    "--set pgu.lr=-inf": "pgu.lr",
    "--set pgu.epochs=1.5": "pgu.epochs",
    "--set pgu.layer_gamma=3": "pgu.layer_gamma",
    "--set recipe.epoch=3": "did you mean epochs?",
    "--set recipe.epochs=0": "recipe.epochs: Input should be greater than or equal to 1, got 0",
    "--set recipe.batch_size=1": "recipe.batch_size",
    "--set recipe.lr=0": "recipe.lr: Input should be greater than 0",
    "--set recipe.schedule=step": "recipe.schedule: Input should be 'cosine', 'exponential' or 'constant'",
    "--set recipe.momentum=0": "nesterov needs a momentum above 0",
    "--set shadow.train=1": "shadow.train: Input should be greater than or equal to 2",
    "--set shadow.test=3": "unknown field of shadow 'test'",
    "--set shadow_xgboost.subsample=2": "shadow_xgboost.subsample",
    "--set shadow_xgboost.trees=2": "unknown field of shadow_xgboost 'trees'",
    "--methods scrub+rewnd=true": "unknown field of scrub+rewnd=true 'rewnd'; did you mean rewind?",
    "--methods srub+rewind=true": "did you mean scrub?",
    "--methods scrub+rewind=often": "scrub+rewind=often.rewind",
    # attacks and audits
    "--attacks nonsense": "unknown attack 'nonsense'; did you mean",
    "--attacks per_exampel": "unknown attack 'per_exampel'; did you mean per_example?",
    "--attacks all,none": "--attacks takes a comma list",
    "--attacks ,": "--attacks takes a comma list",
    "--attacks": "expected one argument",
    "--audit deeper": "invalid choice: 'deeper' (choose from 'standard', 'deep')",
    "--audit": "expected one argument",
    "--set audit.margin=0.9": "audit.margin: Input should be less than 0.5, got 0.9",
    "--set audit.margin=0": "audit.margin: Input should be greater than 0, got 0",
    "--set audit.margin=nan": "audit.margin: Input should be a finite number",
    "--set audit.level=deeper": "audit.level: Input should be 'standard' or 'deep'",
    "--set audit.margins=0.1": "unknown field of audit 'margins'; did you mean margin?",
    "--set deep.lr=-1": "deep.lr: Input should be greater than 0, got -1",
    "--set deep.models=0": "deep.models: Input should be greater than or equal to 1",
    "--set deep.steps=3": "unknown field of deep 'steps'",
    "--set shadow.unlearned=-1": "shadow.unlearned: Input should be greater than or equal to 0",
    "--set shadow.unlearned=99 --set shadow.train=3": "shadow.unlearned is 99, but there are only",
    "--set per_example.prior=-1": "per_example.prior: Input should be greater than or equal to 0, got -1",
    "--set per_example.nu0=4": "unknown field of per_example 'nu0'",
    "--set rmia.gamma=0": "rmia.gamma: Input should be greater than 0",
    "--attacks loss --set per_example.prior=2": "unknown part in --set",
    "--attacks none --set loss.x=2": "unknown part in --set",
    # numbers
    "--seeds 0": "--seeds needs between 1 and 1000 repeats",
    "--seeds 1001": "--seeds needs between 1 and 1000 repeats",
    "--seeds -1": "--seeds must be a whole number from 0, got '-1'",
    "--seeds few": "--seeds must be a whole number from 0, got 'few'",
    "--seeds 0,x": "--seeds must be a whole number",
    "--seeds ,": "--seeds needs between 1 and 1000 repeats",
    "--jobs -2": "--jobs must be at least 1, got -2",
    "--jobs many": "invalid int value: 'many'",
    # forget sets
    "--scenario sample_removal --set scenario.count=600": "cannot forget 600 samples",
    "--scenario sample_removal --set scenario.count=0": "count: Input should be greater than or equal to 1",
    "--scenario sample_removal --set scenario.target_class=10": "no class 10",
    "--scenario sample_removal --set sample_removal.draw=all": "draw",
    "--set scenario.removed=[]": "removed",
    "--set scenario.removed=[10]": "no class 10",
    "--set scenario.removed=[0,1,2,3,4,5,6,7,8]": "leaves fewer than two",
    "--set scenario.removed=eight": "removed",
    "--set scenario.count=3": "unknown field of scenario 'count'",
    "--scenario incremental --set scenario.steps=60": "leave nothing of class 0",
    "--scenario depoisoning --set scenario.flips=60": "flip fewer",
    "--scenario incremental --set class_removal.removed=[1]": "unknown part in --set",
    # other verbs
    "report": "the following arguments are required",
    "report nowhere": "no results folder at nowhere",
    "compare nowhere --baseline nothing.json": "no results folder at nowhere",
    "compare nowhere": "required: --baseline",
    "check": "required: method",
    "check srub": "did you mean scrub?",
    "check nowhere.py": "no such file",
    "audit": "required: --model, --request",
    "audit --model a --request nowhere.json": "cannot read the request nowhere.json: No such file or directory",
    "audit --model a --request b --scenario sample_removal": "unrecognized arguments: --scenario",
    # values that a TOML reader cannot hold
    f"--set pgu.epochs={'9' * 5000}": "pgu.epochs: Unable to parse input string as an integer",
    f"--set pgu.epochs={'[' * 5000}": "pgu.epochs: Input should be",
}
PRESETS = {
    "run = [[[": "cannot read the preset",
    "[runs]": "did you mean run?",
    "[run]\nmethod = 'pgu'": "did you mean methods?",
    "run = 3": "run: Input should be a valid dictionary, got 3",
    "[run]\nmethods = 3": "methods",
    "[run]\nmethods = [1, 2]": "methods",
    "[run]\nmethods = []": "no methods given",
    "[run]\nmethods = ['srub']": "did you mean scrub?",
    "[run]\ndataset = 3": "dataset: Input should be a valid string",
    "[run]\nscenario = 3": "scenario: Input should be a valid string",
    "[run]\ndevice = 3": "device: Input should be a valid string",
    "[run]\nseeds = 0": "--seeds needs between 1 and 1000 repeats",
    "[run]\nseeds = true": "--seeds must be a whole number",
    "[run]\nseed = -1": "seed must be a whole number from 0, got -1",
    "[recipe]\nepoch = 3": "did you mean epochs?",
    "recipe = 3": "recipe: Input should be a valid dictionary",
    "[shadow]\ntrain = 1": "shadow.train",
    "[scenario.class_remval]\nremoved = [1]": "did you mean class_removal?",
    "[scenario.class_removal]\nremove = [1]": "did you mean removed?",
    "[scenario]\nclass_removal = 3": "class_removal: Input should be a valid dictionary",
    "[method.pgu]\ngama = 0.9": "did you mean gamma?",
    "[method.pgu]\ngamma = 9": "pgu.gamma",
    "[method]\npgu = 3": "method.pgu: Input should be a valid dictionary",
    "[tuned.class_removal.pgu]\ngama = 0.9": "did you mean gamma?",
    "[tuned.class_remval.pgu]\ngamma = 0.9": "did you mean class_removal?",
    "[tuned]\nclass_removal = 3": "class_removal: Input should be a valid dictionary",
    "[attack.shadow_xgboost]\ntrees = 3": "unknown field of shadow_xgboost 'trees'",
    "about = 3": "about: Input should be a valid string",
    "[provenance]\ncommand = 'mine'": "provenance.date: Field required",
    "provenance = 3": "provenance: Input should be a valid dictionary",
    "[run]\npublished = 'table5'": "published: Input should be '', 'table1'",
    "[run]\npublished = 3": "published",
    "part = 3": "part: Input should be a valid tuple",
    "[[part]]": "part.0.name: Field required",
    "[[part]]\nname = '../up'": "part.0.name: String should match pattern",
    "[[part]]\nname = 'a'\nflips = 3": "part.0.flips",
    "[[part]]\nname = 'a'\nset = 'pgu.gamma=0.9'": "part.0.set",
    "[[part]]\nname = 'a'\nset = ['gamma']": "--set takes part.field=value",
    "[[part]]\nname = 'a'\nset = ['srub.lr=1']": "unknown part in --set",
    "[[part]]\nname = 'a'\nset = ['pgu.gama=0.5']": "did you mean gamma?",
    "[[part]]\nname = 'a'\nrun = { sead = 1 }": "did you mean seed",
    "[[part]]\nname = 'a'\nrun = { scenario = 'class_remval' }": "did you mean class_removal?",
    "[[part]]\nname = 'a'\npreset = 'digit'": "did you mean digits?",
    "[[part]]\nname = 'a'\npreset = 'mine.toml'": "is a part of itself",
    "[[part]]\nname = 'a'\n[[part]]\nname = 'a'": "two parts called a",
}


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """Runs a wrong command line in this process, in an empty folder, and returns the line it answers with."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> str:
        assert cli.main(words) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert len(err.splitlines()) == 1, err
        assert err.startswith("error: ")
        return err

    return call


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_one_line(refused: Callable[..., str], line: str, tmp_path: Path) -> None:
    words = line.split()
    verb_given = words[0] in (*cli.VERBS, "runn")
    assert MISTAKES[line] in refused(*words, *([] if verb_given or words == ["--set"] else ["--dry-run"]))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", PRESETS)
def test_a_wrong_preset_is_one_line(refused: Callable[..., str], text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(text)
    assert PRESETS[text] in refused("--preset", "mine.toml", "--dry-run")


@pytest.mark.parametrize("flag", ["--preset", "--recipe"])
def test_a_file_that_is_no_text_is_one_line(refused: Callable[..., str], flag: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe\x00")
    assert "cannot read" in refused(flag, "mine.toml", "--dry-run")


@pytest.mark.parametrize("kind", ["methods", "architecture", "dataset", "attack"])
def test_a_plug_in_that_is_no_python_is_one_line(refused: Callable[..., str], kind: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def (")
    assert "SyntaxError" in refused(f"--{kind}", "mine.py", "--dry-run")


@pytest.mark.parametrize("flag", ["--out", "--store"])
def test_a_folder_below_a_file_is_one_line(refused: Callable[..., str], flag: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "Not a directory" in refused(flag, "file/below", *(["--out", "out"] if flag == "--store" else []))


@pytest.mark.parametrize("line", ["--methods srub", "--set pgu.gamma=2", "--seeds 0", "report nowhere", "runn"])
def test_the_real_command_line_says_the_same(run: Place, line: str) -> None:
    finished = run.call(*line.split())
    assert finished.code == 2
    assert finished.out == ""
    assert MISTAKES.get(line, "pgu.gamma") in finished.error


def test_flags_override_the_preset_and_changes_override_both(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        "[run]\nmethods = ['pgu', 'scrub']\nseeds = 3\n[method.pgu]\ngamma = 0.8\nlr = 0.1\n"
        "[tuned.class_removal.pgu]\ngamma = 0.7\n[recipe]\nepochs = 4\n[shadow]\ntrain = 6\n"
    )
    one = config.resolve(str(path), {}, [])
    assert (one.seeds, one.recipe.epochs, one.shadow.train) == ((0, 1, 2), 4, 6)
    assert (one.method("pgu").gamma, one.method("pgu").lr) == (0.7, 0.1)  # type: ignore[attr-defined]
    other = config.resolve(str(path), {"seeds": "0,3,3", "methods": "pgu"}, ["pgu.gamma=0.6", "recipe.epochs=5"])
    assert (other.seeds, other.recipe.epochs, other.rows()) == ((0, 3), 5, ["original", "retrain", "pgu"])
    assert (other.method("pgu").gamma, other.method("pgu").lr) == (0.6, 0.1)  # type: ignore[attr-defined]
    elsewhere = config.resolve(str(path), {"scenario": "sample_removal"}, [])
    assert elsewhere.method("pgu").gamma == 0.8  # type: ignore[attr-defined]


def test_a_change_is_a_value_of_toml_or_text() -> None:
    changes = ["class_removal.removed=[1, 2]", "scrub.rewind=true", "scrub.order=min_first", "scrub.lr=1e-3"]
    resolved = config.resolve("digits", {}, changes)
    scrub = resolved.method("scrub")
    assert resolved.scenario_settings.removed == (1, 2)  # type: ignore[attr-defined]
    assert (scrub.rewind, scrub.order, scrub.lr) == (True, "min_first", 1e-3)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", preset.names())
def test_every_preset_resolves(name: str) -> None:
    needed = {parts_of.preset for parts_of in parts.cells(name)} or {name}
    if "paper-table2" in needed and not {"tinyimagenet", "resnet18"} <= {
        *registry.names("datasets"),
        *registry.names("architectures"),
    }:
        pytest.skip("its data set and architecture are not there")
    resolved = config.resolve(name, {})
    assert resolved.rows()[:2] == ["original", "retrain"]
    assert recipe_module.read_toml("preset", name, preset.names())["about"]


def test_the_configuration_hash_knows_what_decides_the_numbers() -> None:
    plain = config.resolve("digits", {})
    same = config.resolve("digits", {}, [f"pgu.gamma={plain.method('pgu').gamma}"])  # type: ignore[attr-defined]
    others = [
        config.resolve("digits", {}, [change]) for change in ("pgu.gamma=0.123", "recipe.epochs=3", "shadow.train=5")
    ]
    others.append(config.resolve("digits", {"seeds": "4"}))
    assert description.config_hash(plain) == description.config_hash(same)
    assert len({description.config_hash(one) for one in [plain, *others]}) == 1 + len(others)


def test_all_stands_for_every_method() -> None:
    rows = config.resolve("digits", {"methods": "all,pgu"}).rows()
    assert {"pgu", "scrub", "eu_k", "cf_k", "original", "retrain"} <= set(rows)
    assert len(rows) == len(set(rows))


def test_a_method_with_changes_is_a_row_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(Path(registry.ROOT / "methods" / "scrub.py").read_text())
    typed = f"scrub,scrub+rewind=true+decay_epochs=[1,2],{path}+lr=1e-3,original"
    chosen = config.resolve("digits", {"methods": typed}, ["scrub.alpha=0.3"])
    rows = ["original", "retrain", "scrub", "scrub+rewind=true+decay_epochs=[1,2]", "mine+lr=1e-3"]
    assert chosen.rows() == rows
    plain, changed, mine = (chosen.method(row) for row in rows[2:])
    assert changed.model_dump() == plain.model_dump() | {"rewind": True, "decay_epochs": (1, 2)}
    assert plain.model_dump()["alpha"] == 0.3
    assert mine.model_dump() == type(mine)(lr=1e-3).model_dump()
    assert chosen.entry("mine+lr=1e-3") == str(path)


def test_a_row_with_changes_is_the_same_work_as_setting_them() -> None:
    row, whole = "scrub+rewind=true", {"scenario": "class_removal", "seeds": "1"}
    a = plan.make(config.resolve("digits", whole | {"methods": f"scrub,{row}"}))
    b = plan.make(config.resolve("digits", whole | {"methods": "scrub"}, ["scrub.rewind=true"]))
    keys = {r.name: [run.key for run in r.runs] for r in a.rows}
    assert keys[row] == [run.key for r in b.rows if r.name == "scrub" for run in r.runs]


def test_a_usage_error_is_an_exception_with_one_line() -> None:
    with pytest.raises(UsageError) as caught:
        recipe_module.load_recipe("digits", {"epochs": "many\nlines"})
    assert "\n" not in str(caught.value)


def test_names_of_rows_are_unique_and_the_anchors_are_not_replaced(tmp_path: Path) -> None:
    body = Path(registry.ROOT / "methods" / "original.py").read_text()
    for name in ("retrain.py", "a/mine.py", "b/mine.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(body)
    for methods in (f"pgu,{tmp_path}/retrain.py", f"{tmp_path}/a/mine.py,{tmp_path}/b/mine.py"):
        with pytest.raises(UsageError, match="two methods are called"):
            config.resolve("digits", {"methods": methods})


def test_a_base_may_have_a_base_but_not_itself(tmp_path: Path) -> None:
    child, loop = tmp_path / "child.toml", tmp_path / "loop.toml"
    child.write_text('base = "ci"\n[shadow]\ntrain = 7\n')
    resolved = config.resolve(str(child), {})
    assert resolved.shadow.train == 7
    assert resolved.method("pgu") == config.resolve("ci", {}).method("pgu")
    assert resolved.method("pgu") != type(resolved.method("pgu"))()
    loop.write_text(f'base = "{loop}"\n')
    with pytest.raises(UsageError, match="each other's base"):
        config.resolve(str(loop), {})


def test_a_file_is_not_given_the_presets_values_of_its_namesake(tmp_path: Path) -> None:
    path = tmp_path / "pgu.py"
    path.write_text(Path(registry.ROOT / "methods" / "original.py").read_text())
    assert config.resolve("digits", {"methods": str(path)}).method("pgu").model_dump() == {}


@pytest.mark.parametrize(("text", "removed"), [("3", (3,)), ("3,8", (3, 8)), ("[8,3]", (8, 3))])
def test_classes_are_given_as_one_types_them(text: str, removed: tuple[int, ...]) -> None:
    resolved = config.resolve("digits", {"scenario": "class_removal"}, [f"scenario.removed={text}"])
    assert resolved.scenario_settings.removed == removed  # type: ignore[attr-defined]


def test_a_row_with_changes_may_have_values_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        "[method.scrub]\nalpha = 0.5\n[tuned.class_removal]\nscrub = { lr = 0.02, msteps = 1 }\n"
        "'scrub+rewind=true' = { lr = 0.01 }\n"
    )
    resolved = config.resolve(str(path), {"methods": "scrub,scrub+rewind=true,scrub+lr=0.3"}, ["scrub.epochs=7"])
    names = ("alpha", "lr", "msteps", "epochs", "rewind")
    found = {row: [getattr(resolved.method(row), name) for name in names] for row in resolved.rows()[2:]}
    assert found == {
        "scrub": [0.5, 0.02, 1, 7, False],
        "scrub+rewind=true": [0.5, 0.01, 1, 7, True],
        "scrub+lr=0.3": [0.5, 0.3, 1, 7, False],
    }


def test_the_word_none_is_no_value_where_a_field_may_be_without_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[method.neg_grad]\nclip = "none"\n')
    resolved = config.resolve(str(path), {"methods": "neg_grad,first_order"}, ["first_order.k=none"])
    assert resolved.method("neg_grad").clip is None  # type: ignore[attr-defined]
    assert resolved.method("first_order").k is None  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="neg_grad.lr"):
        config.resolve(str(path), {"methods": "neg_grad"}, ["neg_grad.lr=none"])
