"""Labels that are not the true ones: what a model is made to believe of the forget set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from bench.interface import Context


def kept_classes(ctx: Context) -> Tensor:
    """The classes that stay, int64 on the CPU."""
    return torch.tensor([c for c in range(ctx.classes) if c not in ctx.removed_classes])


def answers(logits: Tensor, y: Tensor, ctx: Context) -> Tensor:
    """The class of each row of `logits` `[n, classes]`, among those that stay and its own label `y` `[n]`."""
    allowed = torch.ones_like(logits, dtype=torch.bool)
    allowed[:, list(ctx.removed_classes)] = False
    allowed.scatter_(1, y[:, None], True)
    return logits.masked_fill(~allowed, -torch.inf).argmax(1)


def random_labels(y: Tensor, ctx: Context, *, include_true: bool = False) -> Tensor:
    """A label for each of `y` `[n]`, drawn uniformly among the classes that stay, by default other than the true one.

    Raises ValueError where no such class is left.
    """
    kept = kept_classes(ctx)
    weight = torch.ones(len(y), len(kept))
    if not include_true:
        weight[y.cpu()[:, None] == kept] = 0.0
    if not (weight.sum(dim=1) > 0).all():
        raise ValueError("no other class is left to draw wrong labels from")
    drawn = torch.multinomial(weight, 1, generator=ctx.generator)[:, 0]
    return kept[drawn].to(y.device)
