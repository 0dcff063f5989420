"""A training step in the recipe's precision, and, where there is an NVIDIA GPU, captured and replayed."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench import loop, registry, training
from bench import step as steps
from bench.dataview import Images, MeteredPart
from bench.interface import Dataset
from bench.recipe import Recipe
from bench.training import Task

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU here")


def recipe_of(**changes: Any) -> Recipe:
    return Recipe(**{"name": "test", "lr": 0.05, "epochs": 2, "batch_size": 16, "schedule": "constant"} | changes)


def photographs(count: int = 112, size: int = 16) -> Dataset:
    """Random pixels in the shape of color photographs."""
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (count, 3, size, size), dtype=np.uint8)
    y = np.arange(count, dtype=np.int64) % 4
    return Dataset("random", x, y, x[:8], y[:8], x[:8], y[:8], tuple("abcd"), (128.0,) * 3, (64.0,) * 3)


def net(channels: int, size: int, classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Dropout(0.3), nn.Linear(8, classes),
    )  # fmt: skip


def trained(recipe: Recipe, device: str = "cpu", dataset: Dataset | None = None) -> training.Trained:
    data = dataset or photographs()
    task = Task(np.arange(len(data.train_y)), data.train_y, 3)
    return next(training.train(net, data, recipe, [task], device))


def apart(one: training.Trained, other: training.Trained) -> float:
    return max(float((one.weights[name].float() - other.weights[name].float()).abs().max()) for name in one.weights)


def test_a_precision_changes_the_products_and_leaves_logits_and_weights_in_float32() -> None:
    torch.manual_seed(0)
    model, x = net(3, 16, 4).eval(), torch.randn(5, 3, 16, 16)
    exact, rounded = (steps.forward(model, x, recipe_of(precision=name)) for name in ("float32", "bfloat16"))
    assert torch.equal(exact, model(x))
    assert rounded.dtype == torch.float32
    difference = float((exact - rounded).detach().abs().max())
    assert 0 < difference < 0.05 * float(exact.detach().abs().max())
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_training_in_bfloat16_stays_near_training_in_float32() -> None:
    start = training.new_model(net, photographs(), 3).state_dict()
    exact, rounded = trained(recipe_of()), trained(recipe_of(precision="bfloat16"))
    moved = max(float((exact.weights[name] - start[name]).abs().max()) for name in ("0.weight", "6.weight"))
    assert 0 < apart(exact, rounded) < 0.2 * moved
    assert all(value.dtype == torch.float32 for name, value in rounded.weights.items() if "num_batches" not in name)


def test_methods_step_in_the_precision_of_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    from methods._pgu_stop import accuracy

    seen: list[str] = []
    forward = steps.forward
    monkeypatch.setattr(loop, "forward", lambda m, x, r: (seen.append(r.precision), forward(m, x, r))[1])
    data = photographs()
    part = MeteredPart(Images(data, "train", "cpu"), torch.arange(8), torch.from_numpy(data.train_y[:8]))
    accuracy(net(3, 16, 4).eval(), part, recipe_of(precision="bfloat16"))
    assert seen == ["bfloat16"]


def first_input(model: nn.Module, x: Tensor) -> Tensor:
    """What the first layer of a sequential network is given."""
    seen: list[Tensor] = []
    model[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))  # type: ignore[operator]
    model.eval()(x)
    return seen[0]


def test_wide_images_are_turned_channels_last_and_digits_are_not(dataset: Dataset) -> None:
    wide = training.new_model(net, photographs(), 0)
    assert first_input(wide, torch.zeros(2, 3, 16, 16)).is_contiguous(memory_format=torch.channels_last)
    assert first_input(copy.deepcopy(wide), torch.zeros(2, 3, 16, 16)).stride()[1] == 1
    plain = training.new_model(registry.load("architectures", "digits_cnn"), dataset, 0)
    assert first_input(plain, torch.zeros(2, 1, 8, 8)).is_contiguous()
    # Methods flatten weights; `view` works on theirs.
    assert torch.nn.utils.parameters_to_vector(wide.parameters()).numel() == sum(p.numel() for p in wide.parameters())


class Viewing(nn.Module):
    """Flattens activations by `view`, which channels-last ones do not allow."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 16 * 16, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x).view(len(x), -1))
        return logits


def test_a_network_that_cannot_work_channels_last_need_not() -> None:
    model = training.new_model(lambda channels, size, classes: Viewing(), photographs(), 0)
    assert model(torch.zeros(2, 3, 16, 16)).shape == (2, 4)
    assert model.training


def test_stacks_are_for_plain_training_of_narrow_nets_on_small_images(dataset: Dataset) -> None:
    narrow = registry.load("architectures", "digits_cnn")
    assert training.group_size(narrow, dataset, recipe_of(), "cpu") == training.GROUP
    for data, changes in (
        (photographs(size=32), {}),
        (dataset, {"precision": "bfloat16"}),
        (dataset, {"augment": "crop_flip"}),
    ):
        assert training.group_size(narrow, data, recipe_of(**changes), "cpu") == 1
    # On a GPU one process trains model after model, and sends the data there once a group.
    assert training.group_size(narrow, dataset, recipe_of(), "cuda") == training.GROUP


def test_a_finished_model_is_given_out_before_the_next_is_trained() -> None:
    data = photographs()
    tasks = [Task(np.arange(len(data.train_y)), data.train_y, seed) for seed in range(3)]
    models = training.train(net, data, recipe_of(), tasks)
    first = next(models)
    assert first.seconds > 0
    assert len(list(models)) == 2


def test_on_a_cpu_nothing_is_compiled_or_captured() -> None:
    assert apart(trained(recipe_of(compile=True)), trained(recipe_of())) == 0


class Fake:
    """Stands for CUDA's graphs: counts what a training would capture and replay."""

    def __init__(self, fails: bool = False) -> None:
        self.fails, self.done = fails, []

    def install(self, monkeypatch: pytest.MonkeyPatch, taken: steps.Steps) -> None:
        def captured(x: Tensor, y: Tensor) -> bool:
            self.done.append("capture")
            if self.fails:
                taken.capturing = False
                return False
            taken.x, taken.y, taken.lr, taken.graph = x.clone(), y.clone(), torch.zeros(()), self
            return True

        monkeypatch.setattr(taken, "_captured", captured)
        monkeypatch.setattr(taken, "_aside", lambda x, y, lr: self.done.append("warm"))
        monkeypatch.setattr(taken, "_step", lambda x, y, lr: self.done.append("eager"))
        taken.capturing = True

    def replay(self) -> None:
        self.done.append("replay")


@pytest.mark.parametrize("fails", [False, True])
def test_when_a_step_is_captured_and_what_stays_eager(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = net(3, 16, 4)
    update = loop.optimizer(model.parameters(), recipe_of())
    taken = steps.Steps(model, update, loop.cross_entropy, recipe_of(), torch.device("cpu"), 100)
    assert not taken.capturing  # on a CPU
    fake = Fake(fails)
    fake.install(monkeypatch, taken)
    for size in (16, 7, 16, 16, 16, 16, 16, 7, 16):
        taken.take(torch.zeros(size, 3, 16, 16), torch.zeros(size, dtype=torch.int64), 0.1)
    rest = ["capture", *4 * ["eager"]] if fails else ["capture", "replay", "replay", "eager", "replay"]
    assert fake.done == ["warm", "eager", "warm", "warm", "warm", *rest]


@gpu
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_captured_training_is_the_eager_one_bit_for_bit(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench import workers

    workers.one_thread()
    recipe = recipe_of(epochs=6, optimizer=optimizer, lr=0.01, precision="bfloat16", augment="crop_flip")
    captured, again = trained(recipe, "cuda"), trained(recipe, "cuda")
    monkeypatch.setattr(steps, "WORTH", 10**9)
    assert apart(captured, again) == 0
    assert apart(captured, trained(recipe, "cuda")) == 0


@gpu
def test_memory_on_a_gpu_is_what_its_allocator_counted() -> None:
    from bench import ledger

    meter = ledger.meter("cuda")
    with meter:
        torch.zeros(1 << 20, device="cuda")
    assert 4 << 20 <= meter.peak < 6 << 20
