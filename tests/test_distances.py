"""Distances to retrained models over pairs and as records: slow loops, closed forms, floors, and what is missing."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from bench import distances, margins, pairs, roc
from bench.attack import Points, Seen
from bench.interface import Record
from bench.worlds import World


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def table(records: list[Record]) -> dict[tuple[str, str], Record]:
    assert {record.seed for record in records} == {"all"}
    found = {(record.metric, record.part): record for record in records}
    assert len(found) == len(records)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_output_distances_equal_a_loop(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    u, r = 4 * normal(seed, 3, 7, 4).astype(np.float32), 4 * normal(seed + 10, 2, 7, 4).astype(np.float32)
    slow = {metric: np.zeros((3, 2)) for metric in ("activation_l2", "activation_l1", "output_js", "agreement")}
    for a in range(3):
        for b in range(2):
            for i in range(7):
                p, q = (np.exp(z[i].astype(float)) / np.exp(z[i].astype(float)).sum() for z in (u[a], r[b]))
                slow["activation_l2"][a, b] += np.linalg.norm(p - q) / 7
                slow["activation_l1"][a, b] += np.abs(p - q).sum() / 7
                js = stats.entropy(p, (p + q) / 2) / 2 + stats.entropy(q, (p + q) / 2) / 2
                slow["output_js"][a, b] += js / math.log(2) / 7
                slow["agreement"][a, b] += 100 * (p.argmax() == q.argmax()) / 7
    monkeypatch.setattr(pairs, "CELLS", 24)  # blocks of three samples: how samples are batched does not matter
    fast = pairs.output_distances(u, r) | {"agreement": pairs.agreement(u, r)}
    for metric, expected in slow.items():
        np.testing.assert_allclose(fast[metric], expected, rtol=1e-10)


def test_output_distances_closed_forms() -> None:
    sure = np.zeros((2, 5, 3), np.float32)
    sure[0, :, 0] = sure[1, :, 1] = 800.0
    found = pairs.output_distances(sure, sure)
    for metric, most in (("activation_l2", math.sqrt(2)), ("activation_l1", 2.0), ("output_js", 1.0)):
        np.testing.assert_allclose(found[metric], [[0, most], [most, 0]], rtol=1e-12)
    np.testing.assert_array_equal(pairs.agreement(sure, sure), [[100, 0], [0, 100]])


def test_output_distances_are_sums_over_samples() -> None:
    u, r = normal(0, 3, 10, 4), normal(1, 2, 10, 4)
    whole, left, right = (pairs.output_distances(u[:, s], r[:, s]) for s in (slice(None), slice(4), slice(4, None)))
    for metric, values in whole.items():
        np.testing.assert_allclose(10 * values, 4 * left[metric] + 6 * right[metric], rtol=1e-12)


def test_shift_and_band_of_over_forgotten_models() -> None:
    world = World(0)
    retrained, over = world.seen("exact", 48), world.seen("over_forgotten", 16)
    rows = table(distances.measure(over, retrained, "over", 0))
    assert rows["phi_shift", "forget"].value == pytest.approx(-2, abs=0.15) and rows["phi_shift", "forget"].high < -1.5
    assert 45 <= rows["phi_below", "forget"].value <= 58 and rows["phi_above", "forget"].value < 0.5


def test_sides_swapped() -> None:
    u, r = normal(0, 4, 6, 3), normal(1, 5, 6, 3)
    there, back = pairs.output_distances(u, r), pairs.output_distances(r, u)
    for metric, values in there.items():
        np.testing.assert_allclose(values, back[metric].T, rtol=1e-12)
    np.testing.assert_array_equal(pairs.agreement(u, r), pairs.agreement(r, u).T)
    a, b = u[..., 0], u[..., 0] + 1.5
    assert margins.pair_shifts(a, b).mean() == pytest.approx(-margins.pair_shifts(b, a).mean(), rel=1e-10)
    np.testing.assert_allclose(margins.pair_shifts(-a, -r[..., 0]), -margins.pair_shifts(a, r[..., 0]), rtol=1e-10)


def changed(seen: Seen, change: Callable[[Points], Points]) -> Seen:
    return Seen(*(change(points) for points in (seen.forget, seen.retain, seen.validation, seen.unseen)))


def test_records_ignore_a_constant_in_the_logits_and_names_of_classes() -> None:
    world, order = World(3, samples=40, others=30), np.random.default_rng(0).permutation(10)
    sides = world.seen("half_forgotten", 6), world.seen("exact", 12)
    raised = [changed(side, lambda p: Points(p.logits.astype(np.float64) + 7, p.labels)) for side in sides]
    named = [changed(side, lambda p: Points(p.logits[..., order], np.argsort(order)[p.labels])) for side in sides]
    expected = table(distances.measure(*sides, "m", 0))
    for other in (raised, named):
        for place, record in table(distances.measure(other[0], other[1], "m", 0)).items():
            np.testing.assert_allclose(record.value, expected[place].value, rtol=1e-4, atol=1e-9)


PLACES = {
    **{(m, "forget"): 8 for m in ("klom", "klom_mean", "klom_quantile", "klom_quantile_mean", "forgetting_score")},
    **{("klom_quantile", part): 8 for part in ("retain", "unseen")},
    **{(m, p): 10 for m in ("activation_l2", "activation_l1", "output_js", "agreement") for p in ("forget", "unseen")},
    **{(m, "forget"): 10 for m in ("phi_shift", "phi_above", "phi_below")},
}


def test_records_of_exact_retraining_are_at_the_floor() -> None:
    world = World(5, samples=60, others=40)
    retrained = world.seen("exact", 16, spread=0.2)
    exact = table(distances.measure(world.seen("exact", 10, spread=0.2), retrained, "exact", 2))
    floor = table(distances.floor(retrained, 10, 2))
    assert {place: record.n for place, record in exact.items()} == PLACES and list(exact) == list(floor)
    assert {record.status for record in [*exact.values(), *floor.values()]} == {"ok"}
    assert {record.step for record in [*exact.values(), *floor.values()]} == {2}
    assert {r.method for r in exact.values()} == {"exact"} and {r.method for r in floor.values()} == {"reference"}
    for place, record in floor.items():
        assert record.low < record.value < record.high, place
        sized = PLACES[place] == 8
        assert record.n == (8 if sized else 16)
        assert math.isnan(exact[place].low) == sized
        if sized and place[0] != "klom":  # whose tail is the coarsest number of all
            assert abs(exact[place].value - record.value) < 2 * (record.high - record.low), place
        elif not sized:
            assert exact[place].low < record.high and record.low < exact[place].high, place


def test_records_of_models_that_forgot_nothing_are_beyond_the_floor() -> None:
    world = World(6, samples=80, others=40)
    retrained, no_op = world.seen("exact", 32), world.seen("no_op", 16)
    rows, floor = table(distances.measure(no_op, retrained, "original", 0)), table(distances.floor(retrained, 16, 0))
    for metric in ("klom", "klom_mean", "klom_quantile", "klom_quantile_mean"):
        assert rows[metric, "forget"].value > floor[metric, "forget"].high
    assert rows["forgetting_score", "forget"].value < floor["forgetting_score", "forget"].low
    assert rows["phi_shift", "forget"].low > 0.5 and rows["phi_above", "forget"].low > floor["phi_above", "forget"].high
    assert rows["klom_quantile", "unseen"].value < 1.3 * floor["klom_quantile", "unseen"].high


def test_records_are_the_same_twice_and_leave_the_global_generator_alone() -> None:
    world = World(7, samples=20, others=10)
    retrained, unlearned = world.seen("exact", 9), world.seen("no_op", 5)
    np.random.seed(0)
    before = np.random.get_state()[1].copy()  # type: ignore[index]
    first = [str(r) for r in (*distances.measure(unlearned, retrained, "m", 0), *distances.floor(retrained, 5, 0))]
    again = [str(r) for r in (*distances.measure(unlearned, retrained, "m", 0), *distances.floor(retrained, 5, 0))]
    assert first == again and (np.random.get_state()[1] == before).all()  # type: ignore[index]
    other = [str(r) for r in distances.floor(retrained, 5, 0, seed=1)]
    assert other != again[-len(other) :]


def test_method_and_floor_use_the_same_number_of_models() -> None:
    world = World(8, samples=30, others=10)
    retrained = world.seen("exact", 20)
    for m, expected in ((4, 4), (10, 10), (16, 10)):
        rows = table(distances.measure(world.seen("exact", m), retrained, "m", 0))
        floor = table(distances.floor(retrained, m, 0))
        assert rows["klom", "forget"].n == floor["klom", "forget"].n == expected


def test_diverged_models_are_left_out_and_counted() -> None:
    world = World(9, samples=20, others=10)
    retrained, unlearned = world.seen("exact", 12), world.seen("exact", 6)
    whole = table(distances.measure(unlearned.only(slice(1, None)), retrained.only(slice(2, None)), "m", 0))
    unlearned.unseen.logits[0, 3, 2] = math.nan
    retrained.retain.logits[:2, 0, 0] = math.inf
    rows = table(distances.measure(unlearned, retrained, "m", 0))
    assert {record.status for record in rows.values()} == {"1 of 6 diverged and 2 of 12 retrained diverged"}
    assert [r.value for r in rows.values()] == [r.value for r in whole.values()]
    assert rows["phi_shift", "forget"].n == 5
    assert {r.status for r in distances.floor(retrained, 6, 0)} == {"2 of 12 diverged"}
    unlearned.forget.logits[1:] = math.nan
    lost = distances.measure(unlearned, retrained, "m", 0)
    assert {r.status for r in lost} == {"6 of 6 diverged and 2 of 12 retrained diverged and too_few_models"}
    assert all(math.isnan(r.value) and r.n == 0 for r in lost)


def test_too_few_models_and_empty_parts() -> None:
    world = World(10, samples=20, others=10)
    retrained, unlearned = world.seen("exact", 8), world.seen("exact", 4)
    for records in (
        distances.measure(unlearned, retrained.only(slice(1)), "m", 0),
        distances.floor(retrained.only(slice(1)), 4, 0),
    ):
        assert all(math.isnan(r.value) and math.isnan(r.low) and r.status == "too_few_models" for r in records)
    one = {(r.metric, r.part): r for r in distances.measure(unlearned.only(slice(1)), retrained, "m", 0)}
    assert one["klom", "forget"].status == "too_few_models"
    for metric in ("agreement", "phi_shift", "phi_above", "phi_below"):
        told = one[metric, "forget"]
        assert told.status == "ok" and math.isfinite(told.value) and math.isnan(told.low) and told.n == 1
    three = table(distances.measure(unlearned, retrained.only(slice(3)), "m", 0))
    assert three["klom", "forget"].status == "too_few_models" and three["agreement", "forget"].status == "ok"
    alone = [Seen.of(side.forget.logits, side.forget.labels) for side in (unlearned, retrained)]
    for records in (distances.measure(alone[0], alone[1], "m", 0), distances.floor(alone[1], 4, 0)):
        for (_, part), record in table(records).items():
            assert record.status == ("ok" if part == "forget" else "empty")
            assert math.isnan(record.value) == (part != "forget")
    nothing = [Seen.of(side.forget.logits[:, :0], side.forget.labels[:0]) for side in (unlearned, retrained)]
    for records in (distances.measure(nothing[0], nothing[1], "m", 0), distances.floor(nothing[1], 4, 0)):
        assert {(math.isnan(r.value), r.status) for r in records} == {(True, "empty")}


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("fill", [0.0, 800.0])
def test_records_of_constant_models(classes: int, n: int, fill: float) -> None:
    logits = np.zeros((6, n, classes), np.float32)
    logits[..., 0] = fill
    seen = Seen(*(Points(logits, np.zeros(n, np.int64)) for _ in range(4)))
    rows, floor = table(distances.measure(seen, seen, "m", 0)), table(distances.floor(seen, 6, 0))
    for found in (rows, floor):
        assert found["phi_shift", "forget"].status == "undefined", "no retrained model differs from another"
        expected = {"agreement": 100.0, "forgetting_score": 1.0}
        for (metric, _), record in found.items():
            if metric != "phi_shift":
                assert (record.value, record.status) == (expected.get(metric, 0.0), "ok")


def test_interval_over_pairs_is_welch_for_differences() -> None:
    a, b = normal(0, 9), normal(1, 14) + 0.3
    value, low, high = roc.interval(a[:, None] - b[None])
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
    np.testing.assert_allclose([value, low, high], [a.mean() - b.mean(), expected.low, expected.high], rtol=1e-10)
    assert roc.interval(np.full((3, 4), 0.1)) == (0.1, 0.1, 0.1)
    assert math.isnan(roc.interval(np.ones((1, 4)))[1]) and math.isnan(roc.interval(np.empty((0, 4)))[0])


def test_floor_of_the_band_holds_each_model_against_all_others() -> None:
    world = World(11, samples=400, others=0)
    floor = table(distances.floor(world.seen("exact", 20), 8, 0))
    expected = 100 * (1 - (1 + 0.975 * 18) / 20)
    for metric in ("phi_above", "phi_below"):
        assert floor[metric, "forget"].value == pytest.approx(expected, rel=0.15)


def test_klom_is_told_by_its_worst_samples_and_its_mean() -> None:
    u, r = normal(0, 12, 40), normal(1, 24, 40)
    u[:, :6] = 30  # more than a twentieth of the samples, fewer than half
    seen = [Seen.of(np.stack([phi, np.zeros_like(phi)], axis=-1), np.zeros(40, np.int64)) for phi in (u, r)]
    rows = table(distances.measure(seen[0], seen[1], "m", 0))
    assert rows["klom", "forget"].value == pytest.approx(11.5, abs=0.1) and rows["klom_mean", "forget"].value < 7
    assert rows["klom_quantile", "forget"].value > 2 * rows["klom_quantile_mean", "forget"].value


def test_intervals_end_where_the_range_does() -> None:
    logits = normal(0, 6, 8, 3).astype(np.float32)
    logits[..., 0] += 3  # most agree, and a wide interval over few models would reach beyond 100 %
    seen = [Seen.of(logits[half], np.zeros(8, np.int64)) for half in (slice(0, 2), slice(2, None))]
    agreed = table(distances.measure(seen[0], seen[1], "m", 0))["agreement", "forget"]
    assert agreed.low < agreed.value < agreed.high == 100.0
