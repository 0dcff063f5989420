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
    is bounded for each class, and the bounds of all requests add up to the class's. All classes' gradients are one
    vector under independent noise, so beta, the layer's bound, is the norm of the classes' (theorem 3; the code adds
    them up, which is never less). While beta is at most std epsilon / c, with delta = 1.5 exp(-c^2 / 2), nobody can
    tell the layer from one trained without the data but with probability ratios of exp(epsilon), up to delta. Beyond
    that the layer is trained again on the retained data, with new noise.

    The certificate is of the layer alone: the features come from the original, which was trained on the forget set, and
    would have to come from other data or from private training to be covered too. Sample removal only; to take a class
    away, a class's regression is dropped, which certifies nothing.

    Notes, of the layer handed back: `residual`, the norm of the gradient that is left; `bound`, beta; `epsilon` that
    beta uses up at `delta`. Status `retrained`: the budget was used up and the layer is a new one.

    Defaults: noise 10 as in the authors' code; ridge 1e-2 is the largest of the paper's, since the noise drowns a small
    data set at the code's 1e-6.

    Deviations: all of a request's examples go in one step; features are divided by the root of their number, not each
    example's by its norm, so that the layer stays a linear one of the network and no example sets the scale, and the
    bound has the largest score that the step moves where norms of at most 1 would allow the step's length; the layer
    has no bias; Newton's method in place of L-BFGS.
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
        return self._trained(x, y, ctx)

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> Unlearned:
        """Return `model` with the layer that the step, or training anew, gives."""
        require_forget(data)
        (x_f, y_f, head), (x_r, y_r, _) = (features(model, part, ctx) for part in (data.forget, data.retain))
        state, status = {name: value.clone() for name, value in ctx.state.items()}, "ok"
        for c in range(ctx.classes):
            gone, rest = (self._of(c, x, y, state) for x, y in ((x_f, y_f), (x_r, y_r)))
            state["w"][c], bound = take_back(gone, rest, state["w"][c])
            state["beta"][c] += bound
        if self._spent(state) > self.epsilon:
            state, status = self._trained(x_r, y_r, ctx), "retrained"
        left = torch.stack([self._of(c, x_r, y_r, state).gradient(state["w"][c]) for c in range(ctx.classes)])
        notes = {"residual": float(left.norm()), "bound": float(state["beta"].norm())}
        notes |= {"epsilon": self._spent(state), "delta": self.delta}
        with torch.no_grad():
            head.weight.copy_(state["w"] / math.sqrt(x_r.shape[1]))
            if head.bias is not None:
                head.bias.zero_()
        return Unlearned(model.eval(), state, status, notes)

    def _of(self, c: int, x: Tensor, y: Tensor, state: State) -> Regression:
        """The regression of class `c` on these features."""
        return Regression(x, _signs(y, c), state["b"][c], self.ridge)

    def _spent(self, state: State) -> float:
        """The epsilon that the classes' bounds use up."""
        beta, c = float(state["beta"].norm()), math.sqrt(2 * math.log(1.5 / self.delta))
        return (c * beta / self.noise if self.noise else math.inf) if beta else 0.0

    def _trained(self, x: Tensor, y: Tensor, ctx: Context) -> State:
        """Weights and noise of all classes' regressions on these features, and the bounds' sums, which are 0."""
        drawn = torch.randn(ctx.classes, x.shape[1], generator=ctx.generator, dtype=torch.float64)
        b = (self.noise * drawn).to(x.device)
        w = torch.stack([Regression(x, _signs(y, c), b[c], self.ridge).fit() for c in range(ctx.classes)])
        return {"w": w, "b": b, "beta": torch.zeros(ctx.classes, dtype=torch.float64, device=x.device)}


def features(model: nn.Module, part: Part, ctx: Context) -> tuple[Tensor, Tensor, nn.Linear]:
    """What enters the last layer over sqrt(d), float64 `[n, d]`, labels `[n]` and the layer; model in evaluation mode.

    The scale is the same whatever the examples are: one of theirs would tell of those that are forgotten.
    """
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
    return torch.cat(caught) / math.sqrt(head.in_features), y, head


def _signs(y: Tensor, c: int) -> Tensor:
    """1 for examples of the class, -1 for others, float64."""
    return 2.0 * (y == c).double() - 1.0
