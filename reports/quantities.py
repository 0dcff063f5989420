"""What the tables of each scenario show: which number on which samples, under which head."""

from __future__ import annotations

import math
from dataclasses import dataclass

from reports.numbers import Numbers

ANCHORS = ("original", "retrain")
WORST = "worst"  # stands for the part of the worst earlier request, which differs between methods


@dataclass(frozen=True)
class Quantity:
    """One measured thing: a percentage has a value and a gap to the pool, anything else a value.

    `part` may hold `{request}`, the number of a request from 1. `goal` stands under the head and says which way is
    good.
    """

    head: str
    metric: str
    part: str
    goal: str = "→ retrained"

    @property
    def has_gap(self) -> bool:
        """Whether it is a percentage with a gap to the pool."""
        return self.metric.startswith(("error", "confusion"))

    def at(self, numbers: Numbers, method: str, step: int) -> str | None:
        """The part that the records of this step know; None where there is none, as before an earlier request."""
        if self.part != WORST:
            return self.part.format(request=step + 1)
        worst = worst_earlier(numbers, method, step)
        return None if worst is None else f"chunk{worst}"


def worst_earlier(numbers: Numbers, method: str, step: int) -> int | None:
    """The number, from 1, of the earlier request on whose samples a method is farthest from the pool."""
    gaps = {k: abs(numbers.value(method, "error_gap", f"chunk{k}", step)) for k in range(1, step + 1)}
    known = {k: gap for k, gap in gaps.items() if not math.isnan(gap)}
    return max(known, key=lambda k: known[k]) if known else None


FORGOTTEN = {
    "sample_removal": [Quantity("forget error", "error", "forget")],
    "class_removal": [
        Quantity("forget error", "error_unmasked", "forget"),
        Quantity("forget-class test error", "error_unmasked", "forget_test"),
    ],
    "incremental": [
        Quantity("forgotten so far", "error", "forget"),
        Quantity("last request", "error", "chunk{request}"),
    ],
    "depoisoning": [
        Quantity("wrong-label error", "error", "forget"),
        Quantity("true-label error", "error", "corrected"),
    ],
}
TRACES = [
    Quantity("entropy W1", "log_entropy_w1", "forget", "↓ floor"),
    Quantity("attack AUC", "attack_auc", "forget", "→ 0.5"),
]
KEPT = [Quantity("retain error", "error", "retain"), Quantity("test error", "error", "test")]
ACCURACY = {
    "class_removal": [
        Quantity("retain error", "error", "retain"),
        Quantity("retained test error", "error", "retained_test"),
        Quantity("the same, unmasked", "error_unmasked", "retained_test"),
    ],
    "depoisoning": [
        *KEPT,
        Quantity("restored", "restored", "test", "→ 1"),
        Quantity("pair confusion", "confusion", "test"),
    ],
}
UNDETECTED = [
    Quantity("wrong-label error", "error", "undetected"),
    Quantity("true-label error", "error", "undetected_corrected"),
]
BY_REQUEST = [
    Quantity("forgotten so far", "error", "forget"),
    Quantity("this request", "error", "chunk{request}"),
    Quantity("worst earlier request", "error", WORST),
    Quantity("retained", "error", "retain"),
    Quantity("test", "error", "test"),
]
