"""SISA: train on shards, slice after slice, and train again only what the forgotten data took part in."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field

from bench import loop, seeds
from bench.interface import Context, DataView, Method, Need, Part, State, Unlearned

if TYPE_CHECKING:
    from torch import Tensor, nn


class SISA(Method):
    """Sharded, isolated, sliced, aggregated training (Bourtole et al., IEEE S&P 2021): exact, but of another model.

    `prepare` is the training: it deals the training set out to `shards` at random, and trains a network on each, first
    on a first slice, then on two, and so on, with its weights kept after every slice. A request sends the networks of
    the shards that lost examples back to the weights from before their first slice that did, and trains on from there.
    The networks answer together by the mean of their probabilities. What comes out is, bit for bit, what training with
    the same draws but without the forgotten data gives. Each network saw a shard only, so accuracy falls with their
    number; the original that other methods start from plays no part.

    Every slice is a training of its own by the original's recipe, its optimizer and schedule begun anew, of as many
    epochs as make the passes of a shard's training add up to the recipe's. Where these are few, some slices have none
    of their own; the last training, on all slices, has at least one. `notes`: the shards trained again, and the
    share of all training that was.

    Deviations: recipe and epochs are those of the original (the authors: 20 epochs, batches of 16, learning rate
    0.001), and passes add up exactly where theirs are rounded down; the mean of probabilities is their "softmax", the
    default of their code counts votes; batches are dealt out anew where theirs keep their places and get smaller; a
    slice with fewer than two examples trains nothing.
    """

    needs: ClassVar[Need] = Need.RETAIN | Need.STATISTICS | Need.OWN_TRAINING
    cite: ClassVar[str] = "bourtoule2021sisa"
    budget: ClassVar[str | None] = None
    cost: ClassVar[str] = (
        "a training of n_train once; (2 slices + 1) / (3 slices) of a shard's training for one example, "
        "and nearly all of it for as many as there are shards x slices"
    )

    shards: int = Field(default=5, ge=1, le=1_000, description="networks, each trained on its part of the data")
    slices: int = Field(default=5, ge=1, le=1_000, description="steps of a shard's training after which it is kept")

    def prepare(self, model: nn.Module, data: DataView, ctx: Context) -> State:
        """Train all shards. Raises ValueError where a shard has fewer than two examples."""
        count = len(data.train)
        order = torch.randperm(count, generator=ctx.generator)
        shard, piece = (torch.empty(count, dtype=torch.int64) for _ in range(2))
        for s, rows in enumerate(order.tensor_split(self.shards)):
            shard[rows] = s
            for level, own in enumerate(rows.tensor_split(self.slices), start=1):
                piece[own] = level
        state = {"shard": shard, "slice": piece, "there": torch.ones(count, dtype=torch.uint8)}
        state["seed"] = torch.tensor([ctx.seed])
        for s in range(self.shards):
            _keep(state, s, 0, ctx.new_model(s))
            self._train(state, s, 1, data.train, ctx)
        return state

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> Unlearned:
        """Return the ensemble. Raises ValueError where too little of a shard is left."""
        from bench.ensemble import Ensemble  # here, since it loads torch

        state = {name: value.cpu() for name, value in ctx.state.items()}
        there = torch.zeros_like(state["there"])
        there[data.retain.rows.cpu()] = 1
        gone, state["there"] = (state["there"] == 1) & (there == 0), there
        touched = state["shard"][gone].unique().tolist()
        redone = 0
        for s in touched:
            first = int(state["slice"][gone & (state["shard"] == s)].min())
            redone += self._train(state, s, first, data.retain, ctx)
        members = [_load(state, s, self.slices, ctx).eval() for s in range(self.shards)]
        whole = max(len(data.retain) * ctx.recipe.epochs, 1)
        return Unlearned(Ensemble(members), state, notes={"shards": len(touched), "share": redone / whole})

    def epochs(self, total: int) -> list[int]:
        """Epochs of every step, on its first, its first two, ... slices: `total` passes over the shard in all.

        As even as whole numbers allow, and one at least for the last step, without which a slice is never trained on.
        """
        left, steps = total * self.slices, []  # passes over one slice
        for step in range(self.slices, 0, -1):
            even = round(2 * left / (step * (step + 1)))
            steps.append(max(even, 1) if step == self.slices else even)
            left -= step * steps[-1]
        return steps[::-1]

    def _train(self, state: State, s: int, first: int, part: Part, ctx: Context) -> int:
        """Train shard `s` from step `first` to the last and keep it after each; the examples seen."""
        net, seen, counts = _load(state, s, first - 1, ctx), 0, self.epochs(ctx.recipe.epochs)
        for step in range(first, self.slices + 1):
            own = part.only(_rows(state, s, step))
            if len(own) < 2 and step == self.slices:
                raise ValueError(f"shard {s} has {len(own)} examples left, too few to train on; take fewer shards")
            seed, epochs = seeds.derive(int(state["seed"]), s, step), counts[step - 1]
            if len(own) > 1:
                with loop.seeded(seed, ctx.device):  # dropout, which must not depend on what was trained before
                    loop.fit(net.train(), own, ctx.recipe, torch.Generator().manual_seed(seed), epochs=epochs)
                seen += epochs * len(own)
            _keep(state, s, step, net)
        return seen


def _rows(state: State, s: int, step: int) -> Tensor:
    """Rows of the training set in the first `step` slices of shard `s`."""
    return ((state["shard"] == s) & (state["slice"] <= step)).nonzero()[:, 0]


def _keep(state: State, s: int, step: int, net: nn.Module) -> None:
    state |= {f"{s}.{step}.{name}": value.detach().cpu().clone() for name, value in net.state_dict().items()}


def _load(state: State, s: int, step: int, ctx: Context) -> nn.Module:
    prefix = f"{s}.{step}."
    net = ctx.new_model()
    net.load_state_dict({name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)})
    return net
