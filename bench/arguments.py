"""What one can type: the verbs and their flags."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from bench import __version__, program
from bench.interface import SCENARIOS, UsageError

VERBS = ("run", "audit", "tune", "list", "check", "report", "compare", "leaderboard", "store")
CRITERIA = ("attack", "forget", "test", "cost")  # as in reports.cells, which is slower to import
CLUSTERS = ("dask", "ray")
PER_GPU = ("loky", "ray")  # those whose processes share the GPUs of a machine
BACKENDS = ("local", "loky", *CLUSTERS)
CELL_FLAGS = ("scenario", "methods", "dataset", "architecture", "width", "recipe", "device", "time_limit")
RUN_FLAGS = (*CELL_FLAGS, "attacks", "audit", "seeds")
BUDGET_FLAGS = ("trials", "draws", "originals")
LISTS = ("methods", "scenarios", "datasets", "architectures", "attacks", "presets", "recipes")

EXAMPLES = """\
examples:
  python run_benchmark.py --scenario class_removal --methods pgu,scrub
  python run_benchmark.py --scenario sample_removal --methods all --seeds 5
  python run_benchmark.py --scenario sample_removal --methods scrub,scrub+rewind=true
  python run_benchmark.py --methods ./my_method.py --set my_method.lr=0.1 --dry-run
  python run_benchmark.py tune --scenario class_removal --methods pgu,./my_method.py --trials 16 --out my-tuned.toml
  python run_benchmark.py --preset paper-table1 --device cuda --data-dir DIR
  python run_benchmark.py list
  python run_benchmark.py check path/to/my_method.py
  python run_benchmark.py audit --model mine.safetensors --request forget.json --architecture allcnn --dataset cifar10
  python run_benchmark.py report results/RUN
  python run_benchmark.py report results/TABLE1 results/TABLE3 --out paper
  python run_benchmark.py compare results/RUN --baseline baselines/ci.json
  python run_benchmark.py store prune --keep 7d --keep results/RUN
  python run_benchmark.py leaderboard results --out leaderboard

exit codes: 0 all ok, 1 a run failed or a number moved, 2 wrong usage, 130 interrupted (finished work is kept)
"""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are UsageError, so that every mistake is told the same way."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UsageError(f"{message}; see {self.prog} --help")


def _examples() -> str:
    return EXAMPLES.replace(program.CHECKOUT, program.name())


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = Parser(
        prog=program.name(),
        description="Compare machine-unlearning methods with models retrained without the forgotten data.",
        epilog=_examples(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=__version__)
    verbs = top.add_subparsers(dest="verb", metavar="{" + ",".join(VERBS) + "}", required=True)
    _add_run(verbs)
    _add_audit(verbs)
    _add_tune(verbs)
    listing = verbs.add_parser("list", help="what there is: methods, scenarios, data sets, ...")
    listing.add_argument("kind", nargs="?", metavar="KIND", help="one of " + ", ".join(LISTS))
    listing.add_argument(
        "--markdown",
        nargs="*",
        metavar="NAME|FILE",
        help="with methods: the handbook, or the sections of these methods",
    )
    check = verbs.add_parser("check", help="contract tests on a method, by name or by path to its file")
    check.add_argument("method", nargs="+", help="registered name, `all`, or path/to/method.py")
    report = verbs.add_parser(
        "report", help="rebuild table, LaTeX, figures and page from a results folder (needs no torch)"
    )
    report.add_argument(
        "results", type=_place, nargs="+", metavar="DIR", help="results folder, or one of several parts"
    )
    report.add_argument(
        "--out", type=_place,
        help="folder for the paper's tables and figures of all these runs (default: the results folder, if it is one)",
    )  # fmt: skip
    _add_pdf(report)
    report.add_argument(
        "--one-column", action="store_true", help="also write figures/NAME-column.pdf, 3.35 inches wide"
    )
    compare = verbs.add_parser("compare", help="tell which numbers moved against a baseline")
    compare.add_argument("results", type=_place)
    compare.add_argument("--baseline", type=_place, required=True, help="baseline file (JSON)")
    compare.add_argument(
        "--exact", action="store_true", help="any difference counts: for the same seeds, machine and versions"
    )
    compare.add_argument(
        "--times", action="store_true", help="requests that take another share of retraining count: on an idle machine"
    )
    compare.add_argument("--update-baseline", action="store_true", help="write the baseline from these results instead")
    _add_leaderboard(verbs)
    _add_store(verbs)
    return top


def _add_store(verbs: argparse._SubParsersAction) -> None:  # type: ignore[type-arg]
    store = verbs.add_parser("store", help="what is in a store, whether it is whole, and what of it may go")
    acts = store.add_subparsers(dest="act", required=True, metavar="{ls,size,verify,prune}")
    listing = acts.add_parser("ls", help="every entry with its size and age")
    size = acts.add_parser("size", help="entries and bytes by kind")
    verify = acts.add_parser("verify", help="read every entry; a damaged one is moved aside and later made again")
    prune = acts.add_parser("prune", help="remove what is not to be kept; a run that needs it makes it anew")
    prune.add_argument(
        "--keep", action="append", required=True, metavar="KIND|AGE|RESULTS",
        help="what stays: a kind (model), what was used lately (7d, 12h), or what the run of a results folder needs; "
        "may be given several times",
    )  # fmt: skip
    prune.add_argument("--dry-run", action="store_true", help="only say what would go")
    for act in (listing, size, verify, prune):
        _add_store_folder(act)


def _add_store_folder(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--store", type=_place, default=Path("store"), help="folder of finished work (default: %(default)s)"
    )


def _add_leaderboard(verbs: argparse._SubParsersAction) -> None:  # type: ignore[type-arg]
    leaderboard = verbs.add_parser(
        "leaderboard",
        help="rank methods over many results folders (needs no torch)",
        description="One ranked table per scenario of all runs among and below the folders: average ranks over cells "
        "(data set, network, recipe, request), which ranks are told apart, verdicts and failures.",
    )
    leaderboard.add_argument("results", nargs="+", type=_place, metavar="DIR", help="folder that holds results")
    leaderboard.add_argument(
        "--by", choices=CRITERIA, default=CRITERIA[0],
        help="what the order is by: the attack that decides, error on forget or test data, or time "
        "(default: %(default)s)",
    )  # fmt: skip
    leaderboard.add_argument(
        "--out", type=_place, default=Path("leaderboard"), help="where it is written (default: %(default)s)"
    )


def _add_run(verbs: argparse._SubParsersAction) -> None:  # type: ignore[type-arg]
    run = verbs.add_parser(
        "run",
        help="run the benchmark (the default)",
        epilog=_examples(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_cell(run, base="digits")
    _add_outcome(run)


def _add_outcome(run: argparse.ArgumentParser) -> None:
    """What `run` and `audit` share: what is asked of the models, and where it goes."""
    run.add_argument("--attacks", help="comma list of names or paths of membership-inference attacks, all, or none")
    run.add_argument("--audit", choices=("standard", "deep"), help="deep: relearning and recovery from weights too")
    run.add_argument("--seeds", help="number of repeats, or a comma list of repeats such as 0,3")
    run.add_argument("--out", type=_place, help="results folder (default: results/SCENARIO-DATE-HASH, or PRESET-DATE)")
    run.add_argument("--force", action="store_true", help="make everything anew, even what the store has")
    run.add_argument("--dry-run", action="store_true", help="print the jobs, what the store has and an estimated time")
    _add_pdf(run)


def _add_pdf(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--pdf", action="store_true", help="make report.pdf as well (needs a TeX system)")


def _add_audit(verbs: argparse._SubParsersAction) -> None:  # type: ignore[type-arg]
    audit = verbs.add_parser(
        "audit",
        help="judge weights of your own as the built-in methods are judged",
        description="Trains the reference models of a request (the store keeps them) and puts weights made elsewhere "
        "through the same readouts, attacks and verdict as every method. They must be of the same data, network and "
        "recipe as the references. One model can be shown to leak; that none of it shows takes eight models or more.",
    )
    audit.add_argument(
        "--model", action="append", type=_place, required=True, metavar="FILE", dest="models",
        help="safetensors file of unlearned weights; again for every further model, each from another original",
    )  # fmt: skip
    audit.add_argument(
        "--request", type=_place, required=True, metavar="FILE",
        help='JSON: {"forget": [12, 7]}, places in the training set, or {"removed_classes": [3]}',
    )  # fmt: skip
    audit.add_argument("--name", default="", help="name of the row (default: what the files' names begin with)")
    _add_cell(audit, base="digits", scenario=False)
    _add_outcome(audit)


def _add_tune(verbs: argparse._SubParsersAction) -> None:  # type: ignore[type-arg]
    tune = verbs.add_parser(
        "tune",
        help="choose hyper-parameters, with as many trials for every method",
        description="Tries the values that methods publish in `search` on draws and models other than those that are "
        "reported, sees no test data and no retrained model, and writes a preset.",
    )
    _add_cell(tune, base="digits-authors")
    tune.add_argument(
        "--trials", type=int, default=16, help="settings tried for each method, its own first (default: %(default)s)"
    )
    tune.add_argument("--draws", type=int, default=3, help="forget requests that a trial serves (default: %(default)s)")
    tune.add_argument("--originals", type=int, default=2, help="models that it serves each from (default: %(default)s)")
    tune.add_argument("--out", type=_place, help="preset to write (default: tuned-SCENARIO.toml)")
    tune.add_argument("--about", help="what the preset says of itself in `list`")
    tune.add_argument("--force", action="store_true", help="overwrite the preset")


def _add_cell(verb: argparse.ArgumentParser, *, base: str, scenario: bool = True) -> None:
    """What the verbs that work share: the cell of the benchmark, and where and how it is worked on."""
    every = ", or all" if verb.prog.endswith("tune") else ""
    if scenario:
        verb.add_argument("--scenario", help="one of " + ", ".join(SCENARIOS) + every)
    verb.add_argument(
        "--methods", help="comma list of names or paths to method files, or all; scrub+rewind=true is a row of its own"
    )
    verb.add_argument("--preset", default=base, help="name or path of a TOML preset (default: %(default)s)")
    verb.add_argument(
        "--dataset",
        help="name of a data set, or path to a file that defines load(); cifar10+train=2500 is a part of it",
    )
    verb.add_argument(
        "--architecture",
        help="name of an architecture, or path to a file that defines build(); allcnn+width=0.25 is a narrow one",
    )
    verb.add_argument("--width", type=float, help="short for +width=W after the architecture")
    verb.add_argument("--recipe", help="name or path of a TOML training recipe")
    verb.add_argument(
        "--set", action="append", default=[], metavar="PART.FIELD=VALUE", dest="changes",
        help="change one value, such as pgu.gamma=0.9, scenario.count=30, recipe.epochs=20, shadow.train=16",
    )  # fmt: skip
    verb.add_argument("--device", help="cpu (default), cuda, cuda:N or mps")
    verb.add_argument(
        "--data-dir",
        type=_place,
        help="folder of the data sets, or of your images (default: $UNLEARNING_DATA, else data)",
    )
    verb.add_argument("--download", action="store_true", help="get a published data set that is not in that folder")
    verb.add_argument("--time-limit", metavar="SECONDS", help="of a request, for methods that watch the clock (PGU)")
    verb.add_argument("--jobs", type=int, default=_cores(), help="processes that train models (default: %(default)s)")
    verb.add_argument(
        "--backend", choices=BACKENDS, default="local",
        help="what carries models and shadow runs out: processes forked here (local), started anew here (loky), or the "
        "workers of a Dask or Ray cluster (default: %(default)s)",
    )  # fmt: skip
    verb.add_argument(
        "--scheduler", default="", metavar="ADDRESS",
        help="of the Dask or Ray cluster, such as tcp://host:8786; without it, one of --jobs workers is started here",
    )  # fmt: skip
    verb.add_argument("--per-gpu", type=int, default=1, help="processes for every GPU, with loky and ray (default: 1)")
    _add_store_folder(verb)


def _place(text: str) -> Path:
    if not text.strip() or "\0" in text:
        raise argparse.ArgumentTypeError("the name of a file or folder is empty or has a zero byte")
    return Path(text)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def retyped(chosen: argparse.Namespace) -> str:
    """The command of `run`, `audit` or `tune` as one would type it again: the flags that decide the numbers."""
    flags: Sequence[str] = (*CELL_FLAGS, *BUDGET_FLAGS) if chosen.verb == "tune" else RUN_FLAGS
    words = [*program.name().split(), *([] if chosen.verb == "run" else [chosen.verb])]
    if chosen.verb == "audit":
        flags = [name for name in flags if name != "scenario"]  # the request says which
        words += [word for path in chosen.models for word in ("--model", str(path))]
        words += ["--request", str(chosen.request), *(["--name", chosen.name] if chosen.name else [])]
    words += [] if chosen.verb != "tune" and chosen.preset == "digits" else ["--preset", chosen.preset]
    for name in flags:
        if (value := getattr(chosen, name)) is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    words += [word for change in chosen.changes for word in ("--set", change)]
    return shlex.join(words)
