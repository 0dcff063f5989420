"""How far a run is from the setting of a published table, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from reports import words
from reports.numbers import PAPERS_ATTACK

PARTS = {
    "train": "the first {} training images",
    "classes": "the first {} classes",
    "validation": "{} validation images",
    "test": "{} test images",
}
CLASSES = {"tinyimagenet": 200}  # of which a copy may have fewer
COLUMNS = "the column's"
TOLD = ("recipe", "shadow", "scenario")  # sections whose changes by hand are told from the values


def departures(
    run: Mapping[str, Any], published: Mapping[str, Any], column: Mapping[str, Any], repeats: int
) -> Iterator[str]:
    """What of a run is other than in the published table (in this column of it), one phrase each."""
    setting = published["setting"]
    yield from _named("data set", run["dataset"], setting["dataset"], PARTS)
    whole, there = CLASSES.get(run["dataset"], 0), len(run.get("class_names", ()))
    if whole and there != whole:
        yield f"a copy of {there} of {whole} classes"
    yield from _named("architecture", run["architecture"], setting["architecture"], {})
    recipe, changes = run.get("recipe", {}).get("name", "unnamed"), run.get("recipe_changes")
    if changes or recipe not in setting["recipes"]:
        yield f"recipe {recipe}" + (f" with {words.settings(changes)}" if changes else "")
    given = run.get("config", {}).get("scenario_settings", {})
    for name, value in {**published["request"], **column}.items():
        if name in given and given[name] != value:
            yield f"{name} {given[name]} instead of {COLUMNS if name in column else value}"
    if len(run["seeds"]) != repeats:
        yield f"{len(run['seeds'])} seeds instead of {repeats}"
    yield from _attack(run, setting)
    config = run.get("config", {})
    if not str(config.get("preset", "paper-")).startswith("paper-"):
        yield f"the preset {config['preset']} and what it sets"
    if config.get("time_limit") is not None:
        yield f"a time limit of {config['time_limit']:g} s"
    for change in run.get("changes", ()):
        if change.partition(".")[0] not in (*TOLD, run["scenario"]):
            yield f"{change} by hand"


def _named(what: str, entry: str, wanted: str, parts: Mapping[str, str]) -> Iterator[str]:
    """A name such as `cifar10+train=2500` against the paper's."""
    base, *changes = entry.split("+")
    if base != wanted:
        yield f"{what} {base}"
    for change in changes:
        name, _, value = change.partition("=")
        number = f"{int(value):,}" if value.isdigit() else value
        yield parts.get(name, f"{name} {{}}").format(number)


def _attack(run: Mapping[str, Any], setting: Mapping[str, Any]) -> Iterator[str]:
    """The number of pairs of models that the attack learned from, where the paper has one and there was an attack."""
    shadow = run.get("shadow", {})
    pairs = shadow.get("train", 0) + shadow.get("validation", 0)
    audit = (run.get("audit") or {}).get("attacks") or ()
    attacked = run.get("config", {}).get("attack") or any(one["name"] == PAPERS_ATTACK for one in audit)
    if "pairs" in setting and attacked and shadow and pairs != setting["pairs"]:
        yield f"an attack that learned from {pairs} pairs of models instead of {setting['pairs']}"
