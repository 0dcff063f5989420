"""A differentially private training instead of the original's: what no example marks, nobody has to unlearn."""

from __future__ import annotations

import functools
import importlib.util
import warnings
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field

from bench import loop, seeds
from bench.interface import Context, DataView, Method, Need, Part, State, Unlearned
from methods import _layers

if TYPE_CHECKING:
    from torch import nn

MISSING = "it trains with Opacus, which is not installed; run: pip install 'unlearning-bench[dp]'"


class DPSGD(Method):
    """DP-SGD (Abadi et al., CCS 2016) on the whole training set, by Opacus; a request changes nothing.

    A reference: it says what accuracy a guarantee made before any request costs. `prepare` is the training. Every step
    takes each example with the same probability, clips the gradients of those drawn to `clip` and adds normal noise,
    as much as `epsilon` and `delta` ask for over all steps. Whoever sees the network can tell with a probability ratio
    of at most exp(epsilon), up to delta, whether one example was in training; for a request of k examples the ratio may
    be the k-th power. Notes: `epsilon` that the accountant (Renyi) finds for what was done, `noise` as a multiple of
    `clip`, and `steps`.

    BatchNorm answers for one example by the others and has no place here: it stays as drawn, with statistics 0 and 1,
    scale 1 and shift 0, so that it does nothing and the network is of the original's architecture. A network that
    Opacus refuses for another reason fails with Opacus's words. Without Opacus the row is skipped.

    No deviations from the algorithm. Learning rate and clipping are our choices; epochs are the recipe's.
    """

    needs: ClassVar[Need] = Need.STATISTICS | Need.OWN_TRAINING
    cite: ClassVar[str] = "abadi2016dpsgd"
    budget: ClassVar[str | None] = None
    random_by_class: ClassVar[bool] = True
    cost: ClassVar[str] = "epochs x 3 n_train F1 once, and gradients of single examples; nothing"
    search: ClassVar[dict[str, tuple[Any, ...]]] = {"lr": (0.1, 0.3, 1.0, 3.0), "clip": (0.3, 1.0, 3.0)}

    epsilon: float = Field(default=8.0, gt=0, le=1e6, description="of the guarantee for one example")
    delta: float = Field(default=1e-5, gt=0, lt=1, description="of the guarantee; below 1 / n_train")
    clip: float = Field(default=1.0, gt=0, le=1e6, description="largest norm of one example's gradient")
    lr: float = Field(default=1.0, gt=0, le=100, description="constant learning rate of SGD")
    epochs: int | None = Field(default=None, ge=1, le=10_000, description="expected passes; none: the recipe's")
    batch_size: int = Field(default=64, ge=1, le=100_000, description="examples per step, in expectation")

    def refuses(self, scenario: str) -> str:
        """Why it cannot run at all: Opacus is not there."""
        return "" if importlib.util.find_spec("opacus") else f"dp_sgd cannot run: {MISSING}"

    def prepare(self, model: nn.Module, data: DataView, ctx: Context) -> State:
        """Train a network. Raises ValueError without Opacus, and for a network that Opacus refuses."""
        if self.refuses(ctx.scenario):
            raise ValueError(MISSING)
        with warnings.catch_warnings():  # of orders that the accountant tries, and of images without a gradient
            warnings.simplefilter("ignore", UserWarning)
            return self._trained(data.train, ctx)

    def unlearn(self, model: nn.Module, data: DataView, ctx: Context) -> Unlearned:
        """Return the private network."""
        state = dict(ctx.state)
        told = state.pop("told").tolist()
        model.load_state_dict(state)
        return Unlearned(model.eval(), notes=dict(zip(("epsilon", "noise", "steps"), told, strict=True)))

    def _trained(self, part: Part, ctx: Context) -> State:
        rate = min(1.0, self.batch_size / len(part))
        steps = max(1, round((self.epochs or ctx.recipe.epochs) / rate))
        noise, epsilon = accounted(self.epsilon, self.delta, rate, steps)
        net = ctx.new_model()
        self._train(net, part, ctx, noise, rate, steps)
        told = torch.tensor([epsilon, noise, steps], dtype=torch.float64)
        return {name: value.detach().cpu() for name, value in net.state_dict().items()} | {"told": told}

    def _train(self, net: nn.Module, part: Part, ctx: Context, noise: float, rate: float, steps: int) -> None:
        from opacus.optimizers import DPOptimizer

        private = _private(net)
        inner = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=self.lr)
        # Noise is drawn where the weights are, and not from what says which examples are drawn: the accountant takes
        # the two for independent.
        own = torch.Generator(ctx.device).manual_seed(seeds.derive(ctx.seed, "noise"))
        sampling = torch.Generator().manual_seed(seeds.derive(ctx.seed, "sampling"))
        update = DPOptimizer(
            inner, noise_multiplier=noise, max_grad_norm=self.clip, expected_batch_size=rate * len(part), generator=own
        )
        for _ in range(steps):
            drawn = part.only(part.rows[(torch.rand(len(part), generator=sampling) < rate).to(part.rows.device)])
            update.zero_grad()
            for x, y in drawn.batches(max(len(drawn), 1)):
                loop.cross_entropy(private(x), y).backward()
            if not len(drawn):  # noise alone
                for p in update.params:
                    p.grad_sample = p.new_zeros((0, *p.shape))
            update.step()


@functools.cache
def accounted(epsilon: float, delta: float, rate: float, steps: int) -> tuple[float, float]:
    """Noise, as a multiple of the clipping norm, that keeps so many steps within `epsilon`, and what they come to."""
    from opacus.accountants import RDPAccountant
    from opacus.accountants.utils import get_noise_multiplier

    noise = get_noise_multiplier(
        target_epsilon=epsilon, target_delta=delta, sample_rate=rate, steps=steps, accountant="rdp"
    )
    accountant = RDPAccountant()
    accountant.history = [(noise, rate, steps)]
    return noise, accountant.get_epsilon(delta)


def _private(net: nn.Module) -> nn.Module:
    """The network with hooks that keep every example's gradient, BatchNorm made idle. Raises ValueError."""
    from opacus import GradSampleModule
    from opacus.validators import ModuleValidator

    net.train()
    for module in net.modules():
        if _layers.is_batch_norm(module):
            module.eval().requires_grad_(False)
    if errors := ModuleValidator.validate(net):
        raise ValueError(f"Opacus cannot train this network privately: {str(errors[0]).splitlines()[0]}")
    private: nn.Module = GradSampleModule(net, strict=False)
    return private
