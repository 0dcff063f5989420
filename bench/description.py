"""What a run says of itself in `run.json`: configuration, methods, audit, versions, hardware and where time went."""

from __future__ import annotations

import contextlib
import datetime
from pathlib import Path
from typing import Any

import numpy as np

from bench import cluster, handbook, machine, memorization, plan, references, registry, runner, scenarios, store
from bench.config import Config
from bench.interface import Method, UsageError
from bench.recipe import load_recipe


def config_hash(config: Config) -> str:
    """Eight hexadecimal digits that name this configuration."""
    return store.key(config=scientific(config))[:8]


# What decides no number, or is written out otherwise.
UNSCIENTIFIC = {"method_settings", "scenario_settings", "methods", "provenance", "published", "changes"}


def scientific(config: Config) -> dict[str, Any]:
    """The config as plain values, settings of every row written out."""
    unasked = set() if config.audit.level == "deep" else {"deep"}
    values = config.model_dump(mode="json", exclude=UNSCIENTIFIC | unasked)
    values["methods"] = config.rows()
    values["scenario_settings"] = config.scenario_settings.model_dump(mode="json")
    values["method_settings"] = {name: config.method(name).model_dump(mode="json") for name in config.rows()}
    return values


def describe(
    planned: plan.Plan, entries: store.Store, failures: dict[str, str], clock: runner.Clock, command: str
) -> dict[str, Any]:
    """The contents of `run.json`."""
    config = planned.config
    methods = [_method(planned, entries, row, failures) for row in planned.rows]
    return {
        "title": f"{config.scenario} · {planned.dataset.name} · {network(config)}",
        "command": command,
        "config": scientific(config),
        "config_hash": config_hash(config),
        "dataset": planned.dataset.name,
        "architecture": network(config),
        "scenario": config.scenario,
        "recipe": config.recipe.model_dump(),
        "recipe_changes": _recipe_changes(config),
        "timed_elsewhere": _timed_elsewhere(methods),
        "class_names": list(planned.dataset.class_names),
        "removed_classes": list(planned.requests[-1].removed_classes),
        "steps": len(planned.requests),
        "forget_samples": [len(request.forget) for request in planned.requests],
        "forget_classes": np.unique(planned.dataset.train_y[planned.requests[-1].forgotten]).tolist(),
        "memorization": memorization.summary(planned, entries),
        "undetected_samples": [len(scenarios.undetected(request)) for request in planned.requests],
        "methods": methods,
        "entries": _entries(planned),
        "provenance": config.provenance,
        "published": config.published,
        "changes": list(config.changes),
        "reference_models": len(planned.retrained[-1]),
        "shadow": {"train": config.shadow.train, "validation": config.shadow.validation, "test": len(config.seeds)},
        "audit": _audit(planned),
        "seeds": list(config.seeds),
        "versions": machine.versions(),
        "hardware": machine.hardware(config.device) | cluster.told(),
        "git": machine.commit(),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": {name: round(seconds, 3) for name, seconds in clock.seconds.items()},
    }


def _entries(planned: plan.Plan) -> dict[str, list[str]]:
    """Keys of all entries of the store that the run read or made, by kind, for whoever wants to keep them."""
    kinds: dict[str, set[str]] = {}
    for _, kind, key in [*memorization.needed(planned), *planned.jobs()]:
        kinds.setdefault(kind, set()).add(key)
    return {kind: sorted(found) for kind, found in kinds.items()}


def _audit(planned: plan.Plan) -> dict[str, Any]:
    """What the audit consists of; empty without attacks."""
    from bench import audit  # here, since it loads scipy, which a dry run does without

    attacks = planned.attacks()
    if not attacks:
        return {}
    known = {registry.short_name(entry): entry for entry in planned.config.attacks}
    return {
        "headline": audit.headline(attacks),
        "family": audit.family(attacks),
        **planned.config.audit.model_dump(),
        "models": audit.sizes(planned),
        "attacks": [
            {
                "name": name,
                "knows": attack.knows,
                "labels_only": attack.views,
                "summary": registry.summary("attacks", known[name]),
                "cite": attack.cite,
                "source": _source(attack.cite),
                "settings": attack.model_dump(mode="json"),
            }
            for name, attack in attacks.items()
        ],
    }


def network(config: Config) -> str:
    """The name of the network with its settings."""
    return registry.row_name(config.architecture)


def _timed_elsewhere(methods: list[dict[str, Any]]) -> list[str]:
    """Methods that were timed by other processes than retrain; ratios compare what one process timed."""
    sessions = {m["name"]: {note["session"] for note in m["notes"] if note["session"]} for m in methods}
    return sorted(name for name, own in sessions.items() if own and own != sessions["retrain"])


def _recipe_changes(config: Config) -> dict[str, Any]:
    """What the run's recipe has other than the recipe of its name."""
    with contextlib.suppress(UsageError):  # a recipe from a file elsewhere
        named = load_recipe(config.recipe.name).model_dump()
        return {name: value for name, value in config.recipe.model_dump().items() if value != named[name]}
    return {}


def _summary(row: plan.Row, config: Config) -> str:
    models = f"{len(row.given)} models" if len(row.given) > 1 else "one model"
    return f"Weights made elsewhere, {models}" if row.given else registry.summary("methods", config.entry(row.name))


def _source(cite: str) -> str:
    """Authors, title, venue and year of what a key of the bibliography stands for; empty for none."""
    entry = references.load().get(cite)
    return references.full(entry, italics="") if entry else ""


def _published(cls: type[Method]) -> dict[str, Any]:
    """What a method's own file says of its paper, of where it differs from it and of what a request costs."""
    return {
        "source": _source(cls.cite),
        "deviations": [{"lead": lead, "clauses": clauses} for lead, clauses in handbook.deviations(cls)],
        "cost": cls.cost.replace(" x ", " × "),
    }


def _method(planned: plan.Plan, entries: store.Store, row: plan.Row, failures: dict[str, str]) -> dict[str, Any]:
    config = planned.config
    defaults = {name: info.default for name, info in type(row.method).model_fields.items()}
    settings, values = row.method.model_dump(mode="json"), row.method.model_dump()
    failed = [failures[item.key] for item in row.runs if item.key in failures]
    lost = [failures[chain[-1].key] for chain in row.shadows if chain[-1].key in failures]
    notes = []
    for item in row.runs:
        if item.key not in failures:
            meta = entries.meta("unlearned", item.key)
            said = {"status": meta["status"], "numbers": meta["notes"], "session": meta["session"]}
            notes.append({"seed": item.repeat, "step": item.request.step, **said})
    return {
        "name": row.name,
        "summary": _summary(row, config),
        "needs": row.method.reads().words(),
        "cite": row.method.cite,
        **_published(type(row.method)),
        "settings": settings,
        "tuned": {name: value for name, value in settings.items() if values[name] != defaults[name]},
        "files": [{"name": Path(file).name, "sha256": digest} for file, digest in row.given],
        "status": f"skipped: {row.skipped}" if row.skipped else failed[0] if failed else "ok",
        "lost_for_attacks": {"runs": len(lost), "of": len(row.shadows), "reason": lost[0]} if lost else {},
        "notes": notes,
    }
