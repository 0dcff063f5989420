"""The verdict on each method in words: short ones for tables and badges, sentences for the findings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.records import Results
from bench.verdict import INDISTINGUISHABLE, LEAKS, OVER_FORGETS, UNCLEAR, WORDS, Verdict, verdicts
from reports import words
from reports.numbers import REFERENCE, Numbers, with_interval

SHORT = {word: word for word in WORDS} | {UNCLEAR: "not enough data"}
# A sign says the same as the color, for eyes and printers without color.
SIGNS = {
    INDISTINGUISHABLE: ("≈", "same"),
    LEAKS: ("▲", "leaks"),
    OVER_FORGETS: ("▼", "over"),
    UNCLEAR: ("?", "unclear"),
}


@dataclass(frozen=True)
class Badge:
    """A verdict as the page shows it: a sign, the short word, the name of its color, and the grounds."""

    sign: str
    word: str
    look: str
    reason: str = ""


def judged(run: Mapping[str, Any]) -> bool:
    """Whether the run has what a verdict needs: an audit with an attack that decides."""
    return bool((run.get("audit") or {}).get("headline"))


def of(results: Results) -> dict[str, Verdict]:
    """The verdict on every method; empty for a run without an audit."""
    return verdicts(results.run, results.records) if judged(results.run) else {}


def cell(run: Mapping[str, Any], found: Mapping[str, Verdict], method: str) -> str:
    """The word in a table, with the attack that found the difference where the one whose area stands there did not."""
    if method == REFERENCE:
        return REFERENCE
    word, finders = SHORT[found[method].word], found[method].found_by
    return f"{word} ({finders[0]})" if finders and run["audit"]["headline"] not in finders else word


def badge(verdict: Verdict) -> Badge:
    """The verdict as the page shows it."""
    sign, look = SIGNS[verdict.word]
    by = f"found by {words.listed(verdict.found_by)}; " if verdict.found_by else ""
    return Badge(sign, SHORT[verdict.word], look, by + verdict.reason)


def badges(results: Results) -> dict[str, Badge]:
    """The badge of every method that has numbers; empty for a run without verdicts."""
    numbers = Numbers(results.records)
    found = of(results)
    return {method: badge(verdict) for method, verdict in found.items() if numbers.knows(method)}


def grouped(run: Mapping[str, Any], shown: Mapping[str, Badge]) -> list[tuple[Badge, list[str]]]:
    """One badge of each kind with the methods that carry it, in the order of the words; what is none says so."""
    kinds = dict.fromkeys(words.controls(run), " (control)") | dict.fromkeys(words.ceilings(run), " (no method)")
    groups = []
    for word in SHORT.values():
        mine = [method for method, one in shown.items() if one.word == word]
        if mine:
            groups.append((shown[mine[0]], [m + kinds.get(m, "") for m in mine]))
    return groups


def sentences(results: Results, methods: Sequence[str]) -> list[str]:
    """The verdicts on these methods, then whether the rows with a known answer give it; [] without an audit.

    Args:
        methods: those to speak of: with numbers, and no controls.
    """
    found = of(results)
    if not found:
        return []
    mine = {word: [method for method in methods if found[method].word == word] for word in WORDS}
    told = [_same(results, mine[INDISTINGUISHABLE])] if methods else []
    told += [_leaks(results, found, mine[LEAKS])] if mine[LEAKS] else []
    told += [_over(results, found, mine[OVER_FORGETS])] if mine[OVER_FORGETS] else []
    told += [_unclear(results, mine[UNCLEAR])] if mine[UNCLEAR] else []
    return [*told, *_controls(results, found)]


def _same(results: Results, methods: Sequence[str]) -> str:
    audit, ideal = results.run["audit"], words.ideal(results.run)
    if not methods:
        return f"No method is shown to be indistinguishable from {ideal}."
    area = f"the area of the attack {audit['headline']} is shown to lie within 0.5 ± {audit['margin']:g}"
    verb = "is" if len(methods) == 1 else "are"
    said = words.numbered([(method, _area(results, method)) for method in methods])
    others = ", and no attack that knows the method finds a difference that matters" if len(audit["family"]) > 1 else ""
    return f"{said} {verb} indistinguishable from {ideal}: {area}{others}."


def _leaks(results: Results, found: Mapping[str, Verdict], methods: Sequence[str]) -> str:
    verb = "leaks" if len(methods) == 1 else "leak"
    said = words.numbered([(method, _area(results, method, found)) for method in methods])
    return f"{said} {verb}: an attacker who knows the method tells its models from {_others(results)} ones."


def _over(results: Results, found: Mapping[str, Verdict], methods: Sequence[str]) -> str:
    verb = "over-forgets" if len(methods) == 1 else "over-forget"
    said = words.numbered([(method, _area(results, method, found)) for method in methods])
    return (
        f"{said} {verb}: less sure of the forget set than {_others(results)} models, which gives the set "
        "away as remembering it would."
    )


def _others(results: Results) -> str:
    return "cleanly trained" if words.undetected(results.run) else "retrained"


def _unclear(results: Results, methods: Sequence[str]) -> str:
    said = words.numbered([(method, _area(results, method)) for method in methods])
    within = f"an area within 0.5 ± {results.run['audit']['margin']:g}"
    return f"There is not enough data for a verdict on {said}: neither a difference nor {within} is shown."


def _area(results: Results, method: str, found: Mapping[str, Verdict] | None = None) -> str:
    """`(AUC 0.84 [0.80, 0.88])`, with the attack that found it where that was another; empty without a number."""
    headline, last = results.run["audit"]["headline"], results.run["steps"] - 1
    finders = found[method].found_by if found else ()
    attack = headline if headline in finders or not finders else finders[0]
    area = Numbers(results.records).summary(method, f"attack_auc:{attack}", "forget", last)
    if area is None or math.isnan(area.value):
        return ""
    return f"({'AUC' if attack == headline else f'AUC of {attack}'} {with_interval(area)})"


def _controls(results: Results, found: Mapping[str, Verdict]) -> list[str]:
    """Warnings where the two rows with a known answer do not give it."""
    told = []
    retrain, original = found.get("retrain"), found.get("original")
    if retrain and not words.undetected(results.run):
        if retrain.word in (LEAKS, OVER_FORGETS):
            told.append(
                "Caution: the control row retrain, itself retrained, is told from the pool by "
                f"{words.listed(retrain.found_by)}; a finding of that size on a method means nothing."
            )
        elif retrain.word == UNCLEAR:
            told.append(
                "Caution: not even the control row retrain is shown to be indistinguishable: with so few models "
                "no method could be."
            )
    if original and original.word not in (LEAKS, OVER_FORGETS):
        told.append(
            "Caution: the attacks do not find the control row original, which has forgotten nothing: there is little "
            "to forget, or there are too few models to tell."
        )
    return told
