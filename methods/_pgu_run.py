"""The descent of PGU: projected steps on the forget set until the stop rule ends them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from bench import loop
from methods import _layers
from methods._pgu_loss import loss
from methods._pgu_stop import accuracies, verdict

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.interface import Context, DataView, Part
    from methods._projection import Update
    from methods.pgu import PGU

Moving = list[tuple["Tensor", "Update"]]  # weights, each with what projects its gradient


def descend(method: PGU, model: nn.Module, data: DataView, ctx: Context, moving: Moving) -> tuple[str, int]:
    """Move the weights of `model` in place; the status, and the number of epochs run."""
    weights = [weight for weight, _ in moving]
    epochs = method.epochs if moving else 0  # with every layer frozen there is nothing to do
    history = [accuracies(model, data, ctx)]
    best, kept = -1.0, _copies(weights)
    while not (end := verdict(history, ctx, epochs, method.max_drop)):
        before = _copies(weights)
        lr = method.lr * (method.end_lr / method.lr) ** ((len(history) - 1) / epochs)
        _epoch(method, model, data.forget, ctx, moving, lr)
        history.append(accuracies(model, data, ctx))
        ctx.progress(f"epoch {len(history) - 1} of at most {epochs}")
        if history[-1].validation > best:
            best, kept = history[-1].validation, _copies(weights)
    if end.back:
        _put(weights, before)
    if ctx.scenario == "depoisoning" and method.best_validation and len(history) > 1:
        _put(weights, kept)
    return end.status, len(history) - 1


def _epoch(method: PGU, model: nn.Module, forget: Part, ctx: Context, moving: Moving, lr: float) -> None:
    poison = ctx.scenario == "depoisoning"
    offset = method.offset if method.offset is not None else 0.1 if poison else 0.05
    weights = [weight for weight, _ in moving]
    if method.dropout:
        _layers.train_all_but_batch_norm(model)
    order = ctx.generator if method.shuffle or poison else None
    for x, y in forget.batches(method.batch_size, order, augment=poison):
        logits = loop.forward(model, x, ctx.recipe)
        value = loss(
            logits, y, offset=offset, weight=method.entropy_weight, scenario=ctx.scenario, removed=ctx.removed_classes
        )
        gradients = torch.autograd.grad(value, weights)
        with torch.no_grad():
            steps = [update(g.flatten(1)).view_as(g) for (_, update), g in zip(moving, gradients, strict=True)]
            torch._foreach_add_(weights, steps, alpha=-lr)
    model.eval()


def _copies(weights: Sequence[Tensor]) -> list[Tensor]:
    return [weight.detach().clone() for weight in weights]


def _put(weights: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for weight, value in zip(weights, values, strict=True):
            weight.copy_(value)
