"""Records against a stored baseline: which numbers moved by more than the repeats' own spread explains.

A number moved when its difference exceeds both what Welch's t-test explains at `ALPHA`, or at
`FAMILY` shared among all numbers of the run where that is stricter, and the resolution of the number
(one sample for errors), or when its status changed, or when it is new or gone. The same seeds on the same versions give
identical numbers, and those never move; the test is for other versions, machines and repeats. Times and memory are not
compared. `samples_read` has no resolution: where repeats always read the same number, any change counts. Verdicts are
compared as words; p-values, ranks and numbers without a spread, from which they follow or which follow others, are not.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import records, registry, statistics, verdict
from bench.interface import UsageError

ALPHA = 1e-3  # most false alarms per number and comparison, two-sided
FAMILY = 0.05  # most false alarms per comparison of a whole run: Bonferroni over its numbers
FORMAT = 1
NOT_COMPARED = (*records.TIMES, "peak_bytes")
WITHOUT_SPREAD = ("attack_p:", "attack_equivalence_p:", "compared_", "klom", "forgetting_score")  # by their beginning
# What may differ between comparable runs: names, machines, and which methods and repeats there are.
NOT_SCIENTIFIC = ("preset", "device", "seeds", "methods", "attack_settings.n_threads")
SMALLEST = 1e-3  # resolution of numbers that do not count samples: AUC, nats, fractions
POOL = "reference"

Place = tuple[str, int, str, str]  # method, step, part, metric


@dataclass(frozen=True)
class Number:
    """One summary over repeats (over models for the reference) as a baseline keeps it.

    `sd` is over the `n` repeats, nan for fewer than two; `samples` counts the samples behind one repeat, 0 if unknown.
    """

    method: str
    step: int
    part: str
    metric: str
    value: float
    sd: float
    n: int
    samples: int
    status: str

    @property
    def place(self) -> Place:
        """What identifies the number within a run."""
        return self.method, self.step, self.part, self.metric


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


def write_baseline(results: records.Results, path: Path) -> None:
    """Write what `compare` needs as JSON, one number a line. Raises UsageError if the file cannot be written."""
    kept = {key: results.run.get(key) for key in ("config_hash", "versions", "seeds", "command")}
    kept["config"] = results.run.get("config") or {}
    kept["verdicts"] = _verdicts(results)
    lines = [json.dumps(_plain(asdict(number))) for number in _numbers(results).values()]
    head = json.dumps({"format": FORMAT, **kept}, indent=1, sort_keys=True)
    text = head.removesuffix("\n}") + ',\n "numbers": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n"
    try:
        records.write_whole(path, text.encode())
    except OSError as error:
        raise UsageError(f"cannot write the baseline {path}: {error.strerror}") from error


def compare(results: records.Results, baseline: Path) -> list[Moved]:
    """The numbers that moved since the baseline, in the order of the results, those that are gone last.

    Raises:
        UsageError: the baseline is missing or damaged, or was made with another configuration.
    """
    config, numbers, verdicts = _read(baseline)
    _require_same_config(results.run.get("config") or {}, config, baseline)
    was, now = {number.place: number for number in numbers}, _numbers(results)
    moved = []
    for place in [*now, *(place for place in was if place not in now)]:
        if place not in was:
            moved.append(Moved(*place, math.nan, now[place].value, math.nan, "is new"))
        elif place not in now:
            moved.append(Moved(*place, was[place].value, math.nan, math.nan, "is gone"))
        elif found := _difference(place, was, now):
            moved.append(found)
    said, step = _verdicts(results), results.run.get("steps", 1) - 1
    return moved + [
        Moved(name, step, "forget", "verdict", math.nan, math.nan, math.nan, f"was {word}, is {said[name]}")
        for name, word in verdicts.items()
        if name in said and said[name] != word
    ]


def _verdicts(results: records.Results) -> dict[str, str]:
    return {name: found.word for name, found in verdict.verdicts(results.run, results.records).items()}


def _difference(place: Place, was: Mapping[Place, Number], now: Mapping[Place, Number]) -> Moved | None:
    a, b = was[place], now[place]
    explained = _explained(place, was, now)
    seen = (*place, a.value, b.value, explained)
    if _reasons(a.status) != _reasons(b.status):
        return Moved(*seen, f"status was {a.status}, is {b.status}")
    if a.value == b.value or (math.isnan(a.value) and math.isnan(b.value)):
        return None
    if math.isnan(a.value) or math.isnan(b.value):
        return Moved(*seen, "has a value now" if math.isnan(a.value) else "has no value now")
    # The margin is for rounding: a difference of exactly one sample is not more than one sample.
    limit = max(0.0 if math.isnan(explained) else explained, _resolution(a, b)) * (1 + 1e-9)
    if abs(b.value - a.value) <= limit:
        return None
    unknown = "beyond its resolution; one repeat tells no spread"
    return Moved(*seen, unknown if math.isnan(explained) else "beyond the spread of the repeats")


def _explained(place: Place, was: Mapping[Place, Number], now: Mapping[Place, Number]) -> float:
    """The difference that chance explains, nan when neither side has a spread."""
    own = [(number.sd, number.n) for number in (was[place], now[place])]
    known = [(sd, n) for sd, n in own if n > 1 and math.isfinite(sd)]
    if not known:
        return math.nan
    if len(known) == 1:  # the only repeat of the other side has the same spread, as far as anyone knows
        [(sd, n)] = known
        known = [(sd * math.sqrt(1 + n), n)]  # variance sd² / 1 + sd² / n, told by n repeats
    method, step, part, metric = place
    pooled = (POOL, step, part, _pool_metric(metric))
    if method != POOL and pooled in was and pooled in now:
        # All repeats are compared with the same pool, so that their own spread does not show how the pool varies.
        known += [(one[pooled].sd, one[pooled].n) for one in (was, now) if math.isfinite(one[pooled].sd)]
    return statistics.explained_difference(known, min(ALPHA, FAMILY / len(now)))


def _pool_metric(metric: str) -> str:
    """The pool's number whose spread enters a number that is measured against the pool; empty for any other."""
    if metric.endswith("_gap"):
        return metric.removesuffix("_gap")
    return metric if metric.startswith("log_entropy_") or metric in ("class_shift_tv", "restored") else ""


def _resolution(was: Number, now: Number) -> float:
    """The difference below which the number cannot tell anything, in its units."""
    samples = min(was.samples, now.samples) or max(was.samples, now.samples)
    if was.metric == "samples_read":
        return 0.0
    if was.metric.startswith(("error", "confusion", "predicted_share")) and samples:
        return 100.0 / samples
    if was.metric in ("log_entropy_ks", "class_shift_tv") and samples:
        return 1.0 / samples
    return SMALLEST


def _reasons(status: str) -> frozenset[str]:
    """What a status says without how often, which varies with the repeats."""
    return frozenset(re.sub(r"^\d+ of \d+ ", "", one) for one in status.split("; "))


def _numbers(results: records.Results) -> dict[Place, Number]:
    """The summaries that are compared; the pool's `_sd` records are in its intervals already."""
    samples = {(r.step, r.part, r.metric): r.n for r in results.records if r.seed != "all" and r.n}
    repeats: dict[Place, list[float]] = {}
    for r in results.records:
        if r.seed != "all":
            repeats.setdefault((r.method, r.step, r.part, r.metric), []).append(r.value)
    numbers = {}
    for r in results.records:
        if r.seed != "all" or r.metric in NOT_COMPARED or r.metric.startswith(WITHOUT_SPREAD):
            continue
        if r.method == POOL and r.metric.endswith("_sd"):
            continue
        values = repeats.get((r.method, r.step, r.part, r.metric))
        spread = statistics.sd(values) if values else statistics.interval_sd(r.low, r.high, r.n)
        size = samples.get((r.step, r.part, r.metric), 0)
        number = Number(r.method, r.step, r.part, r.metric, r.value, spread, r.n, size, r.status)
        numbers[number.place] = number
    return numbers


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in values.items()}


def _read(path: Path) -> tuple[dict[str, Any], list[Number], dict[str, str]]:
    """The config, the numbers and, by method, the verdicts of a baseline file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']} where {FORMAT} is known")
        if not isinstance(content["config"], dict):
            raise TypeError("config is not a table")
        verdicts = {str(name): str(word) for name, word in (content.get("verdicts") or {}).items()}
        return content["config"], [_number(entry) for entry in content["numbers"]], verdicts
    except FileNotFoundError as error:
        raise UsageError(f"no baseline at {path}; write one with --update-baseline") from error
    except OSError as error:
        raise UsageError(f"cannot read the baseline {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        fault = " ".join(str(error).split())
        raise UsageError(f"the baseline {path} is damaged ({fault}); write it again with --update-baseline") from error


def _number(entry: Mapping[str, Any]) -> Number:
    value, sd = (math.nan if entry[key] is None else float(entry[key]) for key in ("value", "sd"))
    step, n, samples = (int(entry[key]) for key in ("step", "n", "samples"))
    method, part, metric, status = (str(entry[key]) for key in ("method", "part", "metric", "status"))
    return Number(method, step, part, metric, value, sd, n, samples, status)


def _require_same_config(ours: Mapping[str, Any], theirs: Mapping[str, Any], path: Path) -> None:
    """Methods may come and go; what both runs have must be configured alike.

    A setting that a method did not have at the time of the baseline counts as its default.
    """
    settings = [dict(config.get("method_settings") or {}) for config in (ours, theirs)]
    common = set(settings[0]) & set(settings[1])
    older = {name: _new_fields(name, settings[0][name], settings[1][name]) | settings[1][name] for name in common}
    now, was = (dict(_flat(config, common)) for config in (ours, {**theirs, "method_settings": older}))
    keys = [key for key in sorted({*now, *was}) if now.get(key) != was.get(key)]
    if keys:
        shown = ", ".join(f"{key} ({now.get(key)!r}, baseline {was.get(key)!r})" for key in keys[:5])
        more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
        raise UsageError(f"the results and the baseline {path} are not comparable: they differ in {shown}{more}")


def _new_fields(name: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that only ours has, where they are at the default of the built-in method."""
    missing = ours.keys() - theirs.keys()
    base = registry.variant(name)[0]
    if not missing or base not in registry.names("methods"):
        return {}
    fields = registry.load("methods", base).model_fields
    return {field: ours[field] for field in missing if field in fields and fields[field].default == ours[field]}


def _flat(config: Mapping[str, Any], methods: set[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The scientific part of a config as dotted keys, with the settings of these methods only."""
    for key, value in config.items():
        name = f"{prefix}{key}"
        if name in NOT_SCIENTIFIC or (prefix == "method_settings." and key not in methods):
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, methods, f"{name}.")
        else:
            yield name, value


def table(moved: list[Moved]) -> str:
    """The moved numbers as a Markdown table."""
    lines = ["| number | was | now | difference | the spread explains | why |", "|---|---:|---:|---:|---:|---|"]
    for one in moved:
        name = f"{one.method}: {one.metric} on {one.part}" + (f", step {one.step}" if one.step else "")
        cells = [_shown(value) for value in (one.was, one.now, one.now - one.was, one.explained)]
        lines.append(" | ".join(["| " + _cell(name), *cells, _cell(one.reason) + " |"]))
    return "\n".join(lines)


def _shown(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.6g}"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
