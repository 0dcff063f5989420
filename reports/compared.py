"""Methods among each other: ranks, and p-values against the best where the models are enough for any to be small."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from bench import comparison
from reports.numbers import MISSING, Numbers, chance, fixed

RANK, P = "compared_rank", "compared_p"


def rank(numbers: Numbers, method: str, step: int) -> str:
    """The average rank of a method over the models."""
    return fixed(numbers.value(method, RANK, "forget", step), 1)


def against_best(*, tells: bool) -> Callable[[Numbers, str, int], str]:
    """How the cells of p-values are written: `best` for the method that the others are compared with.

    `n/a` for all others unless the p-value `tells` something: where none could be small, a large one says nothing.
    """

    def cell(numbers: Numbers, method: str, step: int) -> str:
        likely = numbers.value(method, P, "forget", step)
        ranked = math.isfinite(numbers.value(method, RANK, "forget", step))
        if ranked and math.isnan(likely):
            return "best"
        return chance(likely) if tells else MISSING

    return cell


def too_few(run: Mapping[str, Any], numbers: Numbers) -> str:
    """Why there is no p-value: the smallest that the test could give is not below the level; empty where it is."""
    found = (numbers.summary(entry["name"], RANK, "forget", run["steps"] - 1) for entry in run["methods"])
    ranked = [one for one in found if one is not None and math.isfinite(one.value)]
    methods, models = len(ranked), max([one.n for one in ranked], default=0)
    least = comparison.smallest_p(methods, models) if methods > 1 else 0.0
    if least < comparison.ALPHA:
        return ""
    return (
        f"Too few repeats for p-values against the best: with {models} models of each of {methods} methods the "
        f"smallest that the test could give, adjusted (Holm), is {chance(least)}"
    )
