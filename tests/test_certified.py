"""Methods that come with a guarantee: what they promise, against what can be computed."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from trying import carry_out, linear, network

from bench.dataview import MeteredView
from bench.interface import Context, Part, Unlearned
from bench.recipe import Recipe
from methods import _gradients
from methods._logistic import Regression, take_back
from methods._quantized import quantized, radius, votes
from methods.certified_removal import CertifiedRemoval, features
from methods.pcmu import PCMU

torch.set_num_threads(1)
View = Callable[..., MeteredView]
Make = Callable[..., Context]


# --- certified removal ---


def regression(seed: int, n: int = 80, d: int = 6, noise: float = 1.0, ridge: float = 1e-2) -> Regression:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=g, dtype=torch.float64)
    y = 2.0 * (x[:, 0] + 0.5 * torch.randn(n, generator=g, dtype=torch.float64) > 0).double() - 1
    b = noise * torch.randn(d, generator=g, dtype=torch.float64)
    return Regression(x / x.norm(dim=1).max(), y, b, ridge)


def parted(whole: Regression, gone: int) -> tuple[Regression, Regression]:
    return tuple(whole._replace(x=whole.x[rows], y=whole.y[rows]) for rows in (slice(gone), slice(gone, None)))  # type: ignore[return-value]


@given(st.integers(0, 10_000), st.integers(1, 20), st.sampled_from([1e-4, 1e-3, 1e-2, 0.1]), st.floats(0.1, 100))
def test_what_gradient_removal_leaves_is_within_the_bound(seed: int, count: int, ridge: float, norm: float) -> None:
    whole = regression(seed, ridge=ridge)
    whole = whole._replace(x=norm * whole.x)
    gone, rest = parted(whole, count)
    before = whole.fit()
    w, bound = take_back(gone, rest, before)
    assert float(rest.gradient(w).norm()) <= bound + float(whole.gradient(before).norm()) + 1e-9


def test_the_fit_is_the_minimum_and_removal_comes_near_that_of_the_rest() -> None:
    whole = regression(1)
    w, (gone, rest) = whole.fit(), parted(whole, 3)
    assert float(whole.gradient(w).norm()) < 1e-6
    assert float(whole.loss(w)) < min(whole.loss(w + 0.1 * torch.eye(6, dtype=torch.float64)[at]) for at in range(6))
    exact, (near, _) = rest.fit(), take_back(gone, rest, w)
    assert float((near - exact).norm()) < 0.1 * float((w - exact).norm())
    torch.testing.assert_close(gone.gradient(w) + rest.gradient(w) - whole.b, whole.gradient(w))


def test_bounds_add_up_over_requests_and_name_their_epsilon(view: View, context: Make) -> None:
    method = CertifiedRemoval(ridge=0.1, noise=10.0, epsilon=100.0, delta=1e-3)
    ctx, model = context(), network()
    ctx.state = method.prepare(model, view(), ctx)
    bounds = []
    for rows, before in (([3], []), ([50], [3]), ([51, 52], [3, 50])):
        done = method.unlearn(copy.deepcopy(model), view(forget=rows, before=before), ctx)
        ctx.state = done.state or {}
        bounds.append(done.notes["bound"])
        c = math.sqrt(2 * math.log(1.5 / method.delta))
        assert done.status == "ok" and done.notes["epsilon"] == pytest.approx(c * bounds[-1] / method.noise)
        assert done.notes["residual"] <= done.notes["bound"]
    assert bounds == sorted(bounds) and bounds[0] > 0


def gradients(method: CertifiedRemoval, done: Unlearned, part: Part, ctx: Context) -> Tensor:
    """Of all classes' regressions on these examples, at the weights of the layer, as one vector."""
    x, y, head = features(done.model, part, ctx)
    state = done.state or {}
    torch.testing.assert_close(head.weight.double(), state["w"] / math.sqrt(x.shape[1]), rtol=1e-5, atol=1e-6)
    each = (Regression(x, 2.0 * (y == c).double() - 1, state["b"][c], method.ridge) for c in range(10))
    return torch.cat([one.gradient(state["w"][c]) for c, one in enumerate(each)])


def test_the_certificate_is_of_all_classes_gradients_together(view: View, context: Make) -> None:
    method, ctx, data = CertifiedRemoval(ridge=0.1, epsilon=1e6), context(), view()
    done = carry_out(method, network(), data, ctx)
    assert done.status == "ok" and done.state is not None
    assert done.notes["residual"] == pytest.approx(float(gradients(method, done, data.retain, ctx).norm()), rel=1e-3)
    assert done.notes["residual"] <= done.notes["bound"] == pytest.approx(float(done.state["beta"].norm()))
    assert done.notes["bound"] > 1.1 * float(done.state["beta"].max()), "no class alone answers for the layer"


def test_a_budget_that_is_used_up_means_a_new_layer(view: View, context: Make) -> None:
    method, ctx = CertifiedRemoval(ridge=1e-2, noise=1.0, epsilon=1e-9), context()
    done = carry_out(method, network(), view(), ctx)
    assert done.status == "retrained" and done.state is not None and float(done.state["beta"].max()) == 0
    assert float(gradients(method, done, view().retain, ctx).norm()) < 1e-5, "trained on the retained data alone"
    assert not torch.equal(done.state["b"], ctx.state["b"]), "with new noise"
    assert done.notes["residual"] < 1e-5, "of the layer handed back, not of the one before"
    assert (done.notes["bound"], done.notes["epsilon"]) == (0, 0)
    without_noise = carry_out(CertifiedRemoval(noise=0.0), network(), view(), context())
    assert without_noise.status == "retrained" and without_noise.notes["epsilon"] == 0


def test_nothing_that_is_forgotten_sets_the_scale_of_the_others(view: View, context: Make) -> None:
    layers = []
    for total, gone in ((100, 40), (300, 240)):
        data = view(forget=range(60, 60 + gone), total=total)
        done = carry_out(CertifiedRemoval(epsilon=1e-9), network(), data, context())
        assert done.status == "retrained"
        layers.append(done.model[6].weight)
    torch.testing.assert_close(*layers)


def test_nothing_but_the_last_layer_changes_and_it_must_be_linear(view: View, context: Make) -> None:
    model = network()
    done = carry_out(CertifiedRemoval(ridge=0.1), model, view(), context())
    assert all(torch.equal(value, done.model.state_dict()[n]) for n, value in model.state_dict().items() if n < "6")
    odd = nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten())
    with pytest.raises(ValueError, match="does not end with a linear layer"):
        carry_out(CertifiedRemoval(), odd, view(), context())


# --- quantized gradients ---


@pytest.mark.parametrize(
    ("g", "tau", "sigma"), [(0.0, 0.05, 0.1), (0.2, 0.1, 0.1), (-0.03, 0.05, 0.2), (1.0, 0.1, 0.1)]
)
def test_votes_are_the_shares_of_noisy_signs(g: float, tau: float, sigma: float) -> None:
    n = 100_000
    noisy = g + sigma * torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    counted = [noisy < -tau, (noisy >= -tau) & (noisy <= tau), noisy > tau]
    told = votes(torch.tensor(g, dtype=torch.float64), tau, sigma).tolist()
    assert sum(told) == pytest.approx(1)
    for p, seen in zip(told, counted, strict=True):
        assert abs(float(seen.double().mean()) - p) <= 3 * math.sqrt(p * (1 - p) / n) + 1e-9


@given(st.floats(-1, 1), st.floats(0.01, 1), st.floats(0.01, 1), st.floats(-0.999, 0.999))
def test_a_gradient_that_moves_less_than_its_radius_keeps_its_value(
    g: float, tau: float, sigma: float, share: float
) -> None:
    here = torch.tensor([g], dtype=torch.float64)
    moved = here + share * radius(here, tau, sigma)
    if float(moved.abs()) < math.inf:
        assert torch.equal(quantized(moved, tau, sigma), quantized(here, tau, sigma))


def test_without_noise_votes_are_signs_with_a_dead_zone() -> None:
    g = torch.linspace(-1, 1, 41, dtype=torch.float64) + 1e-3
    plain = torch.where(g > 0.3, 1.0, torch.where(g < -0.3, -1.0, 0.0)).double()
    assert torch.equal(quantized(g, 0.3, 1e-6), plain)
    assert (radius(g, 0.3, 1e-6) <= (g.abs() - 0.3).abs()).all()
    assert (radius(g, 0.3, 0.02) > 0).all()


def test_the_certificate_is_of_the_shift_of_the_mean_gradient(view: View, context: Make) -> None:
    ctx, method, data = context(), PCMU(checkpoints=1, tau=0.05), view()
    done = carry_out(method, network(), data, ctx)
    assert data.taken()["retain"] == 0 and done.status == "uncertified"
    [at] = {name.partition(".")[0] for name in ctx.state if name.partition(".")[0].isdigit()}
    there = network()
    there.load_state_dict({n.removeprefix(f"{at}.theta."): v for n, v in ctx.state.items() if ".theta." in n})
    mean, stays = (
        [g / n for g in _gradients.summed(there.eval(), part)] for part, n in ((data.train, 300), (data.retain, 240))
    )
    pairs = [(a, (b - a).abs() <= radius(a, 0.05, 0.1)) for a, b in zip(mean, stays, strict=True)]
    within = torch.cat([inside.flatten() for _, inside in pairs])
    assert done.notes["certified"] == pytest.approx(float(within.double().mean()), abs=2e-3)  # rounding decides few
    untouched = {n.removeprefix("net."): v for n, v in ctx.state.items() if n.startswith("net.")}
    assert all(torch.equal(untouched[name], value) for name, value in done.model.state_dict().items())


def test_only_a_network_without_batch_norm_is_certified(view: View, context: Make) -> None:
    """Votes that are all 0, by far: every entry is within its radius in either network."""
    for build, status in ((linear, "ok"), (network, "uncertified")):
        done = carry_out(PCMU(tau=100.0), build(), view(), context(build=build))
        assert done.notes["certified"] == 1.0 and done.status == status


def test_certified_entries_are_those_of_training_without_the_data(view: View, context: Make, recipe: Recipe) -> None:
    """Of one step on all examples at once, whose gradient is the mean one, the certificate is exact."""
    short = recipe.model_copy(update={"epochs": 1, "batch_size": 300, "augment": "none"})
    ctx, method = context(build=linear, recipe=short), PCMU(sigma=0.004, tau=0.01)
    whole, stays = (method.prepare(linear(), view(total=n), context(build=linear, recipe=short)) for n in (300, 240))
    mean, left = (state["0.sum.1.weight"] / n for state, n in ((whole, 300), (stays, 240)))
    within = (mean - left).abs() <= radius(mean, 0.01, 0.004)
    equal = whole["net.1.weight"] == stays["net.1.weight"]
    assert equal[within].all() and not equal[~within].all() and 0.1 < float(within.double().mean()) < 0.99
    ctx.state = whole
    certified = method.unlearn(linear(), view(forget=range(240, 300)), ctx).notes["certified"]
    assert certified == pytest.approx(float(within.double().mean()), abs=0.02), "biases beside the weights"


@given(st.integers(1, 300), st.integers(1, 300))
def test_every_checkpoint_comes_and_too_many_are_refused(epochs: int, count: int) -> None:
    few = PCMU(checkpoints=min(count, epochs))._watched(epochs)
    assert len(few) == min(count, epochs) and few <= set(range(epochs))
    with pytest.raises(ValueError, match=f"checkpoints is {epochs + 1}, but there are {epochs} epochs; take at most"):
        PCMU(checkpoints=epochs + 1)._watched(epochs)
    assert len(PCMU()._watched(epochs)) == min(5, epochs)


def test_certificates_of_requests_in_a_row_are_of_all_that_went(view: View, context: Make) -> None:
    ctx, method = context(), PCMU(checkpoints=2)
    ctx.state = method.prepare(network(), view(), ctx)
    once = method.unlearn(network(), view(forget=range(40)), ctx)
    first = method.unlearn(network(), view(forget=range(10)), ctx)
    ctx.state = first.state or {}
    second = method.unlearn(network(), view(forget=range(10, 40)), ctx)
    assert second.notes["shift"] == pytest.approx(once.notes["shift"], rel=1e-3)
    assert second.notes["shift"] > first.notes["shift"]
