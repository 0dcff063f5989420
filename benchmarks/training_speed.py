"""Measures our training of one wide net against the ordinary loop, in one run, and against the machine's own peak.

    python benchmarks/training_speed.py [--device cpu|cuda] [--architectures allcnn,smallvgg] [--rounds 3]

Ours is what the benchmark trains with: uint8 images on the device, crops and flips of many images at once, bfloat16,
channels-last, on a GPU a captured step. The ordinary loop is what public code for these nets does: a DataLoader, one
image at a time through torchvision's transforms, float32, the loss read back every step. Images are random, which no
speed depends on. The peak is the rate of a large matrix product in bfloat16, measured in every round. Run it with
nothing else on the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import loop, registry, training, workers
from bench.dataview import Images, MeteredPart
from bench.interface import Dataset
from bench.recipe import Recipe

SIZES = {"allcnn": 32, "smallvgg": 32, "resnet18": 64}
BATCH = 250


def torchvision() -> Any:
    """The library, also beside a torch without CUDA, for which its compiled part does not load.

    Its Python part then misses two operators that it only registers shapes for; declaring them is enough.
    """
    with contextlib.suppress(ImportError, RuntimeError):
        import torchvision

        return torchvision
    for name in [name for name in sys.modules if name.startswith("torchvision")]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision

    torchvision.declared = library  # the declaration lasts as long as the object
    return torchvision


class PerSample(TorchDataset):  # type: ignore[type-arg]
    """One image at a time, as torchvision's data sets give it out: an array to a PIL image to a tensor."""

    def __init__(self, dataset: Dataset) -> None:
        from PIL import Image

        transforms = torchvision().transforms
        size = dataset.train_x.shape[2]
        self.rows, self.labels, self.image = dataset.train_x.transpose(0, 2, 3, 1).copy(), dataset.train_y, Image
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(size, padding=size // 8),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize([m / 255 for m in dataset.mean], [s / 255 for s in dataset.std]),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.image.fromarray(self.rows[i])), int(self.labels[i])


def random_images(count: int, size: int) -> Dataset:
    """A data set of random pixels."""
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (count, 3, size, size), dtype=np.uint8)
    y = generator.integers(0, 10, count)
    few = x[:BATCH], y[:BATCH]
    names, mean, std = tuple("abcdefghij"), (128.0, 128.0, 128.0), (64.0, 64.0, 64.0)
    return Dataset("random", x, y, *few, *few, names, mean, std)


def ours(build: training.Build, dataset: Dataset, device: str, how: str = "compiled") -> float:
    """Images a second of one epoch; `how` matters on a GPU alone."""
    own = {"augment": "crop_flip", "precision": "bfloat16", "compile": how == "compiled"}
    recipe = Recipe(name="speed", lr=0.01, epochs=1, batch_size=BATCH, **own)  # type: ignore[arg-type]
    model = training.new_model(build, dataset, 0, device).train()
    everything = torch.arange(len(dataset.train_y), device=device)
    part = MeteredPart(
        Images(dataset, "train", device), everything, torch.from_numpy(dataset.train_y).to(device), augment=True
    )
    steps = loop.Steps(
        model,
        loop.optimizer(model.parameters(), recipe),
        loop.cross_entropy,
        recipe,
        torch.device(device),
        10**6 * (how != "eager"),
    )

    def epoch() -> None:
        for x, y in part.batches(BATCH, torch.Generator().manual_seed(0), augment=True):
            steps.take(x, y, 0.01)

    for x, y in part.batches(BATCH):  # libraries choose kernels; a GPU has the step captured
        steps.take(x, y, 0.01)
        if steps.graph is not None or not steps.capturing:
            break
    return len(everything) / seconds(epoch, device)


def ordinary(build: training.Build, dataset: Dataset, device: str) -> float:
    """Images a second of one epoch of the ordinary loop."""
    model = build(3, dataset.train_x.shape[2], 10).to(device).train()
    update = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    cores = 0 if device == "cpu" else 8
    loader = DataLoader(PerSample(dataset), BATCH, shuffle=True, num_workers=cores, pin_memory=device != "cpu")
    losses = []

    def epoch() -> None:
        for x, y in loader:
            update.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(x.to(device)), y.to(device))
            loss.backward()
            update.step()
            losses.append(loss.item())

    model(torch.zeros(BATCH, *dataset.train_x.shape[1:], device=device)).sum().backward()  # warm up
    return len(dataset.train_y) / seconds(epoch, device)


def seconds(work: Callable[[], object], device: str) -> float:
    """Wall seconds of `work`, with the device's."""
    wait = torch.cuda.synchronize if device != "cpu" else lambda: None
    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


def peak(device: str, repeats: int = 10) -> float:
    """FLOP a second of a large bfloat16 matrix product."""
    size = 8192 if device != "cpu" else 1536
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))

    def work() -> None:
        for _ in range(repeats):
            a @ b

    work()
    return 2 * size**3 * repeats / seconds(work, device)


def training_flop(build: training.Build, size: int) -> float:
    """FLOP of a training step per image: two per multiplication, forward once and backward twice."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        build(3, size, 10).eval()(torch.zeros(1, 3, size, size))
    return 3 * float(counter.get_total_flops())


KINDS = ("peak", "ours", "ordinary")


def measure(kind: str, name: str, device: str, images: int, how: str) -> float:
    """One measurement, in this process: FLOP a second of a matrix product, or images a second of a loop."""
    torch.set_num_threads(1)
    if kind == "peak":
        return peak(device)
    build, size = registry.function("architectures", name), SIZES[registry.variant(name)[0]]
    if kind == "ours":
        workers.one_thread()  # with what it asks of the C library, which an ordinary program does not
        return ours(build, random_images(images, size), device, how)
    return ordinary(build, random_images(max(BATCH * 2, images // (1 if device == "cpu" else 8)), size), device)


def elsewhere(kind: str, name: str, device: str, images: int, how: str) -> float:
    """The same in a process of its own, which nothing of another loop touches."""
    words = ["--measure", kind, "--architectures", name, "--device", device, "--images", str(images), "--how", how]
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return float(done.stdout)


def row(name: str, device: str, rounds: int, images: int, how: str) -> str:
    """A row of the table: medians over rounds that go from one kind to the next."""
    turns = [{kind: elsewhere(kind, name, device, images, how) for kind in KINDS} for _ in range(rounds)]
    flop = training_flop(registry.function("architectures", name), SIZES[registry.variant(name)[0]])
    a, b, c = (statistics.median(turn[kind] for turn in turns) for kind in ("ours", "ordinary", "peak"))
    ratio = statistics.median(turn["ours"] / turn["ordinary"] for turn in turns)
    rates = [f"{a:,.0f}", f"{b:,.0f}", f"{ratio:.2f}"]
    return "| " + " | ".join([name, *rates, f"{a * flop / 1e12:.3g}", f"{c / 1e12:.3g}", f"{a * flop / c:.0%}"]) + " |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--architectures", default="allcnn,smallvgg")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, help="of an epoch of ours (default: 1,000 on a CPU, 50,000 elsewhere)")
    parser.add_argument("--how", choices=("compiled", "captured", "eager"), default="compiled", help="on a GPU")
    parser.add_argument("--measure", choices=KINDS, help="one measurement, for the script itself")
    chosen = parser.parse_args()
    count = chosen.images or (1_000 if chosen.device == "cpu" else 50_000)
    if chosen.measure:
        print(measure(chosen.measure, chosen.architectures, chosen.device, count, chosen.how))
        return
    hardware = platform.processor() or platform.machine()
    hardware = hardware if chosen.device == "cpu" else torch.cuda.get_device_name()
    print(f"{hardware}, torch {torch.__version__}, 1 thread, batch {BATCH}, {chosen.rounds} rounds\n")
    print("| net | ours, images/s | ordinary, images/s | ratio | ours, TFLOP/s | matrix product, TFLOP/s | share |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in chosen.architectures.split(","):
        print(row(name, chosen.device, chosen.rounds, count, chosen.how), flush=True)


if __name__ == "__main__":
    main()
