"""One training step: forward, backward and update; on an NVIDIA GPU captured once as a graph and replayed.

An eager step issues some two hundred launches, which takes the host longer than the GPU needs to carry them out where
nets or batches are small. A replayed one issues half a dozen.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.loop import SGD, Adam
    from bench.recipe import Recipe

Loss = Callable[["Tensor", "Tensor"], "Tensor"]

WARM = 4  # eager steps before a capture: in them libraries choose kernels and make their workspaces
WORTH = 20  # steps of one training from which a capture pays


def forward(model: nn.Module, x: Tensor, recipe: Recipe) -> Tensor:
    """The logits of `x`, in its type, with convolutions and products in the recipe's precision.

    Weights stay float32, and so does all that is done with the logits.
    """
    if recipe.precision == "float32":
        logits: Tensor = model(x)
        return logits
    # Nothing is cached: each weight is cast once a step anyhow, and a captured step must cast it anew.
    with torch.autocast(x.device.type, torch.bfloat16, cache_enabled=False):
        logits = model(x)
    return logits.to(x.dtype)


class Steps:
    """Takes the steps of one training of `model`, which are `steps` in all, most of them on `size` examples."""

    def __init__(
        self, model: nn.Module, update: SGD | Adam, loss: Loss, recipe: Recipe, device: torch.device, steps: int
    ) -> None:
        self.model, self.update, self.loss, self.recipe, self.device = model, update, loss, recipe, device
        # Compiled for full batches alone: another size would be compiled anew, for any size and slower.
        fused = recipe.compile and device.type == "cuda"
        self.whole: nn.Module = torch.compile(model, dynamic=False) if fused else model  # type: ignore[assignment]
        self.size, self.eager = recipe.batch_size, WARM
        self.graph: torch.cuda.CUDAGraph | None = None
        self.capturing = device.type == "cuda" and steps >= WORTH

    def take(self, x: Tensor, y: Tensor, lr: float) -> None:
        """Take one step on a batch at this learning rate."""
        if not self.capturing or len(y) != self.size:
            self._step(x, y, lr)
        elif self.eager:
            self.eager -= 1
            self._aside(x, y, lr)
        elif self.graph is not None or self._captured(x, y):
            self.x.copy_(x)
            self.y.copy_(y)
            self.lr.fill_(lr)
            assert self.graph is not None
            self.graph.replay()
        else:
            self._step(x, y, lr)

    def _step(self, x: Tensor, y: Tensor, lr: float | Tensor) -> None:
        model = self.whole if len(y) == self.size else self.model
        loss = self.loss(forward(model, x, self.recipe), y)
        loss.backward()  # type: ignore[no-untyped-call]
        self.update.step(lr)

    def _aside(self, x: Tensor, y: Tensor, lr: float) -> None:
        """A step on a stream of its own, as a capture asks of the steps before it."""
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            self._step(x, y, lr)
        torch.cuda.current_stream(self.device).wait_stream(stream)

    def _captured(self, x: Tensor, y: Tensor) -> bool:
        """Capture a step, which carries nothing out yet; False where the network does what no graph can hold."""
        self.x, self.y, self.lr = x.clone(), y.clone(), torch.zeros((), device=self.device)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._step(self.x, self.y, self.lr)
        except RuntimeError as error:
            self.capturing = False
            for p in self.update.parameters:
                p.grad = None
            print(f"no graph of the training step ({str(error).splitlines()[0]}); slower without", file=sys.stderr)
            return False
        self.graph = graph
        return True
