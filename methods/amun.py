"""AMUN: fine-tune on adversarial neighbors of the forget set with the labels that the model gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field

from bench import loop
from bench.interface import Context, DataView, Need, Unlearned
from methods._adversarial import nearest_l2
from methods._layers import only_moving
from methods._steps import Steps, require_forget, shuffled, spread

if TYPE_CHECKING:
    from torch import Tensor, nn


class AMUN(Steps):
    """Adversarial machine unlearning (Ebrahimpour-Boroojeny et al., ICML 2025), the version with retained data.

    For every forget sample the nearest image is sought, by L2 projected gradient ascent in balls of doubling radius,
    that the original takes for another class; the model is then trained on the retained data, the forget set and
    these neighbors with their wrong labels, which lowers its confidence around the forget samples and nowhere else.

    Deviations: specified from the paper's text, without official code; the neighbors are cut to the pixel range. In
    class removal the label of a neighbor is the largest answer among the classes that stay and the sample's own, so
    that no sample is given the label of another removed class. Batches hold the sets in their proportion. Augmentation
    is the recipe's on all but the neighbors. `with_forget = false` leaves the forget set itself out. Notes: share of
    samples without a neighbor, which are left out.
    """

    needs: ClassVar[Need] = Need.FORGET | Need.RETAIN
    cite: ClassVar[str] = "ebrahimpour2025amun"
    cost: ClassVar[str] = "up to (doublings + 1) x 3 steps n_forget F1 + epochs x 3 (n_retain + 2 n_forget) F1"
    search: ClassVar[dict[str, tuple[Any, ...]]] = {
        "lr": (0.001, 0.003, 0.01, 0.03, 0.1),
        "epochs": (2, 5, 10),
        "batch_size": (32, 128),
    }

    batch_size: int = Field(default=128, ge=2, le=100_000, description="examples of the retained data per step")
    radius: float = Field(default=0.04, gt=0, le=100, description="first radius, of the pixel range")
    steps: int = Field(default=50, ge=1, le=1_000, description="steps of ascent in each ball")
    doublings: int = Field(default=7, ge=0, le=30, description="how often the radius is doubled")
    with_forget: bool = Field(default=True, description="train on the forget set too, with its labels")

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> Unlearned:
        """Return `model` after the epochs. Raises ValueError for an empty forget set."""
        require_forget(data)
        if not self.epochs:
            return Unlearned(model.eval())
        images, labels, lost = self._neighbors(model.eval(), data, ctx)
        update, steps = self.sgd(model.train()), len(loop.batch_bounds(len(data.retain), self.batch_size))
        for _ in range(self.epochs):
            near = shuffled(images, labels, steps, ctx.generator)
            own = [spread(data.forget, steps, ctx.generator)] if self.with_forget else []
            kept = data.retain.batches(self.batch_size, ctx.generator, augment=True)
            for parts in zip(kept, near, *own, strict=True):
                both, targets = (torch.cat(side) for side in zip(*parts, strict=True))
                loop.cross_entropy(loop.forward(model, both, ctx.recipe), targets).backward()
                update.step(self.lr)
        return Unlearned(model.eval(), notes={"without_neighbor": lost})

    def _neighbors(self, original: nn.Module, data: DataView, ctx: Context) -> tuple[Tensor, Tensor, float]:
        """Images, wrong labels, and the share of the forget set for which there are none."""
        found = []
        with only_moving(original, ()):
            for x, y in data.forget.batches(1024):
                moved, label = nearest_l2(
                    original, x, y, ctx, radius=self.radius, steps=self.steps, doublings=self.doublings
                )
                found.append((moved[label != y], label[label != y]))
        images, labels = (torch.cat(side) for side in zip(*found, strict=True))
        return images, labels, 1 - len(labels) / len(data.forget)
