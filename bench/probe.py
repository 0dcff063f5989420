"""The tiny problems on which contract tests try a method: about 100 images of digits, a narrow net, float64.

The images have three channels, and the net turns them channels-last, as it is with photographs.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bench import loop, registry, scenarios, training, unlearning
from bench.architectures import digits_cnn
from bench.dataview import Images, MeteredPart
from bench.interface import SCENARIOS, Dataset, Method, Request
from bench.recipe import Recipe

RECIPE = Recipe(name="contract", lr=0.1, epochs=6, batch_size=16)


class Problem(NamedTuple):
    """How many digits there are, of how many training images each, and which go in class removal."""

    classes: int
    per_class: int
    removed: tuple[int, ...]


FOUR = Problem(4, 24, (1,))
TEN = Problem(10, 10, (0, 1, 2, 3, 4))


class Broken(Exception):
    """A method breaks the contract; the message says how."""


class Probe:
    """One method on a tiny problem, by default four digits and 96 training images."""

    def __init__(self, name: str, cls: type[Method], problem: Problem = FOUR) -> None:
        self.name, self.cls, self.problem = name, cls, problem
        self.dataset, self.original = _original(problem)
        self._done: dict[int, unlearning.Done] = {}

    @functools.cached_property
    def method(self) -> Method:
        """The method with its defaults, which every field must have."""
        return self.cls()

    def scenario(self) -> str:
        """A scenario that the method supports, sample removal if it can."""
        return next(name for name in SCENARIOS if name in self.cls.supports)

    def request(self, scenario: str, labels: np.ndarray | None = None) -> list[Request]:
        """Requests of a scenario on the tiny problem."""
        kinds = {
            "sample_removal": scenarios.SampleRemoval(count=12),
            "class_removal": scenarios.ClassRemoval(removed=self.problem.removed),
            "incremental": scenarios.Incremental(steps=2, per_class=3),
            "depoisoning": scenarios.Depoisoning(flips=3),
        }
        return kinds[scenario].requests(
            self.dataset.train_y if labels is None else labels, self.problem.classes, seed=0
        )

    def setting(
        self, scenario: str, requests: list[Request], permutation: np.ndarray | None = None
    ) -> unlearning.Setting:
        """The harness's setting; with a permutation, class c is called permutation[c] and so is its output."""
        labels = scenarios.training_labels(requests, self.dataset.train_y)
        dataset = self.dataset
        if permutation is not None:
            labels = permutation[labels]
            dataset = dataclasses.replace(
                dataset, train_y=permutation[dataset.train_y], validation_y=permutation[dataset.validation_y]
            )

        def build(seed: int) -> nn.Module:
            model = _build(self.problem, seed)
            return model if permutation is None else permuted(model, permutation)

        setting = unlearning.Setting.of(dataset, labels, RECIPE, scenario, "cpu", build)
        return dataclasses.replace(setting, layers=digits_cnn.LAYERS)

    def run(self, seed: int = 1) -> unlearning.Done:
        """The outcome with defaults on the first supported scenario; computed once per seed."""
        if seed not in self._done:
            self._done[seed] = self.carry_out(seed=seed)
        return self._done[seed]

    def carry_out(
        self,
        *,
        method: Method | None = None,
        scenario: str | None = None,
        requests: list[Request] | None = None,
        seed: int = 1,
        permutation: np.ndarray | None = None,
    ) -> unlearning.Done:
        """Prepare and carry out all requests of a scenario; the outcome of the last."""
        scenario, method = scenario or self.scenario(), method or self.method
        requests = self.request(scenario) if requests is None else requests
        setting = self.setting(scenario, requests, permutation)
        model = copy.deepcopy(self.original)
        if permutation is not None:
            model = permuted(model, permutation)
            gone = [tuple(int(permutation[c]) for c in request.removed_classes) for request in requests]
            requests = [dataclasses.replace(r, removed_classes=g) for r, g in zip(requests, gone, strict=True)]
        state, _, taken = unlearning.prepare(setting, self.name, method, model, seed=7)
        for request in requests:
            done = unlearning.unlearn(
                setting, self.name, method, model, request, state=state, seed=seed, original_seed=7
            )
            model, state = done.model, done.state
        return dataclasses.replace(done, taken=done.taken | taken)


@functools.cache
def _data(problem: Problem) -> Dataset:
    digits: Dataset = registry.load("datasets", "digits")()
    changes: dict[str, np.ndarray] = {}
    for part, most in (("train", problem.per_class), ("validation", 15), ("test", 15)):
        labels = digits.labels(part)
        chosen = np.sort(np.concatenate([np.flatnonzero(labels == c)[:most] for c in range(problem.classes)]))
        in_color = digits.images(part)[chosen].repeat(3, axis=1)
        changes |= {f"{part}_x": in_color, f"{part}_y": labels[chosen]}
    names, mean, std = digits.class_names[: problem.classes], digits.mean * 3, digits.std * 3
    return dataclasses.replace(digits, name="contract", class_names=names, mean=mean, std=std, **changes)  # type: ignore[arg-type]


def _narrow(channels: int, size: int, classes: int) -> nn.Module:
    return digits_cnn.build(channels, size, classes, width=4)


def _build(problem: Problem, seed: int) -> nn.Module:
    dataset = _data(problem)
    model = training.new_model(_narrow, dataset, seed)
    return training.channels_last(model, torch.zeros(2, *dataset.train_x.shape[1:]))


@functools.cache
def _original(problem: Problem) -> tuple[Dataset, nn.Module]:
    """The data and an original trained on it."""
    dataset = _data(problem)
    model = _build(problem, 7)
    index = torch.arange(len(dataset.train_y))
    part = MeteredPart(Images(dataset, "train", "cpu"), index, torch.from_numpy(dataset.train_y))
    loop.fit(model.train(), part, RECIPE, training.order_generator(7))
    return dataset, model.eval()


def permuted(model: nn.Module, permutation: np.ndarray) -> nn.Module:
    """The model whose output `permutation[c]` is the given model's output c."""
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    back = torch.from_numpy(np.argsort(permutation))
    with torch.no_grad():
        head.weight.copy_(head.weight[back])
        if head.bias is not None:
            head.bias.copy_(head.bias[back])
    return model


@torch.no_grad()
def logits_of(model: nn.Module, dataset: Dataset) -> Tensor:
    """Raw logits on the test images, in evaluation mode."""
    images = Images(dataset, "test", "cpu")
    logits: Tensor = model.eval()(images.take(torch.arange(len(images.pixels))))
    return logits


def finite_outputs(model: nn.Module, dataset: Dataset) -> None:
    """Raise Broken unless the model returns finite logits for all classes."""
    logits = logits_of(model, dataset)
    wanted = (len(dataset.test_y), len(dataset.class_names))
    if logits.shape != wanted:
        raise Broken(f"outputs have shape {tuple(logits.shape)}, not {wanted}: keep the head")
    if not torch.isfinite(logits).all():
        raise Broken("outputs are not finite")
