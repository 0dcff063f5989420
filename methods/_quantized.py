"""Gradients cut down to their signs, as a vote over normal noise, and how far a gradient may move unnoticed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def votes(g: Tensor, tau: float, sigma: float) -> Tensor:
    """How often `g` with normal noise of deviation `sigma` is below -tau, between, and above tau: `[3, *g.shape]`."""
    g = g.double()
    above = torch.special.ndtr((g - tau) / sigma)
    below = torch.special.ndtr((-tau - g) / sigma)
    return torch.stack([below, (1 - above - below).clamp(min=0), above])


def quantized(g: Tensor, tau: float, sigma: float) -> Tensor:
    """-1, 0 or 1 for every coordinate, whichever has most votes; a tie is 0."""
    below, between, above = votes(g, tau, sigma)
    sign = (above > below).to(g.dtype) - (below > above).to(g.dtype)
    return torch.where(between >= torch.maximum(below, above), torch.zeros_like(g), sign)


def radius(g: Tensor, tau: float, sigma: float) -> Tensor:
    """How far every coordinate may move without changing what has most votes (Cohen et al. 2019, theorem 1)."""
    least = torch.finfo(torch.float64).eps  # shares nearer to 0 or 1 are rounding, and would count as a sure vote
    first, second, _ = votes(g, tau, sigma).sort(0, descending=True).values.clamp(least, 1 - least)
    gap: Tensor = torch.special.ndtri(first) - torch.special.ndtri(second)
    return 0.5 * sigma * gap
