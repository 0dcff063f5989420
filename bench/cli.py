"""The command line: run (the default), list, check, report and compare; heavy libraries load where they are used."""

from __future__ import annotations

import argparse
import functools
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from bench import __version__
from bench.interface import SCENARIOS, UsageError

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
VERBS = ("run", "list", "check", "report", "compare")
LISTS = ("methods", "scenarios", "datasets", "architectures", "attacks", "presets", "recipes")

EXAMPLES = """\
examples:
  python run_benchmark.py --scenario class_removal --methods pgu,scrub
  python run_benchmark.py --scenario sample_removal --methods all --seeds 5
  python run_benchmark.py --scenario sample_removal --methods scrub,scrub+rewind=true
  python run_benchmark.py --methods ./my_method.py --set my_method.lr=0.1 --dry-run
  python run_benchmark.py list
  python run_benchmark.py check path/to/my_method.py
  python run_benchmark.py report results/RUN
  python run_benchmark.py compare results/RUN --baseline baselines/ci.json

exit codes: 0 all ok, 1 a run failed or a number moved, 2 wrong usage, 130 interrupted (finished work is kept)
"""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are UsageError, so that every mistake is told the same way."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(
            f"{message}; see python run_benchmark.py {self.prog.split()[-1]} --help".replace(
                "run_benchmark.py run_benchmark.py", "run_benchmark.py"
            )
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, _terminated)
            _spare_workers()
        return _dispatch(words)
    except UsageError as error:
        print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("interrupted; finished work is in the store, the same command goes on from there", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK


def _terminated(number: int, frame: object) -> None:
    """End as Ctrl-C does."""
    raise KeyboardInterrupt


@functools.cache
def _spare_workers() -> None:
    """Keep our handler of SIGTERM out of forked workers.

    A pool ends its idle workers with SIGTERM. Python only notes a signal and runs the handler later: a worker that is
    about to wait for a lock would wait for ever, and the pool for the worker.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_default_sigterm)


def _default_sigterm() -> None:
    if signal.getsignal(signal.SIGTERM) is _terminated:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _dispatch(words: list[str]) -> int:
    if words and not words[0].startswith("-") and words[0] not in VERBS:
        from bench.registry import unknown

        raise unknown("command", words[0], VERBS)
    if not words or words[0] not in (*VERBS, "-h", "--help", "--version"):
        words = ["run", *words]
    chosen = parser().parse_args(words)
    code: int = chosen.act(chosen)
    return code


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = Parser(
        prog="run_benchmark.py",
        description="Compare machine-unlearning methods with models retrained without the forgotten data.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=__version__)
    verbs = top.add_subparsers(dest="verb", metavar="{" + ",".join(VERBS) + "}", required=True)
    _add_run(verbs)
    listing = verbs.add_parser("list", help="what there is: methods, scenarios, data sets, ...")
    listing.add_argument("kind", nargs="?", metavar="KIND", help="one of " + ", ".join(LISTS))
    listing.add_argument(
        "--markdown",
        nargs="*",
        metavar="NAME|FILE",
        help="with methods: the handbook, or the sections of these methods",
    )
    listing.set_defaults(act=_list)
    check = verbs.add_parser("check", help="contract tests on a method, by name or by path to its file")
    check.add_argument("method", nargs="+", help="registered name, `all`, or path/to/method.py")
    check.set_defaults(act=_check)
    report = verbs.add_parser(
        "report", help="rebuild table, LaTeX, figures and page from a results folder (needs no torch)"
    )
    report.add_argument("results", type=Path)
    report.set_defaults(act=_report)
    compare = verbs.add_parser("compare", help="tell which numbers moved against a baseline")
    compare.add_argument("results", type=Path)
    compare.add_argument("--baseline", type=Path, required=True, help="baseline file (JSON)")
    compare.add_argument("--update-baseline", action="store_true", help="write the baseline from these results instead")
    compare.set_defaults(act=_compare)
    return top


def _add_run(verbs: argparse._SubParsersAction) -> None:  # type: ignore[type-arg]
    run = verbs.add_parser(
        "run",
        help="run the benchmark (the default)",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("--scenario", help="one of " + ", ".join(SCENARIOS))
    run.add_argument(
        "--methods", help="comma list of names or paths to method files, or all; scrub+rewind=true is a row of its own"
    )
    run.add_argument("--preset", default="digits", help="name or path of a TOML preset (default: %(default)s)")
    run.add_argument("--dataset", help="name of a data set, or path to a file that defines load()")
    run.add_argument("--architecture", help="name of an architecture, or path to a file that defines build()")
    run.add_argument("--recipe", help="name or path of a TOML training recipe")
    run.add_argument("--attack", help="name or path of the membership-inference attack, or none")
    run.add_argument("--seeds", help="number of repeats, or a comma list of repeats such as 0,3")
    run.add_argument(
        "--set", action="append", default=[], metavar="PART.FIELD=VALUE", dest="changes",
        help="change one value, such as pgu.gamma=0.9, scenario.count=30, recipe.epochs=20, shadow.train=16",
    )  # fmt: skip
    run.add_argument("--device", help="cpu (default), cuda, cuda:N or mps")
    run.add_argument(
        "--data-dir", type=Path, help="folder of downloaded data sets (default: $UNLEARNING_DATA, else data)"
    )
    run.add_argument("--time-limit", metavar="SECONDS", help="of a request, for methods that watch the clock (PGU)")
    run.add_argument("--jobs", type=int, default=_cores(), help="processes that train models (default: %(default)s)")
    run.add_argument("--out", type=_folder, help="results folder (default: results/SCENARIO-DATE-HASH)")
    run.add_argument(
        "--store", type=_folder, default=Path("store"), help="folder of finished work (default: %(default)s)"
    )
    run.add_argument("--force", action="store_true", help="make everything anew, even what the store has")
    run.add_argument("--dry-run", action="store_true", help="print the jobs, what the store has and an estimated time")
    run.set_defaults(act=_run)


def _folder(text: str) -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError("the name of a folder is empty")
    return Path(text)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run(chosen: argparse.Namespace) -> int:
    from bench import config

    if chosen.jobs < 1:
        raise UsageError(f"--jobs must be at least 1, got {chosen.jobs}")
    if chosen.data_dir:
        os.environ["UNLEARNING_DATA"] = str(chosen.data_dir)  # for worker processes too
    names = ("scenario", "methods", "dataset", "architecture", "recipe", "attack", "seeds", "device", "time_limit")
    resolved = config.resolve(chosen.preset, {name: getattr(chosen, name) for name in names}, chosen.changes)
    from bench import benchmark

    if chosen.dry_run:
        print(benchmark.preview(resolved, chosen.store, chosen.jobs))
        return OK
    out = benchmark.prepare_out(resolved, chosen.out)
    command = " ".join(["python run_benchmark.py", *_words(chosen)])
    text, failed = benchmark.run(resolved, chosen.store, out, jobs=chosen.jobs, force=chosen.force, command=command)
    print(text)
    print(f"\ntable, LaTeX, figures and page: {out}", file=sys.stderr)
    return FAILED if failed else OK


def _words(chosen: argparse.Namespace) -> list[str]:
    """The flags that decide the numbers, as one would type them again."""
    import shlex

    words: list[str] = [] if chosen.preset == "digits" else ["--preset", chosen.preset]
    for name in ("scenario", "methods", "dataset", "architecture", "recipe", "attack", "seeds", "device", "time_limit"):
        if (value := getattr(chosen, name)) is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    for change in chosen.changes:
        words += ["--set", change]
    return [shlex.quote(word) for word in words]


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
        print(reports.build(chosen.results))
    except OSError as error:
        raise UsageError(f"cannot write the report into {chosen.results}: {error}") from error
    return OK


def _compare(chosen: argparse.Namespace) -> int:
    from bench import records, regression

    results = records.load(chosen.results)
    if chosen.update_baseline:
        regression.write_baseline(results, chosen.baseline)
        print(f"baseline written: {chosen.baseline}")
        return OK
    moved = regression.compare(results, chosen.baseline)
    print(regression.table(moved) if moved else "no number moved")
    return FAILED if moved else OK
