"""MSG: redraw the convolution weights that tell forget from retained data least, and train on the retained data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field

from bench import loop
from bench.interface import Context, DataView, Need
from methods._gradients import summed
from methods._steps import Steps, require_forget, some

if TYPE_CHECKING:
    from torch import Tensor, nn


class MSG(Steps):
    """Masked small gradients, a winner of the NeurIPS 2023 unlearning contest (as Cadet et al. 2024 describe it).

    Of every convolution the share of weights whose gradients on the forget set and on as many retained samples differ
    least is redrawn (Kaiming normal, fan out); then all is trained on the retained data, the weights that were not
    redrawn with a tenth of their gradient. The learning rate rises over the first epoch and falls linearly to zero.
    Defaults are the contest's; before the first epoch is over the network is near chance.

    Deviations: augmentation is the recipe's. Biases stay (the contest's code drops them).
    """

    needs: ClassVar[Need] = Need.FORGET | Need.RETAIN
    cite: ClassVar[str] = "cadet2024deep"
    budget: ClassVar[str | None] = None
    cost: ClassVar[str] = "6 n_forget F1 + epochs x 3 n_retain F1"
    search: ClassVar[dict[str, tuple[Any, ...]]] = {
        "fraction": (0.1, 0.3, 0.5),
        "lr": (0.001, 0.003, 0.01, 0.03, 0.1),
        "epochs": (5, 10),
    }

    lr: float = Field(default=1e-3, gt=0, le=10, description="highest learning rate")
    epochs: int = Field(default=5, ge=0, le=10_000, description="passes over the retained data")
    batch_size: int = Field(default=64, ge=2, le=100_000, description="examples per step")
    fraction: float = Field(default=0.3, ge=0, le=1, description="share of each convolution's weights that is redrawn")
    slowed: float = Field(default=0.1, ge=0, le=1, description="factor on the gradients of weights not redrawn")

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> nn.Module:
        """Return `model` redrawn and trained. Raises ValueError for an empty forget set."""
        require_forget(data)
        forget = summed(model.eval(), data.forget)
        retain = summed(model, some(data.retain, len(data.forget), ctx.generator))
        gaps = [(a - b).abs() for a, b in zip(forget, retain, strict=True)]
        masks = redraw(model, gaps, self.fraction, ctx.generator)
        steps = self.epochs * len(loop.batch_bounds(len(data.retain), self.batch_size))
        update, at = self.sgd(model.train()), 0
        for _ in range(self.epochs):
            for x, y in data.retain.batches(self.batch_size, ctx.generator, augment=True):
                loop.cross_entropy(loop.forward(model, x, ctx.recipe), y).backward()
                for p, mask in masks:
                    assert p.grad is not None
                    p.grad *= torch.where(mask, 1.0, self.slowed)
                update.step(self.lr * _ramp(at, steps, self.epochs))
                at += 1
        return model.eval()


def redraw(
    model: nn.Module, gaps: list[Tensor], fraction: float, generator: torch.Generator
) -> list[tuple[Tensor, Tensor]]:
    """Redraw of every convolution the `fraction` of weights with the smallest gaps; all parameters and what of them."""
    masks = [torch.zeros_like(gap, dtype=torch.bool) for gap in gaps]
    place = {id(p): at for at, p in enumerate(model.parameters())}
    with torch.no_grad():
        for module in model.modules():
            if not isinstance(module, torch.nn.Conv2d):
                continue
            at, weight = place[id(module.weight)], module.weight
            chosen = gaps[at].flatten().argsort(stable=True)[: round(fraction * weight.numel())]
            masks[at].view(-1)[chosen] = True
            drawn = torch.empty(weight.shape, dtype=weight.dtype)
            torch.nn.init.kaiming_normal_(drawn, mode="fan_out", nonlinearity="relu", generator=generator)
            weight.copy_(torch.where(masks[at], drawn.to(weight.device), weight))
    return list(zip(model.parameters(), masks, strict=True))


def _ramp(step: int, steps: int, epochs: int) -> float:
    """Linear rise over the first epoch, then linear fall to zero at the end, in (0, 1]."""
    rising = max(1, steps // epochs)
    return (step + 1) / rising if step < rising else (steps - step) / max(1, steps - rising)
