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


def moments(model: nn.Module, part: Part, size: int) -> tuple[list[Tensor], list[Tensor]]:
    """Mean over batches of the gradient of a batch's mean cross-entropy, and of its square, by parameter.

    The second depends on the batch size: compare only what was computed with the same.
    """
    mean, square = ([torch.zeros_like(p) for p in model.parameters()] for _ in range(2))
    batches = 0
    for x, y in part.batches(size):
        batches += 1
        for first, second, g in zip(mean, square, _gradient(model, x, y, "mean"), strict=True):
            first += g
            second += g.square()
    return [sum_ / max(batches, 1) for sum_ in mean], [sum_ / max(batches, 1) for sum_ in square]


def _gradient(model: nn.Module, x: Tensor, y: Tensor, reduction: str) -> tuple[Tensor, ...]:
    loss = torch.nn.functional.cross_entropy(model(x), y, reduction=reduction)
    return torch.autograd.grad(loss, list(model.parameters()))
