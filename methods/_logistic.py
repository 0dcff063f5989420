"""L2-regularized logistic regression whose loss carries a random linear term: fitting, and taking examples back."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import Tensor

SMOOTHNESS = 0.25  # Lipschitz constant of the second derivative's factor, sig (1 - sig), in Guo et al., section 3.1


class Regression(NamedTuple):
    """sum_i -log sig(y_i w x_i) + (ridge n / 2) |w|^2 + b w: inputs `[n, d]`, signs `[n]`, b `[d]`.

    The ridge counts once per example, so that taking an example back takes its share of the ridge along.
    """

    x: Tensor
    y: Tensor
    b: Tensor
    ridge: float

    def gradient(self, w: Tensor) -> Tensor:
        """Gradient of the whole loss at `w` `[d]`."""
        return self.slopes(w) @ self.x + self.ridge * len(self.x) * w + self.b

    def slopes(self, w: Tensor) -> Tensor:
        """Derivative of every example's loss in its score, `[n]`."""
        return -self.y * torch.sigmoid(-self.y * (self.x @ w))

    def hessian(self, w: Tensor) -> Tensor:
        """Second derivatives `[d, d]`."""
        p = torch.sigmoid(self.x @ w)
        own = (self.x * (p * (1 - p))[:, None]).T @ self.x
        return own + self.ridge * len(self.x) * torch.eye(len(w), dtype=w.dtype, device=w.device)

    def loss(self, w: Tensor) -> float:
        """The loss itself."""
        fit = torch.nn.functional.softplus(-self.y * (self.x @ w)).sum()
        return float(fit + 0.5 * self.ridge * len(self.x) * (w @ w) + self.b @ w)

    def fit(self, iterations: int = 100) -> Tensor:
        """The minimum, by Newton's method with the step halved until the loss falls."""
        w = torch.zeros_like(self.b)
        for _ in range(iterations):
            gradient = self.gradient(w)
            step = torch.linalg.solve(self.hessian(w), gradient)
            if float(gradient @ step) < 1e-16 * (1 + abs(self.loss(w))):
                break
            scale, before = 1.0, self.loss(w)
            while self.loss(w - scale * step) > before and scale > 1e-9:
                scale /= 2
            w = w - scale * step
        return w


def take_back(gone: Regression, rest: Regression, w: Tensor) -> tuple[Tensor, float]:
    """One Newton step on what is `rest` from the minimum `w` of both together, and a bound on the gradient it leaves.

    The bound is gamma |X| max |x step| |X step| with |X| the largest singular value of the inputs that stay (Guo et
    al., corollary 1, whose |step| is at least that maximum for the inputs of norm at most 1 that they ask for).
    """
    moved = gone.slopes(w) @ gone.x + gone.ridge * len(gone.x) * w
    step = torch.linalg.solve(rest.hessian(w), moved)
    scores = rest.x @ step
    bound = SMOOTHNESS * torch.linalg.matrix_norm(rest.x, ord=2) * scores.abs().max() * scores.norm()
    return w + step, float(bound)
