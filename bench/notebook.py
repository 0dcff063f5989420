"""The benchmark from Python: run a setting or load a results folder, and get its numbers as pandas data frames."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench import arguments, parts, preset, records, surroundings, work
from bench.interface import Record, UsageError
from bench.records import Results
from bench.verdict import verdicts

if TYPE_CHECKING:
    import pandas as pd


class Frames(NamedTuple):
    """A results folder as data frames.

    Attributes:
        records: every number, tidy, with the columns of `records.csv`; `seed` is `all` for a summary over repeats.
        summary: the summaries by method, metric, part and step: value, 95 % interval `low` to `high`, n, status.
        verdicts: a row per method: the verdict, the attacks that found a difference and the grounds (empty without an
            audit), what the method may read, the settings other than its defaults, and its status.
        info: `run.json`: configuration, versions, hardware, where the time went.
        folder: where tables, figures and the page are.
    """

    records: pd.DataFrame
    summary: pd.DataFrame
    verdicts: pd.DataFrame
    info: dict[str, Any]
    folder: Path


def load(folder: str | os.PathLike[str]) -> Frames:
    """A results folder as data frames.

    Raises:
        UsageError: the folder is missing or damaged, or pandas is not installed.
    """
    pd, place = _pandas(), Path(folder)
    results = records.load(place)
    rows = _rows(pd, results)
    levels = ["method", "metric", "part", "step"]
    summary = rows[rows["seed"] == "all"].set_index(levels)[["value", "low", "high", "n", "status"]].sort_index()
    return Frames(rows, summary, _verdicts(pd, results), results.run, place)


def run(
    *,
    scenario: str | None = None,
    methods: str | Sequence[str] | None = None,
    seeds: int | Sequence[int] | None = None,
    attacks: str | Sequence[str] | None = None,
    preset: str = "digits",
    dataset: str | None = None,
    architecture: str | None = None,
    recipe: str | None = None,
    set: Mapping[str, Any] | None = None,
    device: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    jobs: int | None = None,
    backend: str = "local",
    scheduler: str = "",
    store: str | os.PathLike[str] = "store",
    out: str | os.PathLike[str] | None = None,
) -> Frames:
    """Run the benchmark as the command line does, and load what it wrote.

    The arguments are the flags of `run_benchmark.py`; `set={"pgu.gamma": 0.9}` is `--set pgu.gamma=0.9`. What the store
    has is not computed again. A method that fails does not raise: `verdicts.status` says why.

    Raises:
        UsageError: something asked for is impossible, or pandas is not installed; nothing has been computed then.
    """
    _pandas()  # before any work
    if set is not None and not isinstance(set, Mapping):
        raise UsageError(f'set must be a table such as {{"pgu.gamma": 0.9}}, got {set!r}')
    flags = {
        "scenario": scenario, "methods": _listed(methods), "seeds": _listed(seeds), "attacks": _listed(attacks),
        "preset": preset, "dataset": dataset, "architecture": architecture, "recipe": recipe, "device": device,
        "data-dir": data_dir, "jobs": jobs, "backend": backend, "scheduler": scheduler, "store": store, "out": out,
    }  # fmt: skip
    words = [f"--{name}={value}" for name, value in flags.items() if value is not None]
    words += [f"--set={name}={_text(value)}" for name, value in (set or {}).items()]
    chosen = arguments.parser().parse_args(["run", *words])
    with surroundings.having(surroundings.current()):  # a notebook outlives what a command sets for its workers
        work.prepare(chosen)
        parts.require_whole(chosen.preset, "run from Python")
        return load(work.run_one(chosen)[2])


def _listed(value: object) -> str | None:
    """A list as the command line takes it; the last comma tells one number in a list from a count."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        return None if value is None else str(value)
    return "".join(f"{one}," for one in value)


def _text(value: object) -> str:
    return value if isinstance(value, str) else preset.literal(value)


def _pandas() -> Any:
    try:
        import pandas as pd
    except ImportError as error:
        raise UsageError("data frames need pandas, which is not installed: pip install pandas") from error
    return pd


def _rows(pd: Any, results: Results) -> pd.DataFrame:
    place = [results.run[name] for name in ("dataset", "architecture", "scenario")]
    return pd.DataFrame([(*place, *_row(record)) for record in results.records], columns=list(records.COLUMNS))


def _row(r: Record) -> tuple[Any, ...]:
    return r.method, r.seed, r.step, r.part, r.metric, r.value, r.low, r.high, r.n, r.status


def _verdicts(pd: Any, results: Results) -> pd.DataFrame:
    judged = verdicts(results.run, results.records)
    rows = []
    for method in results.run["methods"]:
        one = judged.get(method["name"])
        told = (one.word, ", ".join(one.found_by), one.reason) if one else ("", "", "")
        tuned = ", ".join(f"{name}={value}" for name, value in method.get("tuned", {}).items())
        rows.append((method["name"], *told, ", ".join(method.get("needs", ())), tuned, method["status"]))
    columns = ["method", "verdict", "found_by", "reason", "may_read", "tuned", "status"]
    return pd.DataFrame(rows, columns=columns).set_index("method")
