"""Halves and parts of data sets, for any labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import plan
from bench.datasets import halves, subset
from bench.interface import Dataset, UsageError

labels = st.lists(st.integers(0, 5), min_size=1, max_size=80).map(np.array)


@pytest.mark.parametrize("per_class", [10, 1000])
def test_the_halves_of_a_balanced_set_are_balanced_and_fixed(per_class):
    y = np.random.default_rng(3).permutation(np.repeat(np.arange(10), per_class))
    test, validation = halves(y)
    for half in (test, validation):
        assert np.bincount(y[half]).tolist() == [per_class // 2] * 10
    assert np.array_equal(test, halves(y)[0])


@given(labels)
def test_halves_share_out_every_class(y):
    test, validation = halves(y)
    assert np.array_equal(np.sort(np.concatenate([test, validation])), np.arange(len(y)))
    for half in (test, validation):
        assert half.dtype == np.int64
        assert (np.diff(half) > 0).all()
    for number in np.unique(y):
        assert (y[test] == number).sum() == (y == number).sum() // 2


def numbered(y: np.ndarray, classes: int) -> Dataset:
    """A data set in which the first pixel of each image is its position."""
    x = np.arange(len(y), dtype=np.uint8).reshape(-1, 1, 1, 1)
    names = tuple(map(str, range(classes)))
    return Dataset("made", x, y, x.copy(), y, x.copy(), y, names, (0.0,), (1.0,))


@given(st.data(), st.lists(st.integers(2, 9), min_size=2, max_size=6))
def test_a_part_takes_the_first_of_each_class_equally_in_order(data, counts):
    y = np.array(data.draw(st.permutations([c for c, count in enumerate(counts) for _ in range(count)])))
    classes = data.draw(st.integers(2, len(counts)))
    wanted = data.draw(st.integers(classes, classes * min(counts[:classes])))
    part = subset(numbered(y, len(counts)), classes=classes, train=wanted)
    taken = part.train_x.ravel().astype(int)
    assert len(taken) == wanted
    assert (np.diff(taken) > 0).all()
    assert np.array_equal(part.train_y, y[taken])
    for c in range(classes):
        own = taken[part.train_y == c]
        assert len(own) in (wanted // classes, -(-wanted // classes))
        assert np.array_equal(own, np.flatnonzero(y == c)[: len(own)])
    assert part.classes == classes
    assert np.array_equal(part.test_x.ravel(), np.flatnonzero(y < classes))


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("train=601", "train of a data set must be a whole number from 10 to 600, got 601"),
        ("train=9", "train of a data set must be a whole number from 10 to 600, got 9"),
        ("test=1.5", "test of a data set must be a whole number from 10 to 797, got 1.5"),
        ("classes=1", "classes of a data set must be a whole number from 2 to 10, got 1"),
        ("classes=true", "classes of a data set must be a whole number from 2 to 10, got True"),
        ("test=797", "test=797 takes 79 of each class, but there are 78 of zero"),
        ("trains=5", "unknown setting of digits 'trains'; did you mean train?"),
    ],
)
def test_parts_that_are_not_there_are_refused(part, message):
    with pytest.raises(UsageError) as caught:
        plan.load_dataset(f"digits+{part}")
    assert str(caught.value).startswith(message)
