"""Fisher forgetting: noise on every weight, the larger the less the retained data need it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field

from bench.interface import Context, DataView, Method, Need
from methods import _layers

if TYPE_CHECKING:
    from torch import Tensor, nn

CELLS = 50_000_000  # gradients of single samples that are held at a time
MOST, MOST_HEAD = 1e3, 1e2  # of the inverse Fisher information, and in the last layer
BOOST = 10.0  # factor on the variance in the last layer and on that of vectors (biases, BatchNorm)
REMOVED = 1e-4  # variance of a removed class's row before the factor; its mean is 0


class Fisher(Method):
    """Golatkar et al. (CVPR 2020), in the form of the authors' code: theta + N(0, alpha / F), F the diagonal Fisher.

    F is exact: the expectation over the model's own labels of the squared gradient, averaged over the retained data.
    In tensors of several dimensions the variance is averaged over the second. alpha is the code's for its small nets.

    Deviations: the code takes the expectation over labels one sample at a time, here several go at once; the paper's
    text has the fourth root of F where the code has the square root (`exponent = 0.25`).
    """

    needs: ClassVar[Need] = Need.RETAIN
    cite: ClassVar[str] = "golatkar2020eternal"
    batch_norm: ClassVar[str] = "eval"
    budget: ClassVar[str | None] = "alpha"
    random_by_class: ClassVar[bool] = True
    cost: ClassVar[str] = "(1 + 2 classes) samples F1"
    search: ClassVar[dict[str, tuple[Any, ...]]] = {"alpha": (1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)}

    alpha: float = Field(default=1e-6, ge=0, le=1e6, description="scale of the variance")
    exponent: float = Field(default=0.5, gt=0, le=1, description="of 1/F in the standard deviation")
    samples: int | None = Field(default=None, ge=1, description="retained samples for F; none: all")

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> nn.Module:
        """Return `model` with noise. Raises ValueError where its last module with weights does not give the logits."""
        if not self.alpha:
            return model.eval()
        x, _ = next(iter(data.retain.batches(1)))
        last = {id(p) for p in _layers.head(model, x, ctx.classes).parameters()}
        information = diagonal(model.eval(), data, self.samples, ctx)
        with torch.no_grad():
            for name, p in model.named_parameters():
                removed = list(ctx.removed_classes) if id(p) in last else []
                if removed:
                    p[removed] = 0.0
                variance = self._variance(information[name], removed, last=id(p) in last)
                p.add_(variance.sqrt() * torch.randn(p.shape, generator=ctx.generator).to(p))
        return model

    def _variance(self, information: Tensor, removed: list[int], *, last: bool) -> Tensor:
        """Variance of the noise on a tensor of this Fisher information; `removed` are rows with one of their own."""
        inverse = (1 / (information + 1e-8)).pow(2 * self.exponent)
        variance = self.alpha * inverse.clamp(max=MOST_HEAD if last else MOST)
        if variance.dim() > 1:
            variance = variance.mean(dim=1, keepdim=True).expand(information.shape).clone()
        if removed:
            variance[removed] = REMOVED
        return variance * (BOOST if last or variance.dim() == 1 else 1.0)


def diagonal(model: nn.Module, data: DataView, samples: int | None, ctx: Context) -> dict[str, Tensor]:
    """Diagonal Fisher information by parameter name: mean over samples of sum_y p_y (d CE(x, y) / d theta)^2."""
    weights = {name: p.detach() for name, p in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def log_probabilities(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        logits = torch.func.functional_call(model, (parameters, buffers), (x[None],))
        return torch.log_softmax(logits[0], 0)

    slopes = torch.func.vmap(torch.func.jacrev(log_probabilities), in_dims=(None, 0))
    size = max(1, CELLS // (ctx.classes * sum(p.numel() for p in weights.values())))
    total, seen = {name: torch.zeros_like(p) for name, p in weights.items()}, 0
    for x, _ in data.retain.batches(size, ctx.generator if samples else None):
        x = x[: None if samples is None else samples - seen]
        if not len(x):
            break
        with torch.no_grad():
            p = torch.softmax(model(x), 1)
        for name, slope in slopes(weights, x).items():
            total[name] += torch.einsum("nc,nc...->...", p, slope.square())
        seen += len(x)
    return {name: value / max(seen, 1) for name, value in total.items()}
