"""The rules of the verdict, one by one and all combinations of what attacks may find."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import comparison, verdict
from bench.interface import Record
from bench.verdict import ALPHA, INDISTINGUISHABLE, LEAKS, OVER_FORGETS, UNCLEAR, WORDS, Verdict, judge

TOP, OTHER = "per_example", "rmia"
FAMILY = [TOP, OTHER]
NAN = math.nan
CHANCES = st.dictionaries(st.text(max_size=3), st.floats(0, 1) | st.just(NAN), max_size=6)


def record(metric: str, value: float, low: float = NAN, high: float = NAN, status: str = "ok") -> Record:
    return Record("mine", "all", 0, "forget", metric, value, low, high, 8, status)


def found(
    p: Mapping[str, float], apart: Mapping[str, float], shift: tuple[float, float, float] | None = (0.0, -0.1, 0.1),
    area: float = 0.5, status: str = "ok",
) -> dict[tuple[str, str], Record]:  # fmt: skip
    """What an audit says: p-values of chance and of being beyond the margin by attack, the shift, the top's area."""
    records = [record(f"attack_auc:{TOP}", area, status=status)]
    records += [record(f"attack_p:{name}", value) for name, value in p.items()]
    records += [record(f"attack_equivalence_p:{name}", value) for name, value in apart.items()]
    records += [] if shift is None else [record("phi_shift", *shift)]
    return {(one.metric, one.part): one for one in records}


def told(*args: object, **fields: object) -> Verdict:
    return judge(found(*args, **fields), TOP, FAMILY, 0.05)  # type: ignore[arg-type]


def holm(chances: dict[str, float]) -> dict[str, float]:
    """Holm's correction by name, as verdicts use it."""
    return dict(zip(chances, comparison.holm(list(chances.values())).tolist(), strict=True))


@given(CHANCES)
def test_holm_is_monotone_and_never_smaller(chances: dict[str, float]) -> None:
    adjusted = holm(chances)
    assert adjusted.keys() == chances.keys()
    known = sorted((p, adjusted[name]) for name, p in chances.items() if not math.isnan(p))
    assert all(p <= q <= 1 for p, q in known)
    assert all(one[1] <= two[1] for one, two in itertools.pairwise(known))
    assert all(math.isnan(adjusted[name]) == math.isnan(p) for name, p in chances.items())
    if known:
        assert known[0][1] == min(1.0, len(known) * known[0][0])


def test_holm_by_hand() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06})
    assert holm({"a": 0.5, "b": 0.9}) == {"a": 1.0, "b": 1.0}
    one = holm({"a": 0.02, "b": NAN})
    assert one["a"] == 0.02 and math.isnan(one["b"]), "an attack without a number costs the others nothing"
    assert holm({}) == {}


def test_every_combination_of_findings() -> None:
    """Rule by rule, written out once more in the simplest way."""
    values = (0.001, 0.03, 0.5, NAN)
    for p1, p2, e1, e2 in itertools.product(values, repeat=4):
        adjusted = holm({TOP: p1, OTHER: p2})
        finders = tuple(
            name for name, apart in ((TOP, e1), (OTHER, e2)) if adjusted[name] < ALPHA and not apart < ALPHA
        )
        expected = LEAKS if finders else INDISTINGUISHABLE if e1 < ALPHA else UNCLEAR
        verdict_ = told({TOP: p1, OTHER: p2}, {TOP: e1, OTHER: e2})
        assert (verdict_.word, verdict_.found_by) == (expected, finders), (p1, p2, e1, e2)
        assert verdict_.word in WORDS and verdict_.reason


def test_a_difference_within_the_margin_is_no_finding_however_certain() -> None:
    assert told({TOP: 0.001, OTHER: 0.9}, {TOP: 0.001, OTHER: 0.9}, area=0.51).word == INDISTINGUISHABLE
    assert told({TOP: 0.001, OTHER: 0.001}, {TOP: 0.01, OTHER: 0.01}, area=0.51).word == INDISTINGUISHABLE


def test_a_leak_of_few_samples_counts_though_the_average_hides_it() -> None:
    numbers = found({TOP: 0.001, OTHER: 0.9}, {TOP: 0.001, OTHER: 0.9}, area=0.51)
    for low, word in ((0.019, INDISTINGUISHABLE), (0.021, LEAKS), (NAN, INDISTINGUISHABLE)):
        tail = {(f"attack_tpr_1:{TOP}", "forget"): record(f"attack_tpr_1:{TOP}", 0.05, low)}
        assert judge(numbers | tail, TOP, FAMILY, 0.05).word == word
    sure = {(f"attack_tpr_1:{TOP}", "forget"): record(f"attack_tpr_1:{TOP}", 0.05, 0.04)}
    nothing = found({TOP: 0.5, OTHER: 0.9}, {TOP: 0.001, OTHER: 0.9})
    assert judge(nothing | sure, TOP, FAMILY, 0.05).word == INDISTINGUISHABLE, "a tail without a difference is chance"


@pytest.mark.parametrize("status", ["1 of 16 diverged", "2 of 32 failed and ok", "15 of 16 copies"])
def test_with_models_missing_nothing_is_indistinguishable(status: str) -> None:
    close = {TOP: 0.001, OTHER: 0.001}
    assert told({TOP: 0.9, OTHER: 0.9}, close, status=status).word == UNCLEAR
    assert told({TOP: 0.001, OTHER: 0.9}, {TOP: 0.9, OTHER: 0.9}, status=status).word == LEAKS
    assert told({TOP: 0.9, OTHER: 0.9}, close, status="1 of 50 retrained diverged").word == INDISTINGUISHABLE


def test_that_nothing_is_found_is_not_enough() -> None:
    nothing = told({TOP: 0.6, OTHER: 0.7}, {TOP: 0.2, OTHER: 0.001})
    assert (nothing.word, nothing.found_by) == (UNCLEAR, ())
    assert "not shown" in nothing.reason


def test_two_attacks_pay_for_being_two() -> None:
    assert told({TOP: 0.03, OTHER: 0.9}, {TOP: 0.9, OTHER: 0.9}).word == UNCLEAR
    assert told({TOP: 0.03, OTHER: NAN}, {TOP: 0.9, OTHER: NAN}).word == LEAKS
    assert told({TOP: 0.02, OTHER: 0.9}, {TOP: 0.9, OTHER: 0.9}).word == LEAKS


def test_another_attack_of_the_family_is_enough_and_is_named() -> None:
    assert told({TOP: 0.9, OTHER: 0.001}, {TOP: 0.001, OTHER: 0.9}).found_by == (OTHER,)
    assert told({TOP: 0.001, OTHER: 0.001}, {TOP: 0.9, OTHER: 0.9}).found_by == (TOP, OTHER)


def test_an_area_below_a_half_is_a_finding_and_no_privacy() -> None:
    for area in (0.2, 0.8):
        below = told({TOP: 0.001, OTHER: 0.9}, {TOP: 1.0, OTHER: 0.9}, area=area, shift=(-1.0, -1.2, -0.8))
        assert (below.word, below.found_by) == (OVER_FORGETS, (TOP,))


@pytest.mark.parametrize(
    ("shift", "word"),
    [
        ((1.0, 0.8, 1.2), LEAKS),
        ((-1.0, -1.2, -0.8), OVER_FORGETS),
        ((-0.1, -0.3, 0.1), LEAKS),  # both ways or too alike: neither surer nor less sure
        ((0.0, 0.0, 0.0), LEAKS),
        ((-1.0, NAN, NAN), OVER_FORGETS),  # one model
        ((1.0, NAN, NAN), LEAKS),
        ((NAN, NAN, NAN), LEAKS),
        (None, LEAKS),
    ],
)
def test_the_direction_is_that_of_the_log_odds(shift: tuple[float, float, float] | None, word: str) -> None:
    assert told({TOP: 0.001, OTHER: 0.9}, {TOP: 0.9, OTHER: 0.9}, shift=shift).word == word


def test_no_number_is_not_enough_data_and_says_why() -> None:
    lost = told({TOP: NAN, OTHER: NAN}, {TOP: NAN, OTHER: NAN}, area=NAN, status="3 of 16 diverged")
    assert lost == Verdict(UNCLEAR, reason="3 of 16 diverged")
    few = told({TOP: NAN}, {TOP: NAN}, area=NAN, status="too_few_models")
    assert few == Verdict(UNCLEAR, reason="too few models")
    assert judge({}, TOP, FAMILY, 0.05) == Verdict(UNCLEAR, reason="the attack was not run")
    assert told({}, {}).word == UNCLEAR


def test_verdicts_of_a_run_go_by_the_last_request() -> None:
    last = list(found({TOP: 0.001, OTHER: 0.9}, {TOP: 0.9, OTHER: 0.9}).values())
    first = [Record(one.method, "all", -1, *list(vars(one).values())[3:]) for one in last]
    rules = {"headline": TOP, "family": FAMILY, "margin": 0.05}
    run = {"audit": rules, "steps": 1, "methods": [{"name": "mine"}, {"name": "other"}]}
    words = {name: one.word for name, one in verdict.verdicts(run, last).items()}
    assert words == {"mine": LEAKS, "other": UNCLEAR}
    assert verdict.verdicts(run, first)["mine"].word == UNCLEAR
    seeds = [Record("mine", "0", *list(vars(one).values())[2:]) for one in last]
    assert verdict.verdicts(run, seeds)["mine"].word == UNCLEAR


def test_no_verdict_without_the_attack_that_decides() -> None:
    records = list(found({OTHER: 0.001}, {OTHER: 0.9}).values())
    run = {"steps": 1, "methods": [{"name": "mine"}]}
    without: tuple[dict[str, object], ...] = ({}, {"audit": {}}, {"audit": {"headline": "", "family": [OTHER]}})
    for rules in without:
        assert verdict.verdicts(run | rules, records) == {}
