"""The layers of a network in the order they run: cutting off a tail, and what may move in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from bench import loop

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.interface import Context, DataView


def is_weight_layer(module: nn.Module) -> bool:
    """Whether a module carries weights in the sense of the papers: a convolution or a linear layer."""
    return isinstance(module, (torch.nn.Conv2d, torch.nn.Linear))


def is_batch_norm(module: nn.Module) -> bool:
    """Whether a module keeps statistics of its batches."""
    return isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d))


def running_order(model: nn.Module, x: Tensor) -> list[nn.Module]:
    """The modules without children in the order in which a forward pass of `x` first calls them."""
    order: dict[nn.Module, None] = {}
    leaves = [module for module in model.modules() if not list(module.children())]
    hooks = [leaf.register_forward_pre_hook(lambda module, _: order.setdefault(module)) for leaf in leaves]
    model.eval()
    try:
        with torch.no_grad():
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return list(order)


def tail(model: nn.Module, x: Tensor, k: int, published: Sequence[str] = ()) -> list[nn.Module]:
    """The last `k` layers and every other module without children that first runs after the first of them.

    Layers are the modules named in `published`; without names, all weight layers. A shortcut's convolution that is
    not published does not count, but belongs to the tail if it runs in it. Of no more than `k` layers, all modules.
    """
    order = running_order(model, x)
    named = [model.get_submodule(name) for name in published]
    layers = named or [module for module in order if is_weight_layer(module)]
    return list(model.modules()) if k >= len(layers) else order[order.index(layers[-k]) :]


def head(model: nn.Module, x: Tensor, classes: int) -> nn.Conv2d | nn.Linear:
    """The last layer, which gives the logits. Raises ValueError where another module with weights does."""
    layer = [module for module in running_order(model, x) if list(module.parameters(recurse=False))][-1]
    if not isinstance(layer, torch.nn.Conv2d | torch.nn.Linear) or len(layer.weight) != classes:
        raise ValueError(f"the last module with weights does not give the {classes} logits, but {type(layer).__name__}")
    return layer


def train_tail(
    model: nn.Module, modules: Sequence[nn.Module], data: DataView, ctx: Context, epochs: int | None
) -> nn.Module:
    """Train `modules` of `model` on the retained data by the original's recipe; nothing else moves.

    The rest runs in evaluation mode: freezing parameters alone would let the buffers of BatchNorm drift.
    """
    model.eval()
    for module in modules:
        module.training = True
    with only_moving(model, (p for module in modules for p in module.parameters())):
        loop.fit(model, data.retain, ctx.recipe, ctx.generator, epochs=epochs)
    return model.eval()


@contextmanager
def only_moving(model: nn.Module, moving: Iterable[Tensor]) -> Iterator[None]:
    """Let gradients reach only the parameters `moving`; afterwards the flags are as before."""
    flags = [(p, p.requires_grad) for p in model.parameters()]
    chosen = {id(p) for p in moving}
    for p, _ in flags:
        p.requires_grad_(id(p) in chosen)
    try:
        yield
    finally:
        for p, flag in flags:
            p.requires_grad_(flag)


def train_all_but_batch_norm(model: nn.Module) -> None:
    """Training mode, so that dropout is active, with the running statistics of BatchNorm in use and fixed."""
    model.train()
    for module in model.modules():
        if is_batch_norm(module):
            module.eval()
