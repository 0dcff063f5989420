"""What a method cost: memory to the byte, whatever ran before, and time that leaves nothing out."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import pytest
import torch

from bench import ledger, registry, training, unlearning
from bench.interface import Dataset
from bench.ledger import PeakMemory
from bench.recipe import Recipe
from bench.scenarios import ClassRemoval

KB = 256  # float32 numbers


def peak(work: Callable[[], object]) -> int:
    with PeakMemory() as memory:
        work()
    return memory.peak


def test_tensors_alive_together_add_up() -> None:
    def work() -> None:
        kept = [torch.zeros(KB), torch.ones(2 * KB)]
        kept.append(torch.zeros(KB, dtype=torch.float64))

    assert peak(work) == (1 + 2 + 2) * 1024


def test_a_tensor_that_has_gone_no_longer_counts() -> None:
    def work() -> None:
        for _ in range(5):
            torch.zeros(3 * KB)
        torch.zeros(2 * KB)

    assert peak(work) == 3 * 1024


def test_the_peak_is_the_most_at_any_time() -> None:
    with PeakMemory() as memory:
        large = torch.zeros(4 * KB)
        del large
        small = torch.zeros(KB)
        assert memory.alive == 1024
    assert memory.peak == 4 * 1024
    assert len(small) == KB


def test_views_and_in_place_operations_cost_nothing() -> None:
    def work() -> None:
        x = torch.zeros(4, KB)
        views = [x.t(), x[1], x.view(-1), x.reshape(2, -1), x.detach(), x.unsqueeze(0).expand(9, -1, -1)]
        views[0].add_(1).mul_(2).clamp_(0, 1)
        x[2:] = 1.0

    assert peak(work) == 4 * 1024


def test_what_was_there_before_is_left_out() -> None:
    x = torch.zeros(8 * KB)

    def work() -> None:
        x.add_(1)
        x.view(8, KB)[0].mul_(2)

    assert peak(work) == 0


def test_an_operation_counts_its_result() -> None:
    a, b = torch.zeros(KB), torch.zeros(KB)
    assert peak(lambda: a + b) == 1024


def test_gradients_count_as_long_as_they_are_kept() -> None:
    weight = torch.zeros(KB, requires_grad=True)

    def work() -> None:
        (weight * 2).sum().backward()
        torch.zeros(3 * KB)
        weight.grad = None
        torch.zeros(3 * KB)

    assert peak(work) == (1 + 3) * 1024
    assert peak(work) == peak(work)


@pytest.fixture(scope="module")
def measure(dataset: Dataset, recipe: Recipe) -> Callable[[str], int]:
    """Peak bytes of a method's request, by its name."""
    build = registry.load("architectures", "digits_cnn")
    setting = unlearning.Setting.of(
        dataset, dataset.train_y, recipe, "class_removal", "cpu", lambda seed: training.new_model(build, dataset, seed)
    )
    [request] = ClassRemoval().requests(dataset.train_y, 10, 0)
    model = setting.build(0)

    def of(name: str) -> int:
        method = registry.load("methods", name)()
        run = {"state": {}, "seed": 1, "original_seed": 0}
        meter = ledger.PeakMemory()
        ledger.settle()
        unlearning.unlearn(setting, name, method, model, request, meter=meter, **run)
        return meter.peak

    return of


def test_memory_does_not_depend_on_which_method_ran_before(measure: Callable[[str], int]) -> None:
    names = ["scrub", "retrain", "neg_grad"]
    alone = measure("scrub")
    forward = {name: measure(name) for name in names}
    backward = {name: measure(name) for name in reversed(names)}
    assert forward == backward
    assert forward["scrub"] == alone
    assert len(set(forward.values())) == len(names)


def test_time_is_that_of_the_work_alone() -> None:
    result, seconds = ledger.timed(lambda: time.sleep(0.05) or "done", "cpu")
    assert result == "done"
    assert 0.05 <= seconds < 0.5


@pytest.mark.parametrize("collecting", [True, False])
def test_tensors_in_cycles_count_alike_whenever_the_collector_runs(collecting: bool) -> None:
    def work() -> None:
        for _ in range(5):
            one: list[object] = [torch.zeros(KB)]
            one.append(one)
            del one
            if collecting:
                gc.collect()

    gc.disable()
    try:
        assert peak(work) == 4 * KB
    finally:
        gc.enable()
