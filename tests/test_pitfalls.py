"""What is easy to get wrong in single methods and no other test is about; docs/known_faults.md lists them all."""

from __future__ import annotations

import ast
import copy
import itertools
import re
from collections.abc import Callable

import pytest
import torch
from command import ROOT
from torch import nn
from trying import carry_out, flat, linear, network, same, unlearn

from bench.dataview import MeteredView
from bench.interface import Context, Dataset
from methods import _gradients
from methods._grams import input_grams
from methods._importance import importance, importances
from methods.fisher import Fisher
from methods.linear_filtration import LinearFiltration
from methods.munba import bargain
from methods.ssd import SSD

torch.set_num_threads(1)
View = Callable[..., MeteredView]
Make = Callable[..., Context]


def test_every_known_fault_has_its_tests() -> None:
    rows = [line for line in (ROOT / "docs/known_faults.md").read_text().splitlines() if line.startswith("|")]
    named = [
        re.findall(r"`(\w+\.py)::(\w+)`", row) for row in rows if not re.fullmatch(r"\|[-| ]+|\| \w+ \| test \|", row)
    ]
    assert len(named) > 40 and all(named), "a fault without a test"
    for file, test in (pair for pairs in named for pair in pairs):
        tree = ast.parse((ROOT / "tests" / file).read_text())
        assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{file}::{test}"


def test_statistics_are_taken_without_dropout(view: View) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10)).train()
    whole = input_grams(model, view().train)["2"]
    x, _ = next(iter(view().train.batches(300)))
    torch.testing.assert_close(whole, x.flatten(1).double().T @ x.flatten(1).double())


def test_dead_weights_get_no_boundless_noise(view: View, context: Make) -> None:
    model = linear()
    nn.init.zeros_(model[1].weight)
    model[1].bias.data = torch.where(torch.arange(10) == 3, 1000.0, 0.0)  # certain, so that no gradient is left
    noisy = unlearn(Fisher(alpha=1e-6), model, view(), context(build=linear))
    noise = (noisy[1].weight - model[1].weight).detach()
    assert torch.isfinite(noise).all() and float(noise.abs().max()) < 1.0
    assert float(noise.abs().max()) > 0


def test_filtration_of_a_head_that_sums_to_zero_is_told_and_finite(dataset: Dataset, view: View, context: Make) -> None:
    gone = [row for row in range(300) if dataset.train_y[row] == 3]
    model = linear()
    with torch.no_grad():
        model[1].weight -= model[1].weight.mean(0)
        model[1].bias -= model[1].bias.mean()
    done = carry_out(LinearFiltration(), model, view(forget=gone), context(removed_classes=(3,)))
    assert done.status == "ill_conditioned" and torch.isfinite(flat(done.model)).all()


def test_importances_are_those_of_all_batches_of_a_size(view: View, context: Make) -> None:
    """The square of a mean gradient falls with the batch. Closed form: the mean over all choices."""
    model = linear().eval()
    state = SSD(batch_size=1).prepare(copy.deepcopy(model), view(total=6, forget=[]), context())
    single = [_gradients.moments(model, view([row]).forget, 1)[0][0] for row in range(6)]
    assert torch.allclose(state["square.1.weight"], sum(g.square() for g in single) / 6), "the empirical Fisher"
    for size in range(1, 7):
        chosen = [torch.stack(some).mean(0).square() for some in itertools.combinations(single, size)]
        torch.testing.assert_close(
            importance(state, "1.weight", [size]), sum(chosen) / len(chosen), rtol=1e-3, atol=1e-7
        )


@pytest.mark.parametrize("size", [1, 8, 20, 60, 100])
def test_a_forget_set_is_not_important_by_its_size(size: int, view: View, context: Make) -> None:
    """Random forget sets of any size, partial last batches too, are on average as important as all data."""
    model, ctx = network().eval(), context()
    ctx.state = SSD().prepare(copy.deepcopy(model), view(), ctx)
    shares = []
    for seed in range(12):
        rows = torch.randperm(300, generator=torch.Generator().manual_seed(seed))[:size].tolist()
        own, all_ = importances(model, view(rows).forget, ctx.state)
        shares.append(sum(float(v.sum()) for v in own) / sum(float(v.sum()) for v in all_))
    assert sum(shares) / len(shares) == pytest.approx(1.0, abs=0.4)


def test_dead_weights_are_not_dampened_to_nothing(view: View, context: Make) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 10))
    model[1].bias.data[0] = -1e6  # a unit that never answers: importance 0 on all data and on the forget set
    after = unlearn(SSD(alpha=0.5), model, view(), context())
    assert torch.isfinite(flat(after)).all() and not same(after, model)
    assert torch.equal(after[1].weight[0], model[1].weight[0]) and torch.equal(
        after[3].weight[:, 0], model[3].weight[:, 0]
    )


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-4])
def test_orthogonal_gradients_bargain_like_any_others(angle: float) -> None:
    g, h = torch.tensor([2.0, 0.0], dtype=torch.float64), torch.tensor([3.0 * angle, 3.0], dtype=torch.float64)
    a, b = bargain(g, h)
    assert a == pytest.approx(0.5, rel=1e-3) and b == pytest.approx(1 / 3, rel=1e-3)
