"""A ceiling, no method: the original made to answer as a model that was retrained for the purpose."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field

from bench import loop
from bench.interface import Context, DataView, Method, Need
from methods._steps import mixed, require_forget

if TYPE_CHECKING:
    from torch import nn


class OracleCeiling(Method):
    """Oracle matching (Georgiev et al., ICLR 2025): what matching the outputs of a retrained model reaches.

    It trains a network on the retained data by the original's recipe, the oracle, and moves the original until its
    logits on the forget set and on part of the retained data are near the oracle's, in squared distance. Who has the
    oracle needs no unlearning, so this is no method: it tells how much of a gap comes from matching outputs and how
    much from not knowing them. The oracle is a draw of its own, none of the models that results are compared with. The
    time is that of a retraining and more.

    Deviations: Adam at a constant learning rate, ten epochs and a fifth of the retained data are choices of ours, since
    the paper tunes them for each experiment. Augmentation is the recipe's, the same image for both networks.
    """

    needs: ClassVar[Need] = Need.FORGET | Need.RETAIN
    cite: ClassVar[str] = "georgiev2025attribute"
    ceiling: ClassVar[bool] = True
    cost: ClassVar[str] = "the recipe's epochs x 3 n_retain F1, and epochs x 4 (n_forget + share n_retain) F1"

    lr: float = Field(default=1e-3, gt=0, le=10, description="learning rate of Adam")
    epochs: int = Field(default=10, ge=0, le=10_000, description="passes over the forget set")
    batch_size: int = Field(default=64, ge=4, le=100_000, description="examples per step, of both sets together")
    share: float = Field(default=0.2, gt=0, le=1, description="share of the retained data that is read in an epoch")

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> nn.Module:
        """Return `model` after the epochs. Raises ValueError for an empty forget set."""
        require_forget(data)
        if not self.epochs:
            return model.eval()
        oracle = ctx.new_model().train()
        loop.fit(oracle, data.retain, ctx.recipe, ctx.generator)
        return self.match(model, oracle.eval(), data, ctx)

    def match(self, model: nn.Module, oracle: nn.Module, data: DataView, ctx: Context) -> nn.Module:
        """Move `model` toward the outputs of `oracle`, which is in evaluation mode and stays as it is."""
        update = loop.Adam(model.train().parameters())
        for _ in range(self.epochs):
            for parts in mixed(data, self.batch_size, ctx.generator, share=self.share):
                x = torch.cat([part[0] for part in parts if part is not None])
                with torch.no_grad():
                    wanted = loop.forward(oracle, x, ctx.recipe)
                torch.nn.functional.mse_loss(loop.forward(model, x, ctx.recipe), wanted).backward()
                update.step(self.lr)
        return model.eval()
