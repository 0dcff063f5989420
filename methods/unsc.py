"""UNSC: teach the removed class the model's second thoughts, by steps that what stays does not notice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field

from bench import loop
from bench.interface import Context, DataView, Method, Need, State
from methods._grams import input_grams
from methods._labels import kept_classes
from methods._projection import Update, outside, rank, spectrum
from methods._steps import require_forget, some

if TYPE_CHECKING:
    from torch import Tensor, nn


class UNSC(Method):
    """Unlearning via null space calibration (Chen et al., IJCAI 2024): algorithms 1 and 2.

    `prepare` keeps for each class and layer the main directions of the layer's inputs, with their sizes. A request puts
    those of the classes that stay together, and their main directions span what must not change. The forget set is then
    learned with pseudo-labels, the original's answers among the classes that stay, and each step on a weight matrix is
    projected to the rest, the null space. Biases and BatchNorm do not move. Class removal only. PGU's projection with
    other statistics, another loss and no stop rule.

    Defaults: the authors' code as others have ported it, one batch a class, 97 percent of the energy, SGD at 0.04 for
    25 epochs; the batch size is ours.

    Deviations: the directions of the classes are put together in one decomposition, theirs are added class by class
    with a share that grows with the class's number, which makes the result depend on the order of the classes.
    """

    needs: ClassVar[Need] = Need.FORGET | Need.STATISTICS
    supports: ClassVar[tuple[str, ...]] = ("class_removal",)
    cite: ClassVar[str] = "chen2024unsc"
    batch_norm: ClassVar[str] = "frozen"
    prepares_with: ClassVar[tuple[str, ...] | None] = ("per_class", "share")
    cost: ClassVar[str] = "classes x per_class F1 once; (1 + 3 epochs) n_forget F1"
    search: ClassVar[dict[str, tuple[Any, ...]]] = {
        "share": (0.8, 0.9, 0.97),
        "lr": (0.01, 0.04, 0.1, 0.3),
        "epochs": (10, 25, 50),
        "batch_size": (16, 64),
    }

    lr: float = Field(default=0.04, gt=0, le=10, description="constant learning rate")
    epochs: int = Field(default=25, ge=0, le=10_000, description="passes over the forget set")
    batch_size: int = Field(default=64, ge=1, le=100_000, description="examples per step")
    share: float = Field(default=0.97, gt=0, le=1, description="of the inputs' energy that must not change")
    per_class: int = Field(default=256, ge=1, le=1_000_000, description="examples of a class, at most")

    def prepare(self, model: nn.Module, data: DataView, ctx: Context) -> State:
        """Main directions times their sizes, `[d, k]`, by class and layer."""
        labels = torch.cat([y for _, y in data.train.batches(1024)])
        state: State = {}
        for c in range(ctx.classes):
            own = data.train.only(data.train.rows[labels == c])
            for name, gram in input_grams(model, some(own, self.per_class, ctx.generator)).items():
                sigma, vectors, _ = spectrum(gram / min(len(own), self.per_class))
                k = rank(sigma, self.share, power=2)
                state[f"{c}.{name}"] = vectors[:, :k] * sigma[:k]
        return state

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> nn.Module:
        """Return `model` after the epochs. Raises ValueError for an empty forget set."""
        require_forget(data)
        moving = self._moving(model.eval(), ctx)
        x, pseudo = _second_thoughts(model, data, ctx)
        for _ in range(self.epochs):
            order = torch.randperm(len(x), generator=ctx.generator).to(x.device)
            for start, stop in loop.batch_bounds(len(x), self.batch_size):
                rows = order[start:stop]
                loss = loop.cross_entropy(loop.forward(model, x[rows], ctx.recipe), pseudo[rows])
                gradients = torch.autograd.grad(loss, [weight for weight, _ in moving])
                with torch.no_grad():
                    for (weight, update), g in zip(moving, gradients, strict=True):
                        weight -= self.lr * update(g.flatten(1)).view_as(g)
        return model

    def _moving(self, model: nn.Module, ctx: Context) -> list[tuple[Tensor, Update]]:
        """Every layer's weight with what projects its gradient to the null space of the classes that stay."""
        names = dict.fromkeys(key.partition(".")[2] for key in ctx.state)
        found: list[tuple[Tensor, Update]] = []
        for name in names:
            both = torch.cat([ctx.state[f"{c}.{name}"] for c in kept_classes(ctx).tolist()], 1)
            sigma, vectors, _ = spectrum(both @ both.T)
            weight = model.get_parameter(f"{name}.weight")
            found.append((weight, outside(vectors, rank(sigma, self.share, power=2), weight)))
        return found


def _second_thoughts(model: nn.Module, data: DataView, ctx: Context) -> tuple[Tensor, Tensor]:
    """The forget set with the model's answers among the classes that stay."""
    kept = kept_classes(ctx)
    with torch.no_grad():
        pairs = [(x, model(x)) for x, _ in data.forget.batches(512)]
    x, logits = (torch.cat(side) for side in zip(*pairs, strict=True))
    return x, kept.to(logits.device)[logits[:, kept].argmax(1)]
