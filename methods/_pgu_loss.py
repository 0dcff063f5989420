"""The loss of PGU: a bounded push away from the label, and an entropy term."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def loss(logits: Tensor, y: Tensor, *, offset: float, weight: float, scenario: str, removed: Sequence[int]) -> Tensor:
    """Mean of -log(1 - p_y + offset) over the batch, and `weight` times a mean entropy.

    The entropy is maximized: of all classes, or of the retained ones where classes are removed. In depoisoning it is
    minimized, over the classes other than the wrong label. Finite for any finite logits `[n, classes]`, `y` `[n]`.
    """
    rest = others(logits, y)
    # log(1 - p_y) without forming p_y, which rounds to 1.
    away = torch.logsumexp(rest, 1) - torch.logsumexp(logits, 1)
    if offset:
        away = torch.logaddexp(away, away.new_tensor(math.log(offset)))
    if scenario == "depoisoning":
        return weight * entropy(rest).mean() - away.mean()
    if removed:
        gone = set(removed)
        logits = logits[:, [c for c in range(logits.shape[1]) if c not in gone]]
    return -away.mean() - weight * entropy(logits).mean()


def others(logits: Tensor, y: Tensor) -> Tensor:
    """The logits `[n, classes - 1]` of the classes other than `y`, in order."""
    column = torch.arange(logits.shape[1] - 1, device=logits.device)
    return logits.gather(1, column + (column >= y[:, None]))


def entropy(logits: Tensor) -> Tensor:
    """Entropy of the softmax, in nats, `[n]`."""
    log_p = torch.log_softmax(logits, 1)
    return -(log_p.exp() * log_p).sum(1)
