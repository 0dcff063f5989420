"""Curvature products against dense Jacobians and Hessians, and the solvers against dense solves, in float64."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rows import Rows
from torch import Tensor, nn

from bench.architectures import digits_cnn
from methods._curvature import Curvature, Linearized
from methods._solvers import conjugate_gradients, exact

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parent.parent
ALL: tuple[Curvature, ...] = ("ggn", "identity", "hessian")


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def convolutional() -> nn.Module:
    """A net with BatchNorm whose statistics are not those of a fresh one."""
    net = digits_cnn.build(1, 8, 3, width=2).train()
    net(torch.randn(64, 1, 8, 8) * 2 + 1)
    return net


def rows(side: int, n: int = 21) -> Rows:
    return Rows(torch.randn(n, 1, side, side), torch.randint(3, (n,)))


NETS = {"mlp": (mlp, 4), "convolutional": (convolutional, 8)}


def dense(net: nn.Module, part: Rows, curvature: Curvature) -> Tensor:
    """The matrix by torch.func, example by example."""
    values = {name: p.detach() for name, p in net.named_parameters()}
    flat = torch.cat([v.flatten() for v in values.values()])

    def logits(flat: Tensor) -> Tensor:
        pieces = flat.split([v.numel() for v in values.values()])
        named = {name: piece.view_as(v) for piece, (name, v) in zip(pieces, values.items(), strict=True)}
        out: Tensor = torch.func.functional_call(net, named, (part.x,))
        return out

    if curvature == "hessian":
        return torch.autograd.functional.hessian(
            lambda flat: nn.functional.cross_entropy(logits(flat), part.y, reduction="sum"), flat
        )
    jacobian = torch.func.jacrev(logits)(flat)
    p = logits(flat).softmax(1)
    weight = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    if curvature == "identity":
        weight = torch.eye(3).expand(len(part), 3, 3)
    return torch.einsum("nap,nab,nbq->pq", jacobian, weight, jacobian)


@pytest.mark.parametrize("curvature", ALL)
@pytest.mark.parametrize("net", NETS)
def test_products_are_those_of_the_dense_matrix(net: str, curvature: Curvature) -> None:
    build, side = NETS[net]
    model, part = build().eval(), rows(side)
    linear = Linearized(model, None)
    matrix = dense(model, part, curvature)
    v = torch.randn(len(linear.flat))
    for size in (1, 4, 256):
        got = linear.product(part, v, curvature, size)
        assert (got - matrix @ v).norm() < 1e-12 * (matrix @ v).norm()
    assert part.taken == 3 * len(part)


@pytest.mark.parametrize("net", NETS)
def test_the_gradient_is_that_of_the_summed_loss(net: str) -> None:
    build, side = NETS[net]
    model, part = build().eval(), rows(side)
    loss = nn.functional.cross_entropy(model(part.x), part.y, reduction="sum")
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
    for size in (1, 4, 256):
        torch.testing.assert_close(Linearized(model).gradient(part, size), expected, rtol=1e-12, atol=1e-12)


def test_products_agree_with_torch_func() -> None:
    model, part = convolutional().eval(), rows(8)
    linear = Linearized(model)
    values = {name: p.detach() for name, p in model.named_parameters()}
    v = torch.randn(len(linear.flat))
    pieces = v.split([p.numel() for p in values.values()])
    tangents = {name: piece.view_as(p) for piece, (name, p) in zip(pieces, values.items(), strict=True)}

    def logits(values: dict[str, Tensor]) -> Tensor:
        out: Tensor = torch.func.functional_call(model, values, (part.x,))
        return out

    z, moved = torch.func.jvp(logits, (values,), (tangents,))
    _, back = torch.func.vjp(logits, values)
    p = z.softmax(1)
    (expected,) = back(p * moved - p * (p * moved).sum(1, keepdim=True))
    wanted = torch.cat([g.flatten() for g in expected.values()])
    torch.testing.assert_close(linear.product(part, v), wanted, rtol=1e-12, atol=1e-12)


def test_gauss_newton_curvature_is_symmetric_and_positive() -> None:
    linear, part = Linearized(convolutional()), rows(8)
    for curvature in ("ggn", "identity"):
        u, v = torch.randn(2, len(linear.flat))
        left, right = u @ linear.product(part, v, curvature), v @ linear.product(part, u, curvature)
        assert float((left - right).abs()) < 1e-12 * float(left.abs() + 1)
        assert float(v @ linear.product(part, v, curvature)) >= 0


@pytest.mark.parametrize("curvature", ALL)
def test_only_the_parameters_named_move(curvature: Curvature) -> None:
    model, part = mlp().eval(), rows(4)
    whole, last = Linearized(model), Linearized(model, ["5.weight", "5.bias"])
    count = len(last.flat)
    padded = torch.cat([torch.zeros(len(whole.flat) - count), torch.randn(count)])
    expected = whole.product(part, padded, curvature)[-count:]
    torch.testing.assert_close(last.product(part, padded[-count:], curvature), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(last.gradient(part), whole.gradient(part)[-count:], rtol=1e-12, atol=1e-12)
    before = model[1].weight.detach().clone()
    last.put(torch.zeros(count))
    assert model[5].weight.abs().max() == 0 and torch.equal(before, model[1].weight)


def test_nothing_of_the_model_changes_but_its_mode() -> None:
    model, part = convolutional(), rows(8)
    model[0].weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    linear = Linearized(model)
    for curvature in ALL:
        linear.product(part, torch.ones_like(linear.flat), curvature)
    linear.gradient(part)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not model.training and not model[0].weight.requires_grad and model[-1].weight.requires_grad
    assert all(p.grad is None for p in model.parameters())


def test_the_point_stays_when_the_weights_move() -> None:
    model, part = mlp(), rows(4)
    linear = Linearized(model)
    gradient, start = linear.gradient(part), linear.flat.clone()
    linear.put(start + 1)
    assert torch.equal(linear.gradient(part), gradient)
    assert torch.equal(linear.flat, start)
    assert torch.equal(Linearized(model).flat, start + 1)


def test_an_unused_parameter_has_no_gradient_and_no_curvature() -> None:
    model, part = mlp(), rows(4)
    plain = Linearized(model)
    model.register_parameter("idle", nn.Parameter(torch.ones(2)))
    linear = Linearized(model, [*plain.names, "idle"])
    for curvature in ALL:
        assert torch.equal(linear.product(part, torch.ones_like(linear.flat), curvature)[-2:], torch.zeros(2))
    torch.testing.assert_close(linear.gradient(part), torch.cat([plain.gradient(part), torch.zeros(2)]))


def test_single_precision_stays_single() -> None:
    model, part = mlp().float(), rows(4)
    part.x = part.x.float()
    linear = Linearized(model)
    assert linear.gradient(part).dtype == torch.float32
    assert linear.product(part, torch.ones_like(linear.flat)).dtype == torch.float32


def test_wrong_requests_are_refused() -> None:
    linear, part = Linearized(mlp()), rows(4)
    with pytest.raises(ValueError, match="expected a vector of"):
        linear.product(part, torch.ones(3))
    with pytest.raises(ValueError, match="got 'fisher'"):
        linear.product(part, linear.flat, "fisher")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no parameter 9.weight"):
        Linearized(mlp(), ["9.weight"])
    with pytest.raises(ValueError, match="no parameter may move"):
        Linearized(mlp(), [])


def test_no_compiler_is_imported() -> None:
    """A second of CPU in every process that unlearns."""
    code = """
import sys, torch
from test_curvature import convolutional, rows
from methods._curvature import Linearized
torch.set_default_dtype(torch.float64)
linear, part = Linearized(convolutional()), rows(8)
linear.gradient(part)
for curvature in ("ggn", "identity", "hessian"):
    linear.product(part, linear.flat, curvature)
sys.exit("torch._dynamo" in sys.modules)
"""
    path = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], env=path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- solvers ---


def positive(p: int = 40) -> Tensor:
    """A badly conditioned positive semi-definite matrix, of lower rank than its size."""
    factor = torch.randn(p, p // 2) * torch.logspace(-1, 1, p // 2)
    return factor @ factor.T


def test_one_run_solves_for_all_shifts() -> None:
    matrix, b = positive(), torch.randn(40)
    shifts = (3.0, 0.5, 20.0, 1e6, 0.5)
    found = conjugate_gradients(lambda v: matrix @ v, b, shifts, tolerance=1e-14, iterations=500)
    assert not found.indefinite
    assert found.residual <= 1e-14
    for shift, x in zip(shifts, found.solutions, strict=True):
        expected = torch.linalg.solve(matrix + shift * torch.eye(40), b)
        assert float((x - expected).norm() / expected.norm()) < 1e-10
        assert float((exact(lambda v: matrix @ v, b, shift) - expected).norm() / expected.norm()) < 1e-10


def test_every_iteration_is_one_product_and_the_residual_is_true() -> None:
    matrix, b = positive(), torch.randn(40)
    products = []

    def product(v: Tensor) -> Tensor:
        products.append(v)
        return matrix @ v

    found = conjugate_gradients(product, b, (4.0, 1.0), tolerance=0.0, iterations=7)
    assert found.iterations == len(products) == 7
    rests = [b - matrix @ x - shift * x for shift, x in zip((4.0, 1.0), found.solutions, strict=True)]
    assert found.residuals == pytest.approx([float(rest.norm() / b.norm()) for rest in rests], rel=1e-10)
    assert found.residual == found.residuals[1] > found.residuals[0] > 1e-6
    loose = conjugate_gradients(product, b, (1.0,), tolerance=0.1, iterations=100)
    assert loose.residual <= 0.1 and loose.iterations < 40


def test_negative_curvature_is_detected() -> None:
    matrix = torch.diag(torch.tensor([3.0, 2.0, -1.0]))
    found = conjugate_gradients(lambda v: matrix @ v, torch.ones(3), (0.5, 2.0), tolerance=1e-10, iterations=50)
    assert found.indefinite
    assert torch.isfinite(found.solutions).all()
    damped = conjugate_gradients(lambda v: matrix @ v, torch.ones(3), (1.5, 2.0), tolerance=1e-10, iterations=50)
    assert not damped.indefinite
    torch.testing.assert_close(damped.solutions[0], torch.tensor([1 / 4.5, 1 / 3.5, 2.0]))
    broken = conjugate_gradients(lambda v: v * float("nan"), torch.ones(3), (1.0,), tolerance=1e-10, iterations=50)
    assert broken.indefinite and broken.iterations == 0
    with pytest.raises(ValueError, match="raise the damping"):
        exact(lambda v: matrix @ v, torch.ones(3), 0.5)


def test_nothing_to_solve_and_nothing_to_spend_give_zero() -> None:
    matrix = positive()
    still = conjugate_gradients(lambda v: matrix @ v, torch.zeros(40), (1.0, 2.0), tolerance=1e-2, iterations=30)
    assert torch.equal(still.solutions, torch.zeros(2, 40))
    assert (still.iterations, still.residual, still.indefinite) == (0, 0.0, False)
    poor = conjugate_gradients(lambda v: matrix @ v, torch.ones(40), (1.0,), tolerance=1e-2, iterations=0)
    assert torch.equal(poor.solutions, torch.zeros(1, 40)) and poor.residual == 1
    with pytest.raises(ValueError, match="not finite"):
        conjugate_gradients(lambda v: v, torch.full((3,), float("inf")), (1.0,), tolerance=1e-2, iterations=30)


def test_a_watcher_can_stop() -> None:
    matrix, seen = positive(), []

    def watch(done: int, residual: float) -> bool:
        seen.append((done, residual))
        return done == 3

    found = conjugate_gradients(lambda v: matrix @ v, torch.ones(40), (1.0,), 0.0, 30, watch)
    assert found.iterations == 3
    assert [done for done, _ in seen] == [0, 1, 2, 3]
    assert seen[0][1] == 1 and seen[3][1] == found.residual


def test_conjugate_gradients_on_a_network_find_the_dense_solution() -> None:
    model, part = mlp(), rows(4)
    linear = Linearized(model)
    b = linear.gradient(part)
    found = conjugate_gradients(lambda v: linear.product(part, v), b, (0.1, 1.0), tolerance=1e-13, iterations=400)
    matrix = dense(model.eval(), part, "ggn")
    for shift, x in zip((0.1, 1.0), found.solutions, strict=True):
        expected = torch.linalg.solve(matrix + shift * torch.eye(len(b)), b)
        assert float((x - expected).norm() / expected.norm()) < 1e-10
