"""Ascent: a few passes of gradient ascent on the forget set; the method that `own_method.py` judges."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from bench import loop
from bench.interface import Context, DataView, Method, Need


class Ascent(Method):
    """Climbs the loss of the forget set by plain SGD with fixed BatchNorm statistics. Source: none, an example."""

    needs: ClassVar[Need] = Need.FORGET
    batch_norm: ClassVar[str] = "eval"
    epochs: int = Field(default=3, ge=0, description="passes over the forget set")
    lr: float = Field(default=0.01, gt=0, description="step size")

    def unlearn(self, model: torch.nn.Module, data: DataView, ctx: Context) -> torch.nn.Module:
        update = loop.SGD(model.eval().parameters())
        for _ in range(self.epochs):
            for x, y in data.forget.batches(32, ctx.generator):
                (-loop.cross_entropy(model(x), y)).backward()
                update.step(self.lr)
        return model
