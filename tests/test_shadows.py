"""What attacks need beside the pool: it is what the methods do when run directly, kept, and made once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command import Finished, Place, numbers

from bench import cli, config, keys, pool, records, runner, shadows, views
from bench import plan as plans
from bench.progress import Progress
from bench.store import Store

CHANGES = ("shadow.train=5", "shadow.validation=1", "shadow.unlearned=4", "recipe.epochs=2")
POOL = tuple(word for change in CHANGES for word in ("--set", change))
ATTACKS = "per_example,label_only"
PARTS = ("logits/train", "logits/validation", "logits/test")
FAILS = '''"""A method that fails for some models."""

import torch

from bench.interface import Method, Need


class Mine(Method):
    """Shifts the head of every model but one in three."""

    needs = Need.FORGET

    def unlearn(self, model, data, ctx):
        if WHEN:
            raise RuntimeError("it is cursed\\r\\nTruly")
        for x, y in data.forget.batches(32, ctx.generator):
            model(x)
        with torch.no_grad():
            list(model.parameters())[-1].add_(torch.arange(10.0) * 0.1)
        return model
'''


def kept(plan: plans.Plan, chain: tuple[plans.Run, ...]) -> str:
    """Where the store keeps what a method made of a shadow original."""
    return keys.view_key(chain[-1].key, plan.requests[-1])


def planned(scenario: str, methods: str, *changes: str) -> plans.Plan:
    flags = {"scenario": scenario, "methods": methods, "attacks": ATTACKS, "seeds": 1}
    return plans.make(config.resolve("digits", flags, [*CHANGES, *changes]))


def trained(plan: plans.Plan, folder: Path) -> Store:
    store = Store(folder)
    pool.train_pool(plan, store, 1, Progress(len(plan.models()), quiet=True))
    return store


def served(plan: plans.Plan, store: Store, jobs: int = 1) -> dict[str, str]:
    return shadows.unlearn(plan, store, jobs, Progress(999, quiet=True))


def seen(plan: plans.Plan, store: Store, jobs: int = 1) -> None:
    runner.run_methods(plan, store, Progress(999, quiet=True))
    shadows.look(plan, store, [], jobs, Progress(999, quiet=True))


def contents(store: Store, kind: str) -> dict[str, dict[str, np.ndarray]]:
    """All entries of a kind."""
    return {path.stem: store.get(kind, path.stem)[0] for path in store.folder.glob(f"{kind}/*/*.safetensors")}


def same(first: dict[str, dict[str, np.ndarray]], second: dict[str, dict[str, np.ndarray]]) -> bool:
    return first.keys() == second.keys() and all(
        np.array_equal(array, second[key][name]) for key, arrays in first.items() for name, array in arrays.items()
    )


@pytest.fixture(scope="module")
def plan() -> plans.Plan:
    return planned("class_removal", "pgu,scrub", "pgu.epochs=2")


@pytest.fixture(scope="module")
def store(plan: plans.Plan, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with the pool of the plan and all that its attacks need."""
    made = trained(plan, tmp_path_factory.mktemp("shadows"))
    assert served(plan, made) == {}
    seen(plan, made)
    return made


def test_every_method_but_the_original_serves_the_shadows(plan: plans.Plan, store: Store) -> None:
    assert {row.name: len(row.shadows) for row in plan.rows} == {"original": 0, "retrain": 4, "pgu": 4, "scrub": 4}
    keys = {key for _, kind, key in plan.jobs() if kind == "shadow"}
    assert keys == contents(store, "shadow").keys()
    assert len(keys) == 12
    wanted = {key for _, kind, key in plan.jobs() if kind == "views"}
    assert wanted == contents(store, "views").keys()
    assert len(wanted) == 2 * 7 + 4  # originals, retrained models, and the repeat of every row


@pytest.mark.parametrize("scenario", ["class_removal", "incremental"])
def test_a_shadow_run_is_what_the_method_does_when_run_directly(
    plan: plans.Plan, store: Store, tmp_path: Path, scenario: str
) -> None:
    """The other road is the timed one: through the store from request to request, state included."""
    if scenario == "incremental":
        plan = planned("incremental", "pgu", "pgu.epochs=2", "shadow.unlearned=1", "scenario.steps=3")
        store = trained(plan, tmp_path / "incremental")
        assert served(plan, store) == {}
    else:
        plan, store = replace(plan), Store(shutil.copytree(store.folder, tmp_path / "copy"))
    methods = runner.MethodRunner(plan, store, Progress(999, quiet=True))
    forgotten = plan.requests[-1].forgotten
    for row in plan.rows[1:]:
        chain = row.shadows[-1]
        assert len(chain) == len(plan.requests)
        assert methods.row(replace(row, runs=chain)) == {}
        shadow, direct = store.get("shadow", kept(plan, chain))[0], store.get("unlearned", chain[-1].key)[0]
        for part in PARTS:
            np.testing.assert_array_equal(shadow[part], direct[part])
        model = runner.model_of(methods.setting, direct)
        wanted = views.predicted(model, methods.setting.images["train"], forgotten, flips=False)
        np.testing.assert_array_equal(shadow["views"], wanted)
        own = shadow["logits/train"][forgotten].argmax(axis=1)
        np.testing.assert_array_equal(shadow["views"][:, 0], own)


def test_shadows_and_repeats_differ(plan: plans.Plan, store: Store) -> None:
    for row in plan.rows[1:]:
        outputs = [store.get("shadow", kept(plan, chain))[0]["logits/test"] for chain in row.shadows]
        outputs += [store.get("unlearned", run.key)[0]["logits/test"] for run in row.runs]
        assert len({array.tobytes() for array in outputs}) == 5


def test_nothing_is_made_twice(plan: plans.Plan, store: Store) -> None:
    files = {path: path.stat().st_mtime_ns for path in store.folder.rglob("*.safetensors")}
    assert served(plan, store) == {}
    seen(plan, store)
    assert {path: path.stat().st_mtime_ns for path in store.folder.rglob("*.safetensors")} == files


def test_another_method_or_setting_makes_its_own_only(plan: plans.Plan, store: Store) -> None:
    changed = planned("class_removal", "pgu,scrub", "pgu.epochs=3")
    own = {row.name: {kept(changed, chain) for chain in row.shadows} for row in changed.rows}
    known = contents(store, "shadow").keys()
    assert own["scrub"] | own["retrain"] <= known
    assert not own["pgu"] & known
    more = planned("class_removal", "pgu,scrub", "pgu.epochs=2", "shadow.unlearned=6")
    assert known < {kept(more, chain) for row in more.rows for chain in row.shadows}


def test_processes_do_not_change_a_number(plan: plans.Plan, store: Store, tmp_path: Path) -> None:
    shutil.copytree(store.folder / "model", tmp_path / "model")
    other = Store(tmp_path)
    assert served(plan, other, jobs=2) == {}
    seen(plan, other, jobs=2)
    assert same(contents(store, "shadow"), contents(other, "shadow"))
    assert same(contents(store, "views"), contents(other, "views"))


def test_without_an_attack_that_wants_them_nothing_is_made() -> None:
    flags = {"scenario": "class_removal", "seeds": 1}
    for attacks, shadow, shifted in (("none", 0, 0), ("loss,lira", 0, 0), ("rmia", 12, 0), ("label_only", 12, 18)):
        plan = plans.make(config.resolve("digits", flags | {"attacks": attacks}, CHANGES))
        kinds = [kind for _, kind, _ in plan.jobs()]
        assert (kinds.count("shadow"), kinds.count("views")) == (shadow, shifted), attacks


def test_a_method_that_fails_for_shadows_is_a_reason(
    plan: plans.Plan, store: Store, tmp_path: Path, plug_in: Callable[[str, str], str]
) -> None:
    path = plug_in("mine.py", FAILS.replace("WHEN", "ctx.seed % 2"))
    failing = planned("class_removal", f"{path},scrub", "shadow.unlearned=6")
    copy = Store(shutil.copytree(store.folder, tmp_path / "copy"))
    reasons = served(failing, copy)
    mine = next(row for row in failing.rows if row.name == "mine")
    odd = {chain[-1].key for chain in mine.shadows if chain[-1].seed % 2}
    assert 0 < len(odd) < 6
    assert reasons == dict.fromkeys(odd, "failed: RuntimeError: it is cursed")
    there = {chain[-1].key for chain in mine.shadows if copy.has("shadow", kept(failing, chain))}
    assert there == {chain[-1].key for chain in mine.shadows} - odd
    assert served(failing, copy) == reasons, "what failed is tried again"


# Whole runs

SIX = ("--set", "shadow.unlearned=6")
WORDS = (*POOL, *SIX, "--seeds", "2", "--methods", "scrub", "--attacks", f"{ATTACKS},shadow_xgboost")


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Finished]:
    """The command line in this process, which has imported everything, inside a folder."""

    def call(folder: Path, *words: str) -> Finished:
        monkeypatch.chdir(folder)
        code = cli.main([*words, "--store", "store", "--out", "out", "--jobs", "1"])
        return Finished(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A finished run that no test changes."""
    place = Place(tmp_path_factory.mktemp("whole"))
    finished = place.benchmark(*WORDS)
    assert finished.code == 0, finished.err
    return place


@pytest.mark.slow
def test_force_makes_shadows_and_views_anew_to_the_same_numbers(
    whole: Place, tmp_path: Path, here: Callable[..., Finished]
) -> None:
    place = Place(shutil.copytree(whole.folder, tmp_path / "copy"))
    before = place.entries()
    assert {path.split("/")[0] for path in before} >= {"shadow", "views", "audit", "attack"}
    finished = here(place.folder, *WORDS, "--force")
    assert finished.code == 0, finished.err
    after = place.entries()
    assert after.keys() == before.keys()
    assert [path for path in after if after[path] == before[path]] == []
    assert numbers(place.out) == numbers(whole.out)


@pytest.mark.slow
def test_what_a_killed_run_left_is_used(whole: Place, run: Place, here: Callable[..., Finished]) -> None:
    with run.start(*WORDS, "--store", "store", "--out", "out", "--jobs", "2") as process:
        deadline = time.monotonic() + 120
        while len(list(run.store.glob("shadow/*/*.safetensors"))) < 2:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    kept = {path: changed for path, changed in run.entries().items() if path.endswith(".safetensors")}
    assert not (run.out / "records.csv").exists()
    finished = here(run.folder, *WORDS)
    assert finished.code == 0, finished.err
    assert kept.items() <= run.entries().items()
    assert numbers(run.out) == numbers(whole.out)


def test_a_run_whose_shadows_fail_says_so_and_goes_on(
    run: Place, tmp_path: Path, here: Callable[..., Finished], plug_in: Callable[[str, str], str]
) -> None:
    known = tmp_path / "seeds"
    path = plug_in("mine.py", FAILS.replace("WHEN", f"str(ctx.seed) not in open({str(known)!r}).read().split()"))
    flags = {"scenario": "class_removal", "methods": path, "attacks": "per_example", "seeds": 2}
    rows = plans.make(config.resolve("digits", flags, CHANGES)).rows
    known.write_text(" ".join(str(run.seed) for row in rows if row.name == "mine" for run in row.runs))
    finished = here(run.folder, *WORDS[:-3], f"scrub,{path}", "--attacks", "per_example")
    assert finished.code == 1, finished.err
    told = json.loads((run.out / "run.json").read_text())["methods"]
    [mine] = [row for row in told if row["name"] == "mine"]
    assert mine["status"] == "ok"
    assert mine["lost_for_attacks"] == {"runs": 6, "of": 6, "reason": "failed: RuntimeError: it is cursed"}
    assert [row["lost_for_attacks"] for row in told if row["name"] != "mine"] == [{}] * 3
    assert "failed in 6 of 6 runs for the attacks: RuntimeError: it is cursed" in finished.out
    found = {(r.method, r.metric): r for r in records.load(run.out).records if r.seed == "all" and r.part == "forget"}
    assert found["mine", "attack_auc:per_example"].status == "6 of 8 failed and too_few_models"
    assert np.isfinite(found["mine", "error_unmasked"].value)
    assert found["scrub", "attack_auc:per_example"].status == "ok"


ATTACK = '''"""An attack of a third party: how much surer is a model of the forget set than retrained models are?"""

import numpy as np

from bench.attack import Attack


class Surer(Attack):
    """Distance of the label's logit from the mean over retrained models."""

    knows = KNOWS

    def fit(self, known, seed):
        points = known.others.forget
        rows = np.arange(len(points.labels))
        return {"usual": points.logits[:, rows, points.labels].mean(axis=0)}

    def score(self, fitted, seen, points):
        own = points.logits[:, np.arange(len(points.labels)), points.labels].astype(float)
        return own - fitted.get("usual", 0.0)
'''


@pytest.mark.parametrize("knows", ["unlearned", "original"])
def test_an_attack_of_a_third_party(
    whole: Place, tmp_path: Path, here: Callable[..., Finished], plug_in: Callable[[str, str], str], knows: str
) -> None:
    place = Place(shutil.copytree(whole.folder, tmp_path / "copy"))
    plug_in("copy/my_attack.py", ATTACK.replace("KNOWS", repr(knows)))
    finished = here(place.folder, *WORDS[:-1], "per_example,./my_attack.py")
    assert finished.code == 0, finished.err
    found = {(r.method, r.metric): r for r in records.load(place.out).records if r.seed == "all" and r.part == "forget"}
    area = {method: found[method, "attack_auc:my_attack"] for method in ("original", "retrain", "scrub")}
    assert all(one.status == "ok" for one in area.values())
    assert area["original"].value > 0.9
    assert abs(area["retrain"].value - 0.5) < 0.25
    audit = json.loads((place.out / "run.json").read_text())["audit"]
    assert audit["family"] == ["per_example", *(["my_attack"] if knows == "unlearned" else [])]
    assert "my_attack" in finished.out
    assert "my_attack" in (place.out / "report.html").read_text()
    written = place.entries()
    assert here(place.folder, *WORDS[:-1], "per_example,./my_attack.py").out == finished.out
    assert place.entries() == written


def test_an_attack_that_raises_is_one_line_and_loses_nothing(
    whole: Place, tmp_path: Path, here: Callable[..., Finished], plug_in: Callable[[str, str], str]
) -> None:
    place = Place(shutil.copytree(whole.folder, tmp_path / "copy"))
    broken = ATTACK.replace("KNOWS", "'unlearned'").replace(
        "return own", "raise ValueError('no\\nluck')\n        return own"
    )
    plug_in("copy/my_attack.py", broken)
    finished = here(place.folder, *WORDS[:-1], "per_example,./my_attack.py")
    assert finished.code == 2
    last = finished.err.splitlines()[-1]
    assert last.startswith("error: the attack my_attack failed (ValueError: no luck); --attacks per_example leaves it")
    assert whole.entries().keys() <= place.entries().keys()
