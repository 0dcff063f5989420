"""What `list` prints: every plug-in, scenario, preset and recipe with one line, its needs and its citation."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

from bench import layers, preset, recipe, registry, scenarios
from bench.interface import UsageError


def text(kind: str | None = None) -> str:
    """The catalog as text; `kind` picks one section. Raises UsageError for an unknown section."""
    sections = {
        "methods": _methods,
        "scenarios": _scenarios,
        "datasets": lambda: _files("datasets"),
        "architectures": _architectures,
        "attacks": _attacks,
        "presets": _presets,
        "recipes": _recipes,
    }
    if kind is not None and kind not in sections:
        raise registry.unknown("section", kind, sections)
    parts = []
    for name, rows in sections.items():
        if kind in (None, name):
            parts.append("\n".join([f"{name}:", *_aligned(rows())]))
    return "\n\n".join(parts)


@dataclass(frozen=True)
class _Entry:
    """A name, what it is in one line, and what stands below that line, if anything."""

    name: str
    summary: str
    extra: str = ""


def _aligned(entries: Sequence[_Entry]) -> list[str]:
    """The entries as lines, the names in a column as wide as the longest."""
    room = max([len(entry.name) for entry in entries], default=0)
    below = " " * (room + 3)
    return [
        f"  {entry.name:{room}} {entry.summary}" + (f"\n{below}{entry.extra}" if entry.extra else "")
        for entry in entries
    ]


def _methods() -> list[_Entry]:
    rows = []
    for name in registry.names("methods"):
        try:
            cls = registry.load("methods", name)
        except UsageError as error:  # a broken plug-in is listed as such; the others still are
            rows.append(_Entry(name, f"does not load: {error}"))
            continue
        needs = " + ".join(cls.needs.words()) or "nothing"
        skipped = [scenario for scenario in scenarios.KINDS if scenario not in cls.supports]
        extra = f"needs {needs}" + (f"; cites {cls.cite}" if cls.cite else "")
        rows.append(
            _Entry(
                name, registry.summary("methods", name), extra + (f"; not for {', '.join(skipped)}" if skipped else "")
            )
        )
    return rows


def _scenarios() -> list[_Entry]:
    rows = []
    for name, cls in scenarios.KINDS.items():
        fields = ", ".join(f"{field}={info.default!r}" for field, info in cls.model_fields.items())
        summary = (inspect.getdoc(cls) or "").split("\n")[0].rstrip(".")
        rows.append(_Entry(name, summary, f"{fields}; cites {cls.cite}"))
    return rows


def _files(kind: str) -> list[_Entry]:
    return [_Entry(name, registry.summary(kind, name)) for name in registry.names(kind)]


def _architectures() -> list[_Entry]:
    rows = []
    for name in registry.names("architectures"):
        listed = layers.published(name)
        extra = f"{len(listed)} layers: {', '.join(listed)}" if listed else "lists no layers; all count as they run"
        rows.append(_Entry(name, registry.summary("architectures", name), extra))
    return rows


def _attacks() -> list[_Entry]:
    rows = []
    for name in registry.names("attacks"):
        try:
            cls = registry.load("attacks", name)
        except UsageError as error:
            rows.append(_Entry(name, f"does not load: {error}"))
            continue
        facts = [KNOWS[cls.knows], *(["labels only"] if cls.views else []), *(["decides"] if cls.headline else [])]
        extra = ", ".join(facts) + (f"; cites {cls.cite}" if cls.cite else "")
        rows.append(_Entry(name, registry.summary("attacks", name), extra))
    return rows


KNOWS = {"unlearned": "knows the method", "original": "knows the original", "model": "knows one model"}


def _presets() -> list[_Entry]:
    known = preset.names()
    return [_Entry(name, recipe.read_toml("preset", name, known).get("about", "")) for name in known]


def _recipes() -> list[_Entry]:
    rows = []
    for name in recipe.recipes():
        rows.append(_Entry(name, recipe.load_recipe(name).line()))
    return rows
