"""Readouts: golden values, a slow loop beside every vectorized number, and what degenerate models give."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bench import readouts, scenarios, statistics
from bench.interface import SCENARIOS, Dataset, Outputs, Record, UsageError

quick = settings(max_examples=50, deadline=None)
logit_rows = hnp.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(2, 6)), elements=st.floats(-40, 40))
SETTINGS: dict[str, dict[str, object]] = {
    "sample_removal": {"count": 7},
    "class_removal": {"removed": (1,)},
    "incremental": {"steps": 3, "per_class": 2},
    "depoisoning": {"flips": 3},
}
NAMES = ("ant", "bee", "cow", "dog")


def dataset(seed: int = 0) -> Dataset:
    g = np.random.default_rng(seed)
    labels = {part: np.sort(np.arange(n) % 4) for part, n in (("train", 48), ("validation", 16), ("test", 40))}
    images = {part: g.integers(0, 16, (len(y), 1, 2, 2)).astype(np.uint8) for part, y in labels.items()}
    arrays = {f"{part}_x": images[part] for part in labels} | {f"{part}_y": labels[part] for part in labels}
    return Dataset(name="tiny", class_names=NAMES, mean=(8.0,), std=(4.0,), **arrays)  # type: ignore[arg-type]


def outputs(data: Dataset, seed: int, skill: float = 2.0) -> Outputs:
    g = np.random.default_rng(seed)
    parts = {}
    for part in ("train", "validation", "test"):
        y = data.labels(part)
        parts[part] = (g.normal(size=(len(y), 4)) + skill * np.eye(4)[y]).astype(np.float32)
    return Outputs(**parts)


def setting(scenario: str, models: int = 7, step: int = -1) -> tuple[readouts.Case, readouts.Reference, Dataset]:
    data = dataset()
    requests = scenarios.create(scenario, SETTINGS[scenario]).requests(data.train_y, data.classes, 0)
    case = readouts.case(scenario, requests[step], data, requests[: range(len(requests))[step]])
    return case, readouts.reference(case, (outputs(data, seed) for seed in range(models))), data


def values(records: list[Record]) -> dict[tuple[str, str], float]:
    return {(record.metric, record.part): record.value for record in records}


GOLDEN = {0: 0.83403, 5: -1.06495, 20: -14.75825, 50: -43.87095, 104: -97.14882, 800: -791.11691, 5000: -4989.28538}


@pytest.mark.parametrize(("gap", "expected"), GOLDEN.items())
def test_log_entropy_golden_values(gap: float, expected: float) -> None:
    logits = np.zeros(10)
    logits[3] = gap
    for shift in (0.0, -1000.0, 12345.0):
        assert readouts.log_entropy(logits + shift) == pytest.approx(expected, abs=1e-5)


@quick
@given(logit_rows)
def test_log_entropy_and_phi_equal_the_direct_formulas_where_those_work(z: np.ndarray) -> None:
    z = z / 4  # the direct sums below lose digits at larger gaps
    y = np.arange(len(z)) % z.shape[1]
    for row, label, entropy, odds in zip(z, y, readouts.log_entropy(z), readouts.phi(z, y), strict=True):
        p = [math.exp(v) / math.fsum(math.exp(w) for w in row) for v in row]
        assert math.exp(entropy) == pytest.approx(-math.fsum(v * math.log(v) for v in p), rel=1e-6)
        rest = math.fsum(v for j, v in enumerate(p) if j != label)
        assert odds == pytest.approx(math.log(p[label]) - math.log(rest), rel=1e-10, abs=1e-10)


@quick
@given(logit_rows, st.floats(-100, 100))
def test_readings_ignore_a_constant_and_follow_a_relabelling(z: np.ndarray, shift: float) -> None:
    y = np.arange(len(z)) % z.shape[1]
    order = np.random.default_rng(0).permutation(z.shape[1])
    place = np.argsort(order)[y]
    np.testing.assert_allclose(readouts.phi(z + shift, y), readouts.phi(z, y), atol=1e-10)
    np.testing.assert_allclose(readouts.log_entropy(z + shift), readouts.log_entropy(z), atol=1e-10)
    np.testing.assert_allclose(readouts.phi(z[:, order], place), readouts.phi(z, y), atol=1e-10)
    np.testing.assert_allclose(readouts.log_entropy(z[:, order]), readouts.log_entropy(z), atol=1e-10)
    assert readouts.error_percent(z[:, order], place) == readouts.error_percent(z, y)


@quick
@given(logit_rows.filter(lambda z: z.shape[1] > 3))
def test_mask_equals_deleting_the_rows_of_the_head(z: np.ndarray) -> None:
    removed, kept = [0, 2], [c for c in range(z.shape[1]) if c not in (0, 2)]
    labels = np.arange(len(z)) % len(kept)
    masked = readouts.mask(z, removed)
    np.testing.assert_allclose(readouts.log_entropy(masked), readouts.log_entropy(z[:, kept]), rtol=1e-12, atol=1e-12)
    place = np.array(kept)[labels]
    np.testing.assert_allclose(readouts.phi(masked, place), readouts.phi(z[:, kept], labels), rtol=1e-12, atol=1e-12)
    assert readouts.error_percent(z, place, removed) == readouts.error_percent(z[:, kept], labels)
    assert readouts.error_percent(z, np.zeros(len(z), dtype=int), removed) == 100.0


def test_bad_logits_give_nan_and_count_as_wrong() -> None:
    z = np.array([[9.0, 0.0, 0.0]] * 4, dtype=np.float32)
    z[1, 2], z[2, 0], z[3, 1] = np.nan, np.inf, -np.inf
    y = np.zeros(4, dtype=int)
    assert readouts.error_percent(z, y) == 75.0
    assert np.isnan(readouts.phi(z, y)).tolist() == [False, True, True, False]
    assert np.isnan(readouts.log_entropy(z)).tolist() == [False, True, True, False]
    assert np.isnan(readouts.error_percent(z[:0], y[:0]))
    assert readouts.log_entropy(readouts.mask(z[:1], [1, 2])) == -np.inf  # one class left: no entropy at all


def test_ties_are_wrong_whichever_class_comes_first() -> None:
    z = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    assert readouts.error_percent(z, np.array([0, 1, 1])) == pytest.approx(200 / 3)


def loop_error(case: readouts.Case, one: Outputs, error: readouts.ErrorPart) -> float:
    if error.metric == "confusion":
        taken: dict[int, list[bool]] = {}
        for row, label in zip(error.rows, error.labels, strict=True):
            taken.setdefault(label, []).append(int(one.test[row].argmax()) == label)
        return 100 * sum(sum(hits) / len(hits) for hits in taken.values()) / len(taken)
    wrong = 0
    for row, label in zip(error.rows, error.labels, strict=True):
        z = getattr(one, error.split)[row].astype(float)
        rivals = [z[c] for c in range(len(z)) if c != label and not (error.masked and c in case.removed)]
        wrong += not z[label] > max(rivals)
    return 100 * wrong / len(error.rows)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_number_equals_a_slow_loop(scenario: str) -> None:
    case, reference, data = setting(scenario)
    pool = [outputs(data, seed) for seed in range(7)]
    one = outputs(data, 99, skill=1.0)
    got = values(readouts.measure(case, one, reference, method="m", seed="0", original_error=80.0))
    expected = {}
    for error in case.errors:
        value = loop_error(case, one, error)
        clean = sum(loop_error(case, r, error) for r in pool) / len(pool)
        expected[error.metric, error.part] = value
        expected[f"{error.metric}_gap", error.part] = value - clean
    kept = [c for c in range(4) if c not in case.removed]
    h = [np.array([loop_entropy(z[kept]) for z in o.train[case.request.forgotten]]) for o in (one, *pool)]
    for metric, distance in readouts.DISTANCES.items():
        expected[metric, "forget"] = sum(float(distance(h[0], other)) for other in h[1:]) / len(pool)
    places = {"forget": ("train", case.request.forgotten)}
    if scenario == "class_removal":
        places["forget_test"] = ("test", np.flatnonzero(data.test_y == 1))
    for part, (split, rows) in places.items():
        q = [loop_shares(getattr(o, split)[rows][:, kept]) for o in pool]
        mine = loop_shares(getattr(one, split)[rows][:, kept])
        expected |= {(f"predicted_share:{NAMES[c]}", part): mine[k] for k, c in enumerate(kept)}
        tv = sum(abs(mine[k] - sum(row[k] for row in q) / len(q)) for k in range(len(kept))) / 200
        expected["class_shift_tv", part] = tv
        assert sum(mine) == pytest.approx(100)
    if scenario == "depoisoning":
        test = expected["error", "test"]
        expected["restored", "test"] = (80 - test) / (80 - test + expected["error_gap", "test"])
    assert list(got) == list(expected)
    np.testing.assert_allclose(list(got.values()), list(expected.values()), rtol=1e-10, atol=1e-10)


def loop_shares(z: np.ndarray) -> list[float]:
    winners = [max(range(z.shape[1]), key=lambda k, row=row: row[k]) for row in z]
    return [100 * winners.count(k) / len(winners) for k in range(z.shape[1])]


def loop_entropy(z: np.ndarray) -> float:
    p = [math.exp(v) / math.fsum(math.exp(float(w)) for w in z) for v in z.astype(float)]
    return math.log(-math.fsum(v * math.log(v) for v in p))


PARTS = {
    "sample_removal": {"retain", "forget", "test"},
    "class_removal": {"retain", "retained_test"},
    "incremental": {"retain", "forget", "chunk1", "chunk2", "chunk3", "test"},
    "depoisoning": {"retain", "forget", "corrected", "test"},
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_parts_and_their_sizes(scenario: str) -> None:
    case, reference, data = setting(scenario)
    records = readouts.measure(case, outputs(data, 5), reference, method="m", seed="3")
    assert {r.part for r in records if r.metric == "error"} == PARTS[scenario]
    assert {(r.method, r.seed, r.step) for r in records} == {("m", "3", case.request.step)}
    size = {(r.metric, r.part): r.n for r in records}
    assert size["error", "retain"] == len(case.request.retain)
    assert size["log_entropy_w1", "forget"] == len(case.request.forgotten)
    if scenario == "incremental":
        assert [size["error", part] for part in ("forget", "chunk1", "chunk2", "chunk3")] == [24, 8, 8, 8]
    if scenario == "class_removal":
        unmasked = {r.part for r in records if r.metric == "error_unmasked"}
        assert unmasked == {"retain", "forget", "retained_test", "forget_test"}


def test_depoisoning_compares_with_wrong_and_with_true_labels() -> None:
    case, reference, data = setting("depoisoning")
    fooled = outputs(data, 0, skill=0.0)
    fooled.train[:] = 9 * np.eye(4)[case.train_y]
    got = values(readouts.measure(case, fooled, reference, method="m", seed="0"))
    assert (got["error", "forget"], got["error", "corrected"], got["error", "retain"]) == (0.0, 100.0, 0.0)
    fooled.train[:] = 9 * np.eye(4)[data.train_y]
    got = values(readouts.measure(case, fooled, reference, method="m", seed="0"))
    assert (got["error", "forget"], got["error", "corrected"]) == (100.0, 0.0)


def partly_known(flips: int = 4, fraction: float = 0.5) -> tuple[readouts.Case, Dataset]:
    data = dataset()
    scenario = scenarios.create("depoisoning", {"flips": flips, "known_fraction": fraction})
    return readouts.case("depoisoning", scenario.requests(data.train_y, 4, 0)[0], data), data


def test_undetected_poison_is_read_out_by_wrong_and_by_true_labels() -> None:
    case, data = partly_known()
    known, missed = case.request.forget, scenarios.undetected(case.request)
    one = outputs(data, 0)
    one.train[:] = 9 * np.eye(4)[data.train_y]
    one.train[missed] = 9 * np.eye(4)[case.train_y[missed]]
    one.train[missed[:2]] = 9 * np.eye(4)[data.train_y[missed[:2]]]  # 2 of 8 escaped their wrong labels
    clean = outputs(data, 0)
    clean.train[:] = 9 * np.eye(4)[data.train_y]
    records = readouts.measure(case, one, readouts.reference(case, [clean]), method="m", seed="0")
    got = values(records)
    assert (got["error", "forget"], got["error", "corrected"]) == (100, 0)
    assert (got["error", "undetected"], got["error", "undetected_corrected"]) == (25, 75)
    assert (got["error_gap", "undetected"], got["error_gap", "undetected_corrected"]) == (-75, 75)
    assert got["error", "retain"] == 0, "the wrong labels that are left are read out apart"
    sizes = {r.part: r.n for r in records if r.metric == "error"}
    assert sizes == {"forget": len(known), "corrected": 8, "undetected": 8, "undetected_corrected": 8,
                     "retain": 48 - 16, "test": 40}  # fmt: skip


def test_confusion_is_the_mean_over_classes_of_the_share_taken_for_the_partner() -> None:
    case, data = partly_known()
    partner = dict(zip(data.train_y[case.request.poisoned], case.request.wrong_labels, strict=True))
    keep = np.concatenate([np.flatnonzero(data.test_y == c)[: 10 - 2 * c] for c in range(4)])  # 10, 8, 6, 4 samples
    data = replace(data, test_x=data.test_x[keep], test_y=data.test_y[keep])
    case = readouts.case("depoisoning", case.request, data)
    one, clean = outputs(data, 0), outputs(data, 0)
    clean.test[:] = 9 * np.eye(4)[data.test_y]
    shares = []
    predicted = data.test_y.copy()
    for c, count in enumerate((5, 2, 3, 0)):
        rows = np.flatnonzero(data.test_y == c)
        predicted[rows[:count]] = partner[c]
        predicted[rows[-1]] = next(k for k in range(4) if k not in (c, partner[c]))  # an error of another kind
        shares.append(count / len(rows))
    one.test[:] = 9 * np.eye(4)[predicted]
    got = values(readouts.measure(case, one, readouts.reference(case, [clean]), method="m", seed="0"))
    assert got["confusion", "test"] == got["confusion_gap", "test"] == pytest.approx(100 * sum(shares) / 4)
    one.test[:] = 1.0  # a tie predicts no class
    assert values(readouts.measure(case, one, readouts.reference(case, [clean]), method="m", seed="0"))[
        "confusion", "test"
    ] == 0  # fmt: skip


def test_a_class_without_partner_takes_no_part_in_the_confusion() -> None:
    data = dataset()
    kept = {part: data.labels(part) < 3 for part in ("train", "validation", "test")}
    arrays = {f"{part}_x": data.images(part)[rows] for part, rows in kept.items()}
    arrays |= {f"{part}_y": data.labels(part)[rows] for part, rows in kept.items()}
    data = replace(data, class_names=NAMES[:3], **arrays)  # type: ignore[arg-type]
    [request] = scenarios.create("depoisoning", {"flips": 2}).requests(data.train_y, 3, 0)
    case = readouts.case("depoisoning", request, data)
    [confusion] = [error for error in case.errors if error.metric == "confusion"]
    assert set(data.test_y[confusion.rows]) == set(data.train_y[request.poisoned]) == set(confusion.labels)
    assert len(set(confusion.labels)) == 2


def test_what_an_earlier_request_took_is_seen_when_it_comes_back() -> None:
    """Request 1 is forgotten at first and remembered again after request 3; the mean over everything hides it."""
    data = dataset()
    requests = scenarios.create("incremental", SETTINGS["incremental"]).requests(data.train_y, 4, 0)
    known, unknown = 9 * np.eye(4)[data.train_y], 9 * np.eye(4)[(data.train_y + 1) % 4]

    def errors(step: int, remembered: list[int]) -> dict[tuple[str, str], float]:
        case = readouts.case("incremental", requests[step], data, requests[:step])
        retrained, one = outputs(data, 0), outputs(data, 0)
        retrained.train[:] = one.train[:] = known
        retrained.train[requests[step].forgotten[::2]] = unknown[requests[step].forgotten[::2]]
        one.train[requests[step].forgotten] = unknown[requests[step].forgotten]
        for chunk in remembered:
            one.train[requests[chunk].forget] = known[requests[chunk].forget]
        return values(readouts.measure(case, one, readouts.reference(case, [retrained]), method="m", seed="0"))

    first, last = errors(0, []), errors(2, [0])
    assert (first["error", "forget"], first["error", "chunk1"]) == (100, 100)
    assert "chunk2" not in {part for _, part in first}
    assert [last["error", f"chunk{k}"] for k in (1, 2, 3)] == [0, 100, 100]
    assert last["error", "forget"] == pytest.approx(200 / 3)
    assert last["error_gap", "chunk1"] < 0 < last["error_gap", "forget"]


def test_shares_say_where_forgotten_samples_go() -> None:
    case, _, data = setting("sample_removal")
    rows = case.request.forgotten
    one, clean = outputs(data, 0), outputs(data, 0)
    clean.train[:] = 9 * np.eye(4)[data.train_y]
    one.train[:] = 9 * np.eye(4)[data.train_y]
    one.train[rows] = 9 * np.eye(4)[3]
    records = readouts.measure(case, one, readouts.reference(case, [clean]), method="m", seed="0")
    got = values(records)
    assert [got[f"predicted_share:{name}", "forget"] for name in NAMES] == [0, 0, 0, 100]
    assert got["class_shift_tv", "forget"] == pytest.approx(np.mean(data.train_y[rows] != 3))
    assert {r.n for r in records if r.metric.startswith(("class_shift", "predicted"))} == {7}


def test_removed_classes_get_no_share_of_their_own_test_samples() -> None:
    case, _, data = setting("class_removal")
    one = outputs(data, 0)
    gone = np.flatnonzero(data.test_y == 1)
    one.test[gone] = [2.0, 9.0, 1.0, 0.0]
    one.test[gone[:4]] = [0.0, 9.0, 1.0, 5.0]
    got = values(readouts.measure(case, one, readouts.reference(case, [one]), method="m", seed="0"))
    assert [got[f"predicted_share:{name}", "forget_test"] for name in ("ant", "cow", "dog")] == [60, 0, 40]
    assert ("predicted_share:bee", "forget_test") not in got
    assert got["class_shift_tv", "forget_test"] == 0


def test_restored_is_zero_for_the_original_and_undefined_without_a_gain() -> None:
    case, reference, data = setting("depoisoning")
    poisoned = outputs(data, 50, skill=1.2)
    before = float(readouts.error_percent(poisoned.test, data.test_y))
    records = readouts.measure(case, poisoned, reference, method="m", seed="0", original_error=before)
    assert values(records)["restored", "test"] == 0
    records = readouts.measure(case, poisoned, reference, method="m", seed="0")
    [record] = [r for r in records if r.metric == "restored"]
    assert math.isnan(record.value) and record.status == "undefined"
    floors = values(readouts.reference_records(case, reference, original_error=before))
    assert floors["restored", "test"] == pytest.approx(1.0)


def test_a_mask_hides_and_the_unmasked_error_shows() -> None:
    case, reference, data = setting("class_removal")
    one = outputs(data, 1, skill=9.0)
    one.train[:, 1] += 100.0
    one.test[:, 1] += 100.0
    got = values(readouts.measure(case, one, reference, method="m", seed="0"))
    assert got["error", "retained_test"] == 0.0
    assert got["error_unmasked", "retained_test"] == 100.0 and got["error_unmasked", "forget_test"] == 0.0


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_diverged_model_keeps_its_errors_and_says_so(scenario: str, bad: float) -> None:
    case, reference, data = setting(scenario)
    one = outputs(data, 1)
    one.train[case.request.forgotten[0], 0] = bad
    records = readouts.measure(case, one, reference, method="m", seed="0", status="not_converged", original_error=90.0)
    assert all("not_converged and diverged" in r.status for r in records)
    got = values(records)
    assert all(math.isfinite(value) for (metric, _), value in got.items() if metric.startswith("error"))
    assert all(math.isnan(value) for (metric, _), value in got.items() if metric.startswith("log_entropy"))


def test_a_collapsed_model_is_measured_and_flagged() -> None:
    case, reference, data = setting("sample_removal")
    for one in (outputs(data, 1, skill=0.0), outputs(data, 1, skill=0.0)):
        records = readouts.measure(case, one, reference, method="m", seed="0")
        assert {r.status for r in records} == {"collapsed"} and all(math.isfinite(r.value) for r in records)
        one.test[:] = np.eye(4)[2]
    good = readouts.measure(case, outputs(data, 1, skill=5.0), reference, method="m", seed="0")
    assert {r.status for r in good} == {"ok"}


def test_reference_records_hold_means_spreads_and_floors() -> None:
    case, reference, _ = setting("class_removal", models=8)
    records = {(r.metric, r.part): r for r in readouts.reference_records(case, reference)}
    record = records["error", "retained_test"]
    assert (record.value, record.low, record.high, record.n) == statistics.mean_interval(reference.errors[:, 1])
    assert (record.method, record.seed, record.status) == ("reference", "all", "ok")
    assert records["error_sd", "retained_test"].value == np.std(reference.errors[:, 1], ddof=1)
    h = reference.log_entropy
    pairs = [float(statistics.wasserstein(h[i], h[i + 1])) for i in range(0, 8, 2)]
    floor = records["log_entropy_w1", "forget"]
    assert floor.value == pytest.approx(np.mean(pairs)) and floor.n == 4
    for at, part in enumerate(("forget", "forget_test")):
        shares = reference.shares[:, at]
        shifts = [np.abs(s - np.delete(shares, i, 0).mean(0)).sum() / 200 for i, s in enumerate(shares)]
        assert records["class_shift_tv", part].value == pytest.approx(np.mean(shifts))
        assert records["predicted_share:ant", part].value == pytest.approx(shares[:, 0].mean())


def test_intervals_of_the_pool_end_where_a_metric_can_go_no_further() -> None:
    case, reference, _ = setting("class_removal", models=4)
    two = replace(reference, log_entropy=reference.log_entropy * np.array([[1.0], [1.0], [1.0], [9.0]]))
    records = {(r.metric, r.part): r for r in readouts.reference_records(case, two)}
    floor, spread = records["log_entropy_w1", "forget"], records["log_entropy_w1_sd", "forget"]
    assert floor.n == 2 and floor.value < spread.value, "two pairs far apart: the interval would go below 0"
    assert floor.low == 0 < floor.value < floor.high
    assert records["log_entropy_ks", "forget"].high <= 1


def test_reference_survives_a_diverged_model_and_refuses_an_empty_pool() -> None:
    case, _, data = setting("class_removal")
    pool = [outputs(data, seed) for seed in range(5)]
    pool[2].train[:] = np.nan
    reference = readouts.reference(case, pool)
    records = readouts.reference_records(case, reference)
    assert {r.status for r in records} == {"1 of 5 diverged"}
    assert all(math.isfinite(r.value) for r in records)
    measured = readouts.measure(case, pool[0], reference, method="m", seed="0")
    assert all(math.isfinite(r.value) for r in measured)
    single = readouts.reference_records(case, readouts.reference(case, pool[:1]))
    assert all(math.isfinite(r.value) for r in single if r.metric.startswith("error") and not r.metric.endswith("_sd"))
    with pytest.raises(UsageError, match="at least one"):
        readouts.reference(case, [])


def test_an_absent_class_is_empty_not_zero() -> None:
    data = dataset()
    kept = data.test_y != 1
    data = replace(data, test_x=data.test_x[kept], test_y=data.test_y[kept])
    request = scenarios.create("class_removal", {"removed": (1,)}).requests(data.train_y, 4, 0)[0]
    case = readouts.case("class_removal", request, data)
    reference = readouts.reference(case, [outputs(data, seed) for seed in range(3)])
    records = readouts.measure(case, outputs(data, 4), reference, method="m", seed="0")
    [record] = [r for r in records if (r.metric, r.part) == ("error_unmasked", "forget_test")]
    assert math.isnan(record.value) and (record.n, record.status) == (0, "empty")


def test_summaries_count_seeds_and_reasons() -> None:
    def one(seed: str, value: float, status: str = "ok", metric: str = "error") -> Record:
        return Record("pgu", seed, 0, "test", metric, value, n=40, status=status)

    records = [one(str(k), float(k)) for k in range(3)]
    records += [one("3", 9.0, "not_converged"), one("4", math.nan, "diverged"), one("0", 2.0, metric="auc")]
    first, second = readouts.summarize([*records, replace(records[0], seed="all")])
    assert (first.metric, first.seed, first.n) == ("error", "all", 4)
    assert all(math.isnan(v) for v in (first.value, first.low, first.high)), "the others would flatter a lost model"
    kept = [record for record in records if record.status != "diverged"]
    mean, _, high, n = statistics.mean_interval([0, 1, 2, 9])
    summary = readouts.summarize(kept)[0]
    assert (summary.value, summary.low, summary.high, summary.n) == (mean, 0.0, high, n), "errors end at 0"
    assert first.status == "1 of 5 not_converged; 1 of 5 diverged"
    assert (second.metric, second.value, second.n, second.status) == ("auc", 2.0, 1, "ok") and math.isnan(second.low)


def test_gap_intervals_hold_the_spread_of_the_pool() -> None:
    """Coverage of a true gap of 0 with a small pool, where an interval over the repeats alone falls short."""
    g, hits, rounds = np.random.default_rng(0), 0, 400
    for _ in range(rounds):
        clean = 20 + g.normal(size=12)
        pool = [
            Record("reference", "all", 0, "test", "error", clean.mean(), n=12),
            Record("reference", "all", 0, "test", "error_sd", clean.std(ddof=1), n=12),
        ]
        ones = [Record("m", str(k), 0, "test", "error_gap", 20 + g.normal() - clean.mean(), n=9) for k in range(12)]
        [gap] = readouts.summarize(ones, pool)
        hits += gap.low <= 0 <= gap.high
    assert 0.92 < hits / rounds < 0.98
    [alone] = readouts.summarize(ones)
    assert alone.high - alone.low < gap.high - gap.low
