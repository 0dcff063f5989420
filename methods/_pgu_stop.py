"""When PGU stops and which model it keeps: three rules on the accuracies after each epoch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch

from bench import loop

if TYPE_CHECKING:
    from torch import nn

    from bench.interface import Context, DataView, Part
    from bench.recipe import Recipe


class Accuracies(NamedTuple):
    """Shares in [0, 1] after one epoch; entry 0 of a history is the model before unlearning."""

    forget: float
    validation: float


class Verdict(NamedTuple):
    """The run ends with this status; `back` returns the model of the epoch before."""

    status: str
    back: bool = False


def accuracies(model: nn.Module, data: DataView, ctx: Context) -> Accuracies:
    """Read both sets once; the forget accuracy plays no part in depoisoning and is not measured there."""
    forget = float("nan") if ctx.scenario == "depoisoning" else accuracy(model, data.forget, ctx.recipe)
    return Accuracies(forget, accuracy(model, data.validation, ctx.recipe, without=ctx.removed_classes))


def accuracy(model: nn.Module, part: Part, recipe: Recipe, without: Sequence[int] = ()) -> float:
    """Share of the samples, but those of the classes `without`, that the full head gets right."""
    right = count = 0
    with torch.no_grad():
        for x, y in part.batches(1024):
            correct = loop.forward(model, x, recipe).argmax(1) == y
            if without:
                correct = correct[torch.isin(y, torch.tensor(without, device=y.device), invert=True)]
            right, count = right + int(correct.sum()), count + len(correct)
    return right / max(count, 1)


def verdict(history: Sequence[Accuracies], ctx: Context, epochs: int, max_drop: float) -> Verdict | None:
    """What the scenario's rule, the deadline and the number of epochs say; None: go on."""
    if ctx.scenario == "depoisoning":
        end = by_drop(history, max_drop)
    elif ctx.removed_classes:
        end = by_class(history, 1 / ctx.classes, max_drop)
    else:
        end = by_gap(history)
    if end is None and ctx.deadline is not None and time.perf_counter() > ctx.deadline:
        return Verdict("late")
    if end is None and len(history) > epochs:
        return Verdict("not_converged" if epochs and ctx.scenario != "depoisoning" else "ok")
    return end


def by_gap(history: Sequence[Accuracies]) -> Verdict | None:
    """Sample removal: stop once forget accuracy is below validation accuracy; keep the nearer of two models."""
    gap = history[-1].validation - history[-1].forget
    if gap <= 0:
        return None
    if len(history) == 1:
        return Verdict("too_fast")
    before = history[-2].validation - history[-2].forget
    return Verdict("ok", back=abs(gap) >= abs(before))


def by_class(history: Sequence[Accuracies], chance: float, max_drop: float) -> Verdict | None:
    """Class removal: stop once the removed classes are recognized no better than by chance."""
    if guard := by_drop(history, max_drop):
        return guard
    if history[-1].forget > chance:
        return None
    return Verdict("too_fast" if len(history) == 1 else "ok")


def by_drop(history: Sequence[Accuracies], max_drop: float) -> Verdict | None:
    """Depoisoning, and the guard of class removal: go back when more than `max_drop` points of validation are lost."""
    fallen = 100 * (history[0].validation - history[-1].validation)
    return Verdict("guard", back=True) if fallen > max_drop else None
