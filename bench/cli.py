"""The command line: carries out what was typed; heavy libraries load where they are used."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from bench import refusals, signals, streams, untrusted, work
from bench.arguments import VERBS, parser
from bench.interface import UsageError
from bench.work import FAILED, OK, USAGE


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
    streams.tell("error: " + " ".join(untrusted.printable(reason).split()), sys.stderr)
    return USAGE


def _dispatch(words: list[str]) -> int:
    if words and not words[0].startswith("-") and words[0] not in VERBS:
        from bench.registry import unknown

        raise unknown("command", words[0], VERBS)
    if not words or words[0] not in (*VERBS, "-h", "--help", "--version"):
        words = ["run", *words]
    chosen = parser().parse_args(words)
    return ACTS[chosen.verb](chosen)


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
        work.tell_paper(chosen.out or chosen.results[0])
    except OSError as error:
        raise UsageError(f"cannot write the report into {', '.join(map(str, chosen.results))}: {error}") from error
    work.typeset(chosen, chosen.results, chosen.out)
    return OK


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
    "run": work.run,
    "audit": work.audit,
    "tune": work.tune,
    "list": _list,
    "check": _check,
    "report": _report,
    "compare": _compare,
    "store": _store,
    "leaderboard": _leaderboard,
}
