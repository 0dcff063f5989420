"""The records of one run, indexed for look-up, and the way single numbers are written."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from bench.interface import Record

REFERENCE = "reference"  # the pool of retrained models, as the records call it
MISSING = "n/a"
LARGE = 1e6  # numbers from which on all digits before the point say less than their number
TOLERANCE = 1e-9  # a gap this small is rounding of a mean, not a difference
PAPERS_ATTACK = "shadow_xgboost"
FORMER = {"attack_auc": f"attack_auc:{PAPERS_ATTACK}"}  # what records of older runs call a metric
# Metrics of attacks and audits: their statuses are about the attack, not about the run of the method.
AUDITS = (
    "attack_", "relearn_", "recover", "compared_", "klom", "forgetting_score", "activation_", "output_js", "agreement",
    "phi_", "weight",
)  # fmt: skip


def current(metric: str) -> str:
    """The name that a metric has today."""
    return FORMER.get(metric, metric)


class Numbers:
    """Look-up by method, metric, part and step. `part=None` takes the only part that a metric has.

    A metric may go by the name that it has today or by the one that older runs gave it.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self._found: dict[tuple[str, str, str | None, int], dict[str, Record]] = {}
        for record in records:
            for part in (record.part, None):
                place = (record.method, current(record.metric), part, record.step)
                self._found.setdefault(place, {}).setdefault(record.seed, record)

    def summary(self, method: str, metric: str, part: str | None, step: int = 0) -> Record | None:
        """The record over all repeats, or None."""
        return self._found.get((method, current(metric), part, step), {}).get("all")

    def repeats(self, method: str, metric: str, part: str | None, step: int = 0) -> list[Record]:
        """The records of the single repeats, in the order of the file."""
        found = self._found.get((method, current(metric), part, step), {})
        return [record for seed, record in found.items() if seed != "all"]

    def value(self, method: str, metric: str, part: str | None, step: int = 0) -> float:
        """Value of the summary, NaN where there is none."""
        record = self.summary(method, metric, part, step)
        return record.value if record else math.nan

    def deviation(self, method: str, metric: str, part: str | None, step: int = 0) -> float:
        """Standard deviation over repeats, over models for the reference; NaN for fewer than two."""
        if method == REFERENCE:
            return self.value(method, f"{metric}_sd", part, step)
        values = [r.value for r in self.repeats(method, metric, part, step) if math.isfinite(r.value)]
        return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan

    def sums(self, method: str, metric: str, part: str | None, steps: Iterable[int]) -> list[float]:
        """The sum over steps of every repeat; repeats that lack a step are left out."""
        found = [{record.seed: record.value for record in self.repeats(method, metric, part, step)} for step in steps]
        whole = set.intersection(*(set(values) for values in found)) if found else set()
        return [sum(values[seed] for values in found) for seed in sorted(whole)]

    def total(self, method: str, metric: str, part: str | None, steps: Iterable[int]) -> tuple[float, float]:
        """Mean and standard deviation over repeats of the sum over steps."""
        sums = self.sums(method, metric, part, steps)
        mean = float(np.mean(sums)) if sums else math.nan
        return mean, float(np.std(sums, ddof=1)) if len(sums) > 1 else math.nan

    def has(self, metric: str) -> bool:
        """Whether any method has a finite number of this metric."""
        return any(
            math.isfinite(record.value)
            for (_, name, part, _), found in self._found.items()
            if name == current(metric) and part is not None
            for record in found.values()
        )

    def statuses(self, method: str) -> set[tuple[str, int, str]]:
        """Seed, step and status of every single run of a method."""
        return {
            (seed, step, record.status)
            for (name, metric, part, step), found in self._found.items()
            if name == method and part is not None and not metric.startswith(AUDITS)
            for seed, record in found.items()
            if seed != "all"
        }

    def knows(self, method: str) -> bool:
        """Whether there is any finite number on this method."""
        return any(
            math.isfinite(record.value)
            for (name, _, part, _), found in self._found.items()
            if name == method and part is not None
            for record in found.values()
        )


def fixed(value: float, digits: int = 2, *, signed: bool = False) -> str:
    """A number with a fixed number of decimals, a real minus sign, no negative zero; `n/a` for NaN.

    From a million on, as what a model that blew up gives, `1.62e16`.
    """
    if math.isnan(value):
        return MISSING
    if LARGE <= abs(value) < math.inf:
        return f"{value:{'+' if signed else ''}.2e}".replace("e+", "e").replace("e0", "e").replace("-", "−")
    rounded = round(value, digits) + 0.0
    return f"{rounded:{'+' if signed else ''},.{digits}f}".replace("-", "−")


def mean_sd(value: float, deviation: float, digits: int = 2) -> str:
    """`9.28 ± 1.25`; the deviation is `n/a` where there is only one repeat."""
    if math.isnan(value):
        return MISSING
    return f"{fixed(value, digits)} ± {fixed(deviation, digits)}"


def with_interval(record: Record | None, digits: int = 2, *, signed: bool = False) -> str:
    """`0.35 [0.30, 0.41]`: the value and its 95 % interval; `[n/a]` where one repeat gives no interval."""
    if record is None or math.isnan(record.value):
        return MISSING
    ends = [fixed(end, digits, signed=signed) for end in (record.low, record.high)]
    inside = MISSING if MISSING in ends else ", ".join(ends)
    return f"{fixed(record.value, digits, signed=signed)} [{inside}]"


def significant(value: float, digits: int = 3) -> str:
    """A positive quantity with at least `digits` significant digits and no exponent, such as seconds or a ratio."""
    if not math.isfinite(value):
        return MISSING
    return fixed(value, _decimals(value, digits))


def seconds(value: float, deviation: float) -> str:
    """`12.3 ± 0.4` seconds, with as many decimals as three significant digits of the mean need."""
    if math.isnan(value):
        return MISSING
    return mean_sd(value, deviation, _decimals(value, 3))


def _decimals(value: float, digits: int) -> int:
    size = math.floor(math.log10(abs(value))) if value else 0
    return min(max(digits - 1 - size, 0), 4)


def chance(value: float) -> str:
    """A p-value with three decimals; a smaller one says only that."""
    return "< 0.001" if value < 0.0005 else fixed(value, 3)


def count(value: float) -> str:
    """A whole number with thousands separators."""
    return MISSING if math.isnan(value) else f"{round(value):,}"


def memory(value: float) -> str:
    """Bytes in the largest binary unit that leaves a number above 1, single ones as a whole number."""
    if math.isnan(value):
        return MISSING
    if value < 1024:
        return f"{value:.0f} B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{significant(value)} {unit}"
        value /= 1024
    return f"{significant(value)} TiB"


WRECKED = ("diverged", "collapsed", "failed")


def wrecked(record: Record) -> bool:
    """Whether some of the runs behind a record left no usable model."""
    return any(word in record.status for word in WRECKED)


def alike(gap: Record, deviation: float) -> bool:
    """Whether no difference from retraining is shown: every run left a usable model and the gap's interval holds 0.

    Where all retrained models agree (a `deviation` of 0), any gap is a difference: no spread of theirs explains it.
    """
    if wrecked(gap) or math.isnan(gap.low) or math.isnan(gap.high):
        return False
    if deviation <= TOLERANCE:
        return abs(gap.value) <= TOLERANCE
    return gap.low <= TOLERANCE and gap.high >= -TOLERANCE
