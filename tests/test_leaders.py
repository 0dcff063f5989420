"""The field's methods against identities: what their equations say must hold to the last digits."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from trying import flat, linear, network, same, unlearn

from bench import loop
from bench.dataview import MeteredView
from bench.interface import Context, Dataset
from bench.recipe import Recipe
from methods import _adversarial, _gradients, _labels, _layers, _steps, bad_teacher, munba, unsir
from methods.amnesiac import Amnesiac
from methods.amun import AMUN
from methods.bad_teacher import BadTeacher
from methods.boundary_expand import BoundaryExpand
from methods.boundary_shrink import BoundaryShrink
from methods.ct import CT, transpose
from methods.delete import erased, without
from methods.fine_tune import FineTune
from methods.fisher import Fisher, diagonal
from methods.l1_sparse import L1Sparse
from methods.linear_filtration import LinearFiltration, class_means
from methods.msg import MSG, redraw
from methods.munba import MUNBa, bargain
from methods.neg_grad_plus import NegGradPlus
from methods.random_labels import RandomLabels
from methods.salun import SalUn, salient
from methods.scrub import divergence
from methods.ssd import SSD
from methods.unrolling_sgd import UnrollingSGD
from methods.unsir import UNSIR

torch.set_num_threads(1)


# --- labels and batches that several methods share ---


@given(st.integers(2, 6), st.integers(0, 2**31), st.data())
def test_wrong_labels_are_wrong_allowed_and_even(classes: int, seed: int, data: st.DataObject) -> None:
    removed = data.draw(st.sets(st.integers(0, classes - 1), max_size=classes - 2).map(sorted).map(tuple))
    ctx = Context("cpu", seed, torch.Generator().manual_seed(seed), None, classes, "", network, network, removed)  # type: ignore[arg-type]
    y = torch.arange(classes).repeat_interleave(400)
    drawn = _labels.random_labels(y, ctx)
    assert not (drawn == y).any() and not set(removed) & set(drawn.tolist())
    for c in range(classes):
        counts = torch.bincount(drawn[y == c], minlength=classes).double()
        allowed = [k for k in range(classes) if k != c and k not in removed]
        expected = 400 / len(allowed)
        assert all(abs(counts[k] - expected) <= 6 * math.sqrt(expected) for k in allowed)
    seen = set(_labels.random_labels(y, ctx, include_true=True).tolist())
    assert seen == set(range(classes)) - set(removed)


def test_no_class_left_is_a_clear_error(context: Callable[..., Context]) -> None:
    with pytest.raises(ValueError, match="no other class is left"):
        _labels.random_labels(torch.zeros(3, dtype=torch.int64), context(removed_classes=tuple(range(1, 10))))


@given(st.integers(1, 40), st.integers(1, 60), st.integers(4, 32), st.floats(0.1, 1.0))
def test_mixed_batches_hold_both_sets_once(forget: int, retain: int, size: int, share: float) -> None:
    class Rows:
        def __init__(self, n: int) -> None:
            self.n = n

        def __len__(self) -> int:
            return self.n

        def batches(self, size: int, generator: Any = None, *, augment: bool = False) -> Any:
            for start, stop in loop.batch_bounds(self.n, size):
                yield torch.arange(start, stop), torch.arange(start, stop)

    class View:
        def __init__(self) -> None:
            self.forget, self.retain = Rows(forget), Rows(retain)

    pieces = list(_steps.mixed(View(), size, torch.Generator(), share=share))  # type: ignore[arg-type]
    gone = torch.cat([one[0] for one, _ in pieces if one is not None])
    kept = torch.cat([one[0] for _, one in pieces if one is not None] or [torch.empty(0)])
    assert sorted(gone.tolist()) == list(range(forget)), "all of the forget set, once"
    assert len(set(kept.tolist())) == len(kept) <= retain
    assert len(kept) >= min(retain, math.ceil(share * retain)) - len(pieces)


# --- methods that equal each other at the ends of their ranges ---


def test_without_weight_on_forgetting_neg_grad_plus_and_l1_are_fine_tuning(
    view: Callable[..., MeteredView], context: Callable[..., Context]
) -> None:
    shared = {"lr": 0.05, "epochs": 2, "batch_size": 64}
    plain = unlearn(FineTune(**shared), network(), view(), context())
    assert same(unlearn(NegGradPlus(alpha=1.0, **shared), network(), view(), context()), plain)
    assert same(unlearn(L1Sparse(gamma=0.0, **shared), network(), view(), context()), plain)
    assert not same(unlearn(NegGradPlus(alpha=0.9, **shared), network(), view(), context()), plain)


def test_the_penalty_moves_every_weight_by_its_sign(
    view: Callable[..., MeteredView], context: Callable[..., Context]
) -> None:
    own = {"lr": 1e-3, "epochs": 1, "batch_size": 300, "momentum": 0.0, "weight_decay": 0.0}
    with_, none = (flat(unlearn(L1Sparse(gamma=g, **own), linear(), view(), context())) for g in (0.1, 0.0))
    torch.testing.assert_close(with_ - none, -1e-4 * flat(linear()).sign(), rtol=0, atol=1e-7)


def test_salun_moves_the_salient_half_and_at_density_one_it_is_random_labels(
    view: Callable[..., MeteredView], context: Callable[..., Context]
) -> None:
    shared = {"lr": 0.05, "epochs": 2, "batch_size": 64}
    original = network()
    half = flat(unlearn(SalUn(density=0.5, **shared), original, view(), context())) != flat(original)
    masks = salient(_gradients.summed(network().eval(), view().forget), 0.5)
    chosen = torch.cat([mask.flatten() for mask in masks])
    assert chosen.sum() == round(0.5 * len(chosen))
    assert not half[~chosen].any(), "weight decay and momentum move nothing that is held"
    assert half[chosen].float().mean() > 0.95
    whole = unlearn(SalUn(density=1.0, **shared), original, view(), context())
    assert same(whole, unlearn(RandomLabels(**shared), original, view(), context()))


# --- dampening ---


def test_ssd_dampens_by_the_ratio_of_importances(
    view: Callable[..., MeteredView], context: Callable[..., Context]
) -> None:
    original, all_ = network(), view(range(300), total=300)
    assert same(unlearn(SSD(alpha=0.99), original, all_, context()), original), "the whole set: every factor is 1"
    halved = flat(unlearn(SSD(alpha=0.99, dampening=0.5), original, all_, context()))
    moved = halved != flat(original)
    torch.testing.assert_close(halved[moved], 0.5 * flat(original)[moved])
    assert moved.float().mean() > 0.9
    assert same(unlearn(SSD(alpha=1e9), original, view(), context()), original)
    some = flat(unlearn(SSD(alpha=1.0), original, view(), context()))
    assert (some.abs() <= flat(original).abs()).all() and (some * flat(original) >= 0).all()
    assert 0 < (some != flat(original)).sum() < len(some)


# --- distillation ---


def test_delete_starts_as_the_log_of_what_is_left_and_never_wants_the_true_class() -> None:
    torch.manual_seed(0)
    logits = (3 * torch.randn(20, 10, dtype=torch.float64)).requires_grad_()
    y = torch.randint(0, 10, (20,))
    wanted = without(logits.detach(), y)
    assert (wanted.gather(1, y[:, None]) == 0).all()
    torch.testing.assert_close(wanted.sum(1), torch.ones(20, dtype=torch.float64))
    loss = erased(logits, wanted)
    p = torch.softmax(logits.detach(), 1)
    torch.testing.assert_close(loss, -torch.log1p(-p.gather(1, y[:, None])).mean(), rtol=1e-12, atol=0)
    loss.backward()
    torch.testing.assert_close(20 * logits.grad, p - wanted, rtol=1e-12, atol=1e-15)
    assert (without(logits.detach(), y, (2, 3))[:, [2, 3]] == 0).all()


def test_a_student_that_is_both_teachers_learns_nothing() -> None:
    torch.manual_seed(0)
    logits = torch.randn(5, 10, requires_grad=True)
    loss = divergence(logits, logits.detach(), 1.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-7)
    assert logits.grad is not None and float(logits.grad.abs().max()) < 1e-7


def test_the_bad_teacher_blurs_the_forget_set_and_reads_its_share(
    view: Callable[..., MeteredView], context: Callable[..., Context]
) -> None:
    original = network().train()
    loop.fit(original, view().train, context().recipe, torch.Generator().manual_seed(0), epochs=6)
    data = view()
    student = unlearn(BadTeacher(lr=3e-3, epochs=5, batch_size=32), original, data, context())
    assert data.taken()["forget"] == 5 * 60
    assert 5 * 60 <= data.taken()["retain"] <= 5 * (0.3 * 240 + 32)

    def entropy(model: nn.Module) -> float:
        x, _ = next(iter(data.forget.batches(60)))
        with torch.no_grad():
            p = torch.softmax(model.eval()(x), 1)
        return float(-(p * p.log()).sum(1).mean())

    assert entropy(student) > entropy(original) + 0.5


def slope(model: nn.Module, x: Tensor, on_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of weight and bias of a linear model whose loss has this gradient in the logits `[n, 10]`."""
    return on_logits.T @ x.flatten(1), on_logits.sum(0)


def everything(data: MeteredView) -> tuple[Tensor, Tensor, Tensor]:
    """Images of the forget and retained set, and how many of them are to go."""
    (gone, _), (kept, _) = (next(iter(part.batches(1000))) for part in (data.forget, data.retain))
    return torch.cat([gone, kept]), gone, kept


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_bad_teachers_step_is_that_of_its_equation(
    temperature: float,
    monkeypatch: pytest.MonkeyPatch,
    view: Callable[..., MeteredView],
    context: Callable[..., Context],
) -> None:
    """L = mean KL(u bad + (1 - u) good || student), all softmax at the temperature; u is 1 on the forget set."""
    monkeypatch.setattr(bad_teacher.loop, "Adam", loop.SGD)  # whose step shows the gradient
    model, ctx = linear(), context(build=linear)
    with torch.no_grad():
        model[1].weight.mul_(5)
    method = BadTeacher(lr=0.5, batch_size=1000, share=1.0, temperature=temperature)
    student = unlearn(method, model, view(), ctx)
    x, gone, kept = everything(view())
    with torch.no_grad():
        targets = torch.cat([(ctx.new_model()(gone) / temperature).softmax(1), (model(kept) / temperature).softmax(1)])
        p = (model(x) / temperature).softmax(1)
    weight, bias = slope(model, x, (p - targets) / (temperature * len(x)))
    torch.testing.assert_close(student[1].weight - model[1].weight, -0.5 * weight, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(student[1].bias - model[1].bias, -0.5 * bias, rtol=1e-3, atol=1e-6)
    assert float((p - targets)[len(gone) :].abs().max()) < 1e-6, "the good teacher is the student at the start"
    assert float((p - targets)[: len(gone)].abs().max()) > 0.1


def test_munbas_step_is_the_bisector_of_both_gradients_and_one_learning_rate_long(
    monkeypatch: pytest.MonkeyPatch, view: Callable[..., MeteredView], context: Callable[..., Context]
) -> None:
    monkeypatch.setattr(munba, "random_labels", lambda y, ctx: (y + 1) % 10)
    model, lr = linear(), 0.3
    step = flat(unlearn(MUNBa(lr=lr, epochs=1, batch_size=1000, momentum=0.0, weight_decay=0.0), model, view(),
                        context())) - flat(model)  # fmt: skip
    gradients = []
    for part, shift in ((view().retain, 0), (view().forget, 1)):
        x, y = next(iter(part.batches(1000)))
        with torch.no_grad():
            on_logits = (model(x).softmax(1) - torch.nn.functional.one_hot((y + shift) % 10, 10)) / len(x)
        gradients.append(torch.cat([g.flatten() for g in slope(model, x, on_logits)]))
    keep, forget = (g / g.norm() for g in gradients)
    bisector = (keep + forget) / (keep + forget).norm()
    torch.testing.assert_close(step, -lr * bisector, rtol=1e-3, atol=1e-5)
    assert float(step.norm()) == pytest.approx(lr, rel=1e-4), "its length, sqrt(2), is clipped to 1"
    assert float(step @ keep) == pytest.approx(float(step @ forget), rel=1e-3)
    assert float(step @ keep) < 0, "both losses fall, and alike"


def test_munba_forgets_the_class_and_keeps_the_rest(
    dataset: Dataset, view: Callable[..., MeteredView], context: Callable[..., Context]
) -> None:
    gone = [row for row in range(300) if dataset.train_y[row] == 3]
    original = network().train()
    loop.fit(original, view().train, context().recipe, torch.Generator().manual_seed(0), epochs=8)
    data = view(forget=gone)
    model = unlearn(MUNBa(lr=0.03, epochs=5, batch_size=32), original, data, context(removed_classes=(3,)))
    assert loop.error_rate(model, data.forget) > loop.error_rate(original.eval(), data.forget) + 0.5
    assert loop.error_rate(model, data.retain) < 0.1


# --- images that the removed class is not ---


def test_unsirs_noise_steps_up_the_loss_and_down_its_own_norm(
    view: Callable[..., MeteredView], context: Callable[..., Context]
) -> None:
    """min over the noise of -CE(f(noise), class) + penalty mean |noise|^2: Adam's first step is along the sign."""
    model, ctx = linear().eval(), context(removed_classes=(3,))
    method = UNSIR(noise_steps=1, noise_lr=0.1, penalty=0.1)
    first = torch.randn(256, 1, 8, 8, generator=torch.Generator().manual_seed(ctx.seed))
    moved = method._noise(model, 3, view(), ctx)
    with torch.no_grad():
        on_logits = model(first).softmax(1) - torch.nn.functional.one_hot(torch.tensor(3), 10)
        gradient = (2 * 0.1 * first.flatten(1) - on_logits @ model[1].weight) / 256
    sure = gradient.abs() > 1e-6  # where rounding, and Adam's epsilon, do not decide
    torch.testing.assert_close((moved - first).flatten(1)[sure], -0.1 * gradient.sign()[sure], rtol=0, atol=2e-3)


def test_unsir_impairs_with_noise_as_the_class_and_repairs_without(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch, view: Callable[..., MeteredView], context: Callable[..., Context]
) -> None:
    gone = [row for row in range(300) if dataset.train_y[row] in (3, 7)]
    data, seen = view(forget=gone), []
    model, ctx = network().train(), context(removed_classes=(3, 7))
    loop.fit(model, view().train, ctx.recipe, torch.Generator().manual_seed(0), epochs=8)
    before, original = copy.deepcopy(model), unsir._train

    def spy(net: nn.Module, x: Tensor, y: Tensor, *rest: Any) -> None:
        seen.append((same(net, before), x, y))
        original(net, x, y, *rest)

    monkeypatch.setattr(unsir, "_train", spy)
    unlearn(UNSIR(per_class=10, noise_steps=30), model, data, ctx)
    (untouched, x, y), (_, _, repaired) = seen
    assert untouched, "training noise moves no weight"
    assert torch.bincount(y, minlength=10).tolist() == [5120 if c in (3, 7) else 10 for c in range(10)]
    assert torch.bincount(repaired, minlength=10).tolist() == [0 if c in (3, 7) else 10 for c in range(10)]
    assert data.taken()["forget"] == 0, "zero glance"
    with torch.no_grad():
        noise, drawn = before.eval()(x[:256]), before(torch.randn(256, 1, 8, 8, generator=ctx.generator))
    labels = torch.full((256,), 3)
    assert loop.cross_entropy(noise, labels) > loop.cross_entropy(drawn, labels) + 1


# --- redrawn and transposed convolutions ---


def test_transposing_twice_is_nothing_and_kernels_of_one_stay() -> None:
    model = network()
    transpose(model)
    assert torch.equal(model.get_parameter("0.weight"), network().get_parameter("0.weight").transpose(2, 3))
    assert torch.equal(model.get_parameter("6.weight"), network().get_parameter("6.weight"))
    transpose(model)
    assert same(model, network())
    points = nn.Sequential(nn.Conv2d(1, 3, 1), nn.Conv2d(3, 4, (3, 5)))
    before = copy.deepcopy(points)
    transpose(points)
    assert same(points, before)


def test_ct_without_epochs_is_the_transposed_network(
    view: Callable[..., MeteredView], context: Callable[..., Context]
) -> None:
    expected = network()
    transpose(expected)
    assert torch.equal(flat(unlearn(CT(epochs=0), network(), view(), context())), flat(expected))


@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
def test_msg_redraws_the_share_with_the_smallest_gaps_of_each_convolution(
    fraction: float, view: Callable[..., MeteredView], context: Callable[..., Context]
) -> None:
    model, before = network(), network()
    gaps = [torch.rand(p.shape) for p in model.parameters()]
    masks = redraw(model, gaps, fraction, torch.Generator().manual_seed(0))
    for (name, p), (_, mask), gap, old in zip(model.named_parameters(), masks, gaps, before.parameters(), strict=True):
        convolution = name in ("0.weight", "3.weight")
        wanted = round(fraction * p.numel()) if convolution else 0
        assert int((p != old).sum()) == int(mask.sum()) == wanted
        if 0 < wanted < p.numel():
            assert gap[mask].max() <= gap[~mask].min()
    data = view()
    unlearn(MSG(epochs=1), network(), data, context())
    assert data.taken()["forget"] == 60 and 60 + 240 <= data.taken()["retain"] <= 60 + 240 + 60


# --- bargaining ---


@given(st.integers(0, 10_000), st.floats(0.01, 100), st.floats(0.01, 100))
def test_the_bargain_favors_nobody_whatever_the_scales(seed: int, one: float, other: float) -> None:
    g = torch.Generator().manual_seed(seed)
    kept, forgot = (torch.randn(50, generator=g, dtype=torch.float64) for _ in range(2))
    a, b = bargain(kept, forgot)
    step = a * kept + b * forgot
    assert float(step @ step) == pytest.approx(2, rel=1e-9)
    assert float(step @ kept / kept.norm()) == pytest.approx(float(step @ forgot / forgot.norm()), rel=1e-9)
    g1, g2, g3 = (float(x @ y) for x, y in ((kept, kept), (kept, forgot), (forgot, forgot)))
    assert g1 * a + g2 * b == pytest.approx(1 / a, rel=1e-9) and g2 * a + g3 * b == pytest.approx(1 / b, rel=1e-9)
    c, d = bargain(one * kept, other * forgot)
    torch.testing.assert_close(c * one * kept + d * other * forgot, step, rtol=1e-9, atol=1e-12)


def test_opposed_or_absent_gradients_leave_a_step() -> None:
    g = torch.arange(1.0, 5.0)
    assert bargain(g, -g) == (1.0, 0.1)
    assert bargain(g, 0 * g) == (1.0, 1.0)


# --- images moved across the boundary ---


def margins(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Of a linear model of two classes: the margin of `y`, and the difference of the two classes' weights."""
    w = model.get_parameter("1.weight").detach()
    with torch.no_grad():
        z = model(x)
    rows = torch.arange(len(y))
    return z[rows, y] - z[rows, 1 - y], (w[1 - y] - w[y]).view(x.shape)


def test_one_step_flips_a_linear_model_where_its_margin_is_smaller(context: Callable[..., Context]) -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval()
    ctx, x = context(black=(-100.0,), white=(100.0,)), torch.randn(200, 1, 8, 8)
    y = model(x).argmax(1).detach()
    margin, difference = margins(model, x, y)
    for bound in (1e-4, 1e-3, 3e-3):
        moved = _adversarial.fgsm(model, x, y, bound, ctx)
        flipped = model(moved).argmax(1) != y
        reach = bound * 200 * difference.abs().sum(dim=(1, 2, 3))
        sure = (reach - margin).abs() > 1e-4
        assert torch.equal(flipped[sure], (reach > margin)[sure])
        assert float((moved - x).abs().max()) <= 200 * bound + 1e-5


def test_moved_images_stay_in_the_pixel_range(
    view: Callable[..., MeteredView], context: Callable[..., Context]
) -> None:
    ctx, model = context(), network().eval()
    x, y = next(iter(view().forget.batches(60)))
    near, _ = _adversarial.nearest_l2(model, x, y, ctx, radius=1.0, steps=3, doublings=2)
    for moved in (_adversarial.fgsm(model, x, y, 0.5, ctx), near):
        assert float(moved.min()) >= ctx.black[0] - 1e-5 and float(moved.max()) <= ctx.white[0] + 1e-5


def test_amun_finds_the_first_radius_that_crosses_a_linear_boundary(context: Callable[..., Context]) -> None:
    torch.manual_seed(5)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval()
    ctx = context(black=(0.0,), white=(1.0,))
    x = 0.5 + 0.05 * torch.randn(100, 1, 8, 8)  # far from the ends of the range
    y = model(x).argmax(1).detach()
    margin, difference = margins(model, x, y)
    distance = margin / difference.flatten(1).norm(dim=1)
    moved, label = _adversarial.nearest_l2(model, x, y, ctx, radius=0.01, steps=30, doublings=6)
    assert (label != y).all() and torch.equal(model(moved).argmax(1), label)
    steps = torch.log2(distance / 0.01).ceil().clamp(min=0)
    gone = (moved - x).flatten(1).norm(dim=1)
    assert (gone <= 0.01 * 2**steps * 1.001).all() and (gone >= distance * 0.999).all()


def test_images_without_a_neighbor_keep_their_label(context: Callable[..., Context]) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval()
    nn.init.zeros_(model[1].weight)
    model[1].bias.data = torch.tensor([1.0, 0.0])
    x, y = torch.rand(5, 1, 8, 8), torch.zeros(5, dtype=torch.int64)
    _, label = _adversarial.nearest_l2(
        model, x, y, context(black=(0.0,), white=(1.0,)), radius=0.1, steps=3, doublings=2
    )
    assert torch.equal(label, y)


def test_amun_is_less_sure_of_the_forget_set_than_fine_tuning_and_no_worse_elsewhere(
    view: Callable[..., MeteredView], context: Callable[..., Context]
) -> None:
    original = network().train()
    loop.fit(original, view().train, context().recipe, torch.Generator().manual_seed(0), epochs=8)

    def confidence(model: nn.Module) -> float:
        x, y = next(iter(view().forget.batches(60)))
        with torch.no_grad():
            return float(torch.softmax(model.eval()(x), 1).gather(1, y[:, None]).mean())

    shared = {"epochs": 10, "lr": 0.1, "batch_size": 64}
    tuned, data = unlearn(FineTune(**shared), original, view(), context()), view()
    model = unlearn(AMUN(with_forget=False, **shared), original, data, context())
    assert confidence(model) < confidence(tuned) - 0.005
    assert loop.error_rate(model, view().retain) < 0.05
    assert data.taken()["retain"] == 10 * 240 and data.taken()["forget"] == 60
    both = view()
    unlearn(AMUN(**shared), original, both, context())
    assert both.taken()["forget"] == 60 + 10 * 60


def test_boundary_methods_and_relabeling_forget(
    view: Callable[..., MeteredView], context: Callable[..., Context]
) -> None:
    original = network().train()
    loop.fit(original, view().train, context().recipe, torch.Generator().manual_seed(0), epochs=8)
    forget = view().forget
    before = loop.error_rate(original.eval(), forget)
    for method in (
        BoundaryShrink(lr=0.01, bound=0.3), BoundaryExpand(lr=0.01), Amnesiac(lr=0.01, epochs=20),
    ):  # fmt: skip
        data = view()
        model = unlearn(method, original, data, context())
        assert loop.error_rate(model, forget) > before + 0.2, type(method).__name__
        with torch.no_grad():
            assert model(next(iter(forget.batches(4)))[0]).shape == (4, 10)
        if isinstance(method, BoundaryShrink | BoundaryExpand):
            assert data.taken()["retain"] == 0


def test_a_network_without_a_last_layer_of_logits_cannot_be_expanded(
    view: Callable[..., MeteredView], context: Callable[..., Context]
) -> None:
    odd = nn.Sequential(network(), nn.BatchNorm1d(10))
    with pytest.raises(ValueError, match="does not give the 10 logits, but BatchNorm1d"):
        unlearn(BoundaryExpand(), odd, view(), context())


# --- closed forms ---


def test_filtration_keeps_the_mean_logits_that_stay(
    dataset: Dataset, view: Callable[..., MeteredView], context: Callable[..., Context]
) -> None:
    gone = [row for row in range(300) if dataset.train_y[row] in (3, 7)]
    data, ctx = view(gone), context(removed_classes=(3, 7))
    model = network().train()
    loop.fit(model, view().train, ctx.recipe, torch.Generator().manual_seed(0), epochs=4)
    before = class_means(model.eval(), data, ctx)
    after_model = unlearn(LinearFiltration(), model, data, ctx)
    after = class_means(after_model, data, ctx)
    kept = [c for c in range(10) if c not in (3, 7)]
    torch.testing.assert_close(after[kept][:, kept], before[kept][:, kept], rtol=1e-3, atol=1e-3)
    level = before[kept][:, kept].mean()
    torch.testing.assert_close(
        after[kept][:, [3, 7]], before[kept][:, [3, 7]] - before[kept][:, [3, 7]].mean(0) + level, rtol=1e-3, atol=1e-3
    )
    assert torch.equal(flat(after_model[:6]), flat(model[:6])), "features stay"


@pytest.mark.parametrize("target", ["normalization", "randomization", "zeroing", "naive"])
@pytest.mark.parametrize("gone", [(3, 7), (1,), tuple(range(9))])
def test_filtration_never_predicts_a_removed_class(
    gone: tuple[int, ...],
    target: str,
    dataset: Dataset,
    view: Callable[..., MeteredView],
    context: Callable[..., Context],
) -> None:
    """On any input: a removed output is the mean of those that stay, less what brings it to their lowest level."""
    data = view([row for row in range(300) if dataset.train_y[row] in gone])
    ctx, model = context(removed_classes=gone), network().train()
    loop.fit(model, view().train, ctx.recipe, torch.Generator().manual_seed(0), epochs=1)
    before = class_means(model.eval(), data, ctx)
    after = unlearn(LinearFiltration(target=target), model, data, ctx)
    kept = [c for c in range(10) if c not in gone]
    noise = 5 * torch.randn(2000, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    x = torch.cat([noise, *(x for part in (data.train, data.validation) for x, _ in part.batches(1024))])
    with torch.no_grad():
        was, logits = model(x), after(x)
    assert not set(logits.argmax(1).tolist()) & set(gone)
    margin = max(1.0, float(before[kept][:, kept].mean() - before[kept].min()))
    expected = logits[:, kept].mean(1, keepdim=True).expand(-1, len(gone)) - margin
    torch.testing.assert_close(logits[:, list(gone)], expected, rtol=1e-4, atol=1e-3)
    if target == "naive":
        torch.testing.assert_close(logits[:, kept], was[:, kept], rtol=1e-3, atol=1e-3)


def test_only_the_drawn_filtration_depends_on_the_seed(
    dataset: Dataset, view: Callable[..., MeteredView], context: Callable[..., Context]
) -> None:
    data = view([row for row in range(300) if dataset.train_y[row] == 3])
    for target, drawn in (("randomization", True), ("normalization", False), ("zeroing", False), ("naive", False)):
        one, other = (
            unlearn(LinearFiltration(target=target), linear(), data, context(seed, removed_classes=(3,)))
            for seed in (0, 1)
        )
        assert same(one, other) is not drawn, target
    assert LinearFiltration.stochastic


def test_unrolling_takes_back_a_training_of_one_step(
    view: Callable[..., MeteredView], context: Callable[..., Context], recipe: Recipe
) -> None:
    plain = {"schedule": "constant", "optimizer": "sgd", "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
    own = plain | {"epochs": 1, "batch_size": 300, "augment": "none", "lr": 0.2}
    once = recipe.model_copy(update=own)
    trained = linear().train()
    loop.fit(trained, view().train, once, torch.Generator().manual_seed(0))
    found = unlearn(UnrollingSGD(), trained, view(), context(build=linear, recipe=once))
    expected = linear()
    gradients = _gradients.summed(expected, view().retain)
    for p, g in zip(expected.parameters(), gradients, strict=True):
        p.data -= 0.2 / 300 * g  # of the retained samples alone, in the batch of all
    torch.testing.assert_close(flat(found), flat(expected), rtol=1e-5, atol=1e-6)
    adam = once.model_copy(update={"optimizer": "adam"})
    with pytest.raises(ValueError, match="training by adam"):
        unlearn(UnrollingSGD(), trained, view(), context(build=linear, recipe=adam))


def test_the_fisher_information_of_a_linear_softmax(
    view: Callable[..., MeteredView], context: Callable[..., Context]
) -> None:
    model, data, ctx = linear().eval(), view(), context(build=linear)
    found = diagonal(model, data, None, ctx)
    pairs = [x for x, _ in data.retain.batches(1000)]
    x = torch.cat(pairs).flatten(1).double()
    p = torch.softmax(model.double()(torch.cat(pairs).double()), 1).detach()
    slope = p * (1 - p)
    torch.testing.assert_close(found["1.weight"].double(), slope.T @ x.square() / len(x), rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(found["1.bias"].double(), slope.mean(0), rtol=1e-4, atol=1e-9)


def test_the_fisher_noise_has_the_variance_of_its_rule(
    view: Callable[..., MeteredView], context: Callable[..., Context]
) -> None:
    model, data = linear(), view()
    information = diagonal(model.eval(), data, None, context(build=linear))["1.weight"]
    weights = [
        unlearn(Fisher(alpha=1e-4), model, view(), context(seed)).get_parameter("1.weight") for seed in range(16)
    ]
    noise = torch.stack(weights).detach() - model.get_parameter("1.weight").detach()
    wanted = 10 * 1e-4 * (1 / (information + 1e-8)).clamp(max=100.0).mean(dim=1)  # ten for the last layer
    torch.testing.assert_close(noise.square().mean(dim=(0, 2)), wanted, rtol=0.2, atol=0)  # 1,024 draws of each
    flat_ = torch.full((10,), 1.0)
    own = Fisher(alpha=1e-4)._variance
    assert own(flat_, [], last=True).allclose(own(flat_, [], last=False)), "ten once, for the last layer or a vector"
    assert own(flat_, [3], last=True)[3] == pytest.approx(1e-3)


def test_a_removed_class_starts_from_nothing_under_fisher_noise(
    view: Callable[..., MeteredView], context: Callable[..., Context]
) -> None:
    model = unlearn(Fisher(alpha=1e-12), linear(), view(), context(removed_classes=(4,)))
    row = model.get_parameter("1.weight")[4]
    assert float(row.detach().square().mean().sqrt()) == pytest.approx(math.sqrt(1e-3), rel=0.4)
    assert _layers.head(model, torch.zeros(1, 1, 8, 8), 10) is model[1]
