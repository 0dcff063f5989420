"""Made-up models are what their world says: the yardstick has to be right before anything is held against it."""

import numpy as np
import pytest

from bench.attack import Points, Seen
from bench.logits import phi
from bench.worlds import KINDS, World


def odds(points: Points) -> np.ndarray:
    return phi(points.logits, points.labels)


# Mean and spread of the forget set's log-odds, in sd of retrained models from their mean.
TRUTH = {
    "exact": lambda e: (0 * e.a, 1.0),
    "no_op": lambda e: (e.d / e.s, 1.0),
    "half_forgotten": lambda e: (e.d / e.s / 2, 1.0),
    "partly_leaking": lambda e: (3.0 * (np.arange(len(e.a)) < len(e.a) // 10), 1.0),
    "few_leaking": lambda e: (6.0 * (np.arange(len(e.a)) < len(e.a) // 25), 1.0),
    "over_forgotten": lambda e: (-2 + 0 * e.a, 1.0),
    "both_ways": lambda e: (np.where(np.arange(len(e.a)) % 2, 1.5, -1.5), 1.0),
    "too_peaky": lambda e: (0 * e.a, 0.1),
}


@pytest.mark.parametrize("kind", KINDS)
def test_log_odds_are_those_of_the_kind(kind: str) -> None:
    world = World(0, samples=100, others=50)
    seen, examples = world.seen(kind, 400), world.examples["forget"]
    mean, spread = TRUTH[kind](examples)
    z = (odds(seen.forget) - examples.a) / examples.s
    np.testing.assert_allclose(z.mean(axis=0), mean, atol=0.25)
    assert z.std(axis=0).mean() == pytest.approx(spread, rel=0.05)
    assert (odds(seen.retain) - world.examples["retain"].a).mean() == pytest.approx(1.2, abs=0.3)
    for part, name in ((seen.validation, "validation"), (seen.unseen, "unseen")):
        assert (odds(part) - world.examples[name].a).mean() == pytest.approx(0, abs=0.05)


def test_models_share_examples_and_offsets_but_no_noise() -> None:
    world = World(1, samples=200, others=200)
    one, other = world.seen("exact", 300, spread=2.0), world.seen("exact", 3)
    assert np.array_equal(one.forget.labels, other.forget.labels)
    gap = odds(one.forget) - world.examples["forget"].a
    assert gap.mean(axis=1).std() == pytest.approx(2, rel=0.15)
    assert np.corrcoef(gap.mean(axis=1), (odds(one.unseen) - world.examples["unseen"].a).mean(axis=1))[0, 1] > 0.98
    assert one.forget.logits.dtype == np.float32 and len(one) == 300 and one.finite().all()
    assert np.array_equal(
        World(1, samples=9).seen("no_op", 2).forget.logits, World(1, samples=9).seen("no_op", 2).forget.logits
    )


def test_views_are_labels_near_the_example() -> None:
    world = World(2, samples=300, others=1)
    seen = world.seen("no_op", 4, views=6)
    assert seen.forget.views.shape == (4, 300, 6) and not seen.unseen.views.size
    agree = (seen.forget.views == seen.forget.logits.argmax(-1)[..., None]).mean()
    assert 0.85 < agree < 1


def test_some_models_of_what_is_seen() -> None:
    seen: Seen = World(2, samples=5, others=5).seen("no_op", 4, views=2)
    some = seen.only(np.array([2, 0]))
    assert np.array_equal(some.forget.logits, seen.forget.logits[[2, 0]])
    assert np.array_equal(some.forget.views, seen.forget.views[[2, 0]])
    seen.unseen.logits[1, 2, 3] = np.nan
    assert seen.finite().tolist() == [True, False, True, True]
