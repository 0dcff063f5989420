"""Gradients of the loss over a whole set of examples, in evaluation mode and without augmentation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.interface import Part


def summed(model: nn.Module, part: Part, size: int = 256) -> list[Tensor]:
    """Gradient of the summed cross-entropy, in the order of `model.parameters()`; does not depend on the batch size."""
    total = [torch.zeros_like(p) for p in model.parameters()]
    for x, y in part.batches(size):
        for sum_, g in zip(total, _gradient(model, x, y, "sum"), strict=True):
            sum_ += g
    return total


def squared(model: nn.Module, part: Part, size: int) -> dict[str, Tensor]:
    """Mean over batches of the squared gradient of a batch's mean cross-entropy, by parameter name.

    It depends on the batch size: compare only what was computed with the same.
    """
    names = [name for name, _ in model.named_parameters()]
    total, batches = [torch.zeros_like(p) for p in model.parameters()], 0
    for x, y in part.batches(size):
        batches += 1
        for sum_, g in zip(total, _gradient(model, x, y, "mean"), strict=True):
            sum_ += g.square()
    return {name: sum_ / max(batches, 1) for name, sum_ in zip(names, total, strict=True)}


def _gradient(model: nn.Module, x: Tensor, y: Tensor, reduction: str) -> tuple[Tensor, ...]:
    loss = torch.nn.functional.cross_entropy(model(x), y, reduction=reduction)
    return torch.autograd.grad(loss, list(model.parameters()))
