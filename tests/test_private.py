"""Training that is private: its steps, its accounting, and what it does where Opacus or the network is missing."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from trying import carry_out, linear, network, same

from bench import loop
from bench.dataview import MeteredView
from bench.interface import Context
from methods import _gradients, dp_sgd
from methods.dp_sgd import DPSGD
from methods.pcmu import PCMU

torch.set_num_threads(1)
View = Callable[..., MeteredView]
Make = Callable[..., Context]


def without_batch_norm(seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))


def step_of(method: DPSGD, view: View, context: Make) -> tuple[Tensor, Tensor]:
    """What one noiseless step on all of the training set does, and the gradient of the mean loss."""
    ctx, net = context(build=without_batch_norm), without_batch_norm()
    before = copy.deepcopy(net)
    method._train(net, view().train, ctx, noise=0.0, rate=1.0, steps=1)
    gradient = torch.cat([g.flatten() for g in _gradients.summed(before, view().train)]) / 300
    return torch.cat(
        [(a - b).detach().flatten() for a, b in zip(net.parameters(), before.parameters(), strict=True)]
    ), gradient


@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_noise_and_the_draw_of_examples_come_from_two_streams(
    monkeypatch: pytest.MonkeyPatch, view: View, context: Make
) -> None:
    optimizers = pytest.importorskip("opacus.optimizers")
    seeds: dict[str, int] = {}

    def watched(name: str, made: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, generator: torch.Generator, **options: Any) -> Any:
            seeds[name] = generator.initial_seed()
            return made(*args, generator=generator, **options)

        return call

    monkeypatch.setattr(optimizers, "DPOptimizer", watched("noise", optimizers.DPOptimizer))
    monkeypatch.setattr(torch, "rand", watched("sampling", torch.rand))
    ctx = context(build=linear)
    DPSGD()._train(linear(), view().train, ctx, noise=1.0, rate=0.2, steps=1)
    assert len({*seeds.values(), ctx.seed}) == 3, seeds


@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_private_steps_are_plain_ones_until_they_are_clipped(view: View, context: Make) -> None:
    pytest.importorskip("opacus")
    moved, gradient = step_of(DPSGD(clip=1e6, lr=0.1), view, context)
    torch.testing.assert_close(moved, -0.1 * gradient, rtol=1e-3, atol=1e-6)
    short, _ = step_of(DPSGD(clip=1e-3, lr=0.1), view, context)
    assert 0 < float(short.norm()) <= 0.1 * 1e-3 * 1.001


def test_private_training_tells_its_epsilon_and_leaves_batch_norm_idle(view: View, context: Make) -> None:
    pytest.importorskip("opacus")
    from opacus.accountants import RDPAccountant

    ctx, method = context(), DPSGD(epsilon=3.0, epochs=2)
    done = carry_out(method, network(), view(), ctx)
    told = done.notes
    accountant = RDPAccountant()
    for _ in range(int(told["steps"])):
        accountant.step(noise_multiplier=told["noise"], sample_rate=64 / 300)
    assert told["epsilon"] == pytest.approx(accountant.get_epsilon(1e-5)) and 2.9 < told["epsilon"] <= 3.0
    drawn, kept = ctx.new_model(), done.model
    assert same(kept[1], drawn[1]) and not torch.equal(kept[0].weight, drawn[0].weight)
    assert view().taken()["forget"] == 0, "a request reads nothing"


def test_a_network_that_opacus_refuses_fails_in_one_line(view: View, context: Make) -> None:
    pytest.importorskip("opacus")

    def odd(seed: int = 1) -> nn.Module:
        return nn.Sequential(
            nn.InstanceNorm2d(1, affine=True, track_running_stats=True), nn.Flatten(), nn.Linear(64, 10)
        )

    with pytest.raises(ValueError, match="Opacus cannot train this network privately") as caught:
        carry_out(DPSGD(), odd(), view(), context(build=odd))
    assert "\n" not in str(caught.value)


def test_without_opacus_the_row_is_skipped_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, view: View, context: Make
) -> None:
    find = importlib.util.find_spec

    def nothing(name: str, *rest: Any) -> Any:
        return None if name == "opacus" else find(name, *rest)

    monkeypatch.setattr(dp_sgd.importlib.util, "find_spec", nothing)
    reason = DPSGD().refuses("sample_removal")
    assert "Opacus, which is not installed; run: pip install 'unlearning-bench[dp]'" in reason and "\n" not in reason
    with pytest.raises(ValueError, match="pip install 'unlearning-bench"):
        carry_out(DPSGD(), linear(), view(), context(build=linear))


def test_guarantees_cost_accuracy_and_models_still_learn(view: View, context: Make) -> None:
    """Trained on the digits, the private network and the coarse one are far from chance."""
    recipe = context().recipe.model_copy(update={"epochs": 10})
    ctx = context(recipe=recipe)
    errors = {}
    methods: list[Any] = [PCMU(checkpoints=1), *([DPSGD(epsilon=50.0)] if importlib.util.find_spec("opacus") else [])]
    for method in methods:
        model = carry_out(method, network(), view(), context(recipe=recipe)).model
        errors[type(method).__name__] = loop.error_rate(model, view().validation)
    assert ctx.classes == 10 and all(error < 0.6 for error in errors.values()), errors
