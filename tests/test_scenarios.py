"""The scenarios for any labels: what is forgotten, what stays, and that nothing else decides it."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bench import scenarios
from bench.interface import Request, UsageError
from bench.scenarios import (
    KINDS,
    ClassRemoval,
    Depoisoning,
    Incremental,
    SampleRemoval,
    create,
    reference_data,
    undetected,
)


@st.composite
def training_labels(draw: st.DrawFn, fewest: int = 5) -> tuple[np.ndarray, int]:
    """Labels of 3 to 7 classes with at least `fewest` samples each, in any order; and the number of classes."""
    classes = draw(st.integers(3, 7))
    sizes = draw(st.lists(st.integers(fewest, fewest + 12), min_size=classes, max_size=classes))
    labels = np.repeat(np.arange(classes), sizes)
    return np.random.default_rng(draw(st.integers(0, 2**32))).permutation(labels), classes


SEEDS = st.integers(0, 2**32)
PAIRINGS = st.sampled_from(["random", "mirror", "pgu"])
ANY_SCENARIO = st.sampled_from(
    [
        SampleRemoval(count=4),
        SampleRemoval(count=4, draw="class_random", target_class=1),
        SampleRemoval(count=4, draw="class_first", target_class=2),
        SampleRemoval(count=4, draw="canaries"),
        ClassRemoval(removed=(1,)),
        Incremental(steps=2, per_class=2),
        Incremental(steps=4, per_class=1, draw="first"),
        Depoisoning(flips=3),
        Depoisoning(flips=3, pairing="mirror"),
        Depoisoning(flips=3, pairing="pgu"),
        Depoisoning(flips=3, known_fraction=0.4),
    ]
)


def same(one: list[Request], other: list[Request]) -> bool:
    """Whether two lists of requests hold equal values."""
    return len(one) == len(other) and all(
        np.array_equal(a.forget, b.forget)
        and np.array_equal(a.retain, b.retain)
        and np.array_equal(a.forgotten, b.forgotten)
        and (a.removed_classes, a.step) == (b.removed_classes, b.step)
        and np.array_equal(a.poisoned, b.poisoned)
        and np.array_equal(a.wrong_labels, b.wrong_labels)
        for a, b in zip(one, other, strict=True)
    )


@given(training_labels(), ANY_SCENARIO, SEEDS)
def test_forgotten_and_retained_are_sorted_disjoint_and_cover_everything(data: Any, scenario: Any, seed: int) -> None:
    labels, classes = data
    for request in scenario.requests(labels, classes, seed):
        assert len(request.forget) > 0
        assert all((np.diff(part) > 0).all() for part in (request.forget, request.retain, request.forgotten))
        assert np.isin(request.forget, request.forgotten).all()
        together = np.concatenate([request.forgotten, request.retain])
        assert np.array_equal(np.sort(together), np.arange(len(labels)))


@given(training_labels(), ANY_SCENARIO, SEEDS)
def test_same_arguments_give_the_same_requests_and_leave_the_labels_alone(data: Any, scenario: Any, seed: int) -> None:
    labels, classes = data
    before = labels.copy()
    np.random.seed(1)
    first = scenario.requests(labels, classes, seed)
    np.random.seed(2)
    assert same(first, scenario.requests(labels.copy(), classes, seed))
    assert np.array_equal(labels, before)


@pytest.mark.parametrize("name", ["sample_removal", "incremental", "depoisoning"])
@pytest.mark.parametrize("changed", ["seed", "draw_seed"])
def test_another_seed_and_another_draw_take_other_samples(name: str, changed: str) -> None:
    labels = np.tile(np.arange(4), 50)
    seed, draw_seed = (1, 0) if changed == "seed" else (0, 1)
    one = create(name, {}).requests(labels, 4, 0)
    other = create(name, {"draw_seed": draw_seed}).requests(labels, 4, seed)
    assert not np.array_equal(one[0].forget, other[0].forget)


@given(training_labels(), st.integers(1, 5), SEEDS)
def test_random_sample_removal_takes_the_count(data: Any, count: int, seed: int) -> None:
    labels, classes = data
    [request] = SampleRemoval(count=count).requests(labels, classes, seed)
    assert len(request.forget) == count
    assert len(request.poisoned) == len(request.wrong_labels) == 0
    assert request.removed_classes == ()


@given(training_labels(), st.integers(1, 5), SEEDS, st.sampled_from(["class_random", "class_first"]))
def test_sample_removal_from_one_class_takes_only_that_class(data: Any, count: int, seed: int, draw: Any) -> None:
    labels, classes = data
    target = classes - 1
    [request] = SampleRemoval(count=count, draw=draw, target_class=target).requests(labels, classes, seed)
    assert len(request.forget) == count
    assert (labels[request.forget] == target).all()
    if draw == "class_first":
        assert np.array_equal(request.forget, np.flatnonzero(labels == target)[:count])


def test_random_sample_removal_reaches_every_sample() -> None:
    labels = np.tile(np.arange(2), 6)
    taken = [SampleRemoval(count=3, draw_seed=s).requests(labels, 2, 0)[0].forget for s in range(60)]
    assert set(np.concatenate(taken)) == set(range(12))


@given(training_labels(), st.data(), SEEDS)
def test_class_removal_takes_the_union_of_the_classes(data: Any, more: st.DataObject, seed: int) -> None:
    labels, classes = data
    removed = more.draw(st.lists(st.integers(0, classes - 1), min_size=1, max_size=classes))
    assume(len(set(removed)) <= classes - 2)
    [request] = ClassRemoval(removed=tuple(removed)).requests(labels, classes, seed)
    assert np.array_equal(request.forget, np.flatnonzero([label in removed for label in labels]))
    assert request.removed_classes == tuple(sorted(set(removed)))


@given(training_labels(), st.randoms(), SEEDS)
def test_class_removal_follows_a_relabeling_of_the_classes(data: Any, random: Any, seed: int) -> None:
    labels, classes = data
    renamed = list(range(classes))
    random.shuffle(renamed)
    [plain] = ClassRemoval(removed=(0,)).requests(labels, classes, seed)
    [moved] = ClassRemoval(removed=(renamed[0],)).requests(np.array(renamed)[labels], classes, seed)
    assert np.array_equal(plain.forget, moved.forget)
    assert np.array_equal(plain.retain, moved.retain)


@given(training_labels(fewest=9), st.integers(1, 4), st.integers(1, 2), SEEDS, st.sampled_from(["random", "first"]))
def test_incremental_requests_take_as_many_of_every_class_and_accumulate(
    data: Any, steps: int, per_class: int, seed: int, draw: Any
) -> None:
    labels, classes = data
    requests = Incremental(steps=steps, per_class=per_class, draw=draw).requests(labels, classes, seed)
    gone: set[int] = set()
    assert [request.step for request in requests] == list(range(steps))
    for request in requests:
        assert np.bincount(labels[request.forget], minlength=classes).tolist() == [per_class] * classes
        assert gone.isdisjoint([*request.forget, *request.retain])
        gone |= set(request.forget.tolist())
        assert set(request.forgotten) == gone


def test_incremental_in_file_order_takes_the_first_samples_first() -> None:
    labels = np.tile(np.arange(3), 5)
    requests = Incremental(steps=2, per_class=2, draw="first").requests(labels, 3, 0)
    assert [request.forget.tolist() for request in requests] == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]


@given(training_labels(), SEEDS, PAIRINGS)
def test_depoisoning_pairs_are_disjoint_and_leave_one_class_of_an_odd_number_alone(
    data: Any, seed: int, pairing: Any
) -> None:
    _, classes = data
    pairs = Depoisoning(pairing=pairing).pairs(classes, seed)
    members = [c for pair in pairs for c in pair]
    assert len(pairs) == classes // 2
    assert len(set(members)) == len(members)
    assert set(members) <= set(range(classes))
    if pairing == "mirror":
        assert all(a + b == classes - 1 for a, b in pairs)


@given(training_labels(), st.integers(1, 4), SEEDS, PAIRINGS)
def test_a_poisoned_sample_carries_the_label_of_its_partner_class(
    data: Any, flips: int, seed: int, pairing: Any
) -> None:
    labels, classes = data
    scenario = Depoisoning(flips=flips, pairing=pairing)
    [request] = scenario.requests(labels, classes, seed)
    partner = {a: b for pair in scenario.pairs(classes, seed) for a, b in (pair, pair[::-1])}
    assert np.array_equal(request.poisoned, request.forget)
    true = labels[request.forget]
    assert [partner[int(label)] for label in true] == request.wrong_labels.tolist()
    assert (true != request.wrong_labels).all()
    counts = np.bincount(true, minlength=classes)
    assert counts.tolist() == [flips if c in partner else 0 for c in range(classes)]


@given(training_labels(), st.integers(1, 3), SEEDS, PAIRINGS)
def test_a_larger_depoisoning_budget_contains_the_smaller(data: Any, flips: int, seed: int, pairing: Any) -> None:
    labels, classes = data
    small, large = (
        Depoisoning(flips=count, pairing=pairing).requests(labels, classes, seed)[0] for count in (flips, flips + 1)
    )
    assert set(small.forget) < set(large.forget)


KNOWN = st.floats(0.25, 1.0)  # of 4 flips a quarter is one sample


@given(training_labels(), st.tuples(KNOWN, KNOWN).map(sorted), SEEDS, PAIRINGS)
def test_partly_known_poison_is_nested_and_leaves_the_rest_in_the_retain_set(
    data: Any, shares: list[float], seed: int, pairing: Any
) -> None:
    labels, classes = data
    less, more = (
        Depoisoning(flips=4, known_fraction=share, pairing=pairing).requests(labels, classes, seed)[0]
        for share in shares
    )
    [whole] = Depoisoning(flips=4, pairing=pairing).requests(labels, classes, seed)
    assert set(less.forget) <= set(more.forget) <= set(whole.forget)
    for request, share in zip((less, more), shares, strict=True):
        assert np.array_equal(request.poisoned, whole.poisoned)
        assert np.array_equal(request.wrong_labels, whole.wrong_labels)
        missed = undetected(request)
        assert set(missed) == set(whole.forget) - set(request.forget) == set(request.retain) & set(whole.forget)
        assert np.array_equal(scenarios.training_labels([request], labels), scenarios.training_labels([whole], labels))
        assert np.array_equal(reference_data(request), whole.retain)
        counts = np.bincount(labels[request.forget], minlength=classes)
        paired = np.bincount(labels[whole.forget], minlength=classes) > 0
        assert counts.tolist() == np.where(paired, round(4 * share), 0).tolist()


@given(training_labels(), st.integers(2, 3), KNOWN, SEEDS)
def test_a_larger_budget_knows_all_that_a_smaller_one_knows(data: Any, flips: int, share: float, seed: int) -> None:
    labels, classes = data
    assume(round(share * flips) > 0)
    small, large = (
        Depoisoning(flips=count, known_fraction=share).requests(labels, classes, seed)[0]
        for count in (flips, flips + 1)
    )
    assert set(small.forget) <= set(large.forget)


def test_poison_that_is_all_known_is_drawn_as_ever() -> None:
    """The draw is part of what a stored number means: these indices were taken before shares existed."""
    [request] = Depoisoning(flips=3).requests(np.tile(np.arange(4), 10), 4, 0)
    assert request.forget.tolist() == [3, 4, 5, 6, 13, 14, 24, 25, 27, 28, 31, 34]
    assert request.wrong_labels.tolist() == [0, 3, 2, 1, 2, 1, 3, 2, 0, 3, 0, 1]


def test_pgus_pairs_are_those_of_its_code_whatever_the_seed() -> None:
    """Read from the authors' code, which shuffles the ten classes with Python's generator, seeded 0."""
    scenario = Depoisoning(pairing="pgu")
    expected = [("horse", "ship"), ("automobile", "dog"), ("cat", "deer"), ("bird", "airplane"), ("truck", "frog")]
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    for seed in (0, 1):
        assert [(names[a], names[b]) for a, b in scenario.pairs(10, seed)] == expected
    assert Depoisoning(pairing="pgu", draw_seed=1).pairs(10, 0) != scenario.pairs(10, 0)


def test_pgus_samples_go_on_in_the_stream_that_drew_its_pairs() -> None:
    stream, classes = random.Random(0), list(range(4))
    stream.shuffle(classes)
    expected = set()
    for c in classes:  # the first class of a pair, then its partner
        members = list(range(c, 40, 4))
        stream.shuffle(members)
        expected |= set(members[:3])
    [request] = Depoisoning(flips=3, pairing="pgu").requests(TEN_OF_FOUR, 4, 5)
    assert set(request.forget.tolist()) == expected


def test_without_poison_all_labels_are_true_and_the_reference_sees_what_retraining_sees() -> None:
    labels = np.tile(np.arange(4), 10)
    [request] = SampleRemoval(count=5).requests(labels, 4, 0)
    assert np.array_equal(scenarios.training_labels([request], labels), labels)
    assert np.array_equal(reference_data(request), request.retain)
    assert not len(undetected(request))


TEN_OF_FOUR = np.tile(np.arange(4), 10)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("sample_removal", {"count": 40}, "cannot forget 40 samples"),
        ("sample_removal", {"count": 11, "draw": "class_first"}, "cannot forget 11 samples"),
        ("sample_removal", {"count": 1, "target_class": 4, "draw": "class_random"}, "no class 4"),
        ("sample_removal", {"count": 0}, "sample_removal.count"),
        ("sample_removal", {"count": "few"}, "count"),
        ("class_removal", {"removed": (4,)}, "no class 4"),
        ("class_removal", {"removed": (-1,)}, "no class -1"),
        ("class_removal", {"removed": (0, 1, 2)}, "leaves fewer than two"),
        ("class_removal", {"removed": ()}, "removed"),
        ("incremental", {"steps": 5, "per_class": 2}, "leave nothing of class 0"),
        ("depoisoning", {"flips": 10}, "flip fewer"),
        ("depoisoning", {"pairing": "worst"}, "pairing"),
        ("depoisoning", {"known_fraction": 0}, "known_fraction"),
        ("depoisoning", {"known_fraction": 1.5}, "known_fraction"),
        ("depoisoning", {"known_fraction": -0.5}, "known_fraction"),
        ("depoisoning", {"known_fraction": "nan"}, "known_fraction"),
        ("depoisoning", {"known_fraction": 0.04}, "none of the 12 flipped samples of a class; know at least 0.083"),
        ("depoisoning", {"flip": 3}, "did you mean flips?"),
        ("class_remova", {}, "did you mean class_removal?"),
    ],
)
def test_what_the_data_cannot_serve_is_refused(name: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        create(name, values).requests(TEN_OF_FOUR, 4, 0)
    assert message in str(caught.value).replace("scenario.", f"{name}.")
    assert "\n" not in str(caught.value)


def test_a_class_without_samples_leaves_nothing_to_forget() -> None:
    with pytest.raises(UsageError, match="forget set is empty"):
        ClassRemoval(removed=(1,)).requests(np.array([0, 0, 2, 2]), 3, 0)


def test_every_scenario_cites_its_source() -> None:
    assert all(kind.cite for kind in KINDS.values())
