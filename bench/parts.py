"""Presets of several parts: one command that carries out several runs, each in a folder of its own.

`--set` and the other flags hold for every part; a change that names a method or a scenario is made in the parts that
have it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench import choices, config, registry, scenarios
from bench import preset as presets
from bench.config import Config
from bench.interface import UsageError


@dataclass(frozen=True)
class Cell:
    """One run of a preset: `folder` is its place in the results, `run` and `changes` go over the preset's tables."""

    folder: str
    preset: str
    run: Mapping[str, Any]
    changes: tuple[str, ...]


def require_whole(preset: str, verb: str) -> None:
    """Raise UsageError for a preset that has parts where a `verb` takes one setting."""
    if found := presets.parts(preset):
        names = ", ".join(part.name for part in found)
        own = f"write a preset that has {preset} as its base, which takes over no parts"
        hint = "name the preset of one of them" if all(part.preset for part in found) else own
        raise UsageError(f"{verb} takes one setting, but the preset {preset} has the parts {names}; {hint}")


def cells(preset: str) -> list[Cell]:
    """The runs of a preset that has parts, in order, those of parts that have parts in their place; [] for any other.

    Raises UsageError for a preset that is a part of itself.
    """
    return _cells(preset, ()) if presets.parts(preset) else []


def _cells(preset: str, above: tuple[str, ...]) -> list[Cell]:
    if preset in above:
        raise UsageError(f"the preset {preset} is a part of itself; drop it from the parts of {above[-1]}")
    found = []
    for part in presets.parts(preset):
        inner = _cells(part.preset, (*above, preset)) if part.preset else []
        for cell in inner or [Cell("", part.preset or preset, {}, ())]:
            place = f"{part.name}/{cell.folder}".rstrip("/")
            found.append(Cell(place, cell.preset, {**cell.run, **part.run}, (*cell.changes, *part.set)))
    return found


def resolve(preset: str, flags: Mapping[str, Any], changes: Sequence[str] = ()) -> dict[str, Config]:
    """The config of every run of a preset that has parts, by folder; all are checked before any is carried out.

    Raises UsageError as `config.resolve` does, and for a change that fits no part.
    """
    if flags.get("scenario"):
        raise UsageError(f"--scenario does not go with the preset {preset}, whose parts have scenarios of their own")
    given = {name: value for name, value in flags.items() if value is not None}
    found = {cell.folder: cell for cell in cells(preset)}
    own = {folder: presets.load(cell.preset).get("run", {}) | cell.run for folder, cell in found.items()}
    for run in own.values():
        choices.require_named(preset, run, flags)
    runs = {folder: run | given for folder, run in own.items()}
    fitting = {change: _fitting(change, runs) for change in changes}
    return {
        folder: config.resolve(
            cell.preset,
            {**cell.run, **given},
            [change for change in changes if folder in fitting[change]],
            part=[change for change in cell.changes if not _gone(change, own[folder], runs[folder])],
        )
        for folder, cell in found.items()
    }


def _gone(change: str, own: Mapping[str, Any], run: Mapping[str, Any]) -> bool:
    """Whether a part's change names what the flags have taken out of the run, such as a method with `--methods`."""
    name = change.partition(".")[0]
    return run != own and name in choices.editable(own) and name not in choices.editable(run)


def _fitting(change: str, runs: Mapping[str, Mapping[str, Any]]) -> Collection[str]:
    """The parts that know what a change names; raises UsageError where no part does."""
    name, _, rest = change.partition(".")
    field = rest.partition("=")[0]
    if not (rest and field):
        return runs  # not a change at all, as the first will say
    named = [folder for folder, run in runs.items() if name in choices.editable(run)]
    if not named:
        known = {one for run in runs.values() for one in choices.editable(run)}
        raise registry.unknown("part in --set (a method of these runs, or a section)", name, known)
    if name != "scenario":
        return named
    kinds = {folder: scenarios.KINDS.get(runs[folder].get("scenario", "class_removal")) for folder in named}
    return [folder for folder, kind in kinds.items() if kind and field in kind.model_fields] or named
