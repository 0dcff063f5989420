"""Measures what PGU's statistics cost: the Gram matrices of the inputs of every layer, and their eigenvectors.

    python benchmarks/gram_pass.py [--device cpu|cuda] [--architectures allcnn,smallvgg] [--images 64]

The pass is compared, per image, with the same pass over unfolded patches in float64, as the authors' code takes it, and
with a training step of this benchmark; all in one run, in CPU seconds on a CPU. Images are random.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from training_speed import SIZES, ours, random_images

from bench import registry, training, workers
from bench.dataview import Images, MeteredPart
from methods import _grams
from methods._projection import spectrum


def clock(device: str) -> float:
    """CPU seconds of this process, or wall seconds once a GPU has finished."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def seconds(work: Callable[[], object], device: str) -> float:
    """What `work` takes, by `clock`; the second of two."""
    work()
    start = clock(device)
    work()
    return clock(device) - start


def row(name: str, device: str, count: int) -> str:
    """A row of the table: milliseconds an image, and what 50,000 images cost in epochs of training."""
    build, data = registry.function("architectures", name), random_images(max(count, 250), SIZES[name])
    model = training.new_model(build, data, 0, device)
    index = torch.arange(count, device=device)
    part = MeteredPart(Images(data, "train", device), index, torch.zeros_like(index))
    exact = seconds(lambda: _grams.input_grams(model, part), device) / count
    with mock.patch.object(_grams, "_correlates", return_value=False):
        unfolded = seconds(lambda: _grams.input_grams(model, part), device) / count
    step = 1 / ours(build, random_images(1000 if device == "cpu" else 50_000, SIZES[name]), device)
    grams = _grams.input_grams(model, part)
    eigen = seconds(lambda: [spectrum(gram) for gram in grams.values()], device)
    widest = max(map(len, grams.values()))
    cells = [f"{1e3 * value:.3g}" for value in (exact, unfolded)] + [f"{unfolded / exact:.1f}", f"{1e3 * step:.3g}"]
    size = sum(gram.nbytes for gram in grams.values()) / 1e6
    return (
        "| " + " | ".join([name, *cells, f"{exact / step:.2g}", f"{eigen:.3g}", f"{widest:,}", f"{size:,.0f}"]) + " |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--architectures", default="allcnn,smallvgg")
    parser.add_argument("--images", type=int, default=64)
    chosen = parser.parse_args()
    workers.one_thread()
    heads = ["net", "pass, ms an image", "unfolded", "ratio", "training step", "pass in epochs", "eigenvectors, s"]
    heads += ["widest layer", "stored, MB"]
    print(f"torch {torch.__version__}, 1 thread, {chosen.images} images\n")
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    for name in chosen.architectures.split(","):
        print(row(name, chosen.device, chosen.images), flush=True)


if __name__ == "__main__":
    main()
