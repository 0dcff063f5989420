"""How much of the accuracy lost to wrong labels every method restores, by budget and by how much of it is known.

    python benchmarks/depoisoning_budgets.py [--flips 6,12,18,24] [--fractions 1,0.5] [--methods all] [--seeds 5]

Runs the benchmark's own command once a budget and fraction, draws the budgets together into figures/budgets.png and
.pdf of the folder, and prints one Markdown table: restored = (error of the poisoned originals - error of the method) /
(error of the poisoned originals - error of the clean pool), on test data, mean over the seeds with its 95 % interval.
0 is the original, 1 is the mean of the models that never saw the poison.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tabulate import tabulate

from bench import records
from reports import figures
from reports.numbers import Numbers, fixed, with_interval

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Run every budget and fraction, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", default="6,12,18,24", help="flipped samples of every class, a comma list")
    parser.add_argument("--fractions", default="1,0.5", help="known shares of the flipped samples, a comma list")
    parser.add_argument("--methods", default="all", help="as for the benchmark")
    parser.add_argument("--seeds", default="5", help="as for the benchmark")
    parser.add_argument("--preset", default="digits", help="as for the benchmark")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "depoisoning", help="store and results")
    args = parser.parse_args()
    cells = [(int(flips), float(share)) for share in args.fractions.split(",") for flips in args.flips.split(",")]
    columns = {cell: run(args, *cell) for cell in cells}
    first = next(iter(columns.values())).run
    versions = ", ".join(f"{name} {first['versions'][name]}" for name in ("python", "torch", "numpy"))
    print(f"\n{first['title']}, seeds {args.seeds}, commit {first['git']}, {versions}, {first['hardware']['cpu']}\n")
    print(table(columns))
    for drawn in figures.write_parts(list(columns.values()), args.folder / "figures"):
        print(f"\n{args.folder / 'figures' / drawn.name}.png: {drawn.caption}", file=sys.stderr)


def run(args: argparse.Namespace, flips: int, share: float) -> records.Results:
    """The results of one budget and fraction, by the real command line."""
    out = args.folder / f"flips{flips}-known{share:g}"
    words = ["--scenario", "depoisoning", "--preset", args.preset, "--methods", args.methods, "--seeds", args.seeds]
    words += ["--attack", "none", "--set", f"scenario.flips={flips}", "--set", f"scenario.known_fraction={share:g}"]
    words += ["--store", str(args.folder / "store"), "--out", str(out)]
    print("python run_benchmark.py", shlex.join(words), file=sys.stderr, flush=True)
    finished = subprocess.run([sys.executable, str(ROOT / "run_benchmark.py"), *words], stdout=subprocess.DEVNULL)
    if finished.returncode not in (0, 1):
        sys.exit(finished.returncode)
    return records.load(out)


def table(columns: dict[tuple[int, float], records.Results]) -> str:
    """Restored shares, one row a method; above them the errors that they lie between, in percent."""
    heads = [f"{flips} a class" + ("" if share == 1 else f", {share:.0%} known") for flips, share in columns]
    numbers = [Numbers(results.records) for results in columns.values()]
    errors = {"poisoned, test error": "original", "clean pool, test error": "reference"}
    rows = [[name, *(fixed(n.value(method, "error", "test")) for n in numbers)] for name, method in errors.items()]
    methods = dict.fromkeys(m["name"] for results in columns.values() for m in results.run["methods"])
    rows += [[name, *(with_interval(n.summary(name, "restored", "test")) for n in numbers)] for name in methods]
    return tabulate(rows, ["method", *heads], tablefmt="github", disable_numparse=True)


if __name__ == "__main__":
    main()
