"""Training: optimizers against torch's own, schedules, and that a stacked model is the model trained alone."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import ROOT
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from bench import config, loop, plan, pool, registry, training
from bench import recipe as recipe_module
from bench.dataview import Images, crop_flip, draw_crops
from bench.interface import Dataset
from bench.progress import Progress
from bench.recipe import Recipe
from bench.stack import Stack
from bench.store import Store
from bench.training import Task, Trained

DIGITS_CNN = registry.load("architectures", "digits_cnn")
SHAPE = (1, 8, 8)


def recipe_of(**changes: Any) -> Recipe:
    return Recipe(**{"name": "test", "lr": 0.1, "epochs": 3, "batch_size": 32} | changes)


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))


def steps(net: nn.Module, take: Callable[[float], None]) -> list[Tensor]:
    """The parameters after six steps on random batches with a falling learning rate."""
    generator = torch.Generator().manual_seed(1)
    for step in range(6):
        x = torch.randn(8, 5, generator=generator)
        net.zero_grad()
        net(x).square().mean().backward()
        take(0.1 / (step + 1))
    return [p.detach() for p in net.parameters()]


def torch_steps(optimizer: torch.optim.Optimizer) -> Callable[[float], None]:
    def take(lr: float) -> None:
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()

    return take


def assert_close(ours: Sequence[Tensor], theirs: Sequence[Tensor], within: float = 1e-6) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() <= within


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_sgd_is_that_of_torch(momentum: float, nesterov: bool, weight_decay: float) -> None:
    options: Any = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
    net, theirs = small_net(), small_net()
    ours = steps(net, loop.SGD(net.parameters(), **options).step)
    assert_close(ours, steps(theirs, torch_steps(torch.optim.SGD(theirs.parameters(), lr=1, **options))))


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.9)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("epsilon", [1e-8, 1e-2])
def test_adam_is_that_of_torch(betas: tuple[float, float], weight_decay: float, epsilon: float) -> None:
    net, theirs = small_net(), small_net()
    update = loop.Adam(net.parameters(), betas=betas, weight_decay=weight_decay, epsilon=epsilon)
    reference = torch.optim.Adam(theirs.parameters(), lr=1, betas=betas, weight_decay=weight_decay, eps=epsilon)
    assert_close(steps(net, update.step), steps(theirs, torch_steps(reference)), within=2e-6)


@pytest.mark.parametrize("kind", [loop.SGD, loop.Adam])
def test_a_step_drops_the_gradients_and_leaves_parameters_without_one(kind: type[loop.SGD] | type[loop.Adam]) -> None:
    net = small_net()
    net[0].requires_grad_(False)
    before = copy.deepcopy(net[0].state_dict())
    update = kind(net.parameters(), weight_decay=0.1)
    net(torch.ones(2, 5)).sum().backward()
    update.step(0.1)
    assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(value, net[0].state_dict()[name]) for name, value in before.items())


def test_a_step_does_not_import_the_compiler_of_torch() -> None:
    code = (
        "import sys, torch\nfrom bench import loop\n"
        "for kind in (loop.SGD, loop.Adam):\n"
        "    p = torch.ones(2, requires_grad=True)\n    p.sum().backward()\n    kind([p]).step(0.1)\n"
        "    assert p[0] < 1\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_a_recipe_names_its_optimizer() -> None:
    sgd = loop.optimizer([], recipe_of(momentum=0.5, nesterov=True, weight_decay=0.1))
    assert isinstance(sgd, loop.SGD)
    assert (sgd.momentum, sgd.nesterov, sgd.weight_decay) == (0.5, True, 0.1)
    assert isinstance(loop.optimizer([], recipe_of(optimizer="adam")), loop.Adam)


def test_a_constant_schedule_stays() -> None:
    assert loop.learning_rates(recipe_of(schedule="constant"), 4) == [0.1] * 12


def test_an_exponential_schedule_falls_by_an_equal_factor_after_every_epoch() -> None:
    rates = loop.learning_rates(recipe_of(schedule="exponential", lr=0.1, end_lr=0.0001, epochs=3), 2)
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


@given(st.integers(1, 30), st.integers(1, 20), st.floats(0, 0.9))
def test_a_cosine_schedule_rises_to_the_peak_and_falls_to_zero(per_epoch: int, epochs: int, warmup: float) -> None:
    rates = loop.learning_rates(recipe_of(schedule="cosine", epochs=epochs, warmup=warmup), per_epoch)
    peak = max(round(warmup * len(rates)), 1) - 1
    assert len(rates) == per_epoch * epochs
    assert rates[peak] == max(rates) == pytest.approx(0.1)
    assert all(rate > 0 for rate in rates)
    assert (np.diff(rates[: peak + 1]) > 0).all()
    assert (np.diff(rates[peak:]) < 0).all()


def test_a_cosine_schedule_by_hand() -> None:
    rates = loop.learning_rates(recipe_of(schedule="cosine", lr=1.0, epochs=1, warmup=0.4), 5)
    assert rates == pytest.approx([0.5, 1.0, 0.5 * (1 + np.cos(np.pi / 4)), 0.5, 0.5 * (1 + np.cos(3 * np.pi / 4))])


@pytest.mark.parametrize("schedule", ["constant", "exponential", "cosine"])
def test_other_epochs_span_the_schedule_anew(schedule: Any) -> None:
    one = loop.learning_rates(recipe_of(schedule=schedule, epochs=3), 5)
    assert loop.learning_rates(recipe_of(schedule=schedule, epochs=9), 5, epochs=3) == one


@given(st.integers(0, 200), st.integers(1, 60))
def test_batches_cover_everything_and_none_has_one_example(n: int, size: int) -> None:
    bounds = loop.batch_bounds(n, size)
    assert [i for start, stop in bounds for i in range(start, stop)] == list(range(n))
    lengths = [stop - start for start, stop in bounds]
    assert all(length == size for length in lengths[:-1])
    assert all(length <= size + 1 for length in lengths)
    assert size == 1 or n == 1 or 1 not in lengths


def test_an_error_rate_counts_wrong_answers_in_the_mode_the_model_is_in() -> None:
    class Part:
        def __len__(self) -> int:
            return 4

        def batches(self, size: int) -> Any:
            yield torch.eye(2), torch.tensor([0, 0])
            yield torch.eye(2), torch.tensor([0, 1])

    model = nn.Identity().train()
    assert loop.error_rate(model, Part()) == 0.25  # type: ignore[arg-type]
    assert model.training


def tasks_of(dataset: Dataset, seeds: Sequence[int], count: int = 70) -> list[Task]:
    """One task a seed; every model on other samples, the third with other labels."""
    tasks = []
    for seed in seeds:
        index = np.sort(np.random.default_rng(seed).permutation(len(dataset.train_y))[:count])
        labels = dataset.train_y if seed % 3 else (dataset.train_y + 1) % 10
        tasks.append(Task(index, labels, seed))
    return tasks


def models_of(dataset: Dataset, seeds: Sequence[int], build: training.Build = DIGITS_CNN) -> list[nn.Module]:
    return [training.new_model(build, dataset, seed) for seed in seeds]


def identical(one: Trained, other: Trained) -> bool:
    """Whether weights, buffers and outputs are the same bit for bit."""
    return (
        one.weights.keys() == other.weights.keys()
        and all(torch.equal(value, other.weights[name]) for name, value in one.weights.items())
        and all(np.array_equal(rows, other.outputs.arrays()[part]) for part, rows in one.outputs.arrays().items())
    )


def test_every_model_of_a_stack_gets_the_gradient_it_would_have_alone(dataset: Dataset) -> None:
    models = [model.train() for model in models_of(dataset, range(4))]
    stack = Stack.build(models, SHAPE)
    assert stack is not None
    stack.net.train()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(16, 4, *SHAPE, generator=generator)
    y = torch.randint(0, 10, (16, 4), generator=generator)
    stack.loss(x, y).backward()
    wide = dict(stack.net.named_parameters())
    for i, model in enumerate(models):
        loop.cross_entropy(model(x[:, i]), y[:, i]).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            own = wide[name].grad.reshape(4, *parameter.shape)[i]
            assert (own - parameter.grad).abs().max() <= 1e-5


def test_a_stack_gives_back_the_weights_it_was_built_from(dataset: Dataset) -> None:
    models = models_of(dataset, range(3))
    stack = Stack.build(models, SHAPE)
    assert stack is not None
    for i, model in enumerate(models):
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in stack.weights(i).items())


def test_the_weights_of_a_stacked_model_give_its_logits_alone(dataset: Dataset, recipe: Recipe) -> None:
    for trained in training.train(DIGITS_CNN, dataset, recipe, tasks_of(dataset, range(3))):
        alone = training.new_model(DIGITS_CNN, dataset, 99)
        alone.load_state_dict(trained.weights)
        outputs = training.evaluate(alone, dataset)
        for part, rows in trained.outputs.arrays().items():
            assert np.abs(outputs.arrays()[part] - rows).max() <= 1e-5


@pytest.fixture(scope="module")
def alone(dataset: Dataset, recipe: Recipe) -> Trained:
    """The model of seed 5, trained alone."""
    return next(training.train(DIGITS_CNN, dataset, recipe, tasks_of(dataset, [5])))


@pytest.mark.parametrize("count", [2, 7, 25])
@pytest.mark.parametrize("position", ["first", "middle", "last"])
def test_a_model_comes_out_the_same_in_any_company(
    dataset: Dataset, recipe: Recipe, alone: Trained, count: int, position: str
) -> None:
    at = {"first": 0, "middle": count // 2, "last": count - 1}[position]
    seeds = list(range(100, 100 + count - 1))
    seeds.insert(at, 5)
    assert identical(list(training.train(DIGITS_CNN, dataset, recipe, tasks_of(dataset, seeds)))[at], alone)


def test_no_position_in_a_stack_rounds_otherwise(dataset: Dataset) -> None:
    model = training.new_model(DIGITS_CNN, dataset, 0)
    stack = Stack.build([copy.deepcopy(model) for _ in range(9)], SHAPE)
    assert stack is not None
    for size in (32, 29, 6):  # the sizes move the matrices in memory
        x = torch.randn(size, 1, *SHAPE).expand(-1, 9, -1, -1, -1)
        stack.loss(x, torch.arange(size)[:, None].expand(-1, 9) % 10).backward()
        for parameter in stack.net.parameters():
            assert parameter.grad is not None
            gradients = parameter.grad.reshape(9, -1)
            assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_training_moves_every_weight_and_learns(dataset: Dataset, optimizer: Any) -> None:
    recipe = recipe_of(optimizer=optimizer, lr=0.1 if optimizer == "sgd" else 0.01, epochs=8)
    task = Task(np.arange(600), dataset.train_y, 1)
    [trained] = training.train(DIGITS_CNN, dataset, recipe, [task])
    fresh = training.new_model(DIGITS_CNN, dataset, 1).state_dict()
    assert all(not torch.equal(value, fresh[name]) for name, value in trained.weights.items())
    assert (trained.outputs.test.argmax(1) == dataset.test_y).mean() > 0.9


def test_another_seed_trains_another_model(dataset: Dataset, recipe: Recipe) -> None:
    same_data = [Task(np.arange(70), dataset.train_y, seed) for seed in (1, 2)]
    one, other = training.train(DIGITS_CNN, dataset, recipe, same_data)
    assert not identical(one, other)


def test_one_process_and_two_train_the_same_models(tmp_path: Path) -> None:
    changes = ["shadow.train=2", "shadow.validation=1", "recipe.epochs=1"]
    planned = plan.make(config.resolve("digits", {"seeds": "1", "methods": "original"}, changes))
    stores = [Store(tmp_path / "one"), Store(tmp_path / "two")]
    for jobs, store in enumerate(stores, start=1):
        pool.train_pool(planned, store, jobs, Progress(len(planned.models()), quiet=True))
    for model in planned.models():
        one, two = (store.get("model", model.key)[0] for store in stores)
        assert {name: value.tobytes() for name, value in one.items()} == {k: v.tobytes() for k, v in two.items()}


class Viewing(nn.Module):
    """Flattens to a hard-coded width."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.conv(x)).view(-1, 256))


class FunctionalDropout(Viewing):
    """Drops features with a function, which no layer shows."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(nn.functional.dropout(self.conv(x).flatten(1), 0.5, self.training))


class MixesChannels(Viewing):
    """Normalizes over all channels in its forward function."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.softmax(self.conv(x), dim=1).flatten(1))


class OwnParameter(Viewing):
    """Holds a parameter beside its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).flatten(1) * self.scale)


class Noisy(Viewing):
    """Adds noise of its own while training."""

    def forward(self, x: Tensor) -> Tensor:
        features = self.conv(x).flatten(1)
        return self.head(features + 0.1 * torch.randn_like(features) if self.training else features)


def layered(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), *layers, nn.Flatten(), nn.Linear(256, 10))


UNSTACKABLE: dict[str, Callable[[], nn.Module]] = {
    "view": Viewing,
    "functional_dropout": FunctionalDropout,
    "mixes_channels": MixesChannels,
    "own_parameter": OwnParameter,
    "noisy": Noisy,
    "layer_norm": lambda: layered(nn.LayerNorm([4, 8, 8])),
    "group_norm": lambda: layered(nn.GroupNorm(2, 4)),
    "dropout": lambda: layered(nn.Dropout(0.5)),
    "dropout2d": lambda: layered(nn.Dropout2d(0.5)),
    "padding_mode": lambda: nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, padding_mode="circular"), layered()[1:]),
    "softmax": lambda: layered(nn.Softmax(dim=1)),
    "p_relu": lambda: layered(nn.PReLU()),
}
STACKABLE: dict[str, Callable[[], nn.Module]] = {
    "plain": layered,
    "no_dropout": lambda: layered(nn.Dropout(0.0)),
    "groups": lambda: layered(nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False), nn.BatchNorm2d(4), nn.ReLU()),
    "pooled": lambda: nn.Sequential(nn.Conv2d(1, 8, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)),
    "two_linear": lambda: nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(108, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 10, bias=False)
    ),
}


def build_of(make: Callable[[], nn.Module]) -> training.Build:
    return lambda channels, size, classes: make()


def train_first(build: training.Build, dataset: Dataset, seeds: Sequence[int]) -> Trained:
    """The first of several models, trained for an epoch."""
    return next(training.train(build, dataset, recipe_of(epochs=1, lr=0.01), tasks_of(dataset, seeds, count=40)))


@pytest.mark.parametrize("name", UNSTACKABLE)
def test_what_cannot_be_stacked_trains_one_after_the_other(dataset: Dataset, name: str) -> None:
    build = build_of(UNSTACKABLE[name])
    assert Stack.build(models_of(dataset, [1, 2], build), SHAPE) is None
    trained = train_first(build, dataset, [1, 2])
    fresh = training.new_model(build, dataset, 1).state_dict()
    assert any(not torch.equal(value, fresh[key]) for key, value in trained.weights.items())
    assert trained.outputs.train.shape == (600, 10)
    assert identical(trained, train_first(build, dataset, [1]))


@pytest.mark.parametrize("name", STACKABLE)
def test_what_can_be_stacked_is_the_model_trained_alone(dataset: Dataset, name: str) -> None:
    build = build_of(STACKABLE[name])
    assert Stack.build(models_of(dataset, [1, 2], build), SHAPE) is not None
    assert identical(train_first(build, dataset, [1, 2, 4]), train_first(build, dataset, [1]))


def test_a_stacked_and_a_looped_model_agree_after_a_few_steps(dataset: Dataset) -> None:
    recipe, task = recipe_of(epochs=1, lr=0.01), tasks_of(dataset, [1], count=64)[0]
    [stacked] = training.train(DIGITS_CNN, dataset, recipe, [task])
    images = {part: Images(dataset, part, "cpu") for part in ("train", "validation", "test")}
    looped = training._train_alone(training.new_model(DIGITS_CNN, dataset, 1), dataset, images, recipe, task, "cpu")
    for name, value in stacked.weights.items():
        assert (value - looped.weights[name]).abs().max() <= 1e-4


def test_models_of_unequal_layers_are_not_stacked() -> None:
    models = [layered(), nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Flatten(), nn.Linear(256, 10), nn.ReLU())]
    try:
        stack = Stack.build(models, SHAPE)
    except (AttributeError, RuntimeError):
        return
    assert stack is None


@pytest.mark.parametrize(("width", "stacked"), [(8, True), (64, False)])
def test_wide_networks_and_augmented_data_are_trained_one_after_the_other(
    dataset: Dataset, recipe: Recipe, width: int, stacked: bool
) -> None:
    def build(channels: int, size: int, classes: int) -> nn.Module:
        network: nn.Module = DIGITS_CNN(channels, size, classes, width=width)
        return network

    assert (training.group_size(build, dataset, recipe, "cpu") > 1) == stacked
    augmented = recipe.model_copy(update={"augment": "crop_flip"})
    assert training.group_size(build, dataset, augmented, "cpu") == 1


def crops_of(x: Tensor, seed: int) -> Tensor:
    return draw_crops(len(x), x.shape[2], torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(5, 1, 8, 8), (3, 3, 32, 32)])
def test_crop_and_flip_keep_the_shape_and_depend_on_the_generator_alone(shape: tuple[int, ...]) -> None:
    x = torch.rand(shape)
    before = x.clone()
    one, again, other = (crop_flip(x, crops_of(x, seed)) for seed in (1, 1, 2))
    assert one.shape == x.shape
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(x, before)


def test_crop_and_flip_give_a_shifted_image_that_may_be_mirrored() -> None:
    x = torch.rand(40, 2, 8, 8) + 1
    padded = nn.functional.pad(x, (1, 1, 1, 1))
    seen = set()
    for i, image in enumerate(crop_flip(x, crops_of(x, 0))):
        crops = {
            (top, left, flipped): padded[i, :, top : top + 8, left : left + 8].flip(-1 if flipped else ())
            for top in range(3)
            for left in range(3)
            for flipped in (False, True)
        }
        [found] = [place for place, crop in crops.items() if torch.equal(crop, image)]
        seen.add(found)
    assert len(seen) > 10
    assert {flipped for _, _, flipped in seen} == {False, True}


@pytest.mark.parametrize("mode", [True, False])
def test_evaluating_leaves_the_model_as_it_was(dataset: Dataset, mode: bool) -> None:
    model = training.new_model(DIGITS_CNN, dataset, 0).train(mode)
    before = copy.deepcopy(model.state_dict())
    outputs = training.evaluate(model, dataset)
    assert model.training is mode
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    with torch.no_grad():
        x = Images(dataset, "test", "cpu").take(torch.arange(len(dataset.test_y)))
        assert np.abs(model.eval()(x).numpy() - outputs.test).max() <= 1e-5
    assert {part: rows.shape for part, rows in outputs.arrays().items()} == {
        "train": (600, 10), "validation": (400, 10), "test": (797, 10),
    }  # fmt: skip
    assert all(rows.dtype == np.float32 for rows in outputs.arrays().values())


def test_a_seed_alone_decides_the_initial_weights(dataset: Dataset) -> None:
    torch.manual_seed(5)
    one = training.new_model(DIGITS_CNN, dataset, 1).state_dict()
    torch.manual_seed(6)
    again, other = (training.new_model(DIGITS_CNN, dataset, seed).state_dict() for seed in (1, 2))
    assert all(torch.equal(value, again[name]) for name, value in one.items())
    assert not torch.equal(one["0.weight"], other["0.weight"])


@pytest.mark.slow
def test_stacked_and_looped_models_are_of_one_distribution(dataset: Dataset) -> None:
    from scipy.stats import ks_2samp

    recipe = recipe_module.load_recipe("digits")
    everything = np.arange(len(dataset.train_y))

    def accuracy(trained: Trained) -> float:
        return float((trained.outputs.test.argmax(1) == dataset.test_y).mean())

    stacked = training.train(DIGITS_CNN, dataset, recipe, [Task(everything, dataset.train_y, s) for s in range(32)])
    looped = [
        training._train_alone(
            training.new_model(DIGITS_CNN, dataset, s), dataset, recipe, Task(everything, dataset.train_y, s), "cpu"
        )
        for s in range(100, 132)
    ]
    assert ks_2samp([accuracy(one) for one in stacked], [accuracy(one) for one in looped]).pvalue > 0.01
