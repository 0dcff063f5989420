"""What a method may return besides a network of the original's architecture: several of these that answer together."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor, nn


class Ensemble(nn.Module):
    """Networks of one architecture whose probabilities are averaged; its logits are the logarithms of the means."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[n, classes]`, whose softmax is the mean of the members'."""
        logs = torch.stack([torch.log_softmax(member(x), 1) for member in self.members])
        return torch.logsumexp(logs, 0) - math.log(len(self.members))


def shaped(build: Callable[[], nn.Module], names: Collection[str]) -> nn.Module:
    """A network that can take weights of these names: what `build` gives, or as large an ensemble of it as they say."""
    model = build()
    numbers = {int(found[1]) for name in names if (found := re.match(r"members\.(\d+)\.", name))}
    if not numbers or model.state_dict().keys() == set(names):
        return model
    return Ensemble([model, *(build() for _ in range(max(numbers)))])
