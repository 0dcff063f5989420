"""Certified removal: a last layer with noise in its loss, from which one Newton step takes examples back."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field

from bench.interface import Context, DataView, Method, Need, Part, State, Unlearned
from methods import _layers
from methods._logistic import Regression, take_back
from methods._steps import require_forget

if TYPE_CHECKING:
    from torch import Tensor, nn


class CertifiedRemoval(Method):
    """Certified data removal (Guo et al., ICML 2020, algorithms 1 and 2) from the last layer of a network.

    `prepare` trains that layer anew on the original's features, one logistic regression a class against the rest, with
    a random linear term in each loss. A request takes the forget set back by one Newton step. What gradient that leaves
    is bounded, and the bounds of all requests add up to beta; while beta is at most std epsilon / c, with
    delta = 1.5 exp(-c^2 / 2), nobody can tell the layer from one trained without the data but with probability ratios
    of exp(epsilon), up to delta. Beyond that the layer is trained again on the retained data, with new noise.

    The certificate is of the layer alone: the features come from the original, which was trained on the forget set, and
    would have to come from other data or from private training to be covered too. Sample removal only; to take a class
    away, a class's regression is dropped, which certifies nothing.

    Notes: `residual`, the gradient that is left, and `bound`, beta, both of the class with the largest; `epsilon` that
    beta uses up at `delta`. Status `retrained`: the budget was used up and the layer is a new one.

    Defaults: noise 10 as in the authors' code; ridge 1e-2 is the largest of the paper's, since the noise drowns a small
    data set at the code's 1e-6.

    Deviations: all of a request's examples go in one step; features are divided by the largest norm among them instead
    of each by its own, so that the layer stays a linear one of the network; it has no bias; Newton's method in place of
    L-BFGS.
    """

    needs: ClassVar[Need] = Need.FORGET | Need.RETAIN | Need.STATISTICS | Need.OWN_TRAINING
    supports: ClassVar[tuple[str, ...]] = ("sample_removal", "incremental")
    cite: ClassVar[str] = "guo2020certified"
    batch_norm: ClassVar[str] = "frozen"
    budget: ClassVar[str | None] = None
    random_by_class: ClassVar[bool] = True
    prepares_with: ClassVar[tuple[str, ...] | None] = ("ridge", "noise")
    cost: ClassVar[str] = "n_train F1 once; (n_forget + n_retain) F1, and a factorization a class"
    search: ClassVar[dict[str, tuple[Any, ...]]] = {"ridge": (1e-4, 1e-3, 1e-2, 0.1), "noise": (0.1, 1.0, 10.0)}

    ridge: float = Field(default=1e-2, gt=0, le=100, description="L2 penalty per example")
    noise: float = Field(default=10.0, ge=0, le=1e6, description="standard deviation of the linear term; 0: none")
    epsilon: float = Field(default=1.0, gt=0, le=1e6, description="of the certificate")
    delta: float = Field(default=1e-4, gt=0, lt=1, description="of the certificate")

    def prepare(self, model: nn.Module, data: DataView, ctx: Context) -> State:
        """Train the layer. Raises ValueError where the network does not end with a linear one."""
        x, y, _ = features(model, data.train, ctx)
        largest = x.norm(dim=1).max().clamp(min=torch.finfo(x.dtype).tiny)
        return self._trained(x / largest, y, ctx) | {"largest": largest[None]}

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> Unlearned:
        """Return `model` with the layer that the step, or training anew, gives."""
        require_forget(data)
        largest = ctx.state["largest"]
        (x_f, y_f, head), (x_r, y_r, _) = (features(model, part, ctx) for part in (data.forget, data.retain))
        x_f, x_r, state, left = x_f / largest, x_r / largest, dict(ctx.state), 0.0
        for c in range(ctx.classes):
            b, w = state["b"][c], state["w"][c]
            gone, rest = (Regression(x, _signs(y, c), b, self.ridge) for x, y in ((x_f, y_f), (x_r, y_r)))
            state["w"][c], bound = take_back(gone, rest, w)
            state["beta"][c] += bound
            left = max(left, float(rest.gradient(state["w"][c]).norm()))
        bound, c_delta = float(state["beta"].max()), math.sqrt(2 * math.log(1.5 / self.delta))
        spent = bound * c_delta / self.noise if self.noise else math.inf
        if spent > self.epsilon:
            state |= self._trained(x_r, y_r, ctx)
        with torch.no_grad():
            head.weight.copy_(state["w"] / largest)
            if head.bias is not None:
                head.bias.zero_()
        notes = {"residual": left, "bound": bound, "delta": self.delta}
        notes |= {"epsilon": spent} if math.isfinite(spent) else {}
        return Unlearned(model.eval(), state, "retrained" if spent > self.epsilon else "ok", notes)

    def _trained(self, x: Tensor, y: Tensor, ctx: Context) -> State:
        """Weights and noise of all classes' regressions on these features, and the bounds' sums, which are 0."""
        drawn = torch.randn(ctx.classes, x.shape[1], generator=ctx.generator, dtype=torch.float64)
        b = (self.noise * drawn).to(x.device)
        w = torch.stack([Regression(x, _signs(y, c), b[c], self.ridge).fit() for c in range(ctx.classes)])
        return {"w": w, "b": b, "beta": torch.zeros(ctx.classes, dtype=torch.float64, device=x.device)}


def features(model: nn.Module, part: Part, ctx: Context) -> tuple[Tensor, Tensor, nn.Linear]:
    """What enters the last layer, float64 `[n, d]`, with labels `[n]` and the layer; the model in evaluation mode."""
    x, y = (torch.cat(side) for side in zip(*part.batches(512), strict=True))
    head = _layers.head(model.eval(), x[:1], ctx.classes)
    if not isinstance(head, torch.nn.Linear):
        raise ValueError("the network does not end with a linear layer, from which alone removal is certified")
    caught: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0].double()))
    try:
        with torch.no_grad():
            for images in x.split(512):
                model(images)
    finally:
        hook.remove()
    return torch.cat(caught), y, head


def _signs(y: Tensor, c: int) -> Tensor:
    """1 for examples of the class, -1 for others, float64."""
    return 2.0 * (y == c).double() - 1.0
