"""How often `compare` cries wolf, and what it catches, measured with a baseline's own command.

    python benchmarks/watch.py [--baseline baselines/ci.json] [--reruns 50] [--planted 5] [--write docs/compare.md]

False alarms: the command is run again and again, each time with repeats and shadow models that nobody has seen, and
compared with the baseline and with every other rerun. Power: for every trained method a fault is planted in its code,
its settings untouched, and the run compared with the baseline, with the baseline's own repeats and with fresh ones.
Everything goes through the command line. What is finished is kept in --work: the same command goes on from there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from joblib import Parallel, delayed
from scipy import stats
from tabulate import tabulate

from bench import baseline, machine, records, registry, regression
from bench.interface import Need

ROOT = Path(__file__).resolve().parent.parent
STRIDE = 100  # shadow models between one rerun's first and the next one's; more where a run has more

# What is planted, as the body of `unlearn`; `scaled` takes a field of the method or the recipe times `FACTOR`.
FAULTS: dict[str, tuple[tuple[str, ...], float]] = {
    "learning rate × 10": (("lr", "end_lr"), 10.0),
    "learning rate × 2": (("lr", "end_lr"), 2.0),
    "half the epochs": (("epochs",), 0.5),
    "labels of retained data mixed up": ((), 1.0),
    "no epochs": (("epochs",), 0.0),
}
PLANTED = '''"""{method} with a planted fault: {fault}."""

import dataclasses

from methods.{method} import {cls} as Real

FIELDS, FACTOR, MIXED = {fields!r}, {factor!r}, {mixed!r}


class MixedUp:
    """Retained data whose labels are moved on by one place in every batch."""

    def __init__(self, part):
        self.part = part

    def __len__(self):
        return len(self.part)

    def batches(self, *args, **kwargs):
        for x, y in self.part.batches(*args, **kwargs):
            yield x, y.roll(1)


class View:
    """The data of a request, its retained part mixed up."""

    def __init__(self, data):
        self.data = data

    def __getattr__(self, name):
        part = getattr(self.data, name)
        return MixedUp(part) if name == "retain" else part


def scaled(of):
    values = {{name: getattr(of, name) for name in FIELDS if getattr(of, name, None) is not None}}
    return of.model_copy(update={{name: type(value)(value * FACTOR) for name, value in values.items()}})


class Planted(Real):
    """{fault}."""

    def unlearn(self, model, data, ctx):
        ctx = dataclasses.replace(ctx, recipe=scaled(ctx.recipe))
        return Real.unlearn(scaled(self), model, View(data) if MIXED else data, ctx)
'''


def main() -> None:
    """Measure, and print or write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baseline", type=Path, default=ROOT / "baselines" / "ci.json")
    parser.add_argument("--reruns", type=int, default=50, help="reruns with fresh seeds (default: %(default)s)")
    parser.add_argument("--planted", type=int, default=5, help="of these, in how many faults are planted too")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "watch", help="store and results")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (default: %(default)s)")
    parser.add_argument("--write", type=Path, help="page that gets the tables between the marks of this baseline")
    args = parser.parse_args()
    work = Work(args.baseline, args.work)
    run = Parallel(n_jobs=args.jobs, prefer="threads")
    run(delayed(work.rerun)(k) for k in range(1, args.reruns + 1))
    jobs = [(m, fault, k) for m in work.trained() for fault in work.faults(m) for k in range(args.planted + 1)]
    run(delayed(work.planted)(*job) for job in jobs)
    text = "\n\n".join([head(args, work), false_alarms(work, args.reruns), power(work, args.planted)])
    print(text)
    if args.write:
        write(args.write, args.baseline.stem, text)


class Work:
    """The runs of one baseline's command: rerun `k` has repeats and shadow models of its own, 0 the baseline's."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path, self.folder = path, folder / path.stem
        self.store = folder / "store"
        content = json.loads(path.read_text(encoding="utf-8"))
        self.config: dict[str, Any] = content["config"]
        self.command: str = content["command"]

    def rerun(self, k: int) -> Path:
        """The results of rerun `k`."""
        return self._run(self.folder / str(k), shlex.split(self.command)[2:], k)

    def trained(self) -> list[str]:
        """The methods of the baseline that take steps, apart from retraining, which is the yardstick."""
        found = [name for name in self.config["method_settings"] if name not in ("original", "retrain")]
        return [name for name in found if registry.source("methods", name)]

    def faults(self, method: str) -> list[str]:
        """What can be planted in a method: mixing up retained data harms only those that read it."""
        reads = registry.load("methods", method).needs
        return [fault for fault, (fields, _) in FAULTS.items() if fields or Need.RETAIN in reads]

    def plant(self, method: str, fault: str) -> Path:
        """Write the file of a method with a fault; its name names its row."""
        slug, (fields, factor) = _slug(fault), FAULTS[fault]
        told = {"method": method, "fault": fault, "cls": registry.load("methods", method).__name__}
        file = self.folder / slug / f"{method}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(PLANTED.format(**told, fields=fields, factor=factor, mixed=not fields), encoding="utf-8")
        return file

    def planted(self, method: str, fault: str, k: int) -> Path:
        """The results of a method with a fault, in the models of rerun `k`."""
        words = _without(shlex.split(self.command)[2:], "--methods")
        words += ["--methods", str(self.plant(method, fault))]
        default = registry.load("methods", method)().model_dump(mode="json")
        for name, value in self.config["method_settings"][method].items():
            if value != default[name]:
                words += ["--set", f"{method}.{name}={'none' if value is None else json.dumps(value)}"]
        return self._run(self.folder / f"{method}-{_slug(fault)}-{k}", words, k)

    def _run(self, out: Path, words: Sequence[str], k: int) -> Path:
        if not (out / "records.csv").exists():
            seeds, shadow = self.config["seeds"], self.config["shadow"]
            if k:
                first = k * max(STRIDE, shadow["train"] + shadow["validation"])
                fresh = ",".join(str(len(seeds) * k + i) for i in range(len(seeds)))
                words = [*_without(words, "--seeds"), "--seeds", fresh, "--set", f"shadow.first={first}"]
            command = [sys.executable, str(ROOT / "run_benchmark.py"), *words]
            command += ["--store", str(self.store), "--out", str(out), "--jobs", "1"]
            print(shlex.join(command), file=sys.stderr, flush=True)
            done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            if done.returncode not in (0, 1):
                raise RuntimeError(done.stderr.splitlines()[-1])
        return out


def _slug(fault: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in fault)


def _without(words: Sequence[str], flag: str) -> list[str]:
    """The words of a command without a flag and its value."""
    at = [i for i, word in enumerate(words) if word == flag]
    return [word for i, word in enumerate(words) if i not in at and i - 1 not in at]


def head(args: argparse.Namespace, work: Work) -> str:
    """What was run, and on what."""
    versions = ", ".join(f"{name} {machine.versions()[name]}" for name in ("python", "torch", "numpy"))
    words = f"--baseline {work.path.name} --reruns {args.reruns} --planted {args.planted}"
    cpu = machine.hardware("cpu")["cpu"]
    return (
        f"`python benchmarks/watch.py {words}`; the baseline's command is `{work.command}`, root seed "
        f"{work.config['seed']}; commit {machine.commit()}, {versions}, {cpu}."
    )


def false_alarms(work: Work, reruns: int) -> str:
    """How many comparisons of runs that differ by chance alone report anything, and what."""
    loaded = [records.load(work.rerun(k)) for k in range(1, reruns + 1)]
    against = [regression.compare(run, work.path) for run in loaded]
    pairs = [regression.between(a, b) for a, b in itertools.combinations(map(baseline.of, loaded), 2)]
    rows = [_alarms("reruns against the baseline", against), _alarms("every rerun against every later one", pairs)]
    heads = [
        "comparisons",
        "files with an alarm",
        "share, %",
        "95 % interval",
        "numbers",
        "alarms",
        "per 10,000 numbers",
    ]
    wrong = Counter(f"{one.metric} ({one.reason})" for found in [*against, *pairs] for one in found.moved)
    listed = "; ".join(f"{name}: {count}" for name, count in wrong.most_common(10)) or "none"
    table = tabulate(rows, heads, tablefmt="github", disable_numparse=True)
    return f"{table}\n\nThe alarms: {listed}. The interval of pairs takes them for independent, which they are not."


def _alarms(name: str, found: Sequence[regression.Comparison]) -> list[str]:
    files, numbers = sum(bool(one.moved) for one in found), sum(one.compared for one in found)
    alarms = sum(len(one.moved) for one in found)
    low, high = stats.binomtest(files, len(found)).proportion_ci(0.95) if found else (math.nan, math.nan)
    share = 100 * files / max(len(found), 1)
    return [
        f"{len(found)} {name}", str(files), f"{share:.1f}", f"{100 * low:.1f} to {100 * high:.1f}", f"{numbers:,}",
        str(alarms), f"{1e4 * alarms / max(numbers, 1):.2f}",
    ]  # fmt: skip


def power(work: Work, planted: int) -> str:
    """What is caught of every fault planted in every trained method."""
    rows = []
    for method, fault in itertools.chain(*([(m, f) for f in work.faults(m)] for m in work.trained())):
        runs = [records.load(work.planted(method, fault, k)) for k in range(planted + 1)]
        found = [_own(regression.compare(run, work.path), method) for run in runs]
        same = _own(regression.compare(runs[0], work.path, exact=True), method)
        most = max(found, key=len)
        caught = f"{sum(map(bool, found[1:]))} of {planted}"
        told = ", ".join(dict.fromkeys(f"{one.metric} {one.part}" for one in most[:3])) or "nothing"
        rows.append([method, fault, caught, str(len(found[0])), str(len(same)), told])
    heads = ["method", "planted", "caught, fresh seeds", "numbers, same seeds", "the same, --exact", "told by"]
    return tabulate(rows, heads, tablefmt="github", disable_numparse=True)


def _own(found: regression.Comparison, method: str) -> list[regression.Moved]:
    """What moved of one method; numbers of others are gone, since only it was run."""
    return [one for one in found.moved if one.method == method]


def write(page: Path, name: str, text: str) -> None:
    """Put the text between the marks of a baseline."""
    begin, end = f"<!-- measured: {name} -->", f"<!-- end of measured: {name} -->"
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
