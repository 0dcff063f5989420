"""First- and second-order updates against closed forms: gradients, Newton steps, the fixed point of LiSSA."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from rows import Rows
from torch import Tensor, nn

from bench import loop
from bench.interface import Context, Method, Need, Part, UndeclaredRead, Unlearned
from bench.recipe import load_recipe
from methods import _solvers
from methods._curvature import Linearized
from methods.first_order import FirstOrder
from methods.neg_grad import NegGrad
from methods.second_order import SecondOrder

N_FORGET, N, WIDTH, CLASSES = 12, 80, 5, 3
RIDGE = 0.5


class View:
    """The parts of a request; without true labels there is no `corrected`."""

    def __init__(self, forget: Part, retain: Part, true: Part | None = None) -> None:
        self.forget, self.retain = forget, retain
        self._true = true

    @property
    def corrected(self) -> Part:
        if self._true is None:
            raise UndeclaredRead("no true labels")
        return self._true


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N, WIDTH, generator=generator)
    return x, (x @ torch.randn(WIDTH, CLASSES, generator=generator)).argmax(1)


@pytest.fixture
def linear(data: tuple[Tensor, Tensor]) -> nn.Module:
    """Logistic regression at the exact minimum of the summed loss of all data with the ridge."""
    torch.manual_seed(1)
    model = nn.Linear(WIDTH, CLASSES)
    newton(model, Rows(*data), steps=40)
    return model


def newton(model: nn.Module, part: Rows, steps: int) -> None:
    """Newton's method on summed cross-entropy + RIDGE / 2 |theta|^2, with dense second derivatives by autograd."""
    names = [name for name, _ in model.named_parameters()]

    def objective(flat: Tensor) -> Tensor:
        pieces = flat.split([p.numel() for p in model.parameters()])
        values = [piece.view_as(p) for piece, p in zip(pieces, model.parameters(), strict=True)]
        logits = torch.func.functional_call(model, dict(zip(names, values, strict=True)), (part.x,))
        return nn.functional.cross_entropy(logits, part.y, reduction="sum") + RIDGE / 2 * flat @ flat

    for _ in range(steps):
        flat = weights(model).requires_grad_()
        slope = torch.autograd.grad(objective(flat), flat)[0]
        hessian = torch.autograd.functional.hessian(objective, flat.detach())
        Linearized(model).put(flat.detach() - torch.linalg.solve(hessian, slope))


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def context(scenario: str = "sample_removal") -> Context:
    return Context(
        device="cpu",
        seed=0,
        generator=torch.Generator().manual_seed(0),
        recipe=load_recipe("digits"),
        classes=CLASSES,
        scenario=scenario,
        new_model=lambda: nn.Linear(WIDTH, CLASSES),
        initial_model=lambda: nn.Linear(WIDTH, CLASSES),
    )


def copied(model: nn.Module) -> nn.Module:
    twin = nn.Linear(WIDTH, CLASSES)
    twin.load_state_dict(model.state_dict())
    return twin


def after(method: Method, model: nn.Module, view: View, scenario: str = "sample_removal") -> Tensor:
    done = method.unlearn(copied(model), view, context(scenario))  # type: ignore[arg-type]
    assert isinstance(done, Unlearned)
    return weights(done.model)


def split(data: tuple[Tensor, Tensor], rows: int = N_FORGET) -> View:
    x, y = data
    return View(Rows(x[:rows], y[:rows]), Rows(x[rows:], y[rows:]))


def poisoned(data: tuple[Tensor, Tensor]) -> View:
    x, y = data
    wrong = (y[:N_FORGET] + 1) % CLASSES
    return View(Rows(x[:N_FORGET], wrong), Rows(x[N_FORGET:], y[N_FORGET:]), Rows(x[:N_FORGET], y[:N_FORGET]))


# --- first order ---


def test_a_first_order_step_is_the_closed_form_of_a_linear_model(
    linear: nn.Module, data: tuple[Tensor, Tensor]
) -> None:
    view, tau = split(data), 0.03
    residual = linear(view.forget.x).softmax(1) - nn.functional.one_hot(view.forget.y, CLASSES)  # type: ignore[attr-defined]
    slope = torch.cat([(residual.T @ view.forget.x).flatten(), residual.sum(0)]).detach()  # type: ignore[attr-defined]
    moved = after(FirstOrder(tau=tau), linear, view)
    torch.testing.assert_close(moved, weights(linear) + tau * slope, rtol=1e-13, atol=1e-15)


def test_a_correction_that_changes_nothing_changes_nothing(linear: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    view = split(data)
    same = View(view.forget, view.retain, view.forget)
    for method in (FirstOrder(tau=10.0), SecondOrder(), SecondOrder(solver="lissa", iterations=30)):
        assert torch.equal(after(method, linear, same, "depoisoning"), weights(linear))


def test_first_order_updates_add_up(linear: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    x, y = data
    method, start = FirstOrder(tau=0.1), weights(linear)
    parts = [View(Rows(x[a:b], y[a:b]), Rows(x[20:], y[20:])) for a, b in ((0, 8), (8, 20), (0, 20))]
    first, second, both = (after(method, linear, part) - start for part in parts)
    torch.testing.assert_close(first + second, both, rtol=1e-12, atol=1e-15)


def test_first_order_without_corrections_is_a_step_of_gradient_ascent(
    linear: nn.Module, data: tuple[Tensor, Tensor]
) -> None:
    view = split(data)
    view.validation = view.retain  # type: ignore[attr-defined]
    climb = NegGrad(lr=0.6, epochs=1, momentum=0, weight_decay=0, clip=None)
    theirs = after(climb, linear, view)
    torch.testing.assert_close(after(FirstOrder(tau=0.6 / N_FORGET), linear, view), theirs, rtol=1e-12, atol=1e-14)


def test_true_labels_are_pulled_toward_and_read_only_where_declared(
    linear: nn.Module, data: tuple[Tensor, Tensor]
) -> None:
    view = poisoned(data)
    pull, push = (
        after(FirstOrder(tau=0.02, corrected=corrected), linear, view, "depoisoning") for corrected in (True, False)
    )
    line = Linearized(copied(linear))
    slope = line.gradient(view.corrected)
    torch.testing.assert_close(pull, push - 0.02 * slope, rtol=1e-12, atol=1e-14)
    untold = View(view.forget, view.retain)
    assert torch.equal(after(FirstOrder(tau=0.02, corrected=False), linear, untold, "depoisoning"), push)
    for cls in (FirstOrder, SecondOrder):
        assert Need.CORRECTED in cls().reads()
        assert Need.CORRECTED not in cls(corrected=False).reads()
        with pytest.raises(UndeclaredRead):
            after(cls(), linear, untold, "depoisoning")


def test_several_steps_compute_the_gradient_anew(linear: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    view, model = split(data), copied(linear)
    for _ in range(3):
        Linearized(model).put(after(FirstOrder(tau=0.05), model, view))
    assert torch.equal(after(FirstOrder(tau=0.05, steps=3), linear, view), weights(model))


# --- second order ---


@pytest.mark.parametrize(
    "method",
    [
        SecondOrder(solver="exact", damping=RIDGE),
        SecondOrder(curvature="hessian", damping=RIDGE, tolerance=1e-14),
        SecondOrder(damping=RIDGE, tolerance=1e-14),  # equal on a linear model
    ],
    ids=["exact", "cg", "ggn"],
)
def test_second_order_is_one_newton_step_toward_the_retrained_model(
    method: SecondOrder, linear: nn.Module, data: tuple[Tensor, Tensor]
) -> None:
    view = split(data)
    moved = after(method, linear, view)
    step, retrained = copied(linear), copied(linear)
    newton(step, view.retain, steps=1)  # type: ignore[arg-type]
    newton(retrained, view.retain, steps=40)  # type: ignore[arg-type]
    assert (moved - weights(step)).norm() < 1e-10 * weights(step).norm()
    assert (moved - weights(retrained)).norm() < 0.5 * (weights(linear) - weights(retrained)).norm()


def test_second_order_with_true_labels_is_one_newton_step_on_the_corrected_data(
    data: tuple[Tensor, Tensor],
) -> None:
    view = poisoned(data)
    torch.manual_seed(1)
    model = nn.Linear(WIDTH, CLASSES)
    x, y = data
    newton(model, Rows(x, torch.cat([view.forget.y, y[N_FORGET:]])), steps=40)  # type: ignore[attr-defined]
    moved = after(SecondOrder(solver="exact", damping=RIDGE), model, view, "depoisoning")
    step = copied(model)
    newton(step, Rows(x, y), steps=1)
    assert (moved - weights(step)).norm() < 1e-10 * weights(step).norm()


def test_lissa_converges_to_the_solution_with_the_ridge_and_diverges_with_too_small_a_scale() -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(9, 6, generator=generator)
    matrix, b = root.T @ root, torch.randn(6, generator=generator)
    largest = float(torch.linalg.eigvalsh(matrix).max())
    products: Callable[[], Iterator[_solvers.Product]] = lambda: itertools.repeat(lambda v: matrix @ v)  # noqa: E731
    found = _solvers.lissa(products(), b, damping=0.3, scale=0.51 * (largest + 0.3), patience=50, iterations=20_000)
    expected = torch.linalg.solve(matrix + 0.3 * torch.eye(6), b)
    assert found.settled
    assert (found.solution - expected).norm() < 1e-10 * expected.norm()
    too_small = {"damping": 0.3, "scale": 0.49 * (largest + 0.3), "iterations": 20_000}
    assert not _solvers.lissa(products(), b, patience=50, **too_small).settled  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="diverges with scale"):
        _solvers.lissa(products(), b, patience=10_000, **too_small)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [17, 67, 100])  # 67: a lone last example joins the batch before
def test_minibatches_of_lissa_stand_for_all_the_data(size: int, linear: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    """Scaled up, one pass of minibatch products averages to the product of all data, of two parts as of one."""
    view = poisoned(data)
    line, method = Linearized(copied(linear)), SecondOrder(solver="lissa", batch_size=size)
    stay: list[Part] = [view.retain, view.corrected]
    count = sum(1 for part in stay for _ in part.batches(size))
    v = torch.randn(len(line.flat), generator=torch.Generator().manual_seed(3))
    batches = itertools.islice(method._minibatches(line, stay, torch.Generator().manual_seed(0)), count)
    mean = torch.stack([product(v) for product in batches]).mean(0)
    whole = sum((line.product(part, v, "hessian") for part in stay), torch.zeros_like(v))
    torch.testing.assert_close(mean, whole, rtol=1e-12, atol=1e-12)


def test_lissa_on_the_whole_set_is_the_newton_step(linear: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    view = split(data)
    method = SecondOrder(solver="lissa", damping=RIDGE, scale=40.0, patience=40, iterations=20_000)
    moved, direct = (after(m, linear, view) for m in (method, method.model_copy(update={"solver": "exact"})))
    torch.testing.assert_close(moved, direct, rtol=1e-9, atol=1e-11)


def status_of(method: SecondOrder, model: nn.Module, view: View) -> Unlearned:
    done = method.unlearn(model, view, context())  # type: ignore[arg-type]
    assert isinstance(done, Unlearned)
    return done


def test_a_step_is_told_when_it_is_unsettled_or_shortened(linear: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    view, start = split(data), weights(linear)
    short = SecondOrder(damping=RIDGE, tolerance=1e-12)
    assert status_of(short, copied(linear), view).status == "ok"
    assert status_of(short.model_copy(update={"iterations": 2}), copied(linear), view).status == "unsettled"
    assert status_of(SecondOrder(solver="lissa", iterations=5), copied(linear), view).status == "unsettled"
    done = status_of(short.model_copy(update={"max_change": 0.01}), copied(linear), view)
    assert done.status == "shortened"
    assert float((weights(done.model) - start).norm() / start.norm()) == pytest.approx(0.01)
    assert done.notes["relative_change"] > 0.01


def test_the_deadline_ends_the_solvers(linear: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    for method in (SecondOrder(damping=RIDGE), SecondOrder(solver="lissa")):
        late = replace(context(), deadline=0.0)
        done = method.unlearn(copied(linear), split(data), late)  # type: ignore[arg-type]
        assert isinstance(done, Unlearned)
        assert (done.status, done.notes["products"]) == ("unsettled", 0)


def test_negative_curvature_is_told_and_a_factorization_refuses_it() -> None:
    """Two layers, badly fitted on purpose: the Hessian of such a loss has negative eigenvalues."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDTH, 4), nn.Tanh(), nn.Linear(4, CLASSES))
    x = torch.randn(40, WIDTH)
    with torch.no_grad():
        y = model(x).argmin(1)
    view = View(Rows(x[:10], y[:10]), Rows(x[10:], y[10:]))
    method = SecondOrder(curvature="hessian", damping=1e-3, k=None, tolerance=1e-10)
    assert status_of(method, model, view).status == "indefinite"
    with pytest.raises(ValueError, match="not positive definite"):
        status_of(method.model_copy(update={"solver": "exact"}), model, view)


def test_only_the_tail_moves() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(WIDTH, 6), nn.ReLU(), nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, CLASSES))
    x = torch.randn(30, WIDTH)
    view = View(Rows(x[:9], torch.arange(9) % CLASSES), Rows(x[9:], torch.arange(21) % CLASSES))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for method in (FirstOrder(tau=0.1), SecondOrder()):
        model.load_state_dict(before)
        done = method.unlearn(model, view, replace(context(), layers=()))  # type: ignore[arg-type]
        assert isinstance(done, Unlearned)
        moved = {name for name, value in done.model.state_dict().items() if not torch.equal(value, before[name])}
        assert moved == {"2.weight", "2.bias", "3.weight", "3.bias", "4.weight", "4.bias"}


def test_cross_entropy_is_the_loss_that_is_taken_back(linear: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    """After the step the forget set fits worse, as a retrained model's does."""
    view = split(data)
    x, y = view.forget.x, view.forget.y  # type: ignore[attr-defined]
    model = copied(linear)
    before = loop.cross_entropy(model(x), y).item()
    Linearized(model).put(after(SecondOrder(solver="exact", damping=RIDGE), linear, view))
    assert loop.cross_entropy(model(x), y).item() > before
