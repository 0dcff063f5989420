"""Linear filtration: one matrix on the logits that gives the removed classes the answers of none."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field

from bench.interface import Context, DataView, Method, Need, Unlearned
from methods import _layers
from methods._labels import kept_classes

if TYPE_CHECKING:
    from torch import Tensor, nn


class LinearFiltration(Method):
    """Baumhauer et al. (Machine Learning 2022): the last layer W becomes F W with F = B A^-1.

    Column c of A is the mean logit vector of class c; B is A with the columns of removed classes replaced in the rows
    that stay. Mean logits of classes that stay are kept exactly, and nothing but the last layer changes, so that the
    features still know the class. Class removal only. `target` is what replaces a column: `normalization` its own
    entries moved to the level of the others, `randomization` a draw from N(0, 1), `zeroing` 0; `naive` replaces
    nothing, so that the logits that stay are the original's. Another seed matters to `randomization` alone.

    Deviations: the paper cuts the outputs of removed classes off. Reports compare models with all outputs, so each is
    here, on every input, the mean of the logits that stay, less a constant that brings it down to the smallest mean
    logit that stays, and by 1 at least. A removed class is thus never predicted, but keeps a small probability, of
    which reports rid it with the mask (a head without a bias stays at the mean). A pseudo-inverse stands in where A is
    singular.

    Status `ill_conditioned`: the condition number of A is above 1e6.
    """

    needs: ClassVar[Need] = Need.FORGET | Need.RETAIN
    supports: ClassVar[tuple[str, ...]] = ("class_removal",)
    cite: ClassVar[str] = "baumhauer2022filtration"
    batch_norm: ClassVar[str] = "frozen"
    budget: ClassVar[str | None] = None
    cost: ClassVar[str] = "(n_forget + n_retain) F1"

    target: Literal["normalization", "randomization", "zeroing", "naive"] = Field(
        default="normalization", description="what the mean logits of a removed class become"
    )

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> Unlearned:
        """Return `model` with its last layer filtered. Raises ValueError where that does not give the logits."""
        x, _ = next(iter(data.retain.batches(1)))
        head = _layers.head(model, x, ctx.classes)
        means = class_means(model.eval(), data, ctx)
        gone, kept = list(ctx.removed_classes), kept_classes(ctx).to(means.device)
        odd = not torch.linalg.cond(means) < 1e6
        inverse = torch.linalg.pinv(means) if odd else torch.linalg.inv(means)
        matrix = self._wanted(means, gone, kept, ctx) @ inverse
        with torch.no_grad():
            for value in head.parameters():
                value.copy_((matrix @ value.double().flatten(1 if value.dim() > 1 else 0)).view_as(value))
            if head.bias is not None:
                head.bias[gone] -= (means[kept][:, kept].mean() - means[kept].min()).clamp(min=1.0)
        return Unlearned(model, status="ill_conditioned" if odd else "ok", notes={"kept_classes": len(kept)})

    def _wanted(self, means: Tensor, gone: list[int], kept: Tensor, ctx: Context) -> Tensor:
        """The matrix B `[classes, classes]`, whose rows `gone` are the mean of the rows `kept`."""
        wanted = means.clone()
        level = means[kept][:, kept].mean()
        for c in gone:
            own = means[kept, c]
            drawn = torch.randn(len(kept), generator=ctx.generator, dtype=torch.float64).to(own.device)
            choices = {
                "normalization": own - own.mean() + level,
                "randomization": drawn,
                "zeroing": torch.zeros_like(own),
                "naive": own,
            }
            wanted[kept, c] = choices[self.target]
        wanted[gone] = wanted[kept].mean(0)
        return wanted


def class_means(model: nn.Module, data: DataView, ctx: Context) -> Tensor:
    """Mean logits by class in the columns, float64 `[classes, classes]`; ValueError for a class without samples."""
    total, count = (
        torch.zeros(ctx.classes, ctx.classes, dtype=torch.float64),
        torch.zeros(ctx.classes, dtype=torch.float64),
    )
    with torch.no_grad():
        for part in (data.forget, data.retain):
            for x, y in part.batches(1024):
                total.index_add_(0, y.cpu(), model(x).double().cpu())
                count += torch.bincount(y.cpu(), minlength=ctx.classes)
    if not (count > 0).all():
        missing = ", ".join(str(c) for c in (count == 0).nonzero()[:, 0].tolist())
        raise ValueError(f"there is no training sample of class {missing}, whose mean logits are needed")
    return (total / count[:, None]).T.to(next(model.parameters()).device)
