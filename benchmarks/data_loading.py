"""Measures how long a data set takes to load, without and with the cache, and how much memory that takes.

    python benchmarks/data_loading.py [--data-dir DIR] [--datasets cifar10,tinyimagenet]

Every load is a process of its own, and its cache a folder that is removed afterwards. Seconds are those of loading and
checking, without the start of Python; the disk's cache is warm from the first load on. Memory is the process's peak.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOADS = {"decoded": 1, "cached": 3}
SCRIPT = """
import json, resource, sys, time
from bench import plan, store
wall, cpu = time.perf_counter(), time.process_time()
dataset = plan.load_dataset(sys.argv[1])
key = store.fingerprint(dataset)
spent = time.perf_counter() - wall, time.process_time() - cpu
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
images = sum(len(dataset.labels(part)) for part in ("train", "validation", "test"))
print(json.dumps([*spent, before / (1e9 if sys.platform == "darwin" else 1e6), images, key]))
"""


def measure(name: str, environment: dict[str, str]) -> list[float]:
    """Wall seconds, CPU seconds and peak GB of one load, the number of images, and the data set's key."""
    command = [sys.executable, "-c", SCRIPT, name]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(done.returncode)
    values: list[float] = json.loads(done.stdout)
    return values


def main() -> None:
    """Print the table."""
    words = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    words.add_argument("--data-dir", type=Path, default=Path(os.environ.get("UNLEARNING_DATA") or "data"))
    words.add_argument(
        "--datasets", default="cifar10,tinyimagenet", help="comma list of names, as --dataset takes them"
    )
    chosen = words.parse_args()
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.platform()}\n")
    print("| data set | images | load | seconds | CPU seconds | peak memory |\n|---|---|---|---|---|---|")
    for name in chosen.datasets.split(","):
        with tempfile.TemporaryDirectory() as cache:
            environment = {"UNLEARNING_DATA": str(chosen.data_dir.resolve()), "UNLEARNING_CACHE": cache}
            for load, times in LOADS.items():
                rows = [measure(name, environment) for _ in range(times)]
                wall, cpu, memory, images, _ = sorted(rows)[times // 2]
                print(f"| {name} | {images:,} | {load} | {wall:.2f} | {cpu:.2f} | {memory:.2f} GB |", flush=True)


if __name__ == "__main__":
    main()
