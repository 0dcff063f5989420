"""L-CODEC: a Newton step that takes examples back, on those filters alone on which their loss depends."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field

from bench.interface import Context, DataView, Method, Need, Part, State, Unlearned
from methods import _layers, _solvers
from methods._codec import select
from methods._curvature import Linearized
from methods._pgu_stop import accuracy
from methods._steps import require_forget

if TYPE_CHECKING:
    from torch import Tensor, nn


class LCodec(Method):
    """Deep unlearning by conditionally independent Hessians (Mehta et al., CVPR 2022).

    The examples to go are looked at in many noisy copies. Of all output channels of convolutions and linear layers,
    those on whose mean activation the copies' loss depends are selected, by the coefficient CODEC, one after the other
    given those before. The weights of the selected channels take one Newton step, with a ridge, toward the minimum
    without the examples; the others do not move. A step that costs more than `max_drop` points of validation accuracy,
    in class removal on the classes that stay, is not taken. With `epsilon` set, normal noise of the paper's size for
    (epsilon, delta) is added once, after the last step of a request, to all that moved in it or before it, for all
    examples that have been taken back until then; every request spends (epsilon, delta) anew. Noise that costs more
    than `max_drop` undoes the request. It grows with the inverse cube of the ridge and, at the authors' values, buries
    small models.

    Notes: `channels`, how many were selected on average; `skipped`, steps not taken. Status `partly`: some were not,
    and their examples are still in the model; `refused`: none was.

    Defaults are those of the authors' code, but for what deviates.

    Deviations: examples go in groups of `group` with 300 copies, one at a time with 1,000 there, and noise is for all
    of them together, where the code spends epsilon anew on each; the curvature is Gauss-Newton's on the retained data,
    which does not hold the groups still to go, applied by conjugate gradients that end after `iterations` products, in
    place of the difference of the gradients and weights stored in the last two epochs, over all data, less that of the
    example, which the code loses; neighbors are searched for among all copies and channels, without the random groups
    and projections; at most `most` channels are selected; noise is off.
    """

    needs: ClassVar[Need] = Need.FORGET | Need.RETAIN | Need.VALIDATION
    supports: ClassVar[tuple[str, ...]] = ("sample_removal", "class_removal", "incremental")
    cite: ClassVar[str] = "mehta2022lcodec"
    batch_norm: ClassVar[str] = "frozen"
    budget: ClassVar[str | None] = "iterations"
    cost: ClassVar[str] = "per group: perturbations F1 and the selection, products x 5 n_retain F1, n_validation F1"
    search: ClassVar[dict[str, tuple[Any, ...]]] = {
        "ridge": (1e-4, 1e-3, 1e-2, 0.1),
        "group": (5, 20, 100),
        "most": (5, 20, 50),
    }

    ridge: float = Field(default=1e-3, gt=0, le=1e3, description="on the mean curvature")
    group: int = Field(default=100, ge=1, le=100_000, description="examples taken back together")
    perturbations: int = Field(default=300, ge=10, le=100_000, description="noisy copies of a group's examples")
    spread: float = Field(default=0.1, gt=0, le=100, description="standard deviation of the noise on the copies")
    most: int = Field(default=20, ge=1, le=100_000, description="channels that are selected, at most")
    iterations: int = Field(default=20, ge=0, le=100_000, description="most products of conjugate gradients a step")
    max_drop: float = Field(default=5.0, gt=0, le=100, description="points of validation accuracy a step may cost")
    epsilon: float | None = Field(default=None, gt=0, le=1e9, description="of the noise; none: no noise")
    delta: float = Field(default=0.01, gt=0, lt=1, description="of the noise")

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> Unlearned:
        """Return `model` after a step for every group. Raises ValueError for an empty forget set."""
        require_forget(data)
        if not self.iterations:
            return Unlearned(model.eval())
        start, right = Linearized(model), self._right(model.eval(), data, ctx)
        moved, taken, counts, skipped = torch.zeros_like(start.flat), 0, [], 0
        groups = data.forget.rows.split(self.group)
        for rows in groups:
            line, part = Linearized(model), data.forget.only(rows)
            mask, count = self._selected(line, part, ctx)
            line.put(line.flat + mask * self._step(line, mask, part, data.retain))
            after = self._right(model, data, ctx)
            if 100 * (right - after) > self.max_drop:
                line.put(line.flat)
                skipped += 1
            else:
                right, moved, taken = after, torch.maximum(moved, mask), taken + len(part)
            counts.append(count)
        state = self._noise(Linearized(model), moved, taken, len(data.retain), ctx)
        if state and 100 * (right - self._right(model, data, ctx)) > self.max_drop:
            start.put(start.flat)
            state, skipped = None, len(groups)
        status = "refused" if skipped == len(groups) else "partly" if skipped else "ok"
        return Unlearned(model, state, status, {"channels": sum(counts) / len(counts), "skipped": skipped})

    def _right(self, model: nn.Module, data: DataView, ctx: Context) -> float:
        return accuracy(model, data.validation, ctx.recipe, without=ctx.removed_classes)

    def _step(self, line: Linearized, mask: Tensor, part: Part, retain: Part) -> Tensor:
        """The Newton step of the masked weights, `[P]`."""
        found = _solvers.conjugate_gradients(
            lambda v: mask * line.product(retain, mask * v),
            mask * line.gradient(part),
            (self.ridge * len(retain),),
            1e-3,
            self.iterations,
        )
        return found.solutions[0]

    def _selected(self, line: Linearized, part: Part, ctx: Context) -> tuple[Tensor, int]:
        """1 for the weights of the channels on which the loss of the examples depends, else 0, `[P]`; their number."""
        x, y = next(iter(part.batches(len(part))))
        again = torch.arange(max(self.perturbations, len(part))) % len(part)
        noise = torch.randn(len(again), *x.shape[1:], generator=ctx.generator, dtype=x.dtype)
        places, means, losses = _seen(line.model, x[again] + self.spread * noise.to(x.device), y[again])
        chosen = select(losses, means, self.most)
        weights = {name: torch.zeros_like(p) for name, p in line.model.named_parameters()}
        for name, channel in (places[at] for at in chosen):
            for kind in ("weight", "bias"):
                if f"{name}.{kind}" in weights:
                    weights[f"{name}.{kind}"][channel] = 1
        return torch.cat([weights[name].flatten() for name in line.names]), len(chosen)

    def _noise(self, line: Linearized, moved: Tensor, taken: int, retained: int, ctx: Context) -> State | None:
        """Add the noise; what moved up to now, by this request or one before, and how many examples went.

        Nothing of both where this request took none back.
        """
        if self.epsilon is None or not taken:
            return None
        moved = torch.maximum(moved, ctx.state.get("moved", moved).to(moved.device))
        gone = taken + int(ctx.state.get("gone", 0))
        sensitivity = 2 * 0.25 * gone**2 / ((gone + retained) ** 2 * self.ridge**3)
        size = sensitivity / self.epsilon * math.sqrt(2 * math.log(1.25 / self.delta))
        drawn = torch.randn(len(moved), generator=ctx.generator, dtype=moved.dtype)
        line.put(line.flat + size * moved * drawn.to(moved.device))
        return {"moved": moved, "gone": torch.tensor([gone])}


def _seen(model: nn.Module, x: Tensor, y: Tensor) -> tuple[list[tuple[str, int]], Tensor, Tensor]:
    """Layer and number of every output channel, its mean activation float64 `[m, channels]`, and the losses `[m]`."""
    caught: dict[str, list[Tensor]] = {}

    def keep(name: str, output: Tensor) -> None:
        caught.setdefault(name, []).append(output.double().flatten(2).mean(2) if output.dim() > 2 else output.double())

    layers = {name: module for name, module in model.named_modules() if _layers.is_weight_layer(module)}
    hooks = [m.register_forward_hook(lambda _m, _i, out, name=name: keep(name, out)) for name, m in layers.items()]
    try:
        with torch.no_grad():
            logits = torch.cat([model(images) for images in x.split(512)])
    finally:
        for hook in hooks:
            hook.remove()
    losses = torch.nn.functional.cross_entropy(logits.double(), y, reduction="none")
    means = {name: torch.cat(pieces) for name, pieces in caught.items()}
    places = [(name, channel) for name, columns in means.items() for channel in range(columns.shape[1])]
    return places, torch.cat(list(means.values()), 1), losses
