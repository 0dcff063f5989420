"""What `list` prints: every plug-in, scenario, preset and recipe with one line, its needs and its citation."""

from __future__ import annotations

import inspect

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
            parts.append("\n".join([f"{name}:", *rows()]))
    return "\n\n".join(parts)


def _line(name: str, summary: str, extra: str = "") -> str:
    return f"  {name:16} {summary}" + (f"\n{'':19}{extra}" if extra else "")


def _methods() -> list[str]:
    rows = []
    for name in registry.names("methods"):
        try:
            cls = registry.load("methods", name)
        except UsageError as error:  # a broken plug-in is listed as such; the others still are
            rows.append(_line(name, f"does not load: {error}"))
            continue
        needs = " + ".join(cls.needs.words()) or "nothing"
        skipped = [scenario for scenario in scenarios.KINDS if scenario not in cls.supports]
        extra = f"needs {needs}" + (f"; cites {cls.cite}" if cls.cite else "")
        rows.append(
            _line(
                name, registry.summary("methods", name), extra + (f"; not for {', '.join(skipped)}" if skipped else "")
            )
        )
    return rows


def _scenarios() -> list[str]:
    rows = []
    for name, cls in scenarios.KINDS.items():
        fields = ", ".join(f"{field}={info.default!r}" for field, info in cls.model_fields.items())
        summary = (inspect.getdoc(cls) or "").split("\n")[0].rstrip(".")
        rows.append(_line(name, summary, f"{fields}; cites {cls.cite}"))
    return rows


def _files(kind: str) -> list[str]:
    return [_line(name, registry.summary(kind, name)) for name in registry.names(kind)]


def _architectures() -> list[str]:
    rows = []
    for name in registry.names("architectures"):
        listed = layers.published(name)
        extra = f"{len(listed)} layers: {', '.join(listed)}" if listed else "lists no layers; all count as they run"
        rows.append(_line(name, registry.summary("architectures", name), extra))
    return rows


def _attacks() -> list[str]:
    rows = []
    for name in registry.names("attacks"):
        try:
            cls = registry.load("attacks", name)
        except UsageError as error:
            rows.append(_line(name, f"does not load: {error}"))
            continue
        facts = [KNOWS[cls.knows], *(["labels only"] if cls.views else []), *(["decides"] if cls.headline else [])]
        extra = ", ".join(facts) + (f"; cites {cls.cite}" if cls.cite else "")
        rows.append(_line(name, registry.summary("attacks", name), extra))
    return rows


KNOWS = {"unlearned": "knows the method", "original": "knows the original", "model": "knows one model"}


def _presets() -> list[str]:
    known = preset.names()
    return [_line(name, recipe.read_toml("preset", name, known).get("about", "")) for name in known]


def _recipes() -> list[str]:
    rows = []
    for name in recipe.recipes():
        rows.append(_line(name, recipe.load_recipe(name).line()))
    return rows
