"""How far a linearized step may go: the retained accuracy on a fixed probe decides."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.interface import Part
    from methods._curvature import Linearized

BATCH, BATCHES = 250, 8  # at most 2,000 examples
SHORTER = (0.75, 0.5, 0.25)


class Taken(NamedTuple):
    """The step that was taken.

    Attributes:
        at: which of the steps, counted from 0.
        scale: how much of it; 0 if none was good enough.
        drop: points of retained accuracy lost on the probe; NaN if nothing was checked.
        status: "ok", "shortened" (less than a whole step) or "refused" (the weights are as before).
    """

    at: int
    scale: float
    drop: float
    status: str


def accuracy(model: nn.Module, part: Part) -> float:
    """Percent of a probe that `model` gets right: at most 2,000 examples of `part`, always the same ones.

    Outputs that are not finite are wrong.
    """
    probe = islice(part.batches(BATCH, torch.Generator().manual_seed(0)), BATCHES)
    with torch.no_grad():
        answers = [(model(x), y) for x, y in probe]
        right = [(logits.argmax(1) == y) & logits.isfinite().all(1) for logits, y in answers]
    return 100 * float(torch.cat(right).double().mean())


def take(linear: Linearized, steps: Tensor, retain: Part, max_drop: float | None) -> Taken:
    """Move the model by the first of `steps` `[k, P]` that loses less than `max_drop` points on the retained probe.

    If no whole step does, shorter ones of the last are tried. None checks nothing and takes the first.
    """
    if max_drop is None:
        linear.put(linear.flat + steps[0])
        return Taken(0, 1.0, float("nan"), "ok")
    before, last = accuracy(linear.model, retain), len(steps) - 1
    for at, scale in [*((at, 1.0) for at in range(len(steps))), *((last, scale) for scale in SHORTER)]:
        linear.put(linear.flat + scale * steps[at])
        drop = before - accuracy(linear.model, retain)
        if drop < max_drop:
            return Taken(at, scale, drop, "ok" if scale == 1 else "shortened")
    linear.put(linear.flat)
    return Taken(last, 0.0, 0.0, "refused")
