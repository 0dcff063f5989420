"""Uncentered second moments of what enters each weight layer: one Gram matrix per layer, exact in float64."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.interface import Part

CHUNK = 1 << 24  # numbers in one block of unfolded patches: 128 MB in float64
ON_GPU = 8  # times as many there, for which a launch costs more than memory


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
    room = CHUNK * ON_GPU if x.is_cuda else CHUNK
    if isinstance(layer, torch.nn.Linear):
        rows = x.double().reshape(-1, layer.in_features)
        _add(grams, name, rows.T @ rows)
        return
    assert isinstance(layer, torch.nn.Conv2d)
    if _correlates(layer, stride):
        for images in torch.split(x, max(1, room // (2 * x[0].numel()))):
            _add(grams, name, correlation_gram(images.double()))
        return
    padded = _pad(layer, x)
    size = layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]
    per_image = size * padded.shape[2] * padded.shape[3]  # an upper bound
    for images in torch.split(padded, max(1, room // per_image)):
        step = layer.stride if stride == "true" else 1
        patches = torch.nn.functional.unfold(images.double(), layer.kernel_size, layer.dilation, 0, step)
        columns = patches.transpose(0, 1).reshape(size, -1)
        _add(grams, name, columns @ columns.T)


def _add(grams: dict[str, Tensor], name: str, gram: Tensor) -> None:
    if name in grams:
        grams[name] += gram
    else:
        grams[name] = gram


def _correlates(layer: nn.Conv2d, stride: str) -> bool:
    """Whether the layer's patches are those of `correlation_gram`."""
    shape = (layer.kernel_size, layer.dilation, layer.padding_mode)
    padded = layer.padding in ((1, 1), "same")
    return shape == ((3, 3), (1, 1), "zeros") and padded and (layer.stride == (1, 1) or stride == "unit")


def correlation_gram(x: Tensor) -> Tensor:
    """Sum of r r^T over the zero-padded 3 x 3 patches r at every pixel of `x` `[n, c, h, w]`: `[9 c, 9 c]`.

    Exact, with a sixth of the arithmetic of unfolded patches. The block of the taps d and e is the sum over patches of
    f(p + d) f(p + e)^T, which depends on e - d alone but for the border: it is the image's correlation at the shift
    e - d, less the terms in which p lies outside. Those exist only where d and e name the same edge, since otherwise
    one of the two pixels is padding; there they are the correlation of the border row or column with itself.
    """
    _, c, height, width = x.shape
    flat = _padded(x, (0, 2, 0, 2))
    whole = {(a, b): _lagged(flat, a * (width + 2) + b) for a in range(3) for b in range(-2, 3) if a or b >= 0}
    rows = [{b: _lagged(_padded(x[:, :, [y]], (0, 2, 0, 0)), b) for b in range(3)} for y in (height - 1, 0)]
    columns = [{a: _lagged(_padded(x[:, :, :, [z]], (0, 0, 0, 2)), a) for a in range(3)} for z in (width - 1, 0)]
    corners = [[_lagged(_padded(x[:, :, [y]][:, :, :, [z]], (0, 0, 0, 0)), 0) for z in (-1, 0)] for y in (-1, 0)]

    def block(dy: int, dx: int, ey: int, ex: int) -> Tensor:
        a, b = ey - dy, ex - dx
        if (a, b) < (0, 0):
            return block(ey, ex, dy, dx).T
        found = whole[a, b]
        edge_y, edge_x = a == 0 and dy != 1, b == 0 and dx != 1
        if edge_y:
            found = found - rows[dy // 2][b]
        if edge_x:
            found = found - columns[dx // 2][a]
        return found + corners[dy // 2][dx // 2] if edge_y and edge_x else found

    taps = [(y, z) for y in range(3) for z in range(3)]
    grid = torch.stack([torch.stack([block(*d, *e) for e in taps]) for d in taps])  # [d, e, c, c]
    return grid.permute(2, 0, 3, 1).reshape(9 * c, 9 * c)


def _padded(x: Tensor, sides: tuple[int, int, int, int]) -> Tensor:
    """All pixels `[n h w, c]` of `x` with zeros after every row and image, which keep shifted ones apart."""
    return torch.nn.functional.pad(x, sides).permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _lagged(pixels: Tensor, lag: int) -> Tensor:
    """Sum of f(q) f(q + lag)^T over the pixels q `[m, c]`, for a lag of at least 0; `[c, c]`."""
    return pixels[: len(pixels) - lag].T @ pixels[lag:]


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
