"""Carries out one run of a method: hands it a private copy, the declared data and a context; meters and checks it."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from bench import ledger, loop, seeds
from bench.dataview import Images, MeteredPart, MeteredView
from bench.interface import Context, Dataset, Method, Need, Request, State, UndeclaredRead, Unlearned
from bench.recipe import Recipe


@dataclass(frozen=True)
class Setting:
    """What every run of one cell shares: the data on the device, the labels of training, and the recipe."""

    dataset: Dataset
    labels: np.ndarray
    recipe: Recipe
    scenario: str
    device: str
    build: Callable[[int], nn.Module]  # seed -> a freshly initialized network
    images: Mapping[str, Images] = field(default_factory=dict)
    layers: tuple[str, ...] = ()  # what the architecture publishes
    time_limit: float | None = None
    progress: Callable[[str], None] = lambda line: None

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        labels: np.ndarray,
        recipe: Recipe,
        scenario: str,
        device: str,
        build: Callable[[int], nn.Module],
    ) -> Setting:
        """The setting with the training and validation images on the device; the test images stay behind."""
        images = {part: Images(dataset, part, device) for part in ("train", "validation")}
        return cls(dataset, labels, recipe, scenario, device, build, images)


@dataclass(frozen=True)
class Done:
    """One finished run: the model, the state for the next request, and what it cost."""

    model: nn.Module
    state: State
    status: str
    notes: dict[str, float]
    seconds: float
    taken: dict[str, int]


def prepare(
    setting: Setting, name: str, method: Method, model: nn.Module, seed: int
) -> tuple[State, float, dict[str, int]]:
    """Run `method.prepare` on the original: the state, its seconds and what it read.

    The original's seed makes the initial weights available to a method that declares INITIAL_WEIGHTS.
    """
    labels = torch.from_numpy(setting.labels).to(setting.device)
    whole = MeteredPart(setting.images["train"], torch.arange(len(labels), device=setting.device), labels)
    view = MeteredView(name, method.reads(), {"train": whole})
    ctx = context(setting, method, seed=seeds.derive(seed, "prepare", name), original_seed=seed)
    own = copy.deepcopy(model).eval()
    with loop.seeded(ctx.seed, setting.device):
        state, seconds = ledger.timed(lambda: method.prepare(own, view, ctx), setting.device)
    _refuse(view)
    return state, seconds, view.taken()


def unlearn(
    setting: Setting,
    name: str,
    method: Method,
    model: nn.Module,
    request: Request,
    *,
    state: State,
    seed: int,
    original_seed: int,
    meter: ledger.PeakMemory | ledger.DevicePeak | None = None,
) -> Done:
    """Run `method.unlearn` on a private copy of `model`. Raises what the method raises, and UndeclaredRead.

    A `meter` counts the tensors that the method makes, which slows it down: time another run.
    """
    view = view_of(setting, name, method, request)
    ctx = context(setting, method, seed=seed, original_seed=original_seed, request=request, state=state)
    own = copy.deepcopy(model).eval()
    with loop.seeded(seeds.derive(seed, "dropout"), setting.device), meter or contextlib.nullcontext():
        result, seconds = ledger.timed(lambda: method.unlearn(own, view, ctx), setting.device)
    _refuse(view)
    done = result if isinstance(result, Unlearned) else Unlearned(result)
    if not isinstance(done.model, nn.Module):
        raise TypeError(f"unlearn must return a model or Unlearned, got {type(result).__name__}")
    status = done.status
    by_design = method.identity or Need.OWN_TRAINING in method.reads()  # whose guarantee may ask for no change
    if status == "ok" and not by_design and not changed(model, done.model):
        status = "unchanged"
    kept = state if done.state is None else done.state
    return Done(done.model, kept, status, dict(done.notes), seconds, view.taken())


def view_of(setting: Setting, name: str, method: Method, request: Request) -> MeteredView:
    """The declared parts of a request. Forget labels are those of training; `corrected` has none of the wrong ones."""
    may_augment = setting.recipe.augment != "none"
    labels = torch.from_numpy(setting.labels).to(setting.device)

    def rows(index: np.ndarray, own: Tensor = labels) -> MeteredPart:
        chosen = torch.from_numpy(index).to(setting.device)
        return MeteredPart(setting.images["train"], chosen, own[chosen], augment=may_augment)

    held_out = torch.from_numpy(setting.dataset.validation_y).to(setting.device)
    everything = torch.arange(len(held_out), device=setting.device)
    validation = MeteredPart(setting.images["validation"], everything, held_out)
    parts = {"forget": rows(request.forget), "retain": rows(request.retain), "validation": validation}
    if setting.scenario == "depoisoning":
        true = torch.from_numpy(setting.dataset.train_y).to(setting.device)
        parts["corrected"] = rows(request.forget, true)
    return MeteredView(name, method.reads(), parts)


def context(
    setting: Setting,
    method: Method,
    *,
    seed: int,
    original_seed: int,
    request: Request | None = None,
    state: State | None = None,
) -> Context:
    """What a method may know besides the data; initial weights only if it declares them."""

    top = setting.dataset.pixel_max
    build, declared = setting.build, Need.INITIAL_WEIGHTS in method.reads()  # what is bound here, a method could reach

    def initial() -> nn.Module:
        if not declared:
            raise UndeclaredRead("the method asks for initial weights but does not declare Need.INITIAL_WEIGHTS")
        return build(original_seed)

    def fresh(number: int = 0) -> nn.Module:
        return build(seeds.derive(seed, "new model", *([number] if number else [])))

    return Context(
        device=setting.device,
        seed=seed,
        generator=torch.Generator().manual_seed(seed),
        recipe=setting.recipe,
        classes=setting.dataset.classes,
        scenario=setting.scenario,
        new_model=fresh,
        initial_model=initial,
        removed_classes=request.removed_classes if request else (),
        step=request.step if request else 0,
        black=tuple(-m / s for m, s in zip(setting.dataset.mean, setting.dataset.std, strict=True)),
        white=tuple((top - m) / s for m, s in zip(setting.dataset.mean, setting.dataset.std, strict=True)),
        layers=setting.layers,
        deadline=None if setting.time_limit is None else time.perf_counter() + setting.time_limit,
        progress=setting.progress,
        state={key: value.to(setting.device, copy=True) for key, value in (state or {}).items()},
    )


def changed(before: nn.Module, after: nn.Module) -> bool:
    """Whether any learnable weight differs (BatchNorm's running statistics do not count)."""
    old: dict[str, Tensor] = dict(before.named_parameters())
    return any(name not in old or not torch.equal(old[name], value) for name, value in after.named_parameters())


def _refuse(view: MeteredView) -> None:
    if view.refused:  # also when the method swallowed the exception
        raise UndeclaredRead(f"method {view.method} reads {', '.join(view.refused)} data without declaring it in needs")
