"""A stored baseline: the numbers of a run that later runs are compared with, as a JSON file of one number a line.

A number is a summary over repeats with its spread. Left out is what follows from others (gaps, p-values, ranks) and
what depends on the machine (seconds, bytes). Verdicts are kept as words, times as ratios to retraining in the same run.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import records, registry, statistics, untrusted, verdict
from bench.interface import Record, UsageError

FORMAT = 1
POOL, YARDSTICK = "reference", "retrain"
TIME = "time_ratio"  # geometric mean of request time over retraining time, repeat by repeat; its sd is of the logarithm
SHORTEST = 1e-3  # seconds of a request below which its time is the clock's
# What may differ between comparable runs: names, machines, and which methods, repeats and models there are.
NOT_SCIENTIFIC = ("preset", "device", "seeds", "shadow.first", "methods", "attack_settings.n_threads")
NOT_COMPARED = (*records.TIMES, "peak_bytes")
# By their beginning: what follows from others; what has no interval, or one that takes the retrained models as given.
FOLLOWING = ("attack_p:", "attack_equivalence_p:", "attack_rate_gap:", "compared_")
NO_SPREAD = ("klom", "forgetting_score", "phi_above", "phi_below")

Place = tuple[str, int, str, str]  # method, step, part, metric


@dataclass(frozen=True)
class Number:
    """One summary over repeats (over models for the reference and for attacks).

    `sd` is such that sd / sqrt(n) is the standard error of the value, nan for fewer than two of the `n` repeats;
    `samples` counts the samples behind one repeat, 0 if unknown.
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
class Baseline:
    """What a baseline file holds: the configuration of its run, its numbers, and its verdicts by method."""

    config: Mapping[str, Any]
    numbers: Mapping[Place, Number]
    verdicts: Mapping[str, str]


def of(results: records.Results) -> Baseline:
    """What a baseline keeps of a run."""
    found = [*_summaries(results), *_times(results)]
    words = {name: one.word for name, one in verdict.verdicts(results.run, results.records).items()}
    return Baseline(results.run.get("config") or {}, {number.place: number for number in found}, words)


def write(results: records.Results, path: Path) -> None:
    """Write a run's baseline. Raises UsageError if the file cannot be written, or is something else than a baseline."""
    if path.is_file():
        _require_baseline(path)
    made = of(results)
    kept = {key: results.run.get(key) for key in ("config_hash", "versions", "seeds", "command")}
    head = json.dumps(
        {"format": FORMAT, **kept, "config": made.config, "verdicts": made.verdicts}, indent=1, sort_keys=True
    )
    lines = [json.dumps(_plain(asdict(number))) for number in made.numbers.values()]
    text = head.removesuffix("\n}") + ',\n "numbers": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n"
    try:
        records.write_whole(path, text.encode())
    except OSError as error:
        raise UsageError(f"cannot write the baseline {path}: {error.strerror}") from error


def _require_baseline(path: Path) -> None:
    """Raise UsageError where writing would overwrite something else."""
    try:
        _content(path)
    except UsageError as error:
        raise UsageError(
            f"{path} is there and is no baseline; name another file with --baseline, or delete it"
        ) from error


def read(path: Path) -> Baseline:
    """Read a baseline file. Raises UsageError, in one line, for one that is missing or damaged."""
    content = _content(path)
    try:
        numbers = [_number(entry) for entry in content["numbers"]]
        verdicts = {str(name): str(word) for name, word in (content.get("verdicts") or {}).items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, error) from error
    # A file of an earlier version may hold numbers that are no longer compared.
    return Baseline(content["config"], {one.place: one for one in numbers if _compared(one.metric)}, verdicts)


def digest(path: Path) -> str:
    """Twelve hexadecimal digits of the SHA-256 of all that a baseline says but times, versions and the command.

    The changelog names it, so that no number moves without a reason. Raises as `read` does.
    """
    content = _content(path)
    try:
        numbers = [entry for entry in content["numbers"] if entry["metric"] != TIME]
    except (KeyError, TypeError) as error:
        raise _damaged(path, error) from error
    said = [content["config"], numbers, content.get("verdicts")]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]


def _content(path: Path) -> dict[str, Any]:
    try:
        content = untrusted.from_json(path)
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']} where {FORMAT} is known")
        if not isinstance(content["config"], dict):
            raise TypeError("config is not a table")
        return dict(content)
    except FileNotFoundError as error:
        raise UsageError(f"no baseline at {path}; write one with --update-baseline") from error
    except OSError as error:
        raise UsageError(f"cannot read the baseline {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UsageError:
    fault = " ".join(str(error).split())
    return UsageError(f"the baseline {path} is damaged ({fault}); delete it and write it again with --update-baseline")


def _number(entry: Mapping[str, Any]) -> Number:
    value, sd = (math.nan if entry[key] is None else float(entry[key]) for key in ("value", "sd"))
    step, n, samples = (int(entry[key]) for key in ("step", "n", "samples"))
    method, part, metric, status = (str(entry[key]) for key in ("method", "part", "metric", "status"))
    if min(step, n, samples) < 0 or sd < 0 or (n < 1 and math.isfinite(value)) or (metric == TIME and value <= 0):
        raise ValueError(f"{metric} of {method} has a value, spread or size that cannot be")
    return Number(method, step, part, metric, value, sd, n, samples, status)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in values.items()}


def require_same_config(ours: Mapping[str, Any], theirs: Mapping[str, Any], path: Path) -> None:
    """Raise UsageError, in one line, unless what both runs have is configured alike; methods may come and go.

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


def _compared(metric: str) -> bool:
    return not (metric in NOT_COMPARED or metric.startswith(FOLLOWING + NO_SPREAD) or metric.endswith("_gap"))


def _summaries(results: records.Results) -> Iterator[Number]:
    """The summaries that are compared; the pool's `_sd` records are the spreads of its numbers."""
    samples = {(r.step, r.part): r.n for r in results.records if r.seed != "all" and r.metric.startswith("error")}
    repeats, deviations = _by_repeat(results), _deviations(results)
    for r in results.records:
        if r.seed != "all" or not _compared(r.metric) or (r.method == POOL and r.metric.endswith("_sd")):
            continue
        own = repeats.get((r.method, r.step, r.part, r.metric), {})
        told = deviations.get((r.step, r.part, r.metric)) if r.method == POOL else None
        spread = statistics.sd([*own.values()]) if own and not r.metric.startswith("attack_") else _interval_sd(r)
        spread = spread if told is None else told
        parts = (r.part, "retained_test", "test") if r.part == "unseen" else (r.part,)  # `unseen` is of the test data
        size = next((samples[r.step, part] for part in parts if (r.step, part) in samples), 0)
        yield Number(r.method, r.step, r.part, r.metric, r.value, spread, r.n, size, r.status)


def _deviations(results: records.Results) -> dict[tuple[int, str, str], float]:
    """The spreads of the pool's numbers by step, part and metric; an interval that ends at 0 tells less than these."""
    return {
        (r.step, r.part, r.metric.removesuffix("_sd")): r.value
        for r in results.records
        if r.method == POOL and r.metric.endswith("_sd")
    }


def _interval_sd(record: Record) -> float:
    """The spread behind an interval; of an attack it covers the retrained models too, which its repeats do not."""
    return statistics.interval_sd(record.low, record.high, record.n)


def _times(results: records.Results) -> Iterator[Number]:
    """Request times as shares of retraining's, where both were timed by one process and are long enough to tell."""
    elsewhere = results.run.get("timed_elsewhere", [])
    times = {place[:2]: own for place, own in _by_repeat(results).items() if place[3] == "seconds_request"}
    for (method, step), own in times.items():
        yardstick = times.get((YARDSTICK, step), {})
        pairs = [(own[seed], yardstick[seed]) for seed in own if seed in yardstick]
        if method == YARDSTICK or method in elsewhere or not pairs or min(min(pair) for pair in pairs) < SHORTEST:
            continue
        logs = [math.log(ours / theirs) for ours, theirs in pairs]
        ratio = math.exp(math.fsum(logs) / len(logs))
        yield Number(method, step, "-", TIME, ratio, statistics.sd(logs), len(logs), 0, "ok")


def _by_repeat(results: records.Results) -> dict[Place, dict[str, float]]:
    """The values of the repeats, by place and seed."""
    found: dict[Place, dict[str, float]] = {}
    for r in results.records:
        if r.seed != "all":
            found.setdefault((r.method, r.step, r.part, r.metric), {})[r.seed] = r.value
    return found
