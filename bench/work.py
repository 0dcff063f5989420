"""The verbs that work: run, audit and tune; heavy libraries load where they are used."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import program, streams
from bench.arguments import CELL_FLAGS, CLUSTERS, PER_GPU, RUN_FLAGS, retyped
from bench.interface import UsageError

OK, FAILED, USAGE = 0, 1, 2


def run(chosen: argparse.Namespace) -> int:
    """Run the benchmark, or all parts of a preset, or say what that would do; returns the exit code."""
    from bench import preset

    prepare(chosen)
    if preset.parts(chosen.preset):
        return _run_parts(chosen, _flags(chosen))
    if chosen.dry_run:
        from bench import config, forecast

        resolved = config.resolve(chosen.preset, _flags(chosen), chosen.changes)
        print(forecast.preview(resolved, chosen.store, chosen.jobs) + foreseen(chosen, resolved.device))
        return OK
    text, failed, out = run_one(chosen)
    return _finish(chosen, text, out, failed=failed)


def run_one(chosen: argparse.Namespace) -> tuple[str, bool, Path]:
    """Carry out one run; returns its table as Markdown, whether a run of a method failed, and its folder."""
    from bench import config

    resolved = config.resolve(chosen.preset, _flags(chosen), chosen.changes)
    from bench import benchmark

    out = benchmark.prepare_out(resolved, chosen.out)
    with workplace(chosen, resolved.device):
        text, failed = benchmark.run(
            resolved, chosen.store, out, jobs=chosen.jobs, force=chosen.force, command=retyped(chosen)
        )
    return text, failed, out


def workplace(chosen: argparse.Namespace, device: str) -> contextlib.AbstractContextManager[None]:
    """Where the tasks of a command are carried out: processes of this machine, or a cluster."""
    if chosen.backend == "local":
        return contextlib.nullcontext()
    from bench import engines

    return engines.join(
        chosen.backend, chosen.scheduler, chosen.jobs, chosen.store, device=device, per_gpu=chosen.per_gpu
    )


def foreseen(chosen: argparse.Namespace, device: str) -> str:
    """The last line of a plan, after a line break: where tasks would go if not to processes forked here."""
    if chosen.backend == "local":
        return ""
    from bench import engines

    line = engines.foreseen(chosen.backend, chosen.scheduler, chosen.jobs, device=device, per_gpu=chosen.per_gpu)
    return f"\n{line}"


def _flags(chosen: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(chosen, name) for name in RUN_FLAGS}


def tell_paper(out: Path) -> None:
    """Say where the paper's tables and figures are, if any were made."""
    if (out / "paper.tex").exists():
        line = f"the paper's tables and figures in its own layout: {out / 'paper.md'} and paper.tex"
        streams.tell(line, sys.stderr)


def _run_parts(chosen: argparse.Namespace, flags: Mapping[str, Any]) -> int:
    """Run a preset that has parts: everything is checked before any of them is carried out."""
    from bench import parts

    found = parts.resolve(chosen.preset, flags, chosen.changes)
    from bench import benchmark, forecast

    if chosen.dry_run:
        for folder, one in found.items():
            print(f"=== {folder} ===\n{forecast.preview(one, chosen.store, chosen.jobs)}\n", flush=True)
        line = "Models that several parts share are counted in each and trained once."
        print(line + foreseen(chosen, next(iter(found.values())).device))
        return OK
    out = benchmark.prepare_parts(chosen.preset, found, chosen.out)
    with workplace(chosen, next(iter(found.values())).device):
        text, failed = benchmark.run_parts(
            found, chosen.store, out, jobs=chosen.jobs, force=chosen.force, command=retyped(chosen)
        )
    made = f"comparison: {out / 'paper.md'}; table, LaTeX, figures and page of each part beside it"
    return _finish(chosen, text, out, made, failed=failed)


def _finish(chosen: argparse.Namespace, text: str, out: Path, made: str = "", *, failed: bool) -> int:
    """Print the tables and where everything is; make the PDF last, when nothing can be lost any more."""
    streams.tell(text, sys.stdout)
    streams.tell(f"\n{made or f'table, LaTeX, figures and page: {out}'}", sys.stderr)
    tell_paper(out)
    typeset(chosen, [out])
    return FAILED if failed else OK


def audit(chosen: argparse.Namespace) -> int:
    """Judge weights made elsewhere; returns the exit code."""
    from bench import choices, config, given, parts

    prepare(chosen)
    parts.require_whole(chosen.preset, "audit")
    given.require_unchanged(chosen.changes)
    scenario, changes = given.request(chosen.request)
    flags = {name: getattr(chosen, name) for name in RUN_FLAGS if name != "scenario"}
    flags |= {"scenario": scenario, "methods": chosen.methods or ",".join(choices.BASELINES)}
    resolved = config.resolve(chosen.preset, flags, [*changes, *chosen.changes])
    name = given.row_name(chosen.name, chosen.models, resolved.rows())
    weights = given.read(chosen.models)
    from bench import benchmark, forecast

    if chosen.dry_run:
        print(forecast.preview(resolved, chosen.store, chosen.jobs, name, weights) + foreseen(chosen, resolved.device))
        return OK
    out = benchmark.prepare_out(resolved, chosen.out, name, weights)
    with workplace(chosen, resolved.device):
        text, failed = benchmark.run(
            resolved, chosen.store, out, jobs=chosen.jobs, force=chosen.force, command=retyped(chosen), name=name,
            weights=weights,
        )  # fmt: skip
    return _finish(chosen, text, out, failed=failed)


def tune(chosen: argparse.Namespace) -> int:
    """Choose hyper-parameters and write a preset of them; returns the exit code."""
    from bench import config, parts, trials, tuned, tuner

    prepare(chosen)
    parts.require_whole(chosen.preset, "tune")
    budget = trials.Budget(chosen.trials, chosen.draws, chosen.originals)
    flags = {name: getattr(chosen, name) for name in CELL_FLAGS}
    configs = config.resolve_all(chosen.preset, flags, chosen.changes)
    out = chosen.out or Path(f"tuned-{configs[0].scenario if len(configs) == 1 else 'all'}.toml")
    tuned.require_free(out, chosen.preset, force=chosen.force)
    cells = trials.lay_out(configs, [change.partition("=")[0] for change in chosen.changes], budget)
    streams.tell(tuned.first_line(cells, budget), sys.stdout)
    with workplace(chosen, configs[0].device):
        outcomes = tuner.carry_out(
            cells, chosen.store, chosen.jobs, lambda one: streams.tell(tuned.table(one), sys.stdout)
        )
    command = retyped(chosen)
    if all(outcome.failed or outcome.study.skipped for found in outcomes for outcome in found):
        raise UsageError(f"no trial of any method got through, so {out} is not written; the tables say why")
    tuned.write(out, cells, outcomes, budget, flags=flags, about=chosen.about, command=command)
    cell = f"--scenario {configs[0].scenario} --methods {','.join(configs[0].methods)}"
    print(f"chosen values: {program.name()} --preset {out} {cell}", file=sys.stderr)
    return FAILED if any(outcome.failed for found in outcomes for outcome in found) else OK


def prepare(chosen: argparse.Namespace) -> None:
    """Check what a command works with, and hand on where the data is."""
    if chosen.jobs < 1:
        raise UsageError(f"--jobs must be at least 1, got {chosen.jobs}")
    if chosen.scheduler and chosen.backend not in CLUSTERS:
        raise UsageError(f"--scheduler goes with --backend {' or '.join(CLUSTERS)}, not with {chosen.backend}")
    if chosen.per_gpu < 1:
        raise UsageError(f"--per-gpu must be at least 1, got {chosen.per_gpu}")
    if chosen.per_gpu > 1 and chosen.backend not in PER_GPU:
        others = "; start so many Dask workers for every GPU" if chosen.backend == "dask" else ""
        raise UsageError(f"--per-gpu goes with --backend {' or '.join(PER_GPU)}, not with {chosen.backend}{others}")
    if chosen.data_dir:
        os.environ["UNLEARNING_DATA"] = str(chosen.data_dir)  # for worker processes too
    if chosen.download:
        os.environ["UNLEARNING_DOWNLOAD"] = "1"


def typeset(chosen: argparse.Namespace, folders: Sequence[Path], out: Path | None = None) -> None:
    """Make the PDF where it was asked for; everything else is written by then."""
    if chosen.pdf:
        import reports

        for path in reports.typeset(folders, out):
            print(f"PDF: {path}", file=sys.stderr)
