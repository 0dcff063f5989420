"""Uncentered second moments of what enters each weight layer: one Gram matrix per layer, exact in float64."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.interface import Part

CHUNK = 1 << 24  # numbers in one block of unfolded patches: 128 MB in float64


def input_grams(model: nn.Module, part: Part, *, stride: str = "true") -> dict[str, Tensor]:
    """Sum of r r^T over all inputs r of each layer, by the layer's name, in the order the layers run.

    Reads `part` once, un-augmented, with `model` in evaluation mode (and leaves it so). A convolution's inputs are
    its patches, channel-major as its weights; grouped convolutions have no single input space and are left out.

    Args:
        stride: "true" takes the patches that the layer sees; "unit" those of stride 1, as the authors' code.
    """
    grams: dict[str, Tensor] = {}
    layers = {name: layer for name, layer in model.named_modules() if _treated(layer)}
    hooks = [
        layer.register_forward_pre_hook(partial(_accumulate, grams, name, stride)) for name, layer in layers.items()
    ]
    model.eval()
    try:
        with torch.no_grad():
            for x, _ in part.batches(256):
                model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return grams


def _treated(layer: nn.Module) -> bool:
    return isinstance(layer, torch.nn.Linear) or (isinstance(layer, torch.nn.Conv2d) and layer.groups == 1)


def _accumulate(grams: dict[str, Tensor], name: str, stride: str, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    x = inputs[0].detach()
    x = x.cpu() if x.device.type == "mps" else x  # which has no float64
    if isinstance(layer, torch.nn.Linear):
        columns = x.double().reshape(-1, layer.in_features).T
        _add(grams, name, columns)
        return
    assert isinstance(layer, torch.nn.Conv2d)
    padded = _pad(layer, x)
    size = layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]
    per_image = size * padded.shape[2] * padded.shape[3]  # an upper bound
    for images in torch.split(padded, max(1, CHUNK // per_image)):
        step = layer.stride if stride == "true" else 1
        patches = torch.nn.functional.unfold(images.double(), layer.kernel_size, layer.dilation, 0, step)
        _add(grams, name, patches.transpose(0, 1).reshape(size, -1))


def _add(grams: dict[str, Tensor], name: str, columns: Tensor) -> None:
    if name not in grams:
        grams[name] = columns.new_zeros(len(columns), len(columns))
    grams[name].addmm_(columns, columns.T)


def _pad(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """`x` padded as the convolution pads it, whatever its padding mode."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    if layer.padding == "valid":
        return x
    if layer.padding == "same":
        spans = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        sides = [(span // 2, span - span // 2) for span in spans]
    else:
        sides = [(int(p), int(p)) for p in layer.padding]
    return torch.nn.functional.pad(x, (*sides[1], *sides[0]), mode=mode)
