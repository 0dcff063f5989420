"""Tuning is fair and blind: other draws, equal trials, known scores, no test data; killed and repeated it goes on."""

from __future__ import annotations

import itertools
import math
import os
import signal
import sys
import time
import tomllib
from pathlib import Path
from typing import Any, ClassVar

import fabricated
import numpy as np
import pytest
from command import Finished, Place
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import Field

from bench import chains, cli, config, development, layers, preset, registry, trials, tuner, tuning
from bench.dataview import Images
from bench.interface import SCENARIOS, Method, Request, UsageError
from bench.records import Results
from bench.scenarios import ClassRemoval, Depoisoning, Incremental, SampleRemoval, Scenario
from bench.tuning import Judged, Trial
from reports import words

# Draws to choose on

SAMPLES = st.builds(
    SampleRemoval,
    draw=st.sampled_from(["random", "class_random", "class_first"]),
    count=st.integers(1, 8),
    target_class=st.integers(0, 4),
    draw_seed=st.integers(0, 3),
)
STEPS = st.builds(
    Incremental,
    steps=st.integers(1, 3),
    per_class=st.integers(1, 2),
    draw=st.sampled_from(["random", "first"]),
    draw_seed=st.integers(0, 3),
)
POISON = st.builds(
    Depoisoning,
    flips=st.integers(1, 5),
    pairing=st.sampled_from(["random", "mirror"]),
    draw_seed=st.integers(0, 3),
)
CLASSES = st.builds(ClassRemoval, removed=st.sets(st.integers(0, 6), min_size=1, max_size=3).map(tuple))
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(7), [9, 8, 9, 12, 10, 20, 8]))


def forgets(scenario: Scenario, seed: int) -> list[tuple[int, ...]]:
    return [tuple(request.forget) for request in scenario.requests(LABELS, 7, seed)]


@given(st.one_of(SAMPLES, STEPS, POISON, CLASSES), st.integers(0, 2**32), st.integers(1, 4))
def test_a_development_request_is_never_the_reported_one(scenario: Scenario, seed: int, count: int) -> None:
    draws = development.draws(scenario, LABELS, 7, seed, count)
    sets = [forgets(scenario, seed), *(forgets(draw, development.root(seed)) for draw in draws)]
    assert len(draws) == count
    assert all(one != other for one, other in itertools.combinations(sets, 2))
    assert {len(one) for one in sets} == {len(sets[0])}
    assert draws == development.draws(scenario, LABELS, 7, seed, count)


@given(CLASSES, st.integers(0, 2**32))
def test_no_removed_class_is_chosen_on(scenario: ClassRemoval, seed: int) -> None:
    for draw in development.draws(scenario, LABELS, 7, seed, 3):
        assert isinstance(draw, ClassRemoval)
        assert not set(draw.removed) & set(scenario.removed)
        assert len(set(draw.removed)) == len(set(scenario.removed))


@given(SAMPLES, st.integers(0, 2**32))
def test_samples_of_one_class_are_chosen_on_other_classes(scenario: SampleRemoval, seed: int) -> None:
    assume(scenario.draw != "random")
    reported = {index for forget in forgets(scenario, seed) for index in forget}
    for draw in development.draws(scenario, LABELS, 7, seed, 3):
        assert not reported & {index for forget in forgets(draw, development.root(seed)) for index in forget}


@pytest.mark.parametrize(("removed", "count"), [((0, 1, 2, 3, 4), 1), ((0,), 7), ((0, 1, 2), 5)])
def test_too_few_other_classes_are_refused(removed: tuple[int, ...], count: int) -> None:
    left = math.comb(7 - len(removed), len(removed))
    with pytest.raises(UsageError, match=f"leaves {left} other draws to choose on, not {count}"):
        development.draws(ClassRemoval(removed=removed), LABELS, 7, 0, count)


# Settings to try


class Wide(Method):
    """A method with a large search."""

    search: ClassVar[dict[str, tuple[Any, ...]]] = {"a": (1, 2, 3), "b": (1.0, 2.0, 3.0, 4.0, 5.0), "c": (False, True)}
    a: int = Field(default=1, description="a", le=3)
    b: float = Field(default=9.0, description="b")
    c: bool = Field(default=False, description="c")


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 20), st.integers(0, 2**32), st.data())
def test_a_latin_hypercube_is_balanced_and_never_repeats(sizes: list[int], count: int, seed: int, data: Any) -> None:
    without = tuple(data.draw(st.integers(-1, size - 1)) for size in sizes)
    rows = tuning.latin(sizes, count, without, np.random.default_rng(seed))
    points = set(map(tuple, rows))
    free = math.prod(sizes) - (min(without) >= 0)
    assert len(points) == len(rows) == min(count, free)
    assert without not in points
    assert points <= set(itertools.product(*map(range, sizes)))
    if count and free >= 4 * count:
        used = [np.bincount(rows[:, field], minlength=size) for field, size in enumerate(sizes)]
        assert all(uses.max() - uses.min() <= 1 for uses in used)


@given(st.integers(1, 29), st.integers(0, 2**32))
def test_the_first_trial_changes_nothing_and_every_method_has_as_many(count: int, seed: int) -> None:
    changes = tuning.trials(Wide.search, Wide(), count, np.random.default_rng(seed))
    assert changes[0] == {}
    assert len({str(change) for change in changes}) == len(changes) == count
    assert all(change.keys() == Wide.search.keys() for change in changes[1:])
    assert all(change[name] in Wide.search[name] for change in changes[1:] for name in change)


def test_a_small_search_is_tried_whole_and_an_empty_one_once() -> None:
    generator = np.random.default_rng(0)
    small = tuning.trials({"a": (1, 2, 3), "c": (False, True)}, Wide(), 99, generator)
    assert len(small) == 6  # the defaults are one of the six
    assert tuning.trials({}, Wide(), 99, generator) == [{}]


@pytest.mark.parametrize(
    ("search", "fault"),
    [
        ({"d": (1,)}, "'d', which is no field"),
        ({"a": (1, 4)}, "the value 4, which its field refuses: Input should be less than or equal to 3"),
        ({"a": ("many",)}, "the value 'many', which its field refuses"),
        ({"a": ()}, "a tuple of values"),
        ({"a": 3}, "a tuple of values"),
        ({"a": (1, None)}, "the value None, which its field refuses"),
        ({"a": (1, 2, 1)}, "the value 1 twice"),
    ],
)
def test_a_search_that_cannot_be_tried_is_refused(search: dict[str, Any], fault: str) -> None:
    faulty = type("Faulty", (Wide,), {"search": search, "__annotations__": {"search": ClassVar[Any]}})
    with pytest.raises(ValueError, match=fault):
        tuning.check_search(faulty)


@pytest.mark.parametrize("name", registry.names("methods"))
def test_every_registered_search_is_valid(name: str) -> None:
    tuning.check_search(registry.load("methods", name))


# Scores


def logits(predicted: list[int], classes: int = 3) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[predicted]


def request(forget: list[int], **rest: Any) -> Request:
    chosen = np.array(forget)
    return Request(forget=chosen, retain=np.setdiff1d(np.arange(6), chosen), forgotten=chosen, **rest)


TRUTH = np.array([0, 0, 1, 1, 2, 2])
HELD_OUT = np.array([0, 0, 0, 0, 1, 1, 2, 2])
RIGHT = logits([0, 0, 0, 0, 1, 1, 2, 2])
WRONG = logits([0, 0, 0, 1, 1, 0, 2, 2])  # 75 % of class 0, half of class 1, all of class 2


def test_samples_should_be_missed_as_often_as_held_out_ones_of_their_classes() -> None:
    judged = tuning.judge(
        "sample_removal", request([0, 1, 2]), TRUTH, HELD_OUT, logits([0, 1, 1, 1, 2, 2]), WRONG, RIGHT, "ok"
    )
    mix = (2 * 25 + 50) / 3  # two samples of class 0, one of class 1
    assert judged.forget_error == pytest.approx(100 / 3)
    assert (judged.validation_error, judged.original_error, judged.status) == (25.0, 0.0, "ok")
    assert judged.score == pytest.approx(abs(100 / 3 - mix) + 25)


def test_a_class_without_held_out_samples_has_no_weight() -> None:
    held_out, right = HELD_OUT[:6], RIGHT[:6]
    judged = tuning.judge("sample_removal", request([4, 2]), TRUTH, held_out, logits([0] * 6), WRONG[:6], right, "ok")
    assert judged.score == pytest.approx(50 + 100 / 3)


def test_a_removed_class_should_be_missed_always_and_held_out_samples_of_it_do_not_count() -> None:
    gone = request([0, 1], removed_classes=(0,))
    judged = tuning.judge("class_removal", gone, TRUTH, HELD_OUT, logits([1, 0, 1, 1, 2, 2]), WRONG, RIGHT, "ok")
    assert judged.score == pytest.approx(50 + 25)  # one of two remembered; one of four retained samples lost
    better = tuning.judge("class_removal", gone, TRUTH, HELD_OUT, logits([1, 1, 1, 1, 2, 2]), RIGHT, WRONG, "ok")
    assert better.score == 0  # accuracy that is won makes up for nothing


def test_poisoned_labels_say_nothing_about_forgetting() -> None:
    judged = tuning.judge("depoisoning", request([0, 2]), TRUTH, HELD_OUT, logits([0] * 6), WRONG, RIGHT, "ok")
    assert judged.score == judged.validation_error == 25.0


def test_what_was_forgotten_earlier_counts_too() -> None:
    second = Request(forget=np.array([2]), retain=np.array([4, 5]), forgotten=np.array([0, 1, 2, 3]), step=1)
    judged = tuning.judge("incremental", second, TRUTH, HELD_OUT, logits([1, 1, 1, 1, 2, 2]), RIGHT, RIGHT, "ok")
    assert judged.score == judged.forget_error == 50.0


def test_a_wrecked_model_scores_infinity() -> None:
    broken = np.full((8, 3), np.nan, dtype=np.float32)
    judged = tuning.judge("sample_removal", request([0]), TRUTH, HELD_OUT, logits([0] * 6), broken, RIGHT, "ok")
    assert (judged.score, judged.status) == (math.inf, "diverged")


def test_the_lowest_mean_wins_and_of_equals_the_earliest() -> None:
    def trial(*scores: float, failure: str = "") -> Trial:
        return Trial({}, [Judged(score, 0, 0, 0, "ok") for score in scores], failure)

    tried = [trial(3, 1), trial(2 + 1e-9, 2), trial(0, 5), trial(0, 0, failure="failed: x"), trial(0, math.inf)]
    assert [one.score for one in tried][3:] == [math.inf, math.inf]
    assert tuning.choose(tried) == 0
    assert tuning.choose([*tried, trial(1, 2.5)]) == 5


# The whole command, on methods whose best values are known

KNOWN = '''"""Known: takes an output away."""
import time
import torch
from pydantic import Field
from bench.interface import Method, Need

class Known(Method):
    """Takes `shift` from the outputs of the removed classes, and `wreck` from those of the others but one."""
    needs = Need.FORGET
    budget = None
    supports = ("class_removal",)
    search = {"shift": (0.0, 0.001, 1000.0), "wreck": (0.0, 1000.0), "crash": (False, True)}
    shift: float = Field(default=0.0, description="what is taken from removed classes")
    wreck: float = Field(default=0.0, description="what is taken from retained classes")
    crash: bool = Field(default=False, description="raise an error")

    def unlearn(self, model, data, ctx):
        if self.crash:
            raise RuntimeError("asked for | twice\\nin two lines")
        time.sleep(0.05)
        head = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
        kept = [c for c in range(ctx.classes) if c not in ctx.removed_classes]
        with torch.no_grad():
            head.bias[list(ctx.removed_classes)] -= self.shift
            head.bias[kept[1:]] -= self.wreck
        return model
'''
PEEKS = '''"""Peeks: forgets if it finds test data anywhere in the process."""
import gc
import torch
from pydantic import Field
from bench.interface import Dataset, Method, Need

class Peeks(Method):
    """Forgets the class only where a data set with test data, or outputs on it, lie in memory."""
    needs = Need.FORGET
    budget = None
    search = {"peek": (False, True)}
    peek: bool = Field(default=False, description="look around")

    def unlearn(self, model, data, ctx):
        if self.peek and any(isinstance(thing, Dataset) and len(thing.test_y) for thing in gc.get_objects()):
            head = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
            with torch.no_grad():
                head.bias[list(ctx.removed_classes)] -= 1000
        return model
'''
QUICK = ("--draws", "2", "--originals", "2", "--set", "recipe.epochs=1", "--store", "store")
WORDS = ("tune", "--methods", "known.py,known.py+crash=false,peeks.py,eu_k,retrain", "--trials", "20", *QUICK)


def tune(place: Place, *changes: str, jobs: int = 2) -> Finished:
    """The command on the two methods, in a folder of its own."""
    place.folder.mkdir(exist_ok=True)
    (place.folder / "known.py").write_text(KNOWN)
    (place.folder / "peeks.py").write_text(PEEKS)
    return place.call(*WORDS, "--out", "mine.toml", "--jobs", str(jobs), *changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, Finished]:
    """A tuned preset that the tests read, and what the command printed."""
    place = Place(tmp_path_factory.mktemp("tune") / "place")
    done = tune(place)
    assert done.code == 0, done.err
    return place, done


def written(place: Place) -> dict[str, Any]:
    return tomllib.loads((place.folder / "mine.toml").read_text())


def test_the_known_best_values_are_found(finished: tuple[Place, Finished]) -> None:
    place, done = finished
    tables = written(place)
    assert tables["base"] == "digits-authors"
    own = {"known.py": {"shift": 1000.0}, "known.py+crash=false": {"shift": 1000.0, "wreck": 0.0}}
    assert tables["tuned"] == {"class_removal": own}
    scores = tables["provenance"]["scores"]["class_removal"]
    assert scores["known.py"].pop("defaults") > 50
    assert scores["known.py"] == {"settings": "tuned", "chosen": 0.0, "trials": 12}
    assert scores["eu_k"]["trials"] == 1
    assert scores["known.py+crash=false"]["trials"] == 6
    assert "Nothing to tune: eu_k" in done.out
    assert done.out.count("failed: RuntimeError: asked for \\| twice |") == 6


def test_test_data_is_nowhere(finished: tuple[Place, Finished]) -> None:
    place, _ = finished
    score = written(place)["provenance"]["scores"]["class_removal"]["peeks.py"]
    assert score["settings"] == "defaults"
    assert score["trials"] == 2
    assert score["chosen"] == score["defaults"] > 50


def test_no_model_is_retrained_and_removed_classes_are_other_ones(finished: tuple[Place, Finished]) -> None:
    place, _ = finished
    entries = tuner.Store(place.store)
    models = [entries.get("model", path.stem) for path in place.store.glob("model/*/*")]
    assert [meta["role"] for _, meta in models] == ["original"] * 2
    assert all(len(arrays["logits/test"]) == 0 and len(arrays["logits/train"]) == 600 for arrays, _ in models)
    draws = written(place)["provenance"]["development"]["class_removal"]
    assert len(draws) == 2
    assert not {8} & {c for draw in draws for c in draw["removed"]}


def test_the_preset_gives_its_values_to_a_run(
    finished: tuple[Place, Finished], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, _ = finished
    monkeypatch.chdir(place.folder)
    resolved = config.resolve("mine.toml", {"methods": "known.py,eu_k"})
    assert resolved.method("known").model_dump() == {"shift": 1000.0, "wreck": 0.0, "crash": False}
    assert resolved.recipe.epochs == 1  # as tuned
    assert resolved.provenance["known"]["trials"] == 12
    assert "known" not in config.resolve("mine.toml", {"methods": "known.py"}, ["known.shift=1"]).provenance
    other = config.resolve("mine.toml", {"methods": "known.py", "scenario": "sample_removal"})
    assert other.method("known").model_dump()["shift"] == 0.0


@pytest.mark.slow
def test_a_killed_command_goes_on_to_the_same_values_on_one_process(
    finished: tuple[Place, Finished], run: Place
) -> None:
    place, done = finished
    (run.folder / "known.py").write_text(KNOWN)
    (run.folder / "peeks.py").write_text(PEEKS)
    with run.start(*WORDS, "--out", "mine.toml", "--jobs", "2") as process:
        deadline = time.monotonic() + 120
        while sum(path.startswith("trial") for path in run.entries()) < 3:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    kept = {path: changed for path, changed in run.entries().items() if path.endswith(".safetensors")}
    again = tune(run, jobs=1)
    assert again.code == 0, again.err
    assert again.out == done.out
    assert kept.items() <= run.entries().items()
    assert written(run)["tuned"] == written(place)["tuned"]
    assert written(run)["provenance"]["scores"] == written(place)["provenance"]["scores"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere joblib's own pool notices")
@pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])
def test_a_killed_worker_is_one_line_and_not_waited_for(run: Place, background: bool) -> None:
    (run.folder / "known.py").write_text(
        KNOWN.replace("time.sleep(0.05)", "open('begun', 'w').close(); time.sleep(99)")
    )
    words = ("tune", "--methods", "known.py", "--trials", "4", *QUICK, "--out", "mine.toml", "--jobs", "2")
    with run.start(*words, deaf=background) as process:
        deadline = time.monotonic() + 120
        while not (run.folder / "begun").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    told = [line for line in err.splitlines() if not line.startswith("[")]
    assert len(told) == 1, err
    assert "error: a worker process was killed, perhaps for want of memory" in told[0]


def test_fields_that_are_set_are_not_searched(finished: tuple[Place, Finished]) -> None:
    place, _ = finished
    done = tune(place, "--set", "known.shift=0.001", "--set", "known.crash=false", "--force")
    assert done.code == 0, done.err
    assert "| 1 | wreck = 1000.0 |" in done.out
    assert "| 2 |" not in done.out.split("known+crash")[0]
    tables = written(place)
    assert tables["tuned"]["class_removal"]["known.py"] == {"shift": 0.001}
    assert tables["provenance"]["scores"]["class_removal"]["known.py"]["trials"] == 2


def scores(folder: Path, dataset: str, methods: str = "scrub") -> list[list[Judged]]:
    """What three trials of a method score, in this process."""
    flags = {"methods": methods, "dataset": dataset, "scenario": "sample_removal"}
    resolved = config.resolve("digits-authors", flags, ["recipe.epochs=1"])
    cells = trials.lay_out([resolved], [], trials.Budget(3, 1, 1))
    ((outcome,),) = tuner.carry_out(cells, folder, 1, lambda one: None)
    return [trial.judged for trial in outcome.tried]


def test_scores_do_not_depend_on_test_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = tmp_path / "noise.py"
    noise.write_text(
        "import dataclasses\nimport numpy as np\nfrom bench import registry\n\n"
        "def load():\n    digits = registry.load('datasets', 'digits')()\n"
        "    noise = np.random.default_rng(0).integers(0, 17, digits.test_x.shape).astype(np.uint8)\n"
        "    return dataclasses.replace(digits, test_x=noise, test_y=digits.test_y[::-1].copy())\n"
    )
    monkeypatch.setattr(Images, "__init__", refuse_test(Images.__init__))
    expected = scores(tmp_path / "store", "digits")
    assert len({str(judged) for judged in expected}) > 1
    assert scores(tmp_path / "other", str(noise)) == expected
    monkeypatch.setattr(tuner, "_judged", None)  # every score is there already: the key knows no test data either
    assert scores(tmp_path / "store", str(noise)) == expected


def refuse_test(plain: Any) -> Any:
    """`Images.__init__`, but for test images."""

    def init(self: Images, dataset: Any, part: str, device: str) -> None:
        assert part != "test"
        plain(self, dataset, part, device)

    return init


@pytest.mark.slow
def test_all_scenarios_in_one_command(run: Place) -> None:
    words = ("tune", "--scenario", "all", "--methods", "neg_grad", "--trials", "2", *QUICK[2:], "--draws", "1")
    done = run.call(*words, "--about", 'Mine, with "quotes"', "--set", "class_removal.removed=3")
    assert done.code == 0, done.err
    assert [f"### {name}, neg_grad" in done.out for name in SCENARIOS] == [True] * 4
    path = run.folder / "tuned-all.toml"
    tables = tomllib.loads(path.read_text())
    assert tables["about"] == 'Mine, with "quotes"'
    assert tables["scenario"] == {"class_removal": {"removed": [3]}}
    assert tables["recipe"] == {"epochs": 1}
    assert tables["provenance"]["scores"].keys() == set(SCENARIOS)
    assert all(config.resolve(str(path), {"scenario": name}).scenario == name for name in SCENARIOS)


# Mistakes


@pytest.fixture
def refused(run: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs `tune` with wrong words in this process, in an empty folder, and returns the line it answers with."""
    monkeypatch.chdir(run.folder)

    def call(*given: str) -> str:
        before = sorted(run.folder.iterdir())
        assert cli.main(["tune", *given]) == 2
        out, err = capsys.readouterr()
        assert (out, len(err.splitlines())) == ("", 1), err
        assert sorted(run.folder.iterdir()) == before
        return err

    return call


@pytest.mark.parametrize(
    ("line", "answer"),
    {
        "--methods srub": "unknown method 'srub'; did you mean scrub?",
        "--methods retrain": "retrain is what methods are judged by",
        "--scenario everything": "unknown scenario 'everything'",
        "--trials 0": "--trials must be at least 1, got 0",
        "--draws 0": "--draws must be at least 1, got 0",
        "--originals -1": "--originals must be at least 1, got -1",
        "--trials many": "invalid int value",
        "--jobs 0": "--jobs must be at least 1",
        "--set scenario.removed=[0,1,2,3,4,5,6,7]": "leaves 0 other draws to choose on, not 3",
        "--draws 10": "leaves 9 other draws to choose on, not 10",
        "--out there": "must name a .toml file in a folder that can be written, got there",
        "--out nowhere/there.toml": "must name a .toml file in a folder that can be written",
        "--set pgu.gama=3": "did you mean gamma?",
    }.items(),
)
def test_a_mistake_is_one_line(refused: Any, line: str, answer: str) -> None:
    assert answer in refused(*line.split())


def test_a_preset_is_never_overwritten_silently(refused: Any, run: Place) -> None:
    (run.folder / "tuned-class_removal.toml").write_text('base = "digits-authors"\n')
    assert "exists; choose another file with --out, or overwrite it with --force" in refused()
    (run.folder / "child.toml").write_text('base = "tuned-class_removal.toml"\n')
    answer = refused("--preset", "child.toml", "--force")
    assert "is what the preset child.toml is made of" in answer


def test_a_faulty_search_names_the_file(refused: Any, run: Place) -> None:
    path = run.folder / "known.py"
    path.write_text(KNOWN.replace('1000.0), "wreck"', "'much'), \"wreck\""))
    answer = refused("--methods", "known.py")
    assert f"{path}: search gives shift the value 'much', which its field refuses" in answer


# Presets and reports

TOML = st.recursive(
    st.one_of(st.booleans(), st.integers(-(2**62), 2**62), st.floats(allow_nan=False), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), TOML, max_size=4))
def test_what_is_written_is_what_is_read(tables: dict[str, Any]) -> None:
    assert tomllib.loads(preset.text(tables)) == tables


TUNED = """
[tuned.class_removal]
pgu = { gamma = 0.7, lr = 0.5 }
scrub = { lr = 0.02 }

[provenance]
command = "x"
date = "2026-01-01"
commit = "c"
dataset = "digits"
architecture = "digits_cnn"
recipe = "digits"
seed = 0
trials = 16
draws = 1
originals = 1
versions = {}
hardware = {}
development = { class_removal = [{ removed = DRAW }] }

[provenance.scores.class_removal]
pgu = { settings = "tuned", defaults = 2.0, chosen = 1.0, trials = 16 }
scrub = { settings = "tuned", defaults = 2.0, chosen = 1.0, trials = 16 }
"""


def test_a_preset_above_a_tuned_one_replaces_its_values_and_their_credit(tmp_path: Path) -> None:
    base, above = tmp_path / "base.toml", tmp_path / "above.toml"
    base.write_text(TUNED.replace("DRAW", "[3]"))
    assert config.resolve(str(base), {}).provenance.keys() == {"pgu", "scrub"}
    for table in ("[method.pgu]", "[tuned.class_removal.pgu]"):
        above.write_text(f'base = "{base}"\n{table}\ngamma = 0.11\n')
        resolved = config.resolve(str(above), {})
        assert resolved.method("pgu").model_dump(include={"gamma", "lr"}) == {"gamma": 0.11, "lr": 0.5}
        assert resolved.provenance.keys() == {"scrub"}


@pytest.mark.parametrize("draw", ['"a"', "[[3]]", "2020-01-01"])
def test_draws_that_no_report_could_read_are_refused_before_any_work(draw: str, tmp_path: Path) -> None:
    path = tmp_path / "hostile.toml"
    path.write_text(TUNED.replace("DRAW", draw))
    with pytest.raises(UsageError, match="removed"):
        config.resolve(str(path), {})


def test_what_is_tuned_knows_the_published_layers() -> None:
    resolved = config.resolve("digits-authors", {"methods": "eu_k"})
    (cell,) = trials.lay_out([resolved], [], trials.Budget(1, 1, 1))
    (job,) = cell.studies[0].candidates[0].jobs
    assert chains.setting_at(job.place, test=False).layers == layers.published("digits_cnn") != ()


def test_a_report_says_where_tuned_values_come_from() -> None:
    credit = {"preset": "mine", "date": "2026-01-02", "commit": "abc", "dataset": "digits", "architecture": "net"}
    run = fabricated.run("class_removal", 1)
    run["provenance"] = {"pgu": credit | {"trials": 16, "draws": [{"removed": [1]}]}, "eu_k": credit | {"trials": 1}}
    note = words.key(Results(run, [], {}), [])[-1]
    assert "pgu: found for the preset mine (2026-01-02, commit abc) by up to 16 trials each on digits with net" in note
    assert "other draws and other models" in note
    assert "\n" not in note
    run["provenance"]["pgu"]["draws"] = [{"removed": [2]}]
    assert "some of the requests and other models" in words.key(Results(run, [], {}), [])[-1]
