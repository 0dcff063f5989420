"""SVD class forgetting: take out of every layer's input what only the removed class sends through it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field

from bench.interface import Context, DataView, Method, Need
from methods._grams import input_grams
from methods._projection import spectrum
from methods._steps import require_forget, some

if TYPE_CHECKING:
    from torch import Tensor, nn


class SVDForgetting(Method):
    """Gradient-free class forgetting (Kodge, Saha and Roy, TMLR 2024): one product a layer, no training.

    The inputs of every convolution and linear layer have singular directions u_i, on the retained data and on the
    forget set, with shares s_i of the energy. Each direction is weighted by alpha s_i / ((alpha - 1) s_i + 1), which
    gives M_r and M_f, the sums of weighted u_i u_i^T; with large alpha both are projections. A weight matrix W becomes
    W (I - M_f + M_r M_f): what of the forget set's directions the retained data has no use for is gone. Class removal
    only. BatchNorm and biases stay. Defaults are those of the authors' CIFAR-10 runs.

    Deviations: all the layers' inputs are of the original network, as theirs; the authors also search both alphas for
    the best product of retained accuracy and forget error on the training set, which `tune` is for.
    """

    needs: ClassVar[Need] = Need.FORGET | Need.RETAIN
    supports: ClassVar[tuple[str, ...]] = ("class_removal",)
    cite: ClassVar[str] = "kodge2024deep"
    batch_norm: ClassVar[str] = "frozen"
    budget: ClassVar[str | None] = "alpha_f"
    cost: ClassVar[str] = "at most 2 samples F1; Gram matrices and their eigenvectors on top"
    search: ClassVar[dict[str, tuple[Any, ...]]] = {
        "alpha_r": (10.0, 30.0, 100.0, 300.0, 1000.0),
        "alpha_f": (1.0, 3.0, 10.0, 30.0, 100.0),
    }

    alpha_r: float = Field(default=100.0, ge=0, le=1e9, description="how soon a retained direction counts wholly")
    alpha_f: float = Field(default=3.0, ge=0, le=1e9, description="how soon a forgotten direction counts wholly")
    samples: int = Field(default=900, ge=1, le=1_000_000, description="examples of each set, at most")

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> nn.Module:
        """Return `model` with its weights multiplied. Raises ValueError for an empty forget set."""
        require_forget(data)
        if not self.alpha_f:
            return model.eval()
        kept = input_grams(model, some(data.retain, self.samples, ctx.generator))
        gone = input_grams(model, some(data.forget, self.samples, ctx.generator))
        for name, gram in gone.items():
            weight = model.get_parameter(f"{name}.weight")
            retained, forgotten = importance(kept[name], self.alpha_r), importance(gram, self.alpha_f)
            with torch.no_grad():
                flat = weight.flatten(1).to(gram)
                weight.copy_((flat - flat @ forgotten + flat @ retained @ forgotten).view_as(weight))
        return model.eval()


def importance(gram: Tensor, alpha: float) -> Tensor:
    """Sum of u u^T over the directions of a Gram matrix `[d, d]`, each weighted by its share of the energy."""
    sigma, vectors, _ = spectrum(gram)
    energy = sigma.square()
    share = energy / energy.sum().clamp(min=torch.finfo(energy.dtype).tiny)
    return (vectors * (alpha * share / ((alpha - 1) * share + 1))) @ vectors.T
