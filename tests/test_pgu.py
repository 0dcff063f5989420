"""PGU against known answers: statistics, projection, loss, stop rules, trust region, and the whole method."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import Rows
from torch import Tensor, nn

from bench.interface import Context
from bench.recipe import load_recipe
from methods import _grams, _pgu_run
from methods._grams import input_grams
from methods._pgu_loss import entropy, loss
from methods._pgu_stop import Accuracies, by_class, by_drop, by_gap
from methods._projection import outside, rank, spectrum, trust_region
from methods.pgu import PGU

torch.set_num_threads(1)
CLASSES = 4


def net(seed: int = 0) -> nn.Sequential:
    """Padding, stride 2, biases, BatchNorm with statistics, and a linear head, in float64."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(36, CLASSES),
    ).double()
    model.train()(torch.randn(50, 2, 6, 6).double())
    model.eval()
    return model


def data(forget: int = 8, total: int = 40, seed: int = 1) -> Any:
    """A view whose first `forget` training samples must go; there is no retained part to read in it."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(total + 20, 2, 6, 6, generator=generator).double()
    y = torch.randint(0, CLASSES, (total + 20,), generator=generator)
    parts = {"train": slice(0, total), "forget": slice(0, forget), "validation": slice(total, None)}
    view = SimpleNamespace(**{name: Rows(x[rows], y[rows], augmentable=True) for name, rows in parts.items()})
    view.kept = Rows(x[forget:total], y[forget:total])  # for the test only; no method asks for this name
    return view


def context(scenario: str = "sample_removal", **changes: Any) -> Context:
    values: dict[str, Any] = {
        "device": "cpu",
        "seed": 0,
        "generator": torch.Generator().manual_seed(0),
        "recipe": load_recipe("digits"),
        "classes": CLASSES,
        "scenario": scenario,
        "new_model": net,
        "initial_model": net,
    }
    return Context(**(values | changes))


def scripted(monkeypatch: pytest.MonkeyPatch, history: Sequence[tuple[float, float]]) -> None:
    """Let the stop rules see these (forget, validation) accuracies instead of measured ones."""
    script = iter(history)
    monkeypatch.setattr(_pgu_run, "accuracies", lambda model, view, ctx: Accuracies(*next(script)))


def never_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pgu_run, "accuracies", lambda model, view, ctx: Accuracies(1.0, 0.5))


def run(method: PGU, model: nn.Module, view: Any, ctx: Context) -> tuple[Any, Any]:
    """`prepare`, then `unlearn` on a copy: the new model and the whole result."""
    ctx.state = method.prepare(model, view, ctx)
    result = method.unlearn(copy.deepcopy(model), view, ctx)
    return result.model, result


def weights(model: nn.Module) -> dict[str, Tensor]:
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))}
    return {name: layer.weight.detach().flatten(1) for name, layer in layers.items()}


# --- statistics ---


def patches_by_hand(conv: Any, x: Tensor, stride: int) -> Tensor:
    """Every vector the convolution multiplies, cut out one by one."""
    padded = nn.functional.pad(x, [int(conv.padding[1])] * 2 + [int(conv.padding[0])] * 2)
    high, wide = conv.kernel_size
    rows = range(0, padded.shape[2] - high + 1, stride)
    columns = range(0, padded.shape[3] - wide + 1, stride)
    return torch.cat([padded[:, :, i : i + high, j : j + wide].flatten(1) for i in rows for j in columns])


@pytest.mark.parametrize("stride", ["true", "unit"])
def test_grams_are_those_of_patches_cut_by_hand(stride: str) -> None:
    model, view = net(), data()
    grams = input_grams(model, view.train, stride=stride)
    with torch.no_grad():
        inner = model[2](model[1](model[0](view.train.x)))
        flat = model[5](model[4](model[3](inner)))
    expected = {
        "0": patches_by_hand(model[0], view.train.x, 1),
        "3": patches_by_hand(model[3], inner, 2 if stride == "true" else 1),
        "6": flat,
    }
    assert list(grams) == list(expected)
    for name, rows in expected.items():
        torch.testing.assert_close(grams[name], rows.T @ rows, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(2, 3, (2, 3), padding="same", dilation=2),
        nn.Conv2d(2, 3, 3, padding="valid", bias=False),
        nn.Conv2d(2, 3, (3, 1), padding=(2, 0), stride=(2, 3), padding_mode="replicate"),
    ],
)
def test_gram_predicts_the_energy_of_what_the_layer_computes(conv: nn.Conv2d) -> None:
    """For any weight w, the sum of squared outputs is w G w: holds for every geometry or the patches are wrong."""
    conv = conv.double()
    view = data()
    gram = input_grams(nn.Sequential(conv), view.train)["0"]
    with torch.no_grad():
        conv.bias = None
        energy = (conv(view.train.x) ** 2).sum((0, 2, 3))
        w = conv.weight.flatten(1)
    torch.testing.assert_close(energy, torch.einsum("od,de,oe->o", w, gram, w), rtol=1e-10, atol=1e-10)


def test_full_minus_forget_is_the_gram_of_the_retained_data() -> None:
    model, view = net(), data()
    _, result = run(PGU(epochs=0), model, view, context())
    for name, gram in input_grams(model, view.kept).items():
        torch.testing.assert_close(result.state[f"gram.{name}"], gram, rtol=1e-10, atol=1e-10)


def test_grams_leave_no_hook_and_skip_grouped_convolutions() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3, groups=2), nn.Flatten(), nn.Linear(64, 3)).double()
    assert list(input_grams(model, data().train)) == ["2"]
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_requests_chain_on_the_returned_state() -> None:
    model, view = net(), data(forget=8)
    _, first = run(PGU(epochs=0), model, view, context("incremental"))
    later = SimpleNamespace(forget=Rows(view.kept.x[:5], view.kept.y[:5]), validation=view.validation)
    second = PGU(epochs=0).unlearn(copy.deepcopy(model), later, context("incremental", state=first.state, step=1))
    left = Rows(view.kept.x[5:], view.kept.y[5:])
    assert second.state is not None
    for name, gram in input_grams(model, left).items():
        torch.testing.assert_close(second.state[f"gram.{name}"], gram, rtol=1e-10, atol=1e-10)


# --- rank and projection ---


def test_rank_by_hand() -> None:
    sigma = torch.tensor([4.0, 3.0, 2.0, 1.0]).double()  # shares .4 .7 .9 1
    assert [rank(sigma, gamma) for gamma in (0.0, 0.3, 0.4, 0.41, 0.7, 0.71, 0.95)] == [1, 1, 1, 2, 2, 3, 4]
    assert [rank(sigma, gamma, rule="fewer") for gamma in (0.0, 0.3, 0.4, 0.41, 0.71)] == [0, 0, 1, 1, 2]
    assert [rank(sigma, gamma, power=2) for gamma in (0.5, 0.6, 0.9)] == [1, 2, 3]  # shares .53 .83 .97 1
    assert rank(torch.zeros(3), 0.9) == 0


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=12), st.floats(0, 1), st.floats(0, 1))
def test_rank_grows_with_gamma_and_protects_something(values: list[float], a: float, b: float) -> None:
    sigma = torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
    low, high = rank(sigma, min(a, b)), rank(sigma, max(a, b))
    assert (1 if sigma.sum() > 0 else 0) <= low <= high <= len(values)


def test_spectrum_is_descending_and_clamps_what_is_negative() -> None:
    basis = torch.linalg.qr(torch.randn(4, 4).double()).Q
    sigma, vectors, clamped = spectrum(basis @ torch.diag(torch.tensor([9.0, -1.0, 4.0, 0.0]).double()) @ basis.T)
    torch.testing.assert_close(sigma, torch.tensor([3.0, 2.0, 0.0, 0.0]).double(), atol=1e-6, rtol=0)
    assert abs(clamped - 1 / 14) < 1e-10
    assert abs(abs(vectors[:, 0] @ basis[:, 0]) - 1) < 1e-10


@pytest.mark.parametrize("k", [0, 2, 5, 7])
def test_outside_is_the_orthogonal_projection_whichever_side_is_thinner(k: int) -> None:
    basis, gradient = torch.linalg.qr(torch.randn(7, 7).double()).Q, torch.randn(3, 7).double()
    core = basis[:, :k]
    torch.testing.assert_close(outside(basis, k, gradient)(gradient), gradient - gradient @ core @ core.T)


@pytest.mark.parametrize("scenario", ["sample_removal", "class_removal", "incremental"])
def test_unlearning_spares_the_core_gradient_space(scenario: str, monkeypatch: pytest.MonkeyPatch) -> None:
    never_stops(monkeypatch)
    model, view, method = net(), data(), PGU(gamma=0.8, epochs=10, lr=0.5, batch_size=3)
    gone = (0,) if scenario == "class_removal" else ()
    after, result = run(method, model, view, context(scenario, removed_classes=gone))
    for name, change in ((name, weights(after)[name] - before) for name, before in weights(model).items()):
        core = spectrum(input_grams(model, view.kept)[name]).vectors[:, : int(result.notes[f"rank.{name}"])]
        inside = core @ torch.randn(core.shape[1], 5).double()
        assert change.norm() > 1e-3
        assert (change @ inside).abs().max() < 1e-10


def test_outputs_on_retained_data_stand_still_if_all_of_their_span_is_protected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    never_stops(monkeypatch)
    model, view = net(), data(forget=8, total=18)  # ten retained inputs do not fill the head's 36 dimensions
    after, _ = run(PGU(gamma=0.9999999, epochs=10, lr=1.0), model, view, context())
    with torch.no_grad():
        assert (after(view.kept.x) - model(view.kept.x)).abs().max() < 1e-6
        assert (after(view.forget.x) - model(view.forget.x)).abs().max() > 1e-2


def test_biases_and_batch_norm_are_bit_identical_and_all_weights_move(monkeypatch: pytest.MonkeyPatch) -> None:
    never_stops(monkeypatch)
    model = net()
    after, _ = run(PGU(gamma=0.5, epochs=3), model, data(), context())
    old, new = model.state_dict(), after.state_dict()
    moved = {name for name in old if not torch.equal(old[name], new[name])}
    assert moved == {"0.weight", "3.weight", "6.weight"}


def test_gamma_one_freezes_everything_and_layer_gamma_one_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    never_stops(monkeypatch)
    model, view = net(), data()
    frozen, _ = run(PGU(gamma=1, epochs=3), model, view, context())
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), frozen.state_dict().values(), strict=True)
    )
    partly, _ = run(PGU(gamma=0.5, layer_gamma={"3": 1}, epochs=3), model, view, context())
    same = {name for name, value in weights(partly).items() if torch.equal(value, weights(model)[name])}
    assert same == {"3"}
    with pytest.raises(ValueError, match=r"no layer nine; layers: 0, 3, 6"):
        run(PGU(layer_gamma={"nine": 0.5}), model, view, context())


def test_without_protection_a_step_is_a_plain_gradient_step(monkeypatch: pytest.MonkeyPatch) -> None:
    never_stops(monkeypatch)
    model, view = net(), data()
    method = PGU(gamma=0, rank_rule="fewer", epochs=1, lr=0.3, end_lr=0.3, shuffle=False, offset=0.05)
    after, _ = run(method, model, view, context())
    plain = copy.deepcopy(model)
    value = loss(plain(view.forget.x), view.forget.y, offset=0.05, weight=0.2, scenario="sample_removal", removed=())
    names = ["0.weight", "3.weight", "6.weight"]
    old = [plain.get_parameter(name) for name in names]
    for name, w, g in zip(names, old, torch.autograd.grad(value, old), strict=True):
        assert torch.equal(after.get_parameter(name), torch.add(w, g, alpha=-0.3))


# --- loss ---


def closed_form(z: Tensor, y: Tensor, offset: float) -> tuple[Tensor, Tensor]:
    """First term and its gradient, from p."""
    p = z.softmax(1)
    hot = nn.functional.one_hot(y, z.shape[1]).double()
    away = 1 - (p * hot).sum(1, keepdim=True) + offset
    return -away.log().mean(), (p * hot).sum(1, keepdim=True) * (hot - p) / away / len(z)


def entropy_by_hand(z: Tensor) -> tuple[Tensor, Tensor]:
    p = z.softmax(1)
    h = -(p * p.log()).sum(1, keepdim=True)
    return h.mean(), -p * (p.log() + h) / len(z)


@pytest.mark.parametrize("case", ["sample_removal", "class_removal", "depoisoning"])
def test_loss_and_gradient_against_the_closed_form(case: str) -> None:
    z = torch.randn(6, 5, generator=torch.Generator().manual_seed(3)).double().requires_grad_()
    y = torch.tensor([0, 1, 2, 3, 4, 1])
    value = loss(z, y, offset=0.05, weight=0.2, scenario=case, removed=(1, 3) if case == "class_removal" else ())
    (gradient,) = torch.autograd.grad(value, z)
    with torch.no_grad():
        expected, slope = closed_form(z, y, 0.05)
        keep = torch.ones(6, 5, dtype=torch.bool)
        if case == "class_removal":
            keep[:, [1, 3]] = False
        if case == "depoisoning":
            keep[torch.arange(6), y] = False
        h, h_slope = entropy_by_hand(z[keep].view(6, -1))
        sign = 1 if case == "depoisoning" else -1  # descent minimizes the entropy in depoisoning, else maximizes it
        expected = expected + sign * 0.2 * h
        slope[keep] += sign * 0.2 * h_slope.flatten()
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, slope, rtol=1e-10, atol=1e-12)


def test_a_positive_weight_raises_the_entropy() -> None:
    z = torch.randn(20, 5).double().requires_grad_()
    y = torch.zeros(20, dtype=torch.int64)
    pulls = [loss(z, y, offset=0.05, weight=w, scenario="sample_removal", removed=()) for w in (0.0, 0.5)]
    without, with_entropy = (z.detach() - torch.autograd.grad(pull, z)[0] for pull in pulls)
    assert entropy(with_entropy).mean() > entropy(without).mean()


def test_first_gradient_is_that_of_a_teacher_that_forbids_the_label() -> None:
    """KL(q || p), q the original's softmax without the label (DELETE), has logit gradient p - q at the start."""
    z = torch.randn(6, 5).double().requires_grad_()
    y = torch.tensor([0, 1, 2, 3, 4, 1])
    (gradient,) = torch.autograd.grad(loss(z, y, offset=0.0, weight=0.0, scenario="sample_removal", removed=()), z)
    hot = nn.functional.one_hot(y, 5).bool()
    q = z.detach().masked_fill(hot, -torch.inf).softmax(1)
    torch.testing.assert_close(gradient, (z.detach().softmax(1) - q) / 6, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("offset", [0.0, 0.05])
@pytest.mark.parametrize("case", ["sample_removal", "depoisoning"])
def test_saturated_logits_stay_finite(case: str, offset: float) -> None:
    z = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]], requires_grad=True)
    value = loss(z, torch.tensor([0, 0]), offset=offset, weight=0.2, scenario=case, removed=())
    (gradient,) = torch.autograd.grad(value, z)
    assert value.isfinite()
    assert gradient.isfinite().all()


# --- stop rules ---


def history(*pairs: tuple[float, float]) -> list[Accuracies]:
    return [Accuracies(*pair) for pair in pairs]


def test_gap_rule() -> None:
    assert by_gap(history((1.0, 0.9))) is None
    assert by_gap(history((1.0, 0.9), (0.9, 0.9))) is None  # equal: go on, as the authors
    assert by_gap(history((0.8, 0.9))) == ("too_fast", False)
    assert by_gap(history((1.0, 0.9), (0.85, 0.9))) == ("ok", False)
    assert by_gap(history((0.92, 0.9), (0.85, 0.9))) == ("ok", True)


def test_class_and_drop_rules() -> None:
    assert by_class(history((1.0, 0.9), (0.2, 0.88)), 0.1, 5) is None
    assert by_class(history((1.0, 0.9), (0.1, 0.88)), 0.1, 5) == ("ok", False)
    assert by_class(history((0.1, 0.9)), 0.1, 5) == ("too_fast", False)
    assert by_class(history((1.0, 0.9), (0.0, 0.84)), 0.1, 5) == ("guard", True)
    assert by_drop(history((float("nan"), 0.9), (float("nan"), 0.86)), 5) is None
    assert by_drop(history((float("nan"), 0.9), (float("nan"), 0.84)), 5) == ("guard", True)


@pytest.mark.parametrize(("last", "kept"), [((0.5, 0.9), 2), ((0.89, 0.9), 3)])
def test_of_the_last_two_models_the_nearer_is_returned(
    last: tuple[float, float], kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, view = net(), data()
    steady: dict[str, Any] = {"lr": 0.1, "end_lr": 0.1, "gamma": 0.5}
    scripted(monkeypatch, [(1.0, 0.9), (1.0, 0.9), (0.95, 0.9), last])
    after, result = run(PGU(epochs=9, **steady), model, view, context())
    assert (result.status, result.notes["epochs"]) == ("ok", 3)
    never_stops(monkeypatch)
    expected, _ = run(PGU(epochs=kept, **steady), model, view, context())
    assert all(torch.equal(a, b) for a, b in zip(weights(after).values(), weights(expected).values(), strict=True))


def test_too_fast_returns_the_model_unchanged_and_not_converged_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    model = net()
    scripted(monkeypatch, [(0.3, 0.9)])
    after, result = run(PGU(), model, data(), context())
    assert result.status == "too_fast"
    assert all(torch.equal(a, b) for a, b in zip(weights(after).values(), weights(model).values(), strict=True))
    never_stops(monkeypatch)
    after, result = run(PGU(epochs=2, gamma=0.5), model, data(), context())
    assert (result.status, result.notes["epochs"]) == ("not_converged", 2)
    assert not torch.equal(after.get_parameter("6.weight"), model.get_parameter("6.weight"))


@pytest.mark.parametrize("idle", [PGU(epochs=0), PGU(gamma=1.0)])
def test_without_a_step_nothing_failed_to_converge(idle: PGU, monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness then says `unchanged`, as of any method that took no step."""
    model = net()
    never_stops(monkeypatch)
    after, result = run(idle, model, data(), context())
    assert (result.status, result.notes["epochs"]) == ("ok", 0)
    assert all(torch.equal(a, b) for a, b in zip(weights(after).values(), weights(model).values(), strict=True))


def test_class_removal_is_guarded_by_the_retained_classes_only() -> None:
    model, view = net(), data()
    view.validation.y[:] = 0  # all of the removed class: nothing to guard, so accuracy is 0 throughout
    ctx = context("class_removal", removed_classes=(0,))
    _, result = run(PGU(epochs=2, max_drop=0.0), model, view, ctx)
    assert result.status != "guard"


def test_validation_is_read_once_an_epoch_and_forget_data_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    view = data()
    view.forget.y = net()(view.forget.x).argmax(1)  # perfect on the forget set: no early stop in two small steps
    _, result = run(PGU(epochs=2, lr=1e-6, end_lr=1e-6), net(), view, context())
    assert result.notes["epochs"] == 2
    assert view.validation.reads == 3
    assert view.forget.reads == 1 + 3 + 2  # statistics, accuracies, steps


def test_late_runs_end_at_the_deadline() -> None:
    view = data()
    view.forget.y = net()(view.forget.x).argmax(1)
    _, result = run(PGU(epochs=1000), net(), view, context(deadline=0.0))
    assert (result.status, result.notes["epochs"]) == ("late", 0)


def test_best_validation_keeps_the_best_epoch_of_depoisoning(monkeypatch: pytest.MonkeyPatch) -> None:
    model, view = net(), data()
    steady: dict[str, Any] = {"lr": 0.1, "end_lr": 0.1, "gamma": 0.5}
    script = [(0.0, 0.5), (0.0, 0.7), (0.0, 0.6)]
    scripted(monkeypatch, script)
    best, result = run(PGU(epochs=2, best_validation=True, **steady), model, view, context("depoisoning"))
    assert result.status == "ok"
    scripted(monkeypatch, script)
    last, _ = run(PGU(epochs=2, **steady), model, view, context("depoisoning"))
    scripted(monkeypatch, script)
    first, _ = run(PGU(epochs=1, **steady), model, view, context("depoisoning"))
    assert torch.equal(best[6].weight, first[6].weight)
    assert not torch.equal(best[6].weight, last[6].weight)


# --- trust region ---


@pytest.mark.parametrize("tail", [None, 2, 99])
def test_the_folded_trust_region_is_the_scaled_layer(tail: int | None) -> None:
    """Against autograd on W and S held apart: W moves outside the core, the trailing block of S at a tenth."""
    generator = torch.Generator().manual_seed(5)
    start, x = torch.randn(3, 7, generator=generator).double(), torch.randn(20, 7, generator=generator).double()
    y, k, lr = torch.randint(0, 3, (20,), generator=generator), 4, 0.3
    vectors = torch.linalg.qr(torch.randn(7, 7, generator=generator).double()).Q
    core, used = vectors[:, :k], min(k, tail or k)
    w, folded = start.clone().requires_grad_(), start.clone().requires_grad_()
    s = torch.eye(k).double().requires_grad_()
    update = trust_region(vectors, k, folded, tail)
    for _ in range(5):
        effective = w - w @ core @ core.T + w @ core @ s @ core.T
        torch.testing.assert_close(effective, folded, rtol=1e-10, atol=1e-10)  # the identity at the start
        to_w, to_s = torch.autograd.grad(nn.functional.cross_entropy(x @ effective.T, y), (w, s))
        (to_folded,) = torch.autograd.grad(nn.functional.cross_entropy(x @ folded.T, y), folded)
        with torch.no_grad():
            w -= lr * (to_w - to_w @ core @ core.T)
            s[k - used :, k - used :] -= 0.1 * lr * to_s[k - used :, k - used :]
            folded -= lr * update(to_folded)
    assert (folded - start).norm() > 1e-2


def test_the_trust_region_changes_nothing_outside_its_span() -> None:
    vectors = torch.linalg.qr(torch.randn(7, 7).double()).Q
    weight, gradient = torch.randn(3, 7).double(), torch.randn(3, 7).double()
    scaled = trust_region(vectors, 4, weight, None)(gradient) - outside(vectors, 4, weight)(gradient)
    assert scaled.norm() > 1e-3
    assert (scaled @ vectors[:, 4:]).abs().max() < 1e-12


def test_depoisoning_scales_the_last_linear_layer_only(monkeypatch: pytest.MonkeyPatch) -> None:
    never_stops(monkeypatch)
    model, view = net(), data()
    after, result = run(PGU(gamma=0.8, epochs=5, lr=0.5), model, view, context("depoisoning"))
    grams = input_grams(model, view.kept)
    for name, before in weights(model).items():
        core = spectrum(grams[name]).vectors[:, : int(result.notes[f"rank.{name}"])]
        inside = ((weights(after)[name] - before) @ core).abs().max()
        assert inside > 1e-4 if name == "6" else inside < 1e-10


# --- the whole method ---


@pytest.mark.parametrize("scenario", ["sample_removal", "class_removal", "depoisoning"])
def test_zero_epochs_is_the_identity_bit_for_bit(scenario: str) -> None:
    model = net()
    after, _ = run(PGU(epochs=0), model, data(), context(scenario, removed_classes=(0,) if "class" in scenario else ()))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), after.state_dict().values(), strict=True))


def test_flags_and_hooks_are_as_before_and_the_model_is_in_evaluation_mode() -> None:
    model = net()
    model[0].bias.requires_grad_(False)
    after, _ = run(PGU(epochs=2), model, data(), context())
    assert [p.requires_grad for p in after.parameters()] == [p.requires_grad for p in model.parameters()]
    assert not after.training
    assert all(p.grad is None for p in after.parameters())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in after.modules())


def test_the_learning_rate_falls_by_an_equal_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    never_stops(monkeypatch)
    rates: list[float] = []
    monkeypatch.setattr(_pgu_run, "_epoch", lambda method, model, forget, ctx, moving, lr: rates.append(lr))
    run(PGU(lr=0.08, end_lr=0.01, epochs=3), net(), data(), context())
    assert rates == pytest.approx([0.08, 0.04, 0.02])


def test_dropout_is_active_during_the_steps_unless_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    never_stops(monkeypatch)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(72, CLASSES)).double()
    quiet = [run(PGU(epochs=1, gamma=0.5, dropout=False), model, data(), context())[0][2].weight for _ in range(2)]
    loud = [run(PGU(epochs=1, gamma=0.5), model, data(), context())[0][2].weight for _ in range(2)]
    assert torch.equal(*quiet)
    assert not torch.equal(*loud)


def test_empty_forget_set_and_missing_statistics_are_clear_errors() -> None:
    view = data(forget=0)
    with pytest.raises(ValueError, match="nothing to forget"):
        run(PGU(), net(), view, context())
    with pytest.raises(ValueError, match="statistics of `prepare`"):
        PGU().unlearn(net(), data(), context())


@given(
    st.integers(1, 3), st.integers(1, 4), st.integers(1, 6), st.integers(1, 6), st.sampled_from([(1, 1), "same"]),
    st.integers(0, 2**31),
)  # fmt: skip
def test_correlated_grams_are_those_of_unfolded_patches(
    n: int, channels: int, height: int, width: int, padding: Any, seed: int
) -> None:
    x = torch.randn(n, channels, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    conv = nn.Conv2d(channels, 2, 3, padding=padding)
    assert _grams._correlates(conv, "true")
    patches = nn.functional.unfold(x, 3, padding=1).transpose(0, 1).reshape(9 * channels, -1)
    wanted = patches @ patches.T
    assert (_grams.correlation_gram(x) - wanted).abs().max() <= 1e-12 * wanted.abs().max().clamp(min=1)


OTHERS: list[dict[str, Any]] = [
    {"stride": 2}, {"padding": 0}, {"padding": "valid"}, {"kernel_size": 5}, {"dilation": 2},
    {"padding_mode": "circular"},
]  # fmt: skip


@pytest.mark.parametrize("changes", OTHERS)
def test_other_convolutions_are_unfolded(changes: dict[str, Any]) -> None:
    usual = {"in_channels": 2, "out_channels": 2, "kernel_size": 3, "padding": 1}
    assert not _grams._correlates(nn.Conv2d(**usual | changes), "true")
    if changes == {"stride": 2}:
        assert _grams._correlates(nn.Conv2d(**usual | changes), "unit")
