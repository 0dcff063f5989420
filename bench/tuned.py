"""What tuning leaves behind: a Markdown table a method, and a preset with the chosen values and their provenance."""

from __future__ import annotations

import datetime
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import choices, config, machine, preset, records, registry
from bench.config import Config
from bench.interface import UsageError
from bench.trials import Budget, Cell, changed_config
from bench.tuner import Outcome
from bench.tuning import Trial

HEADS = ("trial", "settings", "score", "forget error", "validation error", "status")
PLACE = ("dataset", "architecture", "recipe")  # the flags that say what values are tuned for, besides the scenario


def first_line(cells: Sequence[Cell], budget: Budget) -> str:
    """What is tuned, and what every method may spend."""
    first, scenarios = cells[0].config, ", ".join(cell.config.scenario for cell in cells)
    where = f"{first.dataset}, {registry.row_name(first.architecture)}, recipe {first.recipe.name}"
    spent = f"{budget.trials} trials for every method that publishes what to try"
    each = f"each on {budget.draws} draws from {budget.originals} originals"
    return f"tuning for {scenarios} on {where}: {spent}, {each}; scores in points, lower is better\n"


def table(outcome: Outcome) -> str:
    """The trials of one method in one scenario as Markdown, and which one is chosen."""
    study = outcome.study
    title = f"### {study.config.scenario}, {study.name}\n"
    if study.skipped:
        return f"{title}\nskipped: {study.skipped}\n"
    rows = [_row(number, outcome) for number in range(len(outcome.tried))]
    lines = [title, *(f"| {' | '.join(cells)} |" for cells in (HEADS, ["---"] * len(HEADS), *rows))]
    return "\n".join([*lines, "", _verdict(outcome), ""])


def _row(number: int, outcome: Outcome) -> list[str]:
    trial = outcome.tried[number]
    numbers = [trial.score, trial.mean("forget_error"), trial.mean("validation_error")]
    return [str(number), _settings(number, outcome), *(f"{value:.2f}" for value in numbers), _status(trial)]


def _settings(number: int, outcome: Outcome) -> str:
    """The values of the searched fields; the first trial's are those of the preset."""
    defaults = outcome.study.config.method(outcome.study.name)
    searched = outcome.tried[-1].changes
    values = {name: outcome.tried[number].changes.get(name, getattr(defaults, name)) for name in searched}
    shown = ", ".join(f"{name} = {value}" for name, value in values.items())
    return shown if number else f"defaults: {shown}" if shown else "defaults"


def _status(trial: Trial) -> str:
    if trial.failure:
        return trial.failure.replace("|", "\\|")
    return ", ".join(f"{n} {word}" for word, n in Counter(one.status for one in trial.judged).most_common())


def _verdict(outcome: Outcome) -> str:
    tried, best = outcome.tried, outcome.best
    chosen, defaults = tried[best], tried[0]
    if outcome.failed:
        return "Nothing chosen: no trial got through."
    before = chosen.mean("original_error")
    runs = f"{len(chosen.judged)} requests a trial; validation error of the originals {before:.2f}"
    if len(tried) == 1:
        return f"Nothing to tune: {outcome.study.name} publishes no values to search. {runs}."
    if best == 0:
        return f"Chosen: the defaults, which none of {len(tried) - 1} others beat. {runs}."
    return (
        f"Chosen: trial {best} ({_settings(best, outcome)}), {chosen.score:.2f} against {defaults.score:.2f}. {runs}."
    )


def require_free(out: Path, base: str, *, force: bool) -> None:
    """Raise UsageError, before any work, where the preset cannot be written."""
    if out.exists() and not force:
        raise UsageError(f"{out} exists; choose another file with --out, or overwrite it with --force")
    if out.suffix != ".toml" or out.is_dir() or not os.access(out.resolve().parent, os.W_OK | os.X_OK):
        raise UsageError(f"--out must name a .toml file in a folder that can be written, got {out}")
    if out.resolve() in preset.family(base):
        raise UsageError(f"{out} is what the preset {base} is made of; choose another file with --out")


def write(
    out: Path, cells: Sequence[Cell], outcomes: Sequence[Sequence[Outcome]], budget: Budget, *,
    flags: Mapping[str, Any], about: str | None, command: str,
) -> None:  # fmt: skip
    """Write the preset: what was chosen, over the preset that was tuned, with its provenance."""
    base = cells[0].config.preset
    plain = [config.resolve(base, {**flags, "scenario": cell.config.scenario}) for cell in cells]
    pairs = list(zip(plain, cells, outcomes, strict=True))
    tables = {
        "about": about or f"{base} with values found by {budget.trials} trials a method",
        "base": base,
        "run": {name: flags[name] for name in PLACE if flags.get(name)},
        "recipe": _other(cells[0].config.recipe, plain[0].recipe),
        "scenario": {
            before.scenario: changed
            for before, cell, _ in pairs
            if (changed := _other(cell.config.scenario_settings, before.scenario_settings))
        },
        "tuned": {before.scenario: chosen for before, _, found in pairs if (chosen := _chosen(before, found))},
        "provenance": _provenance(cells, outcomes, budget, command),
    }
    head = "# Written by the `command` below; rather than edit it, write a preset that has this one as its base.\n"
    text = head + preset.text({name: value for name, value in tables.items() if value})
    try:
        records.write_whole(out, text.encode())
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror}; finished work is kept") from error


def _other(values: Any, before: Any) -> dict[str, Any]:
    """The fields in which two instances differ, with the values of the first."""
    given, old = values.model_dump(), before.model_dump()
    return {name: value for name, value in given.items() if value != old[name]}


def _chosen(before: Config, found: Sequence[Outcome]) -> dict[str, Any]:
    """By method, the chosen values that are not the preset's."""
    chosen = {}
    for outcome in found:
        study = outcome.study
        if study.skipped:
            continue
        method = changed_config(study.config, study.name, outcome.tried[outcome.best].changes).method(study.name)
        changed = _other(method, before.method(study.name))
        if registry.variant(study.config.typed(study.name))[1]:  # else it would take over what the plain row has
            changed = {name: getattr(method, name) for name in outcome.tried[-1].changes} | changed
        if changed:
            chosen[choices.preset_key(study.config.typed(study.name))] = changed
    return chosen


def _provenance(
    cells: Sequence[Cell], outcomes: Sequence[Sequence[Outcome]], budget: Budget, command: str
) -> dict[str, Any]:
    first = cells[0].config
    return {
        "command": command,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": machine.commit(),
        "dataset": registry.row_name(first.dataset),
        "architecture": registry.row_name(first.architecture),
        "recipe": first.recipe.name,
        "seed": first.seed,
        **vars(budget),
        "versions": machine.versions(),
        "hardware": machine.hardware(first.device),
        "development": {
            cell.config.scenario: [_other(draw, cell.config.scenario_settings) for draw in cell.draws] for cell in cells
        },
        "scores": {
            cell.config.scenario: {
                choices.preset_key(cell.config.typed(outcome.study.name)): _score(outcome)
                for outcome in found
                if outcome.tried
            }
            for cell, found in zip(cells, outcomes, strict=True)
        },
    }


def _score(outcome: Outcome) -> dict[str, Any]:
    best = outcome.best
    return {
        "settings": "tuned" if best else "defaults",
        "defaults": round(outcome.tried[0].score, 4),
        "chosen": round(outcome.tried[best].score, 4),
        "trials": len(outcome.tried),
    }
