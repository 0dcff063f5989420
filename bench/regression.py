"""A run against a stored baseline: which numbers moved by more than the spread of their repeats explains.

A number moved when the difference exceeds both what Student's t-test explains and the number's resolution (one sample
of an error). The level of the test is `FAMILY` shared equally among all numbers compared (Bonferroni), so that at most
that share of comparisons raises a false alarm, however many numbers there are. A status moved when Fisher's exact test
on the repeats that have it says so, a verdict when a number that it follows from moved. Times are compared as
ratios to retraining in the same run. A number of one repeat on both sides has no spread and is
not judged.
`docs/compare.md` has the reasons, and how often this is wrong.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import baseline, records, statistics
from bench.baseline import POOL, TIME, Baseline, Number, Place
from bench.interface import UsageError

FAMILY = 0.01  # most false alarms per comparison of two whole runs
RARE = 0.01  # most false alarms of one status, which repeats have or have not
FACTOR = 3.0  # between two ratios of times that load, caches and kernels of another machine explain
LEARNING = math.sqrt(2)  # intervals of attacks take what was learned as given; half of the models go into that
SMALLEST = 1e-3  # resolution of numbers that do not count samples: AUC, nats, fractions
# By their beginning: numbers in which one sample is a step, in percent and as a share of 1.
PERCENT = ("error", "confusion", "predicted_share", "agreement", "attack_rate", "attack_tpr")
SHARES = ("log_entropy_ks", "class_shift_tv", "attack_auc")
# By their beginning, what is measured against the retrained models of its run.
AGAINST_POOL = (
    *("log_entropy_", "class_shift_tv", "restored"),
    *("phi_shift", "output_js", "activation_", "agreement"),
)
BEHIND_VERDICTS = ("attack_auc:", "attack_tpr_1:", "phi_shift")  # by their beginning


@dataclass(frozen=True)
class Moved:
    """A number that moved: what it was and is, and the difference that the spread explains (nan if unknown)."""

    method: str
    step: int
    part: str
    metric: str
    was: float
    now: float
    explained: float
    reason: str


@dataclass(frozen=True)
class Comparison:
    """What moved, how many numbers were compared, and remarks, a line each, on what was not judged."""

    moved: Sequence[Moved]
    compared: int
    notes: Sequence[str] = field(default_factory=tuple)

    def line(self) -> str:
        """What came out, and the remarks below it."""
        many = len(self.moved)
        head = f"{many} moved" if many else "no number moved"
        return "\n".join([f"{head}; {self.compared} numbers compared", *self.notes])


def compare(results: records.Results, path: Path, *, exact: bool = False, times: bool = False) -> Comparison:
    """A run against a baseline file; moved numbers are in the order of the results, those that are gone last.

    Args:
        exact: any difference counts, as it should for the same seeds on the same machine and versions.
        times: times count too and are not only remarked on, as they should where nothing else runs.

    Raises:
        UsageError: the baseline is missing, damaged or of another configuration, or nothing can be judged.
    """
    was, now = baseline.read(path), baseline.of(results)
    baseline.require_same_config(now.config, was.config, path)
    found = between(was, now, exact=exact, times=times)
    if not found.moved and not found.compared:
        raise UsageError(f"nothing of {path} can be judged, since one repeat tells no spread; make both with --seeds 5")
    return found


def between(was: Baseline, now: Baseline, *, exact: bool = False, times: bool = False) -> Comparison:
    """What moved from one run to another that is configured alike."""
    common = [place for place in now.numbers if place in was.numbers]
    blind = [place for place in common if not exact and _blind(was.numbers[place], now.numbers[place])]
    judged = [place for place in common if place not in set(blind)]
    alpha = FAMILY / max(len(judged), 1)
    tested = (_difference(place, was.numbers, now.numbers, alpha, exact=exact) for place in judged)
    found = [one for one in tested if one]
    slow = [one for one in found if one.metric == TIME and not times]
    moved = [*_statuses(was, now), *(one for one in found if one not in slow), *_new_and_gone(was, now)]
    verdicts, notes = _verdicts(was, now, moved)
    notes += [f"{one.method}: a request {one.reason}; --times makes that count" for one in slow]
    if blind:
        methods = ", ".join(dict.fromkeys(place[0] for place in blind))
        notes.append(
            f"not judged, since one repeat tells no spread: {len(blind)} numbers of {methods} (--seeds 5 would)"
        )
    return Comparison([*moved, *verdicts], len(judged), notes)


def _blind(a: Number, b: Number) -> bool:
    """Whether both sides have a value and neither has a spread."""
    return all(math.isfinite(one.value) and not math.isfinite(one.sd) for one in (a, b))


def _difference(
    place: Place, was: Mapping[Place, Number], now: Mapping[Place, Number], alpha: float, *, exact: bool
) -> Moved | None:
    a, b = was[place], now[place]
    if a.value == b.value or math.isnan(a.value) or math.isnan(b.value):
        return None  # where a value is missing, the status says why
    if a.metric == TIME:
        return _time(a, b, alpha)
    if exact:
        return Moved(*place, a.value, b.value, 0.0, "differs")
    explained = _explained(place, was, now, alpha)
    # The margin is for rounding: a difference of exactly one sample is not more than one sample.
    if abs(b.value - a.value) <= max(explained, _resolution(a, b)) * (1 + 1e-9):
        return None
    return Moved(*place, a.value, b.value, explained, "beyond the spread of the repeats")


def _explained(place: Place, was: Mapping[Place, Number], now: Mapping[Place, Number], alpha: float) -> float:
    """The difference that chance explains."""
    method, step, part, metric = place
    pairs, pooled = [(was[place], now[place])], (POOL, step, part, metric)
    if method != POOL and metric.startswith(AGAINST_POOL) and pooled in was and pooled in now:
        # All repeats are compared with the same pool, so that their own spread does not show how the pool varies.
        pairs.append((was[pooled], now[pooled]))
    return _student(pairs, alpha)


def _student(pairs: Sequence[tuple[Number, Number]], alpha: float) -> float:
    """The difference that Student's t-test explains, all pairs of numbers taken for independent parts of it.

    Both sides of a pair tell one spread: if nothing moved, they have the same. Welch's test would let a fault that
    widens the spread excuse itself.
    """
    parts = [_pooled(*pair) for pair in pairs]
    return statistics.explained_difference([part for part in parts if part], alpha)


def _pooled(a: Number, b: Number) -> tuple[float, int] | None:
    """The difference of two numbers as one mean: a standard deviation and a size; None where neither has a spread."""
    rounding = _counting(a, b) / math.sqrt(12)  # a count stands for anything within half a sample of it
    learning = LEARNING if a.metric.startswith("attack_") else 1.0
    told = [(learning * one.sd, one.n - 1) for one in (a, b) if one.n > 1 and math.isfinite(one.sd)]
    if not (told and a.n and b.n):
        return None
    degrees = sum(free for _, free in told)
    variance = math.fsum(free * sd * sd for sd, free in told) / degrees + rounding**2
    return math.sqrt(variance * (1 / a.n + 1 / b.n) * (degrees + 1)), degrees + 1


def _time(a: Number, b: Number, alpha: float) -> Moved | None:
    """A request's time as a share of retraining, if it moved: logarithms are compared, since times vary by factors."""
    explained = _student([(a, b)], alpha)
    change = math.log(b.value / a.value)
    if abs(change) <= max(explained, math.log(FACTOR)):
        return None
    said = f"takes {math.exp(abs(change)):.1f} times as {'long' if change > 0 else 'little'}, in retrainings of its run"
    return Moved(*a.place, a.value, b.value, a.value * math.expm1(explained), said)


def _counting(was: Number, now: Number) -> float:
    """What one sample of a model changes, in the number's units; 0 for what does not count samples."""
    samples = min(was.samples, now.samples) or max(was.samples, now.samples)
    if not samples:
        return 0.0
    return 100.0 / samples if was.metric.startswith(PERCENT) else was.metric.startswith(SHARES) / samples


def _resolution(was: Number, now: Number) -> float:
    """The difference below which the number cannot tell anything, in its units; none where reads are counted."""
    return 0.0 if was.metric == "samples_read" else _counting(was, now) or SMALLEST


def _statuses(was: Baseline, now: Baseline) -> Iterator[Moved]:
    """Statuses that moved, once per method and request."""
    told = set()
    for place, b in now.numbers.items():
        a = was.numbers.get(place)
        if a is None or not _status_moved(a, b):
            continue
        reason = f"status was {a.status}, is {b.status}"
        if a.status == b.status:
            reason = "has a value now" if math.isnan(a.value) else "has no value now"
        if (b.method, b.step, reason) not in told:
            told.add((b.method, b.step, reason))
            yield Moved(*place, a.value, b.value, math.nan, reason)


COUNTED = re.compile(r"(\d+) of (\d+) (.+?)(?=; | and |$)")


def _status_moved(a: Number, b: Number) -> bool:
    """Whether repeats have another status than chance explains; other texts are compared without their numbers."""
    before, after = (_counts(one.status) for one in (a, b))
    for word in {*before, *after}:
        (j, m), (k, n) = before.get(word, (0, a.n or b.n)), after.get(word, (0, b.n or a.n))
        if (word.startswith("failed") and (j > 0) != (k > 0)) or fisher(j, m, k, n) < RARE:
            return True
    if math.isnan(a.value) != math.isnan(b.value) and not (before or after):
        return True
    return _uncounted(a.status) != _uncounted(b.status)


def _counts(status: str) -> dict[str, tuple[int, int]]:
    """How many of how many repeats have what."""
    return {word: (int(k), int(n)) for k, n, word in COUNTED.findall(status)}


def _uncounted(status: str) -> str:
    rest = COUNTED.sub("", status).strip("; ").removeprefix("and ")
    return re.sub(r"\d+", "n", "" if rest == "ok" else rest)


def fisher(j: int, m: int, k: int, n: int) -> float:
    """Two-sided p-value of Fisher's exact test that `j` of `m` and `k` of `n` have the same chance."""
    ways = {i: math.comb(m, i) * math.comb(n, j + k - i) for i in range(max(0, j + k - n), min(m, j + k) + 1)}
    return sum(way for way in ways.values() if way <= ways[j]) / sum(ways.values())


def _new_and_gone(was: Baseline, now: Baseline) -> Iterator[Moved]:
    """Numbers that only one side has, a method that only one side has in one line; times are no loss."""
    for mine, others, reason in ((now.numbers, was.numbers, "is new"), (was.numbers, now.numbers, "is gone")):
        known, told = {place[0] for place in others}, set()
        for place, one in mine.items():
            if place in others or one.metric == TIME or one.method in told:
                continue
            if one.method not in known:
                told.add(one.method)
                yield Moved(one.method, one.step, "-", "every number", math.nan, math.nan, math.nan, reason)
                continue
            values = (math.nan, one.value) if mine is now.numbers else (one.value, math.nan)
            yield Moved(*place, *values, math.nan, reason)


def _verdicts(was: Baseline, now: Baseline, moved: Sequence[Moved]) -> tuple[list[Moved], list[str]]:
    """Verdicts that changed: moved where a number behind them did, else a remark, since they were near a boundary."""
    found, notes = [], []
    for name, word in was.verdicts.items():
        said = now.verdicts.get(name, word)
        if said == word:
            continue
        if any(one.method == name and one.metric.startswith(BEHIND_VERDICTS) for one in moved):
            found.append(Moved(name, 0, "-", "verdict", math.nan, math.nan, math.nan, f"was {word}, is {said}"))
        else:
            notes.append(f"{name}: the verdict was {word} and is {said}, but no number behind it moved beyond chance")
    return found, notes


def table(moved: Sequence[Moved]) -> str:
    """The moved numbers as a Markdown table."""
    lines = ["| number | was | now | difference | the spread explains | why |", "|---|---:|---:|---:|---:|---|"]
    for one in moved:
        part, step = f" on {one.part}" if one.part != "-" else "", f", step {one.step}" if one.step else ""
        name = f"{one.method}: {one.metric}{part}{step}"
        cells = [_shown(value) for value in (one.was, one.now, one.now - one.was, one.explained)]
        lines.append(" | ".join(["| " + _cell(name), *cells, _cell(one.reason) + " |"]))
    return "\n".join(lines)


def _shown(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.6g}"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
