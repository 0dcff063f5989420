"""PCMU: train with gradients so coarse that a few examples do not change them, and leave the model as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field

from bench import loop
from bench.interface import Context, DataView, Method, Need, Part, State, Unlearned
from methods._gradients import summed
from methods._layers import is_batch_norm
from methods._quantized import quantized, radius
from methods._steps import require_forget

if TYPE_CHECKING:
    from torch import nn


class PCMU(Method):
    """Prompt certified machine unlearning (Zhang et al., NeurIPS 2022), in a reading of ours: no code was published.

    `prepare` trains a network in place of the original: every entry of a gradient becomes the value of -1, 0 and 1 that
    has most votes when normal noise of deviation `sigma` is added to it, and Adam steps along these. The votes are
    known in closed form, and so is a radius within which the entry may move without changing its value. A request
    returns the network untouched, with a certificate: where the mean gradient on the training set moves by no more than
    the radius when the forget set leaves it, training without that set would have taken the same step. Notes:
    `certified`, the share of entries within the radius; `shift` and `radius`, the medians of both over all entries.
    Status `uncertified`: some entry is outside, or the network has BatchNorm. Sample removal only: a class is more than
    the radii allow. Defaults: sigma, learning rate and schedule are the paper's; epochs and batches are the recipe's.

    Deviations: what the paper leaves open is read so that 0 stands for what is smaller than `tau`, a constant: one told
    by the gradients would move when the forget set leaves, and the radius is of one that does not. 0 has most votes
    nowhere while tau is below 0.43 sigma; by default every entry is its sign, its radius is its size, and sigma does
    not matter. The certificate is checked at `checkpoints` points of the training instead of at all steps, in
    evaluation mode, and for the mean gradient, while steps are taken on minibatches, which one example moves further.
    It is thus a measurement of how far the network is from certified, not a certificate. In a network with BatchNorm,
    as most here have, a step is of batch statistics too, in which every example of the batch has part: such a network
    is `uncertified` whatever the radii say. Take one without for certified rows.
    """

    needs: ClassVar[Need] = Need.FORGET | Need.STATISTICS | Need.OWN_TRAINING
    supports: ClassVar[tuple[str, ...]] = ("sample_removal", "incremental")
    cite: ClassVar[str] = "zhang2022pcmu"
    budget: ClassVar[str | None] = None
    cost: ClassVar[str] = "a training and checkpoints x 3 n_train F1 once; checkpoints x 3 n_forget F1"
    search: ClassVar[dict[str, tuple[Any, ...]]] = {
        "tau": (0.0, 0.05, 0.07, 0.1),
        "lr": (1e-3, 3e-3, 0.01, 0.03),
    }

    sigma: float = Field(default=0.1, gt=0, le=1e3, description="standard deviation of the noise that votes")
    lr: float = Field(default=0.01, gt=0, le=10, description="highest learning rate of Adam, which falls as a cosine")
    tau: float = Field(default=0.0, ge=0, le=1e3, description="size below which an entry votes for 0")
    checkpoints: int | None = Field(
        default=None, ge=1, le=1_000, description="epochs of the training that are certified; none: 5, or all"
    )

    def prepare(self, model: nn.Module, data: DataView, ctx: Context) -> State:
        """Train; the state holds the network, and at each checkpoint its weights and the sum of all gradients.

        Raises ValueError for more checkpoints than epochs.
        """
        watched = self._watched(ctx.recipe.epochs)
        net, state = ctx.new_model(), {"examples": torch.tensor([len(data.train), 0])}
        recipe = ctx.recipe.model_copy(update={"lr": self.lr, "schedule": "cosine"})
        steps = len(loop.batch_bounds(len(data.train), recipe.batch_size))
        rates, update = iter(loop.learning_rates(recipe, steps)), loop.Adam(net.parameters())
        for epoch in range(recipe.epochs):
            if epoch in watched:
                self._watch(net, data.train, epoch, state)
            net.train()
            for x, y in data.train.batches(recipe.batch_size, ctx.generator, augment=True):
                loop.cross_entropy(loop.forward(net, x, recipe), y).backward()
                for p in update.parameters:
                    assert p.grad is not None
                    p.grad = quantized(p.grad, self.tau, self.sigma)
                update.step(next(rates))
        return state | _weights("net", net)

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> Unlearned:
        """Return the network that was trained, and what can be certified of it."""
        require_forget(data)
        state = dict(ctx.state)
        count, gone = state["examples"].tolist()
        gone += len(data.forget)
        state["examples"] = torch.tensor([count, gone])
        shifts, radii = [], []
        for at in sorted({name.partition(".")[0] for name in state if name.partition(".")[0].isdigit()}):
            model.load_state_dict(_held(state, f"{at}.theta."))
            for (name, _), new in zip(model.named_parameters(), summed(model.eval(), data.forget), strict=True):
                state[f"{at}.gone.{name}"] = state[f"{at}.gone.{name}"] + new
                mean, left = state[f"{at}.sum.{name}"] / count, state[f"{at}.gone.{name}"] / gone
                shifts.append((gone / max(count - gone, 1) * (mean - left)).abs().flatten())
                radii.append(radius(mean, self.tau, self.sigma).flatten())
        shift, allowed = torch.cat(shifts), torch.cat(radii)
        share = float((shift <= allowed).double().mean())
        model.load_state_dict(_held(state, "net."))
        batched = any(is_batch_norm(module) for module in model.modules())
        notes = {"certified": share, "shift": float(shift.median()), "radius": float(allowed.median())}
        return Unlearned(model.eval(), state, "ok" if share == 1 and not batched else "uncertified", notes)

    def _watched(self, epochs: int) -> set[int]:
        """The epochs at whose beginning the network is looked at, spread evenly."""
        count = self.checkpoints or min(5, epochs)
        if count > epochs:
            raise ValueError(f"checkpoints is {count}, but there are {epochs} epochs; take at most as many")
        return {(2 * at + 1) * epochs // (2 * count) for at in range(count)}

    def _watch(self, net: nn.Module, part: Part, at: int, state: State) -> None:
        state |= _weights(f"{at}.theta", net.eval())
        for (name, _), total in zip(net.named_parameters(), summed(net, part), strict=True):
            state |= {f"{at}.sum.{name}": total, f"{at}.gone.{name}": torch.zeros_like(total)}


def _weights(prefix: str, net: nn.Module) -> State:
    return {f"{prefix}.{name}": value.detach().clone() for name, value in net.state_dict().items()}


def _held(state: State, prefix: str) -> State:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
