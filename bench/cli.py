"""The command line: carries out what was typed; heavy libraries load where they are used."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import program, refusals, signals, streams
from bench.arguments import CELL_FLAGS, CLUSTERS, RUN_FLAGS, VERBS, parser, retyped
from bench.interface import UsageError

OK, FAILED, USAGE = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        streams.open_missing()
        signals.listen()
        code = _dispatch(words)
        sys.stdout.flush()
        return code
    except UsageError as error:
        return _refused(str(error))
    except KeyboardInterrupt:
        line = "interrupted; finished work is in the store, the same command goes on from there"
        streams.tell(line, sys.stderr)
        return signals.INTERRUPTED
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        streams.close(sys.stdout)
        return OK
    except (OSError, MemoryError, RuntimeError) as error:
        if not (reason := refusals.reason(error)):
            raise
        _refused(reason)
        streams.close(sys.stdout)  # it may be what is full
        return USAGE


def _refused(reason: str) -> int:
    """Print the one line of an error, without what a terminal would take for a command."""
    streams.tell("error: " + "".join(one if one.isprintable() else " " for one in reason), sys.stderr)
    return USAGE


def _dispatch(words: list[str]) -> int:
    if words and not words[0].startswith("-") and words[0] not in VERBS:
        from bench.registry import unknown

        raise unknown("command", words[0], VERBS)
    if not words or words[0] not in (*VERBS, "-h", "--help", "--version"):
        words = ["run", *words]
    chosen = parser().parse_args(words)
    return ACTS[chosen.verb](chosen)


def _run(chosen: argparse.Namespace) -> int:
    from bench import preset

    prepare(chosen)
    if preset.parts(chosen.preset):
        return _run_parts(chosen, _flags(chosen))
    if chosen.dry_run:
        from bench import config, forecast

        resolved = config.resolve(chosen.preset, _flags(chosen), chosen.changes)
        print(forecast.preview(resolved, chosen.store, chosen.jobs))
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


def _flags(chosen: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(chosen, name) for name in RUN_FLAGS}


def _tell_paper(out: Path) -> None:
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
        print("Models that several parts share are counted in each and trained once.")
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
    _tell_paper(out)
    _typeset(chosen, [out])
    return FAILED if failed else OK


def _audit(chosen: argparse.Namespace) -> int:
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
        print(forecast.preview(resolved, chosen.store, chosen.jobs, name, weights))
        return OK
    out = benchmark.prepare_out(resolved, chosen.out, name, weights)
    with workplace(chosen, resolved.device):
        text, failed = benchmark.run(
            resolved, chosen.store, out, jobs=chosen.jobs, force=chosen.force, command=retyped(chosen), name=name,
            weights=weights,
        )  # fmt: skip
    return _finish(chosen, text, out, failed=failed)


def _tune(chosen: argparse.Namespace) -> int:
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
    if chosen.data_dir:
        os.environ["UNLEARNING_DATA"] = str(chosen.data_dir)  # for worker processes too
    if chosen.download:
        os.environ["UNLEARNING_DOWNLOAD"] = "1"


def _list(chosen: argparse.Namespace) -> int:
    if chosen.markdown is not None:
        if chosen.kind != "methods":
            raise UsageError("--markdown writes the handbook of the methods: list methods --markdown")
        from bench import handbook

        print("\n\n".join(map(handbook.section, chosen.markdown)) or handbook.page())
        return OK
    from bench import catalog

    print(catalog.text(chosen.kind))
    return OK


def _check(chosen: argparse.Namespace) -> int:
    from bench import registry

    names = registry.names("methods") if chosen.method == ["all"] else chosen.method
    classes = [registry.load("methods", name) for name in names]
    from bench import contract  # imports torch, which a mistyped name need not wait for

    failed = False
    for name, cls in zip(names, classes, strict=True):
        print(f"{registry.short_name(name)}:")
        for result in contract.check(registry.short_name(name), cls):
            failed = failed or not result.passed
            print(f"  {result.line()}", flush=True)
    return FAILED if failed else OK


def _report(chosen: argparse.Namespace) -> int:
    import reports

    try:
        print(reports.report(chosen.results, chosen.out, one_column=chosen.one_column))
        _tell_paper(chosen.out or chosen.results[0])
    except OSError as error:
        raise UsageError(f"cannot write the report into {', '.join(map(str, chosen.results))}: {error}") from error
    _typeset(chosen, chosen.results, chosen.out)
    return OK


def _typeset(chosen: argparse.Namespace, folders: Sequence[Path], out: Path | None = None) -> None:
    """Make the PDF where it was asked for; everything else is written by then."""
    if chosen.pdf:
        import reports

        for path in reports.typeset(folders, out):
            print(f"PDF: {path}", file=sys.stderr)


def _compare(chosen: argparse.Namespace) -> int:
    from bench import baseline, records, regression

    results = records.load(chosen.results)
    if chosen.update_baseline:
        baseline.write(results, chosen.baseline)
        print(f"baseline written: {chosen.baseline}; line for the changelog, with the reason:")
        print(f"| `{chosen.baseline}` | {baseline.digest(chosen.baseline)} | why it moved |")
        return OK
    found = regression.compare(results, chosen.baseline, exact=chosen.exact, times=chosen.times)
    if found.moved:
        print(regression.table(found.moved), end="\n\n")
    print(found.line())
    return FAILED if found.moved else OK


def _store(chosen: argparse.Namespace) -> int:
    from bench import housekeeping
    from bench.store import Store

    entries = Store(chosen.store, create=False)
    if chosen.act == "verify":
        text, damaged = housekeeping.verify(entries)
        print(text)
        return FAILED if damaged else OK
    if chosen.act == "prune":
        print(housekeeping.prune(entries, chosen.keep, dry_run=chosen.dry_run))
    else:
        print(housekeeping.sizes(entries) if chosen.act == "size" else housekeeping.listing(entries))
    return OK


def _leaderboard(chosen: argparse.Namespace) -> int:
    from bench import records
    from reports import leaderboard

    if (chosen.out / "run.json").exists():
        raise UsageError(f"{chosen.out} holds the results of a run; choose another folder with --out")
    records.require_place(chosen.out, "the leaderboard's folder", "--out")
    text, faults = leaderboard.build(chosen.results, chosen.out, chosen.by)
    print(text)
    print("".join(f"left out: {fault}\n" for fault in faults), end="", file=sys.stderr)
    print(f"table, LaTeX, page and diagrams: {chosen.out}", file=sys.stderr)
    return FAILED if faults else OK


ACTS = {
    "run": _run,
    "audit": _audit,
    "tune": _tune,
    "list": _list,
    "check": _check,
    "report": _report,
    "compare": _compare,
    "store": _store,
    "leaderboard": _leaderboard,
}
