"""What one can choose on the command line and in presets: lists of plug-ins, numbers, and changes with `--set`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import registry
from bench.interface import UsageError

BASELINES = ("original", "retrain")  # rows that every table has
QUICK = ("pgu", "scrub")  # the methods of a preset that names none


def bases(methods: Sequence[str]) -> list[str]:
    """Names and paths of the methods without their changes, once each."""
    return list(dict.fromkeys(registry.variant(entry)[0] for entry in methods))


def preset_key(entry: str) -> str:
    """How a preset speaks of what the user typed for a method: a file by its name, which is no built-in's namesake."""
    base, _ = registry.variant(entry)
    return Path(base).name + entry[len(base) :]


def short(entry: str) -> str:
    """The name of a row's method without its changes: a path's stem, any other name as it is."""
    return registry.short_name(registry.variant(entry)[0])


def shorts(methods: Sequence[str]) -> set[str]:
    """The short names of these methods and of the rows that every table has."""
    return {registry.short_name(base) for base in bases(methods)} | set(BASELINES)


def require_named(preset: str, run: Mapping[str, Any], flags: Mapping[str, Any]) -> None:
    """Raise UsageError where a preset names a file of code that the user has not named: settings run nothing."""
    for name in ("dataset", "architecture", "methods", "attacks"):
        if flags.get(name) is not None or name not in run:
            continue
        entries = listed(name, run[name]) if name in ("methods", "attacks") else [run[name]]
        if files := [one for one in entries if registry.variant(one)[0].endswith(".py")]:
            raise UsageError(
                f"the preset {preset} names {files[0]}, which is code and runs only if you name it yourself: "
                f"--{name} {','.join(entries)}"
            )


def methods(chosen: str | Sequence[str]) -> tuple[str, ...]:
    """Method names or paths, perhaps with changes, in order and once each; `all` stands for every registered one."""
    found = listed("methods", chosen)
    if not found:
        raise UsageError("no methods given; --methods takes a comma list such as pgu,scrub, or all")
    return found


def attacks(chosen: str | Sequence[str]) -> tuple[str, ...]:
    """Attack names or paths, in order and once each; `all` stands for every registered one, `none` for none."""
    found = listed("attacks", chosen)
    if not found or ("none" in found and len(found) > 1):
        raise UsageError(
            f"--attacks takes a comma list such as per_example,shadow_xgboost, all or none, got {chosen!r}"
        )
    return () if found == ("none",) else found


def listed(kind: str, chosen: str | Sequence[str]) -> tuple[str, ...]:
    """What a comma list names, in order and once each; `all` stands for every registered plug-in."""
    outside_brackets = r",(?![^\[{]*[\]}])"
    found = [part.strip() for part in re.split(outside_brackets, chosen)] if isinstance(chosen, str) else list(chosen)
    found = [name for name in found if name]
    if "all" in found:
        at = found.index("all")
        found[at : at + 1] = registry.names(kind)
    return tuple(dict.fromkeys(found))


def whole(name: str, value: Any) -> int:
    """A whole number from 0; raises UsageError, which names the flag, for anything else."""
    try:
        number = int(str(value))
    except ValueError:
        number = -1
    if number < 0:
        raise UsageError(f"{name} must be a whole number from 0, got {value!r}")
    return number


def seconds(value: Any) -> float | None:
    """A number of seconds above 0, or None where none is given; raises UsageError for anything else."""
    if value is None:
        return None
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise UsageError(f"--time-limit must be a number of seconds above 0, got {value!r}")
    return seconds


def seeds(value: Any) -> tuple[int, ...]:
    """`5` means the repeats 0 to 4; `0,3`, or a list in a preset, exactly these."""
    parts = value.split(",") if isinstance(value, str) and "," in value else value
    if isinstance(parts, list | tuple):
        given = [part for part in map(str, parts) if part.strip()]
        chosen = tuple(dict.fromkeys(whole("--seeds", part.strip()) for part in given))
    else:
        chosen = tuple(range(min(whole("--seeds", value), 1001)))
    if not 1 <= len(chosen) <= 1000:
        raise UsageError(f"--seeds needs between 1 and 1000 repeats, got {value!r}")
    return chosen


SECTIONS = ("recipe", "shadow", "scenario", "audit", "deep")


def editable(run: Mapping[str, Any]) -> dict[str, str]:
    """What `--set` can name in a run, with its section: a section, the scenario, an attack, a method."""
    found = [registry.short_name(entry) for entry in attacks(run.get("attacks", "all"))]
    own = {name: name for name in (*SECTIONS, *found, *shorts(methods(run.get("methods", QUICK))))}
    return own | {run.get("scenario", "class_removal"): "scenario"}


def edits(changes: Sequence[str], run: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """`--set part.field=value` by section or method."""
    edits: dict[str, dict[str, Any]] = {}
    known = editable(run)
    for change in changes:
        name, dot, rest = change.partition(".")
        field, equals, text = rest.partition("=")
        if not (dot and equals and name and field):
            raise UsageError(f"--set takes part.field=value, such as pgu.gamma=0.9, got {change!r}")
        if name not in known:
            raise registry.unknown("part in --set (a method of this run, or a section)", name, known)
        edits.setdefault(known[name], {})[field] = registry.value(text)
    return edits
