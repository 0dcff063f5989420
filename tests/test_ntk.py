"""NTK scrubbing against exact retraining of linear models, dense solves, and steps that would ruin the model."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import Field
from rows import Rows
from test_curvature import convolutional, dense, mlp
from torch import Tensor, nn

from bench import contract
from bench.interface import Context, Need
from bench.ledger import PeakMemory
from bench.probe import Probe
from bench.recipe import load_recipe
from methods import _ntk_dense, _safeguard
from methods._curvature import Linearized
from methods.ntk import NTK

torch.set_num_threads(1)
DECAY, CLASSES, PIXELS = 0.05, 3, 16


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with contract.double():
        torch.manual_seed(0)
        yield


def context(**changes: Any) -> Context:
    ctx = Context(
        device="cpu",
        seed=0,
        generator=torch.Generator().manual_seed(0),
        recipe=load_recipe("digits", {"weight_decay": DECAY}),
        classes=CLASSES,
        scenario="sample_removal",
        new_model=mlp,
        initial_model=mlp,
    )
    return replace(ctx, **changes)


def rows(n: int, side: int = 4) -> Rows:
    return Rows(torch.randn(n, 1, side, side), torch.randint(CLASSES, (n,)))


def joined(a: Rows, b: Rows) -> Rows:
    return Rows(torch.cat([a.x, b.x]), torch.cat([a.y, b.y]))


def data(**parts: Rows) -> Any:
    return SimpleNamespace(**parts)


def step_of(method: NTK, model: nn.Module, view: Any, ctx: Context | None = None) -> Tensor:
    """How far the method moves the weights, `[P]`."""
    before = Linearized(model).flat.clone()
    done = method.unlearn(copy.deepcopy(model), view, context() if ctx is None else ctx)
    return Linearized(done.model).flat - before


def near(got: Tensor, expected: Tensor) -> float:
    """Distance as a share of the length of what is expected."""
    return float((got - expected).norm() / expected.norm())


# --- linear models and squared loss: unlearning is exact ---


class Line(nn.Module):
    """A linear classifier whose weights decay toward `centre`: they are its parameters plus that constant."""

    centre: Tensor

    def __init__(self, centre: Tensor | None = None) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros((PIXELS + 1) * CLASSES))
        self.register_buffer("centre", torch.zeros_like(self.w) if centre is None else centre)

    def forward(self, x: Tensor) -> Tensor:
        return features(x) @ (self.w + self.centre).view(PIXELS + 1, CLASSES)


def features(x: Tensor) -> Tensor:
    return torch.cat([x.flatten(1), torch.ones(len(x), 1)], 1)


def ridge(part: Rows, mu: float, centre: Tensor | float = 0.0) -> Tensor:
    """The minimum of sum |f - onehot|^2 / 2 + mu / 2 |w - centre|^2, `[P]`."""
    x, target = features(part.x), nn.functional.one_hot(part.y, CLASSES).double()
    pull = x.T @ target + mu * torch.as_tensor(centre).expand((PIXELS + 1) * CLASSES).reshape(PIXELS + 1, CLASSES)
    return torch.linalg.solve(x.T @ x + mu * torch.eye(PIXELS + 1), pull).flatten()


def line(w: Tensor, centre: Tensor | None = None) -> Line:
    model = Line(centre)
    Linearized(model).put(w if centre is None else w - centre)
    return model


@pytest.fixture
def squared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients of squared loss in place of cross-entropy's."""

    def gradient(self: Linearized, part: Rows, size: int = 256) -> Tensor:
        with torch.no_grad():
            residuals = self.model(part.x) - nn.functional.one_hot(part.y, CLASSES).double()
        return self.pullback(part.x, residuals, size)

    monkeypatch.setattr(Linearized, "gradient", gradient)


EXACT: dict[str, Any] = {
    "curvature": "identity", "damping": (1.0,), "tolerance": 1e-13, "iterations": 500, "max_drop": None,
}  # fmt: skip


@pytest.mark.usefixtures("squared")
def test_undoing_the_forget_set_is_exact_retraining_of_a_linear_model() -> None:
    forget, retain = rows(7), rows(25)
    view, both = data(forget=forget, retain=retain), joined(forget, retain)
    ours, all_of_it = 25 * DECAY, 32 * DECAY
    trained, retrained = ridge(both, ours), ridge(retain, ours)  # the same ridge before and after
    step = step_of(NTK(**EXACT), line(trained), view)
    assert near(trained + step, retrained) < 1e-11
    assert near(trained, retrained) > 0.05

    trained = ridge(both, all_of_it)  # each sample brings its share of the ridge
    per_sample = NTK(**EXACT, per_sample_decay=True)
    assert near(trained + step_of(per_sample, line(trained), view), retrained) < 1e-11
    assert near(trained + step_of(NTK(**EXACT), line(trained), view), retrained) > 1e-3

    centre = torch.randn_like(trained)
    trained, retrained = ridge(both, all_of_it, centre), ridge(retain, ours, centre)
    assert near(trained + step_of(per_sample, line(trained, centre), view), retrained) < 1e-11


@pytest.mark.usefixtures("squared")
def test_descending_the_retained_loss_is_exact_from_any_weights() -> None:
    retain = rows(25)
    anywhere, newton = torch.randn((PIXELS + 1) * CLASSES), NTK(**EXACT, rhs="residual")
    assert newton.reads() == Need.RETAIN
    step = step_of(newton, line(anywhere), data(retain=retain))
    assert near(anywhere + step, ridge(retain, 25 * DECAY)) < 1e-11


@pytest.mark.usefixtures("squared")
@pytest.mark.parametrize("rhs", ["forget", "residual"])
def test_true_labels_are_exact_relabelling_of_a_linear_model(rhs: Any) -> None:
    wrong, retain = rows(7), rows(25)
    right = Rows(wrong.x, (wrong.y + 1) % CLASSES)
    mu = 32 * DECAY  # nothing leaves, so the ridge stays
    trained, relearned = ridge(joined(wrong, retain), mu), ridge(joined(right, retain), mu)
    method = NTK(**EXACT, rhs=rhs, corrected=True, per_sample_decay=True)
    view, poison = data(forget=wrong, retain=retain, corrected=right), context(scenario="depoisoning")
    assert near(trained + step_of(method, line(trained), view, poison), relearned) < 1e-11
    assert Need.CORRECTED in method.reads() and Need.CORRECTED not in NTK(rhs=rhs).reads()
    without = data(forget=wrong, retain=retain)  # and in other scenarios it does not even look
    plain = method.model_copy(update={"corrected": False})
    assert torch.equal(step_of(method, line(trained), without), step_of(plain, line(trained), without))


def test_the_difference_form_is_exact_around_the_initial_weights_only() -> None:
    forget, retain = rows(7), rows(25)
    both, n, kept = joined(retain, forget), 32, 25
    initial = torch.randn((PIXELS + 1) * CLASSES)
    trained, retrained = (ridge(part, len(part) * DECAY, initial) for part in (both, retain))

    def difference(base: Tensor) -> Tensor:
        linear = Linearized(line(base))
        residuals = linear.model(both.x).detach() - nn.functional.one_hot(both.y, CLASSES)
        few, all_of_it = _ntk_dense.linear_solutions(linear, both.x, residuals, kept, DECAY, 1 << 30)
        return few - all_of_it

    assert near(trained + difference(initial), retrained) < 1e-12
    assert near(trained - retrained + difference(trained), trained - retrained) > 0.3
    assert n == len(both)


# --- networks: against dense solves ---


@pytest.mark.parametrize("curvature", ["ggn", "identity"])
def test_the_matrix_free_step_is_that_of_a_dense_solve(curvature: Any) -> None:
    model, view = convolutional().eval(), data(forget=rows(6, 8), retain=rows(21, 8))
    linear = Linearized(copy.deepcopy(model))
    matrix = dense(linear.model, view.retain, curvature) + 2 * 21 * DECAY * torch.eye(len(linear.flat))
    expected = torch.linalg.solve(matrix, linear.gradient(view.forget))
    method = NTK(curvature=curvature, damping=(3.0, 2.0), tolerance=1e-10, iterations=1000, max_drop=None)
    assert near(step_of(method, model, view), expected) < 1e-6


def test_the_dense_step_is_the_difference_of_two_solutions_with_the_residuals_of_cross_entropy() -> None:
    model, retain, forget = mlp(), rows(21), rows(6)
    linear, both = Linearized(copy.deepcopy(model)), joined(retain, forget)
    residuals = linear.model(both.x).softmax(1).detach() - nn.functional.one_hot(both.y, CLASSES)
    solutions = []
    for n in (21, 27):
        g = linear.jacobian(both.x[:n]).flatten(0, 1)
        kernel = g @ g.T + n * DECAY * torch.eye(len(g))
        solutions.append(-g.T @ torch.linalg.solve(kernel, residuals[:n].flatten()))
    step, view, initial = solutions[0] - solutions[1], data(forget=forget, retain=retain), mlp()
    assert near(step_of(NTK(form="dense", rescale=False), model, view), step) < 1e-9
    missed = linear.flat - Linearized(initial).flat - solutions[0]
    longer = step * _ntk_dense.trapezium(step, missed)
    assert near(step_of(NTK(form="dense"), model, view, context(initial_model=lambda: initial)), longer) < 1e-9


@pytest.mark.parametrize("n", [5, 60])  # fewer and more numbers than parameters
@pytest.mark.parametrize("memory", [1, 5_000, 1 << 30])
def test_sample_space_parameter_space_and_any_tiles_agree(n: int, memory: int) -> None:
    linear, part = Linearized(mlp()), rows(n)
    residuals = torch.randn(n, CLASSES)
    jacobian = linear.jacobian(part.x).flatten(0, 1)
    counts = (n - 2, n)
    ways = [_ntk_dense._in_sample_space, _ntk_dense._in_parameter_space, _chosen]
    for way in ways:
        for count, got in zip(counts, way(linear, part.x, residuals, counts, DECAY, memory), strict=True):
            g = jacobian[: CLASSES * count]
            kernel = g @ g.T + count * DECAY * torch.eye(len(g))
            assert near(got, -g.T @ torch.linalg.solve(kernel, residuals[:count].flatten())) < 1e-9


def _chosen(linear: Linearized, x: Tensor, residuals: Tensor, counts: Any, decay: float, memory: int) -> Any:
    return _ntk_dense.linear_solutions(linear, x, residuals, counts[0], decay, memory)


def test_jacobian_and_pullback_agree() -> None:
    linear, part = Linearized(convolutional()), rows(9, 8)
    u = torch.randn(9, CLASSES)
    expected = torch.einsum("ncp,nc->p", linear.jacobian(part.x), u)
    for size in (1, 4, 256):
        torch.testing.assert_close(linear.pullback(part.x, u, size), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", ["matrix_free", "dense"])
def test_the_size_of_a_batch_does_not_matter(form: Any) -> None:
    model, view = convolutional(), data(forget=rows(6, 8), retain=rows(21, 8))
    method = NTK(form=form, max_drop=None, iterations=20, rescale=False)
    expected = step_of(method, model, view)
    for size in (1, 4):
        assert near(step_of(method.model_copy(update={"batch_size": size}), model, view), expected) < 1e-9


@pytest.mark.parametrize("form", ["matrix_free", "dense"])
def test_nothing_to_forget_moves_nothing(form: Any) -> None:
    view = data(forget=rows(0), retain=rows(21))
    assert torch.count_nonzero(step_of(NTK(form=form, per_sample_decay=True), mlp(), view)) == 0


def test_the_trapezium_rule_lengthens_by_twice_the_projection_of_the_error() -> None:
    step, error = torch.tensor([3.0, 0.0]), torch.tensor([4.0, 3.0])
    assert _ntk_dense.trapezium(step, error) == pytest.approx((3 + 2 * 0.8 * 5) / 3)
    assert _ntk_dense.trapezium(step, -error) == pytest.approx((3 + 2 * 0.8 * 5) / 3)
    model, initial = mlp(), mlp()
    view, ctx = data(forget=rows(6), retain=rows(21)), context(initial_model=lambda: initial)
    plain, longer = (step_of(NTK(form="dense", rescale=rescale), model, view, ctx) for rescale in (False, True))
    factor = float(longer.norm() / plain.norm())
    assert near(longer, factor * plain) < 1e-12
    assert factor > 1
    assert Need.INITIAL_WEIGHTS in NTK(form="dense").reads()
    assert Need.INITIAL_WEIGHTS not in NTK(form="dense", rescale=False).reads() | NTK().reads()


def test_the_dense_form_uses_a_sample_of_the_size_asked() -> None:
    part, generator = rows(40), torch.Generator().manual_seed(0)
    for count in (1, 7, 40, 100):
        x, y = _ntk_dense.examples(part, generator, count)
        assert len(x) == len(y) == min(count, 40)
    x, y = _ntk_dense.examples(part, generator, 7)
    assert not torch.equal(x, _ntk_dense.examples(part, generator, 7)[0])
    places = [next(i for i in range(40) if torch.equal(part.x[i], image)) for image in x]
    assert len(set(places)) == 7 and sorted(places) != list(range(7))
    assert torch.equal(part.y[places], y)


def peak(method: NTK, n: int) -> int:
    model, view = convolutional(), data(forget=rows(8, 8), retain=rows(n, 8))
    meter = PeakMemory()
    with meter:
        method.unlearn(model, view, context(initial_model=convolutional))
    return meter.peak


def test_memory_grows_with_the_data_in_the_dense_form_only() -> None:
    free = NTK(batch_size=16, iterations=3, max_drop=None)
    assert peak(free, 160) == pytest.approx(peak(free, 40), rel=0.02)
    form = NTK(form="dense", rescale=False, max_drop=None)
    assert peak(form, 80) > 4 * peak(form, 20)
    assert peak(form.model_copy(update={"memory": 2e-4}), 40) < 0.8 * peak(form, 40)


# --- the safeguard, statuses, the contract ---


@pytest.fixture(scope="module")
def probe() -> Probe:
    with contract.double():
        return Probe("ntk", NTK)


def retained_accuracy(probe: Probe, model: nn.Module) -> float:
    setting, (request,) = probe.setting("sample_removal", []), probe.request("sample_removal")
    x = setting.images["train"].take(torch.from_numpy(request.retain))
    with torch.no_grad():
        right = model(x).argmax(1) == torch.from_numpy(setting.labels[request.retain])
    return 100 * float(right.double().mean())


WRECK: dict[str, Any] = {"weight_decay": 1e-9, "damping": (1.0,), "iterations": 200, "tolerance": 1e-3}


def test_a_step_that_ruins_the_model_is_not_taken(probe: Probe) -> None:
    start = retained_accuracy(probe, probe.original)
    wreck = probe.carry_out(method=NTK(**WRECK, max_drop=None))
    assert retained_accuracy(probe, wreck.model) < start - 20, "the wreck that is planted is none"
    done = probe.carry_out(method=NTK(**WRECK))
    assert {"shortened", "refused"} & set(done.status.split(" and "))
    assert start - retained_accuracy(probe, done.model) < 0.5
    assert done.notes["step"] < 1


def test_a_larger_damping_takes_the_place_of_one_that_ruins_the_model(probe: Probe) -> None:
    decay = {"weight_decay": 1.0, "iterations": 200}
    done = probe.carry_out(method=NTK(damping=(50.0, 1e-9), **decay))
    assert (done.status, done.notes["damping"], done.notes["step"]) == ("ok", pytest.approx(50), 1)
    alone = probe.carry_out(method=NTK(damping=(50.0,), **decay))
    for a, b in zip(done.model.parameters(), alone.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)  # the other system's iterations


class Steps:
    """Stands for `Linearized`: its 100 examples are wrong as soon as the weight passes their number."""

    def __init__(self) -> None:
        self.flat, self.model = torch.zeros(1), nn.Linear(1, 2, bias=False)

    def put(self, flat: Tensor) -> None:
        self.at = flat.clone()
        with torch.no_grad():  # logits (0, x - at): right, which is class 1, where x > at
            self.model.weight.copy_(torch.tensor([[0.0], [1.0]]))
        self.model.forward = lambda x: torch.cat([torch.zeros_like(x), x - self.at], 1)  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("steps", "max_drop", "at", "scale", "status"),
    [
        ([8.0, 3.0], 20.0, 0, 1.0, "ok"),
        ([40.0, 8.0], 20.0, 1, 1.0, "ok"),
        ([20.0, 8.0], 20.0, 1, 1.0, "ok"),
        ([80.0, 32.0], 20.0, 1, 0.5, "shortened"),
        ([80.0, 24.0], 20.0, 1, 0.75, "shortened"),
        ([99.0, 90.0], 20.0, 1, 0.0, "refused"),
        ([99.0, 90.0], None, 0, 1.0, "ok"),
        ([float("nan"), 8.0], 20.0, 1, 1.0, "ok"),
    ],
)
def test_the_first_step_that_keeps_the_accuracy_is_taken(
    steps: list[float], max_drop: float | None, at: int, scale: float, status: str
) -> None:
    part = Rows(torch.arange(100.0)[:, None] + 0.5, torch.ones(100, dtype=torch.long))
    linear: Any = Steps()
    linear.put(linear.flat)
    taken = _safeguard.take(linear, torch.tensor(steps)[:, None], part, max_drop)  # type: ignore[arg-type]
    assert (taken.at, taken.scale, taken.status) == (at, scale, status)
    assert float(linear.at) == scale * steps[at]
    if max_drop is not None:
        assert taken.drop == scale * steps[at]


def test_the_probe_is_the_same_2000_examples_every_time() -> None:
    part = Rows(torch.randn(9_000, 2), torch.randint(2, (9_000,)))
    model = nn.Linear(2, 2)
    first = _safeguard.accuracy(model, part)  # type: ignore[arg-type]
    assert first == _safeguard.accuracy(model, part)  # type: ignore[arg-type]
    assert 30 < first < 70


def test_the_dense_form_says_when_it_wrecked_the_model(probe: Probe) -> None:
    """Initial weights that lie far off make the trapezium rule take a giant's step."""
    setting, (request,) = probe.setting("sample_removal", []), probe.request("sample_removal")
    parts = {
        name: Rows(setting.images["train"].take(torch.from_numpy(index)), torch.from_numpy(setting.labels[index]))
        for name, index in (("forget", request.forget), ("retain", request.retain))
    }

    def far() -> nn.Module:
        linear = Linearized(copy.deepcopy(probe.original))
        linear.put(linear.flat + 100 * torch.randn_like(linear.flat))
        return linear.model

    method, ctx = NTK(form="dense", samples=30), context(initial_model=far)
    done = method.unlearn(copy.deepcopy(probe.original), data(**parts), ctx)
    drop = retained_accuracy(probe, probe.original) - retained_accuracy(probe, done.model)
    assert done.status == "wrecked"
    assert done.notes["drop"] == pytest.approx(drop)
    assert drop > 20
    assert done.notes["samples"] == 30
    for harmless in ({"max_drop": None}, {"rescale": False}):
        kept = method.model_copy(update=harmless)
        assert kept.unlearn(copy.deepcopy(probe.original), data(**parts), ctx).status == "ok"


def test_too_few_iterations_are_told(probe: Probe) -> None:
    few = probe.carry_out(method=NTK(iterations=2))
    assert "unsettled" in few.status and few.notes["residual"] > 0.1
    assert probe.carry_out(method=NTK(iterations=300, max_drop=None)).status == "ok"


def test_the_deadline_ends_the_iterations() -> None:
    view = data(forget=rows(6), retain=rows(21))
    done = NTK().unlearn(mlp(), view, context(deadline=time.perf_counter() - 1))
    assert "late" in done.status
    assert done.notes["iterations"] == 0


def test_a_recipe_without_weight_decay_is_refused() -> None:
    ctx = context(recipe=load_recipe("digits", {"weight_decay": 0.0}))
    view = data(forget=rows(6), retain=rows(21))
    with pytest.raises(ValueError, match="set ntk.weight_decay"):
        NTK().unlearn(mlp(), view, ctx)
    assert torch.count_nonzero(step_of(NTK(weight_decay=0.1), mlp(), view, ctx))


class Dense(NTK):
    """The dense form as a method of its own."""

    form: Any = Field(default="dense", description="the authors' algorithm")


class Relabelling(NTK):
    """With the true labels of the forget set, as a method of its own."""

    corrected: bool = Field(default=True, description="true labels")


class Newton(NTK):
    """With the retained data's gradient, as a method of its own."""

    rhs: Any = Field(default="residual", description="descend the retained loss")
    damping: Any = Field(
        default=(100.0,), description="enough for the solver to settle: what it stops short of depends on rounding"
    )


@pytest.fixture(scope="module", params=[Dense, Relabelling, Newton], ids=lambda cls: cls.__name__)
def variant(request: pytest.FixtureRequest) -> Probe:
    with contract.double():
        return Probe("ntk", request.param)


@pytest.mark.parametrize("test", contract.TESTS, ids=lambda test: test.__name__)
def test_every_form_keeps_the_contract(variant: Probe, test: Callable[[Probe], None]) -> None:
    result = contract.run_one(variant, test)
    assert result.passed, result.message
