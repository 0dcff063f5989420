"""One run from config to results folder: plan, train, unlearn, attack, read out, report."""

from __future__ import annotations

import contextlib
import datetime
import importlib
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import (
    claims,
    description,
    given,
    history,
    machine,
    memorization,
    plan,
    pool,
    records,
    registry,
    runner,
    shadows,
    store,
    streams,
)
from bench.config import Config
from bench.interface import UsageError
from bench.progress import Progress, Spent


def run(
    config: Config, store_folder: Path, out: Path, *, jobs: int, force: bool, command: str,
    name: str = "", weights: Sequence[given.Weights] = (),
) -> tuple[str, bool]:  # fmt: skip
    """Carry a config out and write the results folder; `weights` made elsewhere are a row of this `name`.

    Returns:
        The table as Markdown, and whether any run of a method failed.
    """
    clock, start, spent = runner.Clock(), time.perf_counter(), dict[str, Spent]()
    with clock.phase("plan"):
        planned = memorization.outline(config)
    machine.require_device(config.device)
    weights = given.fitted(planned, weights)
    pool.require_trainable(planned, store.Store(store_folder, create=False))
    entries = store.Store(store_folder)
    streams.tell(first_line(planned), sys.stdout)
    with claims.at_work(entries):
        if config.scenario_settings.needs_hardness:
            with clock.phase("train"):
                planned = memorization.scored(planned, entries, jobs, force=force)
        planned.rows += [given.row(planned, weights, name)] if weights else []
        if force:
            for _, kind, key in planned.jobs():
                entries.drop(kind, key)
        results = entries.mending(lambda: _carry_out(planned, entries, jobs, clock, command, weights, spent))
    try:
        text = _report(out, results, clock)
    except OSError as error:
        hint = "finished work is in the store, the same command goes on from there"
        raise UsageError(f"cannot write the results into {out}: {error.strerror or error}; {hint}") from error
    history.note(entries, planned, spent, time.perf_counter() - start)
    methods = results.run["methods"]
    return text, any(one["status"].startswith("failed") or one["lost_for_attacks"] for one in methods)


def _report(out: Path, results: records.Results, clock: runner.Clock) -> str:
    """Write the results folder; returns the table as Markdown."""
    records.save(out, results)
    with clock.phase("report"), registry.no_lazy_torch():
        import reports

        text = reports.build(out)
    results.run["seconds_report"] = round(clock.seconds["report"], 3)
    records.save_run(out, results.run)
    return text


def run_parts(
    configs: Mapping[str, Config], store_folder: Path, out: Path, *, jobs: int, force: bool, command: str
) -> tuple[str, bool]:
    """Carry out the runs of a preset with parts, each into its folder below `out`, and compare with the paper.

    Returns:
        The comparison as Markdown, and whether any run of a method failed. Raises UsageError before any work where
        one of the runs cannot be planned, for want of its data set for example.
    """
    for config in configs.values():
        machine.require_device(config.device)
        memorization.outline(config)
    failed = False
    for folder, config in configs.items():
        streams.tell(f"\n=== {folder} ===\n", sys.stdout)
        text, lost = run(config, store_folder, out / folder, jobs=jobs, force=force, command=command)
        streams.tell(text, sys.stdout)
        failed = failed or lost
    with registry.no_lazy_torch():
        import reports

        return reports.build_parts(out, list(configs)), failed


def _carry_out(
    planned: plan.Plan, entries: store.Store, jobs: int, clock: runner.Clock, command: str,
    weights: Sequence[given.Weights], spent: dict[str, Spent],
) -> records.Results:  # fmt: skip
    """Do what is missing; `spent` gets what that took. Raises Damaged where an entry that is read is not whole."""
    from bench import audit, deep_records, evaluation

    with Progress(runner.missing(planned, entries)) as progress:
        with clock.phase("train"):
            imports = threading.Thread(target=_import_later, daemon=True)
            pool.train_pool(planned, entries, jobs, progress, imports.start)
            if imports.ident is not None:
                imports.join()  # nothing may run beside what is timed next
        with clock.phase("unlearn"):
            if weights:
                given.keep(planned, planned.rows[-1], weights, entries, progress)
            failures = runner.run_methods(planned, entries, progress)
            reasons = {key: failure.reason for key, failure in failures.items()}
        with clock.phase("unlearn for the attacks"):
            reasons |= shadows.unlearn(planned, entries, jobs, progress)
            shadows.look(planned, entries, list(reasons), jobs, progress)
        with clock.phase("audit weights"):
            found = deep_records.carry_out(planned, entries, jobs, progress)
        left = sum(kind == "evaluation" and not entries.has(kind, key) for _, kind, key in planned.jobs())
        with clock.phase("read out"), progress.stage("read out", left):
            numbers, samples = evaluation.collect(planned, entries, reasons, progress)
        with clock.phase("attack"):
            told, scores = audit.collect(planned, entries, reasons, jobs, progress)
            numbers, samples = numbers + told + found, samples | scores
    spent |= progress.spent
    told_of = description.describe(planned, entries, reasons, clock, command)
    return records.Results(told_of, numbers, samples, runner.tracebacks(planned, failures))


LATER = ("xgboost", "matplotlib.figure", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_pdf")


def _import_later() -> None:
    """Import what comes after training while other processes train; seconds of it would otherwise come on top."""
    for module in LATER:
        with contextlib.suppress(ImportError):  # whoever needs it says so
            importlib.import_module(module)


# The paper's table of each scenario.
PAPER = {
    "sample_removal": "paper-table1",
    "class_removal": "paper-table2",
    "incremental": "paper-table3",
    "depoisoning": "paper-table4",
}


def first_line(planned: plan.Plan) -> str:
    """What this run runs on, and how to get the paper's setting instead."""
    config = planned.config
    data = f"{planned.dataset.name} ({len(planned.labels)} training images)"
    what = f"{config.scenario} on {data}, {description.network(config)}"
    line = f"{what}, recipe {config.recipe.name} ({config.recipe.line()})"
    if Path(config.preset).stem.startswith("paper-"):
        return line
    return f"{line}; for the paper's setting: --preset {PAPER[config.scenario]}"


def prepare_parts(preset: str, configs: Mapping[str, Config], out: Path | None) -> Path:
    """The folder of a preset's parts, with theirs below it; raises UsageError where they cannot be made."""
    name = store.key(parts={part: description.config_hash(config) for part, config in configs.items()})[:8]
    folder = out or Path("results") / f"{Path(preset).stem}-{datetime.date.today().isoformat()}-{name}"
    for place in ("", *configs):
        records.require_place(folder / place, "the results folder", "--out")
    return folder


def prepare_out(config: Config, out: Path | None, name: str = "", weights: Sequence[given.Weights] = ()) -> Path:
    """The results folder, which `run` makes when it has results; raises UsageError where that cannot be."""
    today, hashed = datetime.date.today().isoformat(), description.config_hash(config)
    if weights:  # the same request with other weights is another run
        hashed = store.key(config=hashed, name=name, files=[file.digest for file in weights])[:8]
    verb = "audit-" if weights else ""
    folder = out or Path("results") / f"{verb}{config.scenario}-{today}-{hashed}"
    records.require_place(folder, "the results folder", "--out")
    return folder
