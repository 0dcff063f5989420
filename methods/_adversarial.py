"""Images moved within the pixel range until a network takes them for another class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from methods._labels import answers

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.interface import Context


def pixel_range(x: Tensor, ctx: Context) -> tuple[Tensor, Tensor]:
    """Normalized values of black and of the whole range from black to white, `[1, c, 1, 1]` each."""
    black, white = (
        torch.tensor(ends, dtype=x.dtype, device=x.device).view(1, -1, 1, 1) for ends in (ctx.black, ctx.white)
    )
    return black, white - black


def image_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Gradient of the summed cross-entropy in the images, like `x`."""
    x = x.detach().requires_grad_()
    loss = torch.nn.functional.cross_entropy(model(x), y, reduction="sum")
    return torch.autograd.grad(loss, x)[0]


def fgsm(model: nn.Module, x: Tensor, y: Tensor, bound: float, ctx: Context) -> Tensor:
    """One step of `bound` (of the pixel range, in each pixel) up the loss, kept within the range."""
    black, span = pixel_range(x, ctx)
    moved = x + bound * span * image_gradient(model, x, y).sign()
    return moved.clamp(black, black + span)


def nearest_l2(
    model: nn.Module, x: Tensor, y: Tensor, ctx: Context, *, radius: float, steps: int, doublings: int
) -> tuple[Tensor, Tensor]:
    """Images within an L2 ball around `x` that the network takes for another class that stays than `y`, and that class.

    Projected gradient ascent with steps of a tenth of the radius, which is doubled until the network errs; distances
    in units of the pixel range. Where it does not err after all doublings the label stays `y`.
    """
    black, span = pixel_range(x, ctx)
    start = (x - black) / span
    found, label = start.clone(), y.clone()
    for doubling in range(doublings + 1):
        left = (label == y).nonzero()[:, 0]
        if not len(left):
            break
        moved = _ascend(model, start[left], y[left], radius * 2**doubling, steps, black, span)
        with torch.no_grad():
            found[left], label[left] = moved, answers(model(black + span * moved), y[left], ctx)
    return black + span * found, label


def _ascend(
    model: nn.Module, start: Tensor, y: Tensor, radius: float, steps: int, black: Tensor, span: Tensor
) -> Tensor:
    """Projected gradient ascent in an L2 ball, in the pixel range [0, 1]."""
    moved = start.clone()
    for _ in range(steps):
        gradient = image_gradient(model, black + span * moved, y) * span
        moved = moved + radius / 10 * gradient / _norm(gradient).clamp(min=1e-12)
        away = moved - start
        moved = (start + away * (radius / _norm(away).clamp(min=1e-12)).clamp(max=1.0)).clamp(0.0, 1.0)
    return moved


def _norm(images: Tensor) -> Tensor:
    """L2 norm of every image, `[n, 1, 1, 1]`."""
    length: Tensor = torch.linalg.vector_norm(images, dim=(1, 2, 3), keepdim=True)
    return length
