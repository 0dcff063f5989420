"""Reads and writes preset files: tables of settings over those of a base preset, and where tuned values come from.

A preset is a TOML file with, perhaps, the name of a `base` preset that it changes, and the tables `[run]`, `[recipe]`,
`[shadow]`, `[audit]`, `[deep]`, `[scenario.NAME]`, `[attack.NAME]`, `[method.NAME]` and, for values that differ by
scenario, `[tuned.SCENARIO.NAME]`. NAME of a method from a file is the file's name with `.py`; `"none"` is no value, for
fields that may be without one. `[provenance]` is what `tune` writes beside the values that it chose. A preset may also
list parts, `[[part]]`, which one command runs one after another; see `Part`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from bench import registry, scenarios
from bench.interface import UsageError
from bench.recipe import FOLDER, Strict, describe, read_toml

NOTHING = "none"  # what stands for the value None

# The tables of reports/paper.toml, one column of it where a run makes only that, and the figure with a run of its own.
Published = Literal[
    "", "table1", "table2", "table3", "table4.5k", "table4.10k", "table4.15k", "table4.20k", "table4.25k", "figure4"
]


class RunTable(Strict):
    """The table `[run]` of a preset."""

    dataset: str = ""
    architecture: str = ""
    recipe: str = ""
    scenario: str = ""
    methods: str | tuple[str, ...] = ()
    attacks: str | tuple[str, ...] = ()
    seeds: Any = None
    seed: Any = None
    device: str = ""
    time_limit: Any = None
    published: Published = ""  # whose published numbers a report compares with


class Part(Strict):
    """One run of a preset that makes several.

    `name` is that of its folder in the results. Its settings are those of another `preset`, or of the one that lists
    it, with `run` over that one's `[run]` and with the changes `set`, written as for `--set`.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=60)
    preset: str = ""
    run: dict[str, Any] = {}
    set: tuple[str, ...] = ()


class Score(Strict, allow_inf_nan=True):
    """What tuning a method in a scenario came to: mean scores in points, lower is better; `inf` where runs failed."""

    settings: str  # "tuned", or "defaults" where nothing that was tried was better
    defaults: float
    chosen: float
    trials: int


class Provenance(Strict):
    """Where tuned values come from: one `tune` command."""

    command: str
    date: str
    commit: str
    versions: dict[str, str]
    hardware: dict[str, Any]
    dataset: str
    architecture: str
    recipe: str
    seed: int
    trials: int
    draws: int
    originals: int
    development: dict[str, tuple[dict[str, Any], ...]]  # by scenario, the draws that were chosen on
    scores: dict[str, dict[str, Score]]  # by scenario and method


class Preset(Strict):
    """The tables of a preset file; what is in them is checked where it is used."""

    about: str = ""
    base: str = ""
    run: dict[str, Any] = {}
    recipe: dict[str, Any] = {}
    shadow: dict[str, Any] = {}
    audit: dict[str, Any] = {}
    deep: dict[str, Any] = {}
    scenario: dict[str, dict[str, Any]] = {}
    method: dict[str, dict[str, Any]] = {}
    tuned: dict[str, dict[str, dict[str, Any]]] = {}
    attack: dict[str, dict[str, Any]] = {}
    provenance: Provenance | None = None
    part: tuple[Part, ...] = ()


def names() -> dict[str, Path]:
    """The presets that come with the benchmark, by name."""
    return {path.stem: path for path in sorted((FOLDER / "presets").glob("*.toml"))}


def load(name: str) -> dict[str, Any]:
    """The tables of a preset, over those of its base, checked for strange names and for their shape.

    `provenance` says, by scenario and method, which preset tuned the values and how. Parts are not among them, and
    those of a base are not taken over.
    """
    tables = _read(name)
    passed = [name]
    while base := tables.pop("base", ""):
        if base in passed:
            raise UsageError(f"the presets {' and '.join(passed)} are each other's base; drop one of them")
        passed.append(base)
        tables = _over(_read(base), tables)
    _checked(tables.get("run", {}), f"[run] in the preset {name}", RunTable)
    if strange := [
        key
        for table in ("scenario", "tuned", "provenance")
        for key in tables.get(table, {})
        if key not in scenarios.KINDS
    ]:
        raise registry.unknown("scenario", strange[0], scenarios.KINDS)
    return tables


def parts(name: str) -> tuple[Part, ...]:
    """The parts that a preset lists itself. Raises UsageError for two of one name, and as `load` does."""
    preset: Preset = _checked(read_toml("preset", name, names()), f"preset {name}", Preset)
    for number, part in enumerate(preset.part):
        _checked(part.run, f"run of the part {part.name} in the preset {name}", RunTable)
        if part.name.lower() == "paper.md":
            raise UsageError(
                f"the preset {name} has a part called {part.name}, which is a file of the results; rename it"
            )
        if any(part.name.lower() == other.name.lower() for other in preset.part[:number]):
            raise UsageError(f"the preset {name} has two parts called {part.name}; each needs a name of its own")
    return preset.part


def family(name: str) -> Iterator[Path]:
    """The files of a preset that loads, of its base, and so on."""
    while name:
        yield (Path(name) if name.endswith(".toml") else names()[name]).resolve()
        name = read_toml("preset", name, names()).get("base", "")


def _read(name: str) -> dict[str, Any]:
    tables = read_toml("preset", name, names())
    preset = _checked(tables, f"preset {name}", Preset)
    for scenario, draws in (preset.provenance.development if preset.provenance else {}).items():
        for draw in draws:
            scenarios.create(scenario, draw)  # what a report will read from it
    own = {key: value for key, value in tables.items() if key != "part"}
    return own | {"provenance": _credits(Path(name).stem, preset.provenance)}


def _checked(tables: Mapping[str, Any], what: str, cls: type[BaseModel]) -> Any:
    try:
        return cls(**tables)
    except ValidationError as error:
        raise UsageError(describe(error, what, cls)) from error


def _credits(preset: str, source: Provenance | None) -> dict[str, dict[str, dict[str, Any]]]:
    """By scenario and method, what a report says about the source of tuned values."""
    if source is None:
        return {}
    common = {"preset": preset} | source.model_dump(include={"date", "commit", "dataset", "architecture"})
    return {
        scenario: {
            name: common | {"trials": score.trials, "draws": list(source.development.get(scenario, ()))}
            for name, score in scores.items()
        }
        for scenario, scores in source.scores.items()
    }


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """A preset over its base. What it sets for every scenario also replaces what the base tuned for one.

    A value that is set anew no longer comes from where the base's was found.
    """
    general = above.get("method", {})
    tuned = {
        scenario: {
            name: {field: value for field, value in values.items() if field not in general.get(name, {})}
            for name, values in methods.items()
        }
        for scenario, methods in below.get("tuned", {}).items()
    }
    credits = {
        scenario: {
            name: credit
            for name, credit in methods.items()
            if name not in {*general, *above.get("tuned", {}).get(scenario, {})}
        }
        for scenario, methods in below.get("provenance", {}).items()
    }
    return _merged({**below, "tuned": tuned, "provenance": credits}, above)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Tables over tables: a value above replaces the one below, tables are merged."""
    shared = [key for key in below if isinstance(below[key], dict) and isinstance(above.get(key), dict)]
    return {**below, **above, **{key: _merged(below[key], above[key]) for key in shared}}


def text(tables: Mapping[str, Any]) -> str:
    """These tables as a TOML file; innermost tables stand on one line each. Values are those of TOML, and None."""
    return "\n".join(_lines("", tables)) + "\n"


def _lines(path: str, table: Mapping[str, Any]) -> Iterator[str]:
    below = {name: value for name, value in table.items() if isinstance(value, Mapping) and _has_header(path, value)}
    own = {name: value for name, value in table.items() if name not in below}
    if path and own:
        yield f"\n[{path}]"
    yield from (f"{_key(name)} = {literal(value)}" for name, value in own.items())
    for name, value in below.items():
        yield from _lines(f"{path}.{_key(name)}" if path else _key(name), value)


def _has_header(path: str, table: Mapping[str, Any]) -> bool:
    return bool(table) and (not path or any(isinstance(value, Mapping) for value in table.values()))


def _key(name: str) -> str:
    bare = name and all(c.isascii() and (c.isalnum() or c in "_-") for c in name)
    return name if bare else _quoted(name)


def literal(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(str(k))} = {literal(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(literal, value)) + "]"
    if isinstance(value, str) or value is None:
        return _quoted(NOTHING if value is None else value)
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
