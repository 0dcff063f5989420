"""The data that a method gets: only what it declared, every example counted, in a known order."""

from __future__ import annotations

import contextlib
import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench import unlearning
from bench.dataview import OPENS, Images, MeteredPart, MeteredView
from bench.interface import Dataset, Method, Need, Request, UndeclaredRead
from bench.recipe import Recipe
from bench.scenarios import ClassRemoval
from bench.unlearning import Setting

PARTS = tuple(OPENS)


def part_of(dataset: Dataset, count: int = 10, *, augment: bool = False) -> MeteredPart:
    """Every third training example, `count` of them."""
    index = torch.arange(count) * 3
    labels = torch.from_numpy(dataset.train_y)[index]
    return MeteredPart(Images(dataset, "train", "cpu"), index, labels, augment=augment)


@pytest.fixture
def part(dataset: Dataset) -> MeteredPart:
    return part_of(dataset)


@pytest.fixture
def setting(dataset: Dataset, recipe: Recipe) -> Setting:
    def build(seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))

    return Setting.of(dataset, dataset.train_y, recipe, "class_removal", "cpu", build)


@pytest.mark.parametrize("name", PARTS)
def test_only_the_declared_part_can_be_read(part: MeteredPart, name: str) -> None:
    view = MeteredView("mine", OPENS[name], dict.fromkeys(PARTS, part))
    assert getattr(view, name) is part
    for other in PARTS:
        if other != name:
            with pytest.raises(UndeclaredRead, match=f"method mine reads {other} data"):
                getattr(view, other)
    assert sorted(view.refused) == sorted(set(PARTS) - {name})


def test_an_undeclared_read_is_remembered_even_when_swallowed(part: MeteredPart) -> None:
    view = MeteredView("mine", Need.FORGET, {"forget": part, "retain": part})
    with contextlib.suppress(UndeclaredRead):
        len(view.retain)
    assert view.refused == ["retain"]
    assert view.taken() == {"forget": 0, "retain": 0}


def test_a_declared_part_that_does_not_exist_now_says_when_it_does(part: MeteredPart) -> None:
    everything = Need.FORGET | Need.STATISTICS
    with pytest.raises(UndeclaredRead, match="only in prepare"):
        _ = MeteredView("mine", everything, {"forget": part}).train
    with pytest.raises(UndeclaredRead, match="only in unlearn"):
        _ = MeteredView("mine", everything, {"train": part}).forget


class Curious(Method):
    """Declares everything and reads it where it should not."""

    needs = Need.FORGET | Need.RETAIN | Need.VALIDATION | Need.STATISTICS
    prepare_reads: str = "train"
    unlearn_reads: str = "forget"

    def prepare(self, model, data, ctx):  # type: ignore[no-untyped-def]
        len(getattr(data, self.prepare_reads))
        return {}

    def unlearn(self, model, data, ctx):  # type: ignore[no-untyped-def]
        len(getattr(data, self.unlearn_reads))
        return model


def test_the_training_set_exists_in_prepare_only(setting: Setting, dataset: Dataset) -> None:
    model, request = setting.build(0), ClassRemoval().requests(dataset.train_y, 10, 0)[0]
    unlearning.prepare(setting, "curious", Curious(), model, 0)
    for name in ("forget", "retain", "validation"):
        with pytest.raises(UndeclaredRead):
            unlearning.prepare(setting, "curious", Curious(prepare_reads=name), model, 0)
    run = {"state": {}, "seed": 0, "original_seed": 0}
    with pytest.raises(UndeclaredRead):
        unlearning.unlearn(setting, "curious", Curious(unlearn_reads="train"), model, request, **run)


class Droops(Method):
    """Returns a model whose weights are what dropout left over."""

    def prepare(self, model, data, ctx):  # type: ignore[no-untyped-def]
        return {"left": torch.nn.functional.dropout(torch.ones(50))}

    def unlearn(self, model, data, ctx):  # type: ignore[no-untyped-def]
        with torch.no_grad():
            torch.nn.functional.dropout(model[1].weight, inplace=True)
        return model


def test_dropout_follows_the_seed_of_the_run(setting: Setting, dataset: Dataset) -> None:
    model, request = setting.build(0), ClassRemoval().requests(dataset.train_y, 10, 0)[0]

    def run(seed: int) -> list[torch.Tensor]:
        state, _, _ = unlearning.prepare(setting, "droops", Droops(), model, seed)
        arguments = {"state": {}, "seed": seed, "original_seed": 0}
        done = unlearning.unlearn(setting, "droops", Droops(), model, request, **arguments)
        return [state["left"], done.model[1].weight]

    first, again, other = run(1), run(1), run(2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_the_parts_of_a_request_hold_its_samples_and_no_test_data(setting: Setting, dataset: Dataset) -> None:
    [request] = ClassRemoval(removed=(3,)).requests(dataset.train_y, 10, 0)
    view = unlearning.view_of(setting, "curious", Curious(), request)
    assert [len(view.forget), len(view.retain), len(view.validation)] == [60, 540, len(dataset.validation_y)]
    assert all((y == 3).all() for _, y in view.forget.batches(32))
    assert all((y != 3).all() for _, y in view.retain.batches(32))
    assert set(setting.images) == {"train", "validation"}


@given(st.integers(0, 40), st.integers(1, 50), st.integers(1, 3))
def test_every_example_is_handed_out_once_a_pass_and_counted(
    dataset: Dataset, count: int, size: int, passes: int
) -> None:
    part = part_of(dataset, count)
    for _ in range(passes):
        batches = list(part.batches(size))
        assert torch.equal(torch.cat([y for _, y in batches]) if batches else torch.empty(0), part.labels)
        assert all(len(x) == len(y) for x, y in batches)
        assert all(len(y) == size for _, y in batches[:-2])
        assert all(len(y) <= size + 1 for _, y in batches)
    assert part.taken == passes * count


def test_only_what_was_taken_is_counted(part: MeteredPart) -> None:
    batches = part.batches(4)
    assert part.taken == 0
    next(batches)
    assert part.taken == 4
    len(part)
    assert part.taken == 4


def test_a_last_example_of_its_own_joins_the_batch_before(dataset: Dataset) -> None:
    assert [len(y) for _, y in part_of(dataset, 9).batches(4)] == [4, 5]
    assert [len(y) for _, y in part_of(dataset, 1).batches(4)] == [1]


def test_images_are_normalized_and_keep_their_labels(dataset: Dataset, part: MeteredPart) -> None:
    [(x, y)] = part.batches(100)
    rows = np.arange(10) * 3
    assert x.dtype == torch.float32
    assert np.allclose(x.numpy() * dataset.std[0] + dataset.mean[0], dataset.train_x[rows], atol=1e-5)
    assert np.array_equal(y.numpy(), dataset.train_y[rows])


def test_without_a_generator_the_order_is_that_of_the_data_set(part: MeteredPart) -> None:
    first, again = ([x for x, _ in part.batches(3)] for _ in range(2))
    assert torch.equal(torch.cat(first), part.images.take(torch.arange(len(part))))
    assert torch.equal(torch.cat(first), torch.cat(again))


def test_a_generator_alone_decides_the_order(part: MeteredPart) -> None:
    def order(seed: int) -> torch.Tensor:
        return torch.cat([x for x, _ in part.batches(3, torch.Generator().manual_seed(seed))])

    torch.manual_seed(0)
    first = order(7)
    torch.manual_seed(1)
    assert torch.equal(order(7), first)
    assert not torch.equal(order(8), first)
    assert torch.equal(order(8).sum((1, 2, 3)).sort()[0], first.sum((1, 2, 3)).sort()[0])


def test_a_generator_moves_on_between_passes(part: MeteredPart) -> None:
    generator = torch.Generator().manual_seed(7)
    first, second = (torch.cat([x for x, _ in part.batches(3, generator)]) for _ in range(2))
    assert not torch.equal(first, second)


def test_augmentation_needs_a_generator_and_a_recipe_that_augments(dataset: Dataset, part: MeteredPart) -> None:
    with pytest.raises(ValueError, match="pass a generator"):
        next(part_of(dataset, augment=True).batches(4, augment=True))
    plain = torch.cat([x for x, _ in part.batches(4, torch.Generator().manual_seed(0), augment=True)])
    augmented = part_of(dataset, augment=True)
    moved = torch.cat([x for x, _ in augmented.batches(4, torch.Generator().manual_seed(0), augment=True)])
    unasked = torch.cat([x for x, _ in augmented.batches(4, torch.Generator().manual_seed(0))])
    assert torch.equal(unasked, plain)
    assert not torch.equal(moved, plain)


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_of_nothing_is_refused(part: MeteredPart, size: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        next(part.batches(size))


def test_true_labels_exist_in_depoisoning_only(dataset: Dataset, setting: Setting) -> None:
    told = type("Told", (Method,), {"__module__": __name__, "needs": Need.CORRECTED | Need.FORGET})()
    plain = Request(np.arange(3), np.arange(3, 600), np.arange(3))
    with pytest.raises(UndeclaredRead, match="only in depoisoning"):
        _ = unlearning.view_of(setting, "told", told, plain).corrected
    wrong = (dataset.train_y[:3] + 1) % 10
    poisoned = dataclasses.replace(setting, labels=np.concatenate([wrong, dataset.train_y[3:]]))
    view = unlearning.view_of(dataclasses.replace(poisoned, scenario="depoisoning"), "told", told, plain)
    (_, y), (_, true) = next(iter(view.forget.batches(3))), next(iter(view.corrected.batches(3)))
    assert y.tolist() == wrong.tolist()
    assert true.tolist() == dataset.train_y[:3].tolist()
    assert view.taken() == {"forget": 3, "retain": 0, "validation": 0, "corrected": 3}
