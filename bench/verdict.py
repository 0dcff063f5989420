"""From the numbers of an audit to a verdict on each method, by rules that are fixed before any number is seen.

The attacks that know the method are the family that decides; the headline among them is the per-example attack.

1. An attack *finds* a difference where its p-value, Holm's over the family, is below `ALPHA`, unless that is too small
   to matter: its area is shown to lie within the margin around 0.5 and its true positive rate at 1 % false positives
   is not shown to exceed `TAIL`, which a leak of few samples does. Two-sided: an area below 0.5 is no privacy.
2. If any finds one, the method *leaks*; it *over-forgets* where its models are, on average over the forget set, surely
   less confident than retrained ones.
3. Otherwise it is *indistinguishable* if the headline's area is shown to lie within the margin: two one-sided tests
   (D. J. Schuirmann 1987) at `ALPHA`. That a difference is not significant is not enough, and no model may be missing.
4. Otherwise there is *not enough data to say*.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench import comparison
from bench.interface import Record

ALPHA = 0.05
TAIL = 0.02  # true positive rate at 1 % false positives beyond which a leak of few samples matters
INDISTINGUISHABLE, LEAKS, OVER_FORGETS = "indistinguishable", "leaks", "over-forgets"
UNCLEAR = "not enough data to say"
WORDS = (INDISTINGUISHABLE, LEAKS, OVER_FORGETS, UNCLEAR)

Found = Mapping[tuple[str, str], Record]  # (metric, part) -> summary


@dataclass(frozen=True)
class Verdict:
    """A verdict: one of `WORDS`, the attacks that found a difference, and the grounds in a few words."""

    word: str
    found_by: tuple[str, ...] = ()
    reason: str = ""


def verdicts(run: Mapping[str, Any], records: Iterable[Record]) -> dict[str, Verdict]:
    """The verdict on every method of a run, after its last request; empty for a run without an audit."""
    rules = run.get("audit") or {}
    if not rules.get("headline"):
        return {}
    found: dict[str, dict[tuple[str, str], Record]] = {}
    for record in records:
        if record.seed == "all" and record.step == run["steps"] - 1:
            found.setdefault(record.method, {})[record.metric, record.part] = record
    names = [entry["name"] for entry in run["methods"]]
    return {name: judge(found.get(name, {}), rules["headline"], rules["family"], rules["margin"]) for name in names}


def judge(found: Found, headline: str, family: Sequence[str], margin: float) -> Verdict:
    """The verdict on one method from its summaries over models.

    Args:
        headline: the attack whose area must lie within the margin.
        family: all attacks that decide, the headline among them.
        margin: of the area around 0.5, fixed in advance.
    """
    area = found.get((f"attack_auc:{headline}", "forget"))
    if area is None:
        return Verdict(UNCLEAR, reason="the attack was not run")
    raw = [_value(found, f"attack_p:{name}") for name in family]
    chances = dict(zip(family, comparison.holm(raw), strict=True))
    apart = {name: _value(found, f"attack_equivalence_p:{name}") for name in family}
    tails = {name: found.get((f"attack_tpr_1:{name}", "forget")) for name in family}
    small = {name: apart[name] < ALPHA and not (tail and tail.low > TAIL) for name, tail in tails.items()}
    finders = tuple(name for name in family if chances[name] < ALPHA and not small[name])
    if finders:
        return Verdict(*_direction(found, finders))
    if missing := lost(area.status):
        return Verdict(UNCLEAR, reason=missing)
    if apart[headline] < ALPHA:
        return Verdict(INDISTINGUISHABLE, reason=f"area within 0.5 ± {margin:g}, p = {apart[headline]:.2g}")
    if not math.isfinite(area.value):
        return Verdict(UNCLEAR, reason=area.status.replace("_", " "))
    return Verdict(UNCLEAR, reason=f"area within 0.5 ± {margin:g} is not shown, nor any difference")


def lost(status: str) -> str:
    """What a status says of models of the method that are missing; nothing where all are there."""
    parts = [part for part in status.split(" and ") if part.endswith((" diverged", " failed", " copies"))]
    return " and ".join(part for part in parts if "retrained" not in part)


def _direction(found: Found, finders: tuple[str, ...]) -> tuple[str, tuple[str, ...], str]:
    shift = found.get(("phi_shift", "forget"))
    low, high = (math.nan, math.nan) if shift is None else (shift.low, shift.high)
    if shift is not None and math.isnan(low):  # one model: its own level is all there is
        low = high = shift.value
    if not (low > 0 or high < 0):
        return LEAKS, finders, "told apart, though neither surer nor less sure on average"
    if high < 0:
        return OVER_FORGETS, finders, "less sure of the forget set than retrained models"
    return LEAKS, finders, "surer of the forget set than retrained models"


def _value(found: Found, metric: str) -> float:
    record = found.get((metric, "forget"))
    return math.nan if record is None else record.value
