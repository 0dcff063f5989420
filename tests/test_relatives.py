"""PGU's relatives, which project, and L-CODEC, which selects: what must not move, against identities."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from trying import carry_out, flat, linear, network, unlearn

from bench import loop
from bench.dataview import MeteredView
from bench.interface import Context, Dataset
from methods import l_codec
from methods._codec import Ranks, select
from methods._projection import rank, spectrum
from methods.l_codec import LCodec
from methods.second_order import SecondOrder
from methods.svd_forgetting import SVDForgetting, importance
from methods.unsc import UNSC

torch.set_num_threads(1)
View = Callable[..., MeteredView]
Make = Callable[..., Context]


@pytest.fixture
def gone(dataset: Dataset) -> list[int]:
    """Class 3 among the first 300 samples."""
    return [row for row in range(300) if dataset.train_y[row] == 3]


@pytest.fixture
def trained(view: View, context: Make) -> nn.Module:
    model = network().train()
    loop.fit(model, view().train, context().recipe, torch.Generator().manual_seed(0), epochs=8)
    return model.eval()


# --- SVD class forgetting ---


def gram(columns: Tensor) -> Tensor:
    return columns @ columns.T


def test_importance_goes_from_shares_of_energy_to_the_projection_on_the_span() -> None:
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    onto = x @ torch.linalg.pinv(x)
    torch.testing.assert_close(importance(gram(x), 1e8), onto, rtol=0, atol=1e-5)
    torch.testing.assert_close(importance(gram(x), 1.0), gram(x) / torch.trace(gram(x)))
    assert float(importance(gram(x), 0.0).abs().max()) == 0
    assert float(importance(torch.zeros(6, 6, dtype=torch.float64), 10.0).abs().max()) == 0


@given(st.integers(0, 10_000))
def test_inputs_of_the_retained_data_pass_and_those_of_the_forget_set_do_not(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    base = torch.linalg.qr(torch.randn(8, 8, generator=g, dtype=torch.float64)).Q
    kept, lost = (base[:, cut] @ torch.randn(4, 9, generator=g, dtype=torch.float64) for cut in (slice(4), slice(4, 8)))
    retained, forgotten = importance(gram(kept), 1e8), importance(gram(lost), 1e8)
    w = torch.randn(5, 8, generator=g, dtype=torch.float64)
    new = w - w @ forgotten + w @ retained @ forgotten
    torch.testing.assert_close(new @ kept, w @ kept, rtol=0, atol=1e-3)
    torch.testing.assert_close(new @ lost, torch.zeros(5, 9, dtype=torch.float64), rtol=0, atol=1e-3)
    whole = w - w @ forgotten + w @ torch.eye(8, dtype=torch.float64) @ forgotten
    torch.testing.assert_close(whole, w)  # what the retained data fills wholly stays as it is


# --- null space calibration ---


def test_unsc_moves_no_weight_along_what_stays(view: View, context: Make, gone: list[int], trained: nn.Module) -> None:
    ctx, data, method = context(removed_classes=(3,)), view(forget=gone), UNSC(share=0.8)
    after = carry_out(method, trained, data, ctx).model
    assert data.taken()["retain"] == 0 and data.taken()["forget"] == len(gone)
    moved = False
    for name in ("0", "3", "6"):
        new, old = (model.get_parameter(f"{name}.weight").detach() for model in (after, trained))
        change = (new - old).flatten(1).double()
        both = torch.cat([ctx.state[f"{c}.{name}"] for c in range(10) if c != 3], 1)
        sigma, vectors, _ = spectrum(both @ both.T)
        k = rank(sigma, 0.8, power=2)
        along = change @ vectors[:, :k]
        assert float(along.norm()) < 1e-4 * float(change.norm()) + 1e-12
        moved |= float(change.norm()) > 0.01
    assert moved
    still = [n for n in trained.state_dict() if not n.endswith("weight") or n.startswith("1")]
    assert all(torch.equal(trained.state_dict()[n], after.state_dict()[n]) for n in still), "biases and BatchNorm"


def test_unsc_with_all_directions_protected_moves_nothing(view: View, context: Make, gone: list[int]) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 10))
    after = unlearn(UNSC(share=1.0), model, view(forget=gone), context(removed_classes=(3,)))
    torch.testing.assert_close(after[0].weight, model[0].weight, rtol=0, atol=1e-5)


def test_pseudo_labels_are_the_models_answers_among_what_stays(
    view: View, context: Make, gone: list[int], trained: nn.Module
) -> None:
    from methods.unsc import _second_thoughts

    x, pseudo = _second_thoughts(trained, view(forget=gone), context(removed_classes=(3, 8)))
    with torch.no_grad():
        logits = trained(x)
    logits[:, [3, 8]] = -torch.inf
    assert torch.equal(pseudo, logits.argmax(1)) and not {3, 8} & set(pseudo.tolist())


def test_relatives_forget_the_class_and_keep_the_rest(
    view: View, context: Make, gone: list[int], trained: nn.Module
) -> None:
    for method in (UNSC(share=0.9), SVDForgetting(alpha_f=100.0), LCodec(group=5)):
        data = view(forget=gone)
        model = unlearn(method, trained, data, context(removed_classes=(3,)))
        before, name = loop.error_rate(trained, data.forget), type(method).__name__
        assert loop.error_rate(model, data.forget) > before + 0.2, name
        assert loop.error_rate(model, data.retain) < loop.error_rate(trained, data.retain) + 0.1, name


# --- selection by conditional dependence ---


def nearest(*columns: Tensor) -> Tensor:
    z = torch.stack(columns, 1)
    return torch.cdist(z, z).fill_diagonal_(torch.inf).argmin(1)


def test_codec_tells_a_function_from_noise() -> None:
    g = torch.Generator().manual_seed(0)
    x, other, noise = (torch.randn(1000, generator=g, dtype=torch.float64) for _ in range(3))
    whole = Ranks(torch.sin(2 * x) + x)
    assert whole.dependence(nearest(x)) > 0.9 and abs(whole.dependence(nearest(noise))) < 0.1
    both = Ranks(x + other)
    assert both.dependence(nearest(x, other), nearest(x)) > 0.9
    assert abs(both.dependence(nearest(x, noise), nearest(x))) < 0.1
    assert Ranks(torch.zeros(50)).dependence(torch.arange(50).roll(1)) == 0.0


def test_what_the_loss_depends_on_is_selected_first_and_junk_is_not() -> None:
    g = torch.Generator().manual_seed(1)
    features = torch.randn(400, 8, generator=g, dtype=torch.float64)
    features[:, 5] = 2.0  # a channel that is always the same
    y = 3 * features[:, 2] + features[:, 6].square()
    chosen = select(y, features, 8)
    assert chosen[:2] == [2, 6] and 5 not in chosen
    assert select(y, features, 1) == [2] and select(y, features[:, [5]], 3) == []


def test_only_the_selected_channels_move(
    view: View, context: Make, monkeypatch: pytest.MonkeyPatch, trained: nn.Module
) -> None:
    # The network has 6 + 6 + 10 channels, in the order of its layers.
    monkeypatch.setattr(l_codec, "select", lambda y, features, most: [1, 8, 15])
    after = unlearn(LCodec(), trained, view(), context()).state_dict()
    rows = {"0.weight": [1], "0.bias": [1], "3.weight": [2], "3.bias": [2], "6.weight": [3], "6.bias": [3]}
    for name, value in trained.state_dict().items():
        moved = (after[name] != value).flatten(1).any(1) if value.dim() > 1 else after[name] != value
        assert moved.nonzero().flatten().tolist() == rows.get(name, []), name


def test_with_every_channel_it_is_the_second_order_update(
    view: View, context: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(l_codec, "select", lambda y, features, most: list(range(features.shape[1])))
    model = linear()
    loop.fit(model.train(), view().train, context().recipe, torch.Generator().manual_seed(0))
    ours = unlearn(LCodec(ridge=0.05, max_drop=100), model, view(), context(build=linear))
    newton = SecondOrder(damping=0.05 * 240, k=None, iterations=20, tolerance=1e-3)
    theirs = unlearn(newton, model, view(), context(build=linear))
    assert float((flat(ours) - flat(model)).norm()) > 0.01
    torch.testing.assert_close(flat(ours), flat(theirs), rtol=1e-4, atol=1e-5)


def test_a_step_that_ruins_the_model_is_not_taken(view: View, context: Make, trained: nn.Module) -> None:
    done = carry_out(LCodec(epsilon=1e-3), copy.deepcopy(trained), view(), context())
    assert done.status == "refused" and done.notes["skipped"] == 1
    assert torch.equal(flat(done.model), flat(trained))


def test_what_some_steps_did_not_take_back_is_told(
    view: View, context: Make, monkeypatch: pytest.MonkeyPatch, trained: nn.Module
) -> None:
    told = iter([0.9, 0.9, 0.2, 0.88])  # before, and after each of three groups
    monkeypatch.setattr(l_codec, "accuracy", lambda *args, **rest: next(told))
    done = carry_out(LCodec(group=20), copy.deepcopy(trained), view(), context())
    assert (done.status, done.notes["skipped"]) == ("partly", 1)


@pytest.mark.parametrize(("after", "some"), [([0.9, 0.2, 0.88, 0.88], True), ([0.2, 0.2, 0.2, 0.2], False)])
def test_noise_is_for_what_was_taken_back(
    view: View, context: Make, monkeypatch: pytest.MonkeyPatch, trained: nn.Module, after: list[float], some: bool
) -> None:
    """In groups of 20, of which some are not: the others, and 5 of the request before, have noise."""
    told = iter([0.9, *after])
    monkeypatch.setattr(l_codec, "accuracy", lambda *args, **rest: next(told))
    ctx, count = context(), len(view().forget)
    ctx.state = {"gone": torch.tensor([5]), "moved": torch.ones(len(flat(trained)))}
    done = LCodec(group=20, epsilon=1e6).unlearn(copy.deepcopy(trained), view(), ctx)
    taken = [min(20, count - 20 * at) for at in range(-(-count // 20))]
    if not some:
        assert done.status == "refused" and done.state is None
        assert torch.equal(flat(done.model), flat(trained))
    else:
        assert done.status == "partly" and int(done.state["gone"]) == 5 + count - taken[1]


def test_noise_is_added_once_for_all_that_have_gone(
    view: View, context: Make, monkeypatch: pytest.MonkeyPatch, trained: nn.Module
) -> None:
    """Whether they went in one request or two, in one group or several."""
    monkeypatch.setattr(l_codec, "select", lambda y, features, most: list(range(features.shape[1] - 10)))

    def noise(method: LCodec, requests: tuple[tuple[range, range], ...]) -> Tensor:
        """What the last request adds beside its steps."""
        ctx, model = context(), copy.deepcopy(trained)
        for rows, before in requests:
            generator, start = ctx.generator.get_state(), copy.deepcopy(model)
            done = method.unlearn(model, view(forget=rows, before=before), ctx)
            ctx.state, model = done.state or {}, done.model
        ctx.generator.set_state(generator)
        plain = method.model_copy(update={"epsilon": None})
        return flat(model) - flat(unlearn(plain, start, view(forget=rows, before=before), ctx))

    method = LCodec(epsilon=2.0, delta=0.05, ridge=1.0, max_drop=100, group=20)
    size = 2 * 0.25 * (60 / 300) ** 2 / 2.0 * math.sqrt(2 * math.log(1.25 / 0.05))
    for requests in (((range(60), range(0)),), ((range(20), range(0)), (range(20, 60), range(20)))):
        added = noise(method, requests)
        drawn = added[added != 0]
        assert len(drawn) == sum(p.numel() for at in (0, 3) for p in trained[at].parameters())
        assert float(drawn.square().mean().sqrt()) == pytest.approx(size, rel=0.15)
