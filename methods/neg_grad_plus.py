"""NegGrad+: descend on the retained data while climbing, a little, on the forget set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from bench import loop
from bench.interface import Context, DataView, Need
from methods._steps import Steps, paired, require_forget

if TYPE_CHECKING:
    from torch import nn


class NegGradPlus(Steps):
    """alpha CE(retained batch) - (1 - alpha) CE(forget batch), as Kurmanji et al. (NeurIPS 2023) call it.

    A batch of the forget set goes with every batch of the retained one, which is what keeps the ascent from ruining
    the model. alpha = .95 lies in the authors' range (.9 to .9999); the other defaults are those of fine-tuning in
    Jia et al. (NeurIPS 2023).

    Deviations: the batches pass through the network one after the other, the retained one first, so that each has its
    own BatchNorm statistics; augmentation is the recipe's. With alpha = 1 the forget set is not read.
    """

    needs: ClassVar[Need] = Need.FORGET | Need.RETAIN
    cite: ClassVar[str] = "kurmanji2023scrub"
    cost: ClassVar[str] = "epochs x 6 n_retain F1"
    search: ClassVar[dict[str, tuple[Any, ...]]] = {
        "alpha": (0.9, 0.95, 0.99),
        "lr": (0.001, 0.003, 0.01, 0.03, 0.1),
        "epochs": (2, 5, 10),
    }

    alpha: float = Field(default=0.95, gt=0, le=1, description="weight of the retained data")

    def reads(self) -> Need:
        """Nothing of the forget set where it has no weight."""
        return self.needs if self.alpha < 1 else Need.RETAIN

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> nn.Module:
        """Return `model` after `epochs` passes over the retained data. Raises ValueError for an empty forget set."""
        model.train()
        update = self.sgd(model)
        if self.alpha < 1:
            require_forget(data)
        for _ in range(self.epochs):
            if self.alpha == 1:
                for x, y in data.retain.batches(self.batch_size, ctx.generator, augment=True):
                    loop.cross_entropy(loop.forward(model, x, ctx.recipe), y).backward()
                    update.step(self.lr)
                continue
            for (x, y), (x_f, y_f) in paired(data, self.batch_size, ctx.generator):
                (self.alpha * loop.cross_entropy(loop.forward(model, x, ctx.recipe), y)).backward()
                ((self.alpha - 1) * loop.cross_entropy(loop.forward(model, x_f, ctx.recipe), y_f)).backward()
                update.step(self.lr)
        return model.eval()
