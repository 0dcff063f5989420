"""Hard forget sets: memorization scores from half models, the draws that follow them, and canaries."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import SMALL_POOL, Place
from hypothesis import given
from hypothesis import strategies as st

from bench import cli, config, development, memorization, plan, pool, records, store
from bench.interface import Dataset, UsageError
from bench.logits import error_percent
from bench.memorization import inclusion, score
from bench.progress import Progress
from bench.scenarios import SampleRemoval, reference_data, training_labels, undetected

HALF_MODELS, COUNT, REPEATS = 12, 60, 3
CHANGES = ("shadow.train=2", "shadow.validation=1", f"scenario.count={COUNT}", f"scenario.half_models={HALF_MODELS}")
CELL = ("--scenario", "sample_removal", "--methods", "original", *SMALL_POOL, "--seeds", "2", "--attack", "none")
HARD = (*CELL, "--set", "scenario.draw=most_memorized", "--set", "scenario.half_models=4")


def resolved(draw: str, *changes: str) -> config.Config:
    flags = {"scenario": "sample_removal", "methods": "original", "attacks": "none", "seeds": REPEATS}
    return config.resolve("digits", flags, [*CHANGES, f"scenario.draw={draw}", *changes])


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> store.Store:
    return store.Store(tmp_path_factory.mktemp("hardness"))


@pytest.fixture(scope="module")
def hardness(dataset: Dataset, entries: store.Store) -> np.ndarray:
    return memorization.scores(resolved("most_memorized"), dataset, entries, 1)


@given(st.integers(2, 12), st.integers(1, 40), st.integers(0, 2**32))
def test_every_sample_is_in_exactly_half_of_the_models(half: int, samples: int, seed: int) -> None:
    inside = inclusion(2 * half, samples, np.random.default_rng(seed))
    assert inside.shape == (2 * half, samples)
    assert (inside.sum(axis=0) == half).all()


def test_half_models_share_a_pool_whatever_is_forgotten(dataset: Dataset) -> None:
    def keys(*changes: str, draw: str = "most_memorized") -> list[str]:
        return [model.key for model in memorization.half_models(resolved(draw, *changes), dataset)]

    models = memorization.half_models(resolved("most_memorized"), dataset)
    assert len({model.key for model in models}) == len({model.seed for model in models}) == HALF_MODELS
    assert (np.bincount(np.concatenate([model.index for model in models])) == HALF_MODELS // 2).all()
    assert keys() == keys("scenario.count=7", "scenario.draw_seed=3", "shadow.train=9") == keys(draw="least_memorized")
    assert not set(keys()) & set(keys("recipe.epochs=3"))


def test_scores_say_what_models_with_and_without_a_sample_answer() -> None:
    """Four models, three samples: one known when trained on, one always known, one never."""
    inside = np.array([[1, 0, 1], [1, 1, 0], [0, 1, 1], [0, 0, 0]], dtype=bool)
    logits = np.zeros((4, 3, 2))
    logits[:, 0, 0] = np.where(inside[:, 0], 3.0, -1.0)
    logits[:, 1, 1] = np.where(inside[:, 1], 5.0, 4.0)
    logits[:, 2, 0] = -2.0
    found = score(logits, np.array([0, 1, 0]), inside)
    assert np.allclose(found, [[1.0, 4.0], [0.0, 1.0], [0.0, 0.0]])
    logits[1, 1] = np.nan  # a diverged model gets nothing right and has no log-odds
    assert np.allclose(score(logits, np.array([0, 1, 0]), inside)[1], [-0.5, 1.0])


def test_a_tie_is_no_right_answer() -> None:
    inside = np.array([[True], [False]])
    assert score(np.zeros((2, 1, 3)), np.array([0]), inside).tolist() == [[0.0, 0.0]]


def test_planted_wrong_labels_are_the_most_memorized(dataset: Dataset, tmp_path: Path) -> None:
    """Twelve mislabeled digits: half models that saw one know its label, and no other would guess it."""
    planted = np.random.default_rng(4).permutation(len(dataset.train_y))[:12]
    labels = dataset.train_y.copy()
    labels[planted] = (labels[planted] + 1 + np.arange(12) % 9) % 10
    cell = resolved("most_memorized", "scenario.half_models=8", "recipe.epochs=20")
    models = [
        dataclasses.replace(model, labels=labels, key=f"{number:024d}")
        for number, model in enumerate(memorization.half_models(cell, dataset))
    ]
    kept, inside = store.Store(tmp_path), np.zeros((len(models), len(labels)), dtype=bool)
    for row, model in zip(inside, models, strict=True):
        row[model.index] = True
    pool.train_models(cell, dataset, models, kept, 1, Progress(len(models), quiet=True))
    found = score((kept.get("model", model.key)[0]["logits/train"] for model in models), labels, inside)
    order = np.lexsort((-found[:, 1], -found[:, 0]))
    assert np.isin(order[:24], planted).sum() >= 11
    assert found[planted, 0].mean() > 0.6 > 10 * found[np.setdiff1d(np.arange(len(labels)), planted), 0].mean()


def test_scores_depend_on_the_number_of_processes_as_little_as_models_do(dataset: Dataset, tmp_path: Path) -> None:
    cell = resolved("least_memorized", "scenario.half_models=4", "recipe.epochs=2")
    one, two = (memorization.scores(cell, dataset, store.Store(tmp_path / str(jobs)), jobs) for jobs in (1, 2))
    assert np.array_equal(one, two)


def test_most_and_least_memorized_are_the_two_ends_of_one_order(hardness: np.ndarray, dataset: Dataset) -> None:
    labels = dataset.train_y

    def drawn(draw: Any, count: int) -> np.ndarray:
        [request] = SampleRemoval(draw=draw, count=count).requests(labels, 10, 0, hardness)
        assert len(request.poisoned) == 0
        return request.forget

    most, least = drawn("most_memorized", 300), drawn("least_memorized", 300)
    assert not set(most) & set(least)
    assert hardness[most, 0].min() >= hardness[least, 0].max()
    assert np.isin(drawn("most_memorized", COUNT), most).all()
    tied = hardness[:, 0] == 0  # log-odds break the ties of the many that every model gets right
    assert tied.mean() > 0.5
    high, low = (hardness[np.intersect1d(half, np.flatnonzero(tied)), 1] for half in (most, least))
    assert high.min() >= low.max()


def test_equal_scores_are_taken_in_file_order() -> None:
    labels, alike = np.zeros(6, dtype=np.int64), np.zeros((6, 2))
    [most] = SampleRemoval(draw="most_memorized", count=3).requests(labels, 2, 0, alike)
    [least] = SampleRemoval(draw="least_memorized", count=3).requests(labels, 2, 0, alike)
    assert (most.forget.tolist(), least.forget.tolist()) == ([0, 1, 2], [3, 4, 5])


def test_a_ranked_draw_without_scores_is_refused(dataset: Dataset) -> None:
    with pytest.raises(UsageError, match="needs memorization scores"):
        plan.make(resolved("most_memorized"))
    with pytest.raises(UsageError, match="cannot forget 600 samples"):
        memorization.outline(resolved("most_memorized", "scenario.count=600"))


@given(st.integers(0, 2**32), st.integers(1, 20), st.integers(0, 9))
def test_canaries_are_random_samples_with_wrong_labels(seed: int, count: int, draw_seed: int) -> None:
    labels = np.tile(np.arange(3), 20)
    [request] = SampleRemoval(draw="canaries", count=count, draw_seed=draw_seed).requests(labels, 3, seed)
    [same] = SampleRemoval(draw="random", count=count, draw_seed=draw_seed).requests(labels, 3, seed)
    [more] = SampleRemoval(draw="canaries", count=count + 9, draw_seed=draw_seed).requests(labels, 3, seed)
    assert np.array_equal(request.forget, same.forget)
    assert np.array_equal(request.poisoned, request.forget)
    trained = training_labels([request], labels)
    assert (trained[request.forget] != labels[request.forget]).all()
    assert (trained[request.retain] == labels[request.retain]).all()
    assert set(trained) <= {0, 1, 2}
    assert np.array_equal(training_labels([more], labels)[request.forget], trained[request.forget])
    assert len(undetected(request)) == 0
    assert np.array_equal(reference_data(request), request.retain)


def test_canaries_get_every_wrong_label() -> None:
    labels = np.zeros(600, dtype=np.int64)
    [request] = SampleRemoval(draw="canaries", count=500).requests(labels, 10, 0)
    assert np.bincount(request.wrong_labels, minlength=10)[1:].min() > 30


def test_retrained_models_of_canaries_are_those_of_the_same_samples(dataset: Dataset) -> None:
    canaries, random = plan.make(resolved("canaries")), plan.make(resolved("random"))
    assert [m.key for m in canaries.retrained[0]] == [m.key for m in random.retrained[0]]
    assert not {m.key for m in canaries.originals} & {m.key for m in random.originals}


def forget_errors(draw: str, entries: store.Store, scores: np.ndarray) -> tuple[float, float]:
    """Mean forget errors of originals and of retrained models in percent, by the labels of training."""
    planned = plan.make(resolved(draw), scores)
    pool.train_pool(planned, entries, 1, Progress(len(planned.models()), quiet=True))
    rows = planned.requests[0].forget
    first, second = (
        float(np.mean([error_percent(one["logits/train"][rows], planned.labels[rows]) for one in outputs]))
        for outputs in (
            [entries.get("model", model.key)[0] for model in models]
            for models in (planned.originals, planned.retrained[0])
        )
    )
    return first, second


def test_the_harder_the_forget_set_the_more_there_is_to_forget(entries: store.Store, hardness: np.ndarray) -> None:
    draws = ("least_memorized", "random", "most_memorized", "canaries")
    errors = {draw: forget_errors(draw, entries, hardness) for draw in draws}
    gaps = [retrained - original for original, retrained in errors.values()]
    assert abs(gaps[0]) < 0.5 < gaps[1] < gaps[2] - 5 < gaps[3] - 10
    original, retrained = errors["canaries"]
    assert original < 80 < 98 < retrained  # the original has learned wrong labels that nobody else would give


@pytest.mark.parametrize("draw", ["most_memorized", "least_memorized", "canaries"])
def test_nothing_is_tuned_on_hard_draws(draw: Any, dataset: Dataset) -> None:
    with pytest.raises(UsageError, match="tune with --set scenario.draw=random") as refused:
        development.draws(SampleRemoval(draw=draw), dataset.train_y, 10, 0, 2)
    assert draw in str(refused.value)


def test_half_models_count_for_the_configuration_where_they_are_used_only() -> None:
    assert "half_models" not in SampleRemoval().model_dump()
    assert SampleRemoval(draw="least_memorized").model_dump()["half_models"] == 32


@pytest.mark.parametrize(
    ("change", "message"),
    [("draw=nonsense", "scenario.draw"), ("half_models=7", "multiple of 2"), ("half_models=2", "greater than")],
)
def test_a_bad_value_is_one_clear_line(change: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--scenario", "sample_removal", "--set", f"scenario.{change}", "--dry-run"]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count("\n") == 1 and not printed.out


def test_a_damaged_half_model_is_trained_again(dataset: Dataset, tmp_path: Path) -> None:
    cell, entries = resolved("most_memorized", "scenario.half_models=4", "recipe.epochs=1"), store.Store(tmp_path)
    wanted = memorization.scores(cell, dataset, entries, 1)
    *_, (_, kind, key) = jobs = list(memorization.jobs(memorization.half_models(cell, dataset)))
    entries.drop(kind, key)
    entries.path("model", jobs[0][2]).write_bytes(b"half")
    assert memorization.stored(cell, dataset, entries) is None
    outline = memorization.outline(cell)
    made = memorization.scored(outline, entries, 1, force=False)
    assert made.hardness is not None and np.array_equal(made.hardness, wanted)


@pytest.mark.slow
def test_the_command_line_trains_half_models_once_and_says_how_hard_the_set_is(run: Place) -> None:
    planned = run.benchmark(*HARD, "--dry-run")
    assert planned.code == 0 and "4 half models must be trained first" in planned.out
    assert list(run.folder.iterdir()) == []
    first = run.benchmark(*HARD)
    assert first.code == 0, first.err
    assert "forget set: most memorized, memorization" in first.out
    told = records.load(run.out).run["memorization"]
    assert told["half_models"] == 4 and told["forget"] > told["all"]
    before = run.entries()
    planned = run.benchmark(*HARD, "--dry-run")
    assert "half models" not in planned.out and run.entries() == before
    second = run.benchmark(*HARD, out="again")
    assert second.code == 0 and run.entries() == before, second.err
