"""Methods that train a model of their own: what they return, against training that never saw the data."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from trying import carry_out, flat, linear, network, same, unlearn

from bench import ensemble, loop, seeds
from bench.dataview import MeteredView
from bench.interface import Context
from bench.recipe import Recipe
from methods.oracle_ceiling import OracleCeiling
from methods.sisa import SISA

torch.set_num_threads(1)
View = Callable[..., MeteredView]
Make = Callable[..., Context]


# --- what the interface offers for it ---


def test_a_part_of_a_part_holds_those_rows_and_counts_for_both(view: View) -> None:
    part = view().retain
    some = part.only(torch.tensor([7, 299, 61, 70]))
    assert some.rows.tolist() == [61, 70, 299], "row 7 is not in the part"
    x, y = next(iter(some.batches(8)))
    whole, labels = next(iter(view().retain.batches(240)))
    places = [part.rows.tolist().index(row) for row in some.rows.tolist()]
    assert torch.equal(x, whole[places]) and torch.equal(y, labels[places])
    assert part.taken == some.taken == 3
    assert len(part.only(torch.tensor([], dtype=torch.int64))) == 0


def test_an_ensemble_answers_with_the_mean_of_the_probabilities() -> None:
    members = [network(seed).eval() for seed in range(3)]
    x = torch.randn(5, 1, 8, 8)
    wanted = torch.stack([torch.softmax(member(x), 1) for member in members]).mean(0)
    torch.testing.assert_close(torch.softmax(ensemble.Ensemble(members).eval()(x), 1), wanted)
    certain = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.constant_(certain[1].bias, 0.0)
    certain[1].bias.data[3] = 1e6
    assert torch.isfinite(ensemble.Ensemble([certain, *members])(x)).all()


def test_weights_say_by_their_names_whether_they_are_an_ensembles() -> None:
    one, three = network(), ensemble.Ensemble([network(seed) for seed in range(3)])
    assert same(ensemble.shaped(network, one.state_dict()), network())
    again = ensemble.shaped(network, three.state_dict())
    again.load_state_dict(three.state_dict())
    assert isinstance(again, ensemble.Ensemble) and same(again, three)
    own = nn.ModuleDict({"members": nn.ModuleList([nn.Linear(2, 2)])})
    assert ensemble.shaped(lambda: own, own.state_dict()) is own, "a network may call its parts members"


# --- SISA ---


def members(model: nn.Module) -> list[nn.Module]:
    assert isinstance(model, ensemble.Ensemble)
    return list(model.members)


def test_sisa_returns_what_training_without_the_data_gives(view: View, context: Make) -> None:
    method, ctx, data = SISA(shards=3, slices=2), context(), view(forget=[5, 6, 200])
    done = carry_out(method, network(), data, ctx)
    shard, piece = ctx.state["shard"], ctx.state["slice"]
    touched = {int(shard[row]) for row in (5, 6, 200)}
    trained, state = ctx.state, done.state
    assert state is not None and done.notes["shards"] == len(touched) > 0
    for s, member in enumerate(members(done.model)):
        before = {k.removeprefix(f"{s}.2."): v for k, v in trained.items() if k.startswith(f"{s}.2.")}
        stays = all(torch.equal(before[name], value) for name, value in member.state_dict().items())
        assert stays == (s not in touched), "a shard that lost nothing is as it was, bit for bit"
        anew = context().new_model(s).train()
        for step in (1, 2):  # from the first weights, on the slices without the forgotten data
            own = data.retain.only(((shard == s) & (piece <= step)).nonzero()[:, 0])
            seed, epochs = seeds.derive(ctx.seed, s, step), method.epochs(ctx.recipe.epochs)[step - 1]
            with loop.seeded(seed, "cpu"):
                loop.fit(anew, own, ctx.recipe, torch.Generator().manual_seed(seed), epochs=epochs)
        assert same(anew, member)


def test_one_shard_and_slice_is_retraining(view: View, context: Make) -> None:
    ctx, data = context(), view()
    [alone] = members(unlearn(SISA(shards=1, slices=1), network(), data, ctx))
    anew = context().new_model().train()
    order = torch.Generator().manual_seed(seeds.derive(ctx.seed, 0, 1))
    with loop.seeded(seeds.derive(ctx.seed, 0, 1), "cpu"):
        loop.fit(anew, view().retain, ctx.recipe, order)
    assert same(anew, alone)


def test_requests_to_sisa_chain(view: View, context: Make) -> None:
    """Two requests, one after the other, and both at once: the same networks."""
    method, ctx = SISA(shards=4, slices=3), context()
    ctx.state = method.prepare(network(), view(), ctx)
    first = method.unlearn(network(), view(forget=[3, 50]), ctx)
    second = method.unlearn(first.model, view(forget=[3, 50, 120]), replace(ctx, state=first.state))
    assert same(second.model, method.unlearn(network(), view(forget=[3, 50, 120]), ctx).model)
    assert first.notes["share"] > 0 and second.notes["shards"] == 1, "the first request is not served again"
    nothing = method.unlearn(network(), view(forget=[]), ctx)
    assert nothing.notes == {"shards": 0, "share": 0.0}


@given(st.integers(1, 200), st.integers(1, 1000))
def test_slices_take_the_passes_of_one_training_and_none_is_left_out(total: int, slices: int) -> None:
    epochs = SISA(slices=slices).epochs(total)
    passes = sum(step * count for step, count in enumerate(epochs, start=1))
    even = 2 * total / (slices + 1)
    assert len(epochs) == slices and passes == total * slices, "exactly those of the recipe"
    assert epochs[-1] >= 1, "the last step alone trains on the last slice"
    assert all(max(0, even - 1) <= count <= even + 1 for count in epochs), "and they are even"
    assert even % 1 or set(epochs) == {even}


def test_a_short_recipe_trains_on_every_slice(view: View, context: Make, recipe: Recipe) -> None:
    ctx, data = context(recipe=recipe.model_copy(update={"epochs": 1})), view()
    SISA(shards=3, slices=5).prepare(network(), data, ctx)
    assert data.taken()["train"] == 300, "one epoch is one pass over each shard"


@pytest.mark.parametrize(("slices", "share"), [(1, 1.0), (2, 5 / 6), (4, 0.75), (8, 17 / 24)])
def test_a_random_example_costs_the_share_of_a_shard_that_the_paper_says(slices: int, share: float) -> None:
    total = 1000 * (slices + 1)
    each = [step * count for step, count in enumerate(SISA(slices=slices).epochs(total), start=1)]
    redone = [sum(each[first:]) / sum(each) for first in range(slices)]  # an example in each slice alike
    assert math.isclose(sum(redone) / slices, share) and math.isclose(share, (2 * slices + 1) / (3 * slices))


def test_a_shard_that_lost_everything_is_refused_in_one_line(view: View, context: Make) -> None:
    with pytest.raises(ValueError, match="too few to train on; take fewer shards"):
        unlearn(SISA(shards=200, slices=1), network(), view(), context())


# --- the ceiling ---


def test_the_ceiling_with_the_original_as_oracle_moves_nothing(view: View, context: Make) -> None:
    original = linear().train()
    loop.fit(original, view().train, context().recipe, torch.Generator().manual_seed(0))
    still = OracleCeiling().match(copy.deepcopy(original), original.eval(), view(), context())
    assert float((flat(still) - flat(original)).abs().max()) == 0.0


def test_the_ceiling_comes_near_a_retrained_model(view: View, context: Make, recipe: Recipe) -> None:
    ctx = context(build=linear, recipe=recipe.model_copy(update={"epochs": 8}))
    original = linear().train()
    loop.fit(original, view().train, ctx.recipe, torch.Generator().manual_seed(0))
    oracle = ctx.new_model().train()
    loop.fit(oracle, view().retain, ctx.recipe, torch.Generator().manual_seed(ctx.seed))
    x, _ = next(iter(view().forget.batches(60)))

    def gap(model: nn.Module) -> float:
        with torch.no_grad():
            return float((model.eval()(x) - oracle.eval()(x)).square().mean())

    assert gap(unlearn(OracleCeiling(lr=0.01, epochs=20), original, view(), ctx)) < 0.1 * gap(original)
