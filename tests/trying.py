"""Small networks, and one run of a method on a view and a context, for tests of what methods do to weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from bench.dataview import MeteredView
from bench.interface import Context, Method, Unlearned


def linear(seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def network(seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(54, 10),
    )  # fmt: skip


def carry_out(method: Method, model: nn.Module, view: MeteredView, ctx: Context) -> Unlearned:
    """Prepare a method and carry out one request on copies of the model."""
    ctx.state = method.prepare(copy.deepcopy(model).eval(), view, ctx)
    result = method.unlearn(copy.deepcopy(model).eval(), view, ctx)
    return result if isinstance(result, Unlearned) else Unlearned(result)


def unlearn(method: Method, model: nn.Module, view: MeteredView, ctx: Context) -> nn.Module:
    """The model that `carry_out` gives."""
    return carry_out(method, model, view, ctx).model


def same(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])
