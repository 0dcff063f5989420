"""N models of one architecture as one net with N times the channels.

Convolutions become one grouped channels-last convolution, BatchNorm works on N x C channels, linear layers become one
batched product. The sum of the N mean losses gives every model the gradient it would have alone.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from bench.dataview import Images

CACHE_LINE = 16  # float32 numbers
PLAIN_LEAVES = (nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, nn.Identity)


class _Linear(nn.Module):
    """N linear layers side by side: `[b, N * in]` to `[b, N * out]`."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))
        biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
        self.bias = nn.Parameter(torch.stack(biases)) if biases else None

    def forward(self, x: Tensor) -> Tensor:
        models, outputs, inputs = self.weight.shape
        x = x.reshape(-1, models, inputs).transpose(0, 1)
        weight: Tensor = self.weight
        if self.bias is not None:
            # The bias as one more input: summing its gradient in a reduction of its own would round by N.
            x = torch.cat([x, x.new_ones(models, x.shape[1], 1)], dim=2)
            weight = torch.cat([weight, self.bias[:, :, None]], dim=2)
        # A product rounds by where its matrices begin in memory: zeros bring those of every model to a cache line.
        beside = -x.shape[2] % CACHE_LINE
        x = nn.functional.pad(x, (0, beside))
        weight = nn.functional.pad(weight, (0, beside, 0, -outputs % CACHE_LINE))
        y = torch.bmm(x, weight.transpose(1, 2))[:, :, :outputs]
        return y.transpose(0, 1).flatten(1)


class Stack:
    """N models of one architecture as one net with N times the channels."""

    def __init__(self, net: nn.Module, models: Sequence[nn.Module]) -> None:
        self.net, self.models = net, models

    @classmethod
    def build(cls, models: Sequence[nn.Module], shape: Sequence[int]) -> Stack | None:
        """Stack the models, or return None where the architecture does not allow it.

        Layers of a known kind are widened; whatever the forward function does besides is tried out: the stacked
        net must reproduce every single model, in training mode too (which unmasks dropout and the like).
        """
        net = copy.deepcopy(models[0])
        for name, leaf in list(net.named_modules()):
            if any(True for _ in leaf.children()):
                if any(True for _ in leaf.parameters(recurse=False)):
                    return None
                continue
            wide = _widen([model.get_submodule(name) for model in models])
            if wide is None:
                return None
            if name == "":
                net = wide
            else:
                parent, _, last = name.rpartition(".")
                setattr(net.get_submodule(parent), last, wide)
        stack = cls(net, models)
        return stack if stack._reproduces(shape) else None

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Sum over the models of each one's mean cross-entropy; `x` `[b, N, c, h, w]`, `y` `[b, N]`."""
        logits = self._forward(x)
        return nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum") / len(y)

    @torch.no_grad()
    def logits(self, images: Images, size: int = 256) -> list[np.ndarray]:
        """Raw logits of every model on the same images, in evaluation mode: N arrays `[n, classes]`."""
        self.net.eval()
        batches = torch.arange(len(images.pixels)).split(size)
        wide = [images.take(rows)[:, None].expand(-1, len(self.models), -1, -1, -1) for rows in batches]
        return list(torch.cat([self._forward(x) for x in wide]).transpose(0, 1).contiguous().numpy())

    def weights(self, i: int) -> dict[str, Tensor]:
        """Weights and buffers of model `i`, named and shaped as in the single net."""
        single = self.models[i].state_dict()
        count = len(self.models)
        wide = self.net.state_dict()
        return {
            name: (wide[name] if not value.dim() else wide[name].reshape(count, *value.shape)[i]).clone().contiguous()
            for name, value in single.items()
        }

    def _forward(self, x: Tensor) -> Tensor:
        """Logits `[b, N, classes]` of inputs `[b, N, c, h, w]`."""
        wide = x.flatten(1, 2).contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.net(wide)
        return logits.reshape(len(x), len(self.models), -1)

    @torch.no_grad()
    def _reproduces(self, shape: Sequence[int]) -> bool:
        x = torch.randn(8, len(self.models), *shape, generator=torch.Generator().manual_seed(0))
        net, pairs = self.net, [copy.deepcopy(model) for model in self.models[:3]]
        for training in (False, True):
            self.net = copy.deepcopy(net).train(training)
            try:
                ours = self._forward(x)[:, : len(pairs)]
                theirs = torch.stack([model.train(training)(x[:, i]) for i, model in enumerate(pairs)], dim=1)
                same = ours.shape == theirs.shape and bool(torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4))
            except RuntimeError:  # a hard-coded shape somewhere in the forward function
                same = False
            finally:
                self.net = net
            if not same:
                return False
        return True


def _widen(layers: Sequence[nn.Module]) -> nn.Module | None:
    """One layer that does the work of all; None for a kind that cannot be stacked."""
    first, count = layers[0], len(layers)
    if type(first) is nn.Conv2d and first.padding_mode == "zeros":
        shape = (count * first.in_channels, count * first.out_channels, first.kernel_size)
        rest = (first.stride, first.padding, first.dilation, count * first.groups, first.bias is not None)
        wide: nn.Module = nn.Conv2d(*shape, *rest)  # type: ignore[arg-type]
    elif type(first) in (nn.BatchNorm2d, nn.BatchNorm1d):
        assert isinstance(first, nn.BatchNorm2d | nn.BatchNorm1d)
        wide = type(first)(
            count * first.num_features, first.eps, first.momentum, first.affine, first.track_running_stats
        )
    elif type(first) is nn.Linear:
        return _Linear([layer for layer in layers if isinstance(layer, nn.Linear)])
    elif type(first) in PLAIN_LEAVES or (type(first) is nn.Dropout and not first.p):
        return copy.deepcopy(first)
    else:
        return None
    states = [layer.state_dict() for layer in layers]
    joined = {name: torch.cat([s[name] for s in states]) if v.dim() else v for name, v in states[0].items()}
    wide.load_state_dict(joined)
    return wide
