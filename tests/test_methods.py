"""The built-in methods against identities: what is equal bit for bit, what must not move, what must not be read."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench import config, loop, plan, registry
from bench.dataview import Images, MeteredPart, MeteredView
from bench.interface import Context, Dataset, Method, Need, Unlearned, UsageError
from bench.recipe import Recipe, load_recipe
from methods import _layers, _rewind
from methods._rewind import Checkpoint
from methods.cf_k import CFk
from methods.eu_k import EUk
from methods.fine_tune import FineTune
from methods.neg_grad import NegGrad
from methods.original import Original
from methods.retrain import Retrain
from methods.scrub import Scrub, divergence

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parent.parent
NAMES = ("cf_k", "eu_k", "fine_tune", "neg_grad", "original", "pgu", "retrain", "scrub")
SHORT: dict[str, dict[str, Any]] = {
    "cf_k": {"epochs": 1},
    "eu_k": {"epochs": 1},
    "fine_tune": {"epochs": 2},
    "neg_grad": {"epochs": 2},
    "pgu": {"epochs": 2, "lr": 1.0},
    "scrub": {"rewind": True},
}
PARTS = Need.FORGET | Need.RETAIN | Need.VALIDATION | Need.STATISTICS


@pytest.fixture(scope="module")
def digits() -> Dataset:
    dataset: Dataset = registry.load("datasets", "digits")()
    return dataset


@pytest.fixture(scope="module")
def images(digits: Dataset) -> dict[str, Images]:
    return {part: Images(digits, part, "cpu") for part in ("train", "validation")}


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("digits", {"epochs": 2})


def build(seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    net: nn.Module = registry.load("architectures", "digits_cnn")(channels=1, size=8, classes=10)
    return net


@pytest.fixture(scope="module")
def original(images: dict[str, Images], digits: Dataset) -> nn.Module:
    model = build().train()
    part = MeteredPart(images["train"], torch.arange(600), torch.from_numpy(digits.train_y))
    loop.fit(model, part, load_recipe("digits", {"epochs": 4}), torch.Generator().manual_seed(0))
    return model.eval()


@pytest.fixture
def view(images: dict[str, Images], digits: Dataset) -> Callable[..., MeteredView]:
    """A view that opens `needs`, with the first `forget` training samples to go."""

    def make(needs: Need, forget: int = 60) -> MeteredView:
        def part(name: str, rows: np.ndarray) -> MeteredPart:
            return MeteredPart(images[name], torch.from_numpy(rows), torch.from_numpy(digits.labels(name)[rows]))

        every = np.arange(600)
        parts = {"forget": part("train", every[:forget]), "retain": part("train", every[forget:])}
        parts |= {"train": part("train", every), "validation": part("validation", np.arange(400))}
        return MeteredView("method", needs, parts)

    return make


@pytest.fixture
def context(recipe: Recipe) -> Callable[..., Context]:
    def make(seed: int = 0, **changes: Any) -> Context:
        ctx = Context(
            device="cpu",
            seed=seed,
            generator=torch.Generator().manual_seed(seed),
            recipe=recipe,
            classes=10,
            scenario="sample_removal",
            new_model=lambda: build(seed + 100),
            initial_model=build,
        )
        return replace(ctx, **changes)

    return make


def unlearn(method: Method, model: nn.Module, view: MeteredView, ctx: Context) -> Unlearned:
    ctx.state = method.prepare(copy.deepcopy(model), view, ctx) if Need.STATISTICS in method.reads() else {}
    result = method.unlearn(copy.deepcopy(model), view, ctx)
    return result if isinstance(result, Unlearned) else Unlearned(result)


def same(a: nn.Module, b: nn.Module) -> bool:
    """Whether all parameters and buffers agree bit for bit."""
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def distance(a: nn.Module, b: nn.Module) -> float:
    return sum(float((p - q).detach().norm()) for p, q in zip(a.parameters(), b.parameters(), strict=True))


# --- every method ---


def test_methods_can_be_listed_without_torch() -> None:
    code = (
        "from bench import registry; import sys;"
        "[registry.load('methods', n) for n in registry.names('methods')];"
        "assert 'torch._C' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


@pytest.mark.parametrize("name", NAMES)
def test_every_method_reads_what_it_declares_and_leaves_a_clean_model(
    name: str, original: nn.Module, view: Callable[..., MeteredView], context: Callable[..., Context]
) -> None:
    method = registry.load("methods", name)(**SHORT.get(name, {}))
    model, data = copy.deepcopy(original), view(method.reads())
    model.get_parameter("1.bias").requires_grad_(False)
    before = copy.deepcopy(model)
    first = unlearn(method, model, data, context(3))
    again = unlearn(method, model, view(method.reads()), context(3))
    assert same(model, before)
    assert same(first.model, again.model)
    read = {part for part, count in data.taken().items() if count}
    assert read == {word.replace("statistics", "train") for word in method.reads().words()}
    assert not first.model.training
    assert all(bool(p.isfinite().all()) and p.grad is None for p in first.model.parameters())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in first.model.modules())
    if name != "retrain":
        assert [p.requires_grad for p in first.model.parameters()] == [p.requires_grad for p in model.parameters()]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("original", "retrain")])
def test_zero_budget_is_the_identity(
    name: str, original: nn.Module, view: Callable[..., MeteredView], context: Callable[..., Context]
) -> None:
    cls = registry.load("methods", name)
    assert same(unlearn(cls(**{cls.budget: 0}), original, view(PARTS), context()).model, original)


@pytest.mark.parametrize("name", ["neg_grad", "pgu", "scrub"])
def test_an_empty_forget_set_is_a_clear_error(
    name: str, original: nn.Module, view: Callable[..., MeteredView], context: Callable[..., Context]
) -> None:
    with pytest.raises(ValueError, match="nothing to forget"):
        unlearn(registry.load("methods", name)(), original, view(PARTS, forget=0), context())


@pytest.mark.parametrize("name", [name for name in NAMES if name != "original"])
def test_another_seed_gives_another_model(
    name: str, original: nn.Module, view: Callable[..., MeteredView], context: Callable[..., Context]
) -> None:
    method = registry.load("methods", name)(**SHORT.get(name, {}) | ({"rewind": False} if name == "scrub" else {}))
    a, b = (unlearn(method, original, view(PARTS, forget=300), context(seed)).model for seed in (1, 2))
    assert method.stochastic
    assert not same(a, b)


# --- retraining, fine-tuning and tails ---


def test_retraining_is_training_on_the_retained_data_alone(
    original: nn.Module, view: Callable[..., MeteredView], context: Callable[..., Context], recipe: Recipe
) -> None:
    data, ctx = view(Need.RETAIN), context()
    model = unlearn(Retrain(), original, data, ctx).model
    expected = build(100).train()
    loop.fit(expected, view(Need.RETAIN).retain, recipe, torch.Generator().manual_seed(0))
    assert same(model, expected)
    assert data.taken() == {"forget": 0, "retain": 540 * recipe.epochs, "train": 0, "validation": 0}


@pytest.mark.parametrize(("compute", "epochs"), [(0.05, 1), (0.5, 2), (0.7, 3), (1.0, 4)])
def test_retraining_with_a_share_of_the_compute_is_a_recipe_of_fewer_epochs(
    compute: float,
    epochs: int,
    original: nn.Module,
    view: Callable[..., MeteredView],
    context: Callable[..., Context],
) -> None:
    data, ctx = view(Need.RETAIN), context(recipe=load_recipe("digits", {"epochs": 4}))
    model = unlearn(Retrain(compute=compute), original, data, ctx).model
    whole = context(recipe=load_recipe("digits", {"epochs": epochs}))
    assert same(model, unlearn(Retrain(), original, view(Need.RETAIN), whole).model)
    assert data.taken()["retain"] == 540 * epochs


@pytest.mark.parametrize("compute", [0, -0.5, 1.5, "half"])
def test_a_share_of_the_compute_is_above_0_and_at_most_1(compute: Any) -> None:
    with pytest.raises(UsageError, match="compute: Input should be"):
        config.resolve("digits", {"methods": f"retrain+compute={compute}"}).method(f"retrain+compute={compute}")


def test_original_is_the_model_itself(
    original: nn.Module, view: Callable[..., MeteredView], context: Callable[..., Context]
) -> None:
    assert same(unlearn(Original(), original, view(Need.NOTHING), context()).model, original)


def test_redrawing_all_layers_is_retraining(
    original: nn.Module, view: Callable[..., MeteredView], context: Callable[..., Context]
) -> None:
    for k in (4, 99):
        redrawn = unlearn(EUk(k=k), original, view(Need.RETAIN), context()).model
        assert same(redrawn, unlearn(Retrain(), original, view(Need.RETAIN), context()).model)
    assert not same(redrawn, unlearn(EUk(k=3), original, view(Need.RETAIN), context()).model)


def test_training_all_layers_is_fine_tuning(
    original: nn.Module, view: Callable[..., MeteredView], context: Callable[..., Context]
) -> None:
    tuned = FineTune(epochs=2, batch_size=64)
    own = {"schedule": "constant", "lr": 0.01, "batch_size": 64, "nesterov": False, "weight_decay": 5e-4}
    ctx = context(recipe=load_recipe("digits", own | {"epochs": 2}))
    trained = unlearn(CFk(k=99), original, view(Need.RETAIN), ctx).model
    assert same(trained, unlearn(tuned, original, view(Need.RETAIN), context()).model)
    assert not same(trained, original)


@pytest.mark.parametrize("method", [EUk(k=2), CFk(k=2)])
def test_the_frozen_layers_keep_parameters_and_buffers(
    method: Method, original: nn.Module, view: Callable[..., MeteredView], context: Callable[..., Context]
) -> None:
    old = original.state_dict()
    new = unlearn(method, original, view(Need.RETAIN), context()).model.state_dict()
    moved = {name.split(".")[0] for name in old if not torch.equal(old[name], new[name])}
    assert moved == {"8", "9", "12"}  # third convolution, its BatchNorm, the head
    assert not torch.equal(old["9.running_mean"], new["9.running_mean"])


def test_the_new_tail_is_drawn_as_asked(
    original: nn.Module, view: Callable[..., MeteredView], context: Callable[..., Context]
) -> None:
    def tail(**fields: Any) -> dict[str, Tensor]:
        return unlearn(EUk(k=2, epochs=0, **fields), original, view(Need.RETAIN), context()).model.state_dict()

    old, fresh = original.state_dict(), build(100).state_dict()
    drawn, kaiming, kept = tail(), tail(init="kaiming"), tail(keep_tail_bn=True)
    assert all(torch.equal(drawn[name], (fresh if name[:2] in ("8.", "9.", "12") else old)[name]) for name in old)
    assert not kaiming["12.bias"].any()
    assert torch.equal(kaiming["9.weight"], fresh["9.weight"])
    assert float(kaiming["8.weight"].std()) == pytest.approx((2 / 144) ** 0.5, rel=0.1)
    assert torch.equal(kept["9.running_var"], old["9.running_var"])
    assert torch.equal(kept["8.weight"], fresh["8.weight"])


def test_layers_are_counted_in_the_order_they_run() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.norm, self.first = nn.Linear(3, 2), nn.BatchNorm1d(3), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.last(self.norm(self.first(x)))
            return out

    model, x = Backwards(), torch.zeros(1, 4)
    assert _layers.running_order(model, x) == [model.first, model.norm, model.last]
    assert _layers.tail(model, x, 1) == [model.last]
    assert set(_layers.tail(model, x, 2)) == set(model.modules())


# --- SCRUB ---


def test_the_teacher_pulls_with_no_force_where_the_student_starts() -> None:
    logits = torch.randn(6, 5).double().requires_grad_()
    (still,) = torch.autograd.grad(divergence(logits, logits.detach(), 4.0), logits)
    assert still.abs().max() < 1e-15
    teacher = torch.randn(6, 5).double()
    p, q = (teacher / 4).softmax(1), (logits / 4).softmax(1)
    torch.testing.assert_close(divergence(logits, teacher, 4.0), 16 * (p * (p / q).log()).sum(1).mean())


def test_scrub_without_its_terms_is_fine_tuning(
    original: nn.Module, view: Callable[..., MeteredView], context: Callable[..., Context]
) -> None:
    scrub = Scrub(msteps=0, alpha=0, gamma=1, lr=0.01, retain_batch=64, epochs=2)
    plain = FineTune(lr=0.01, batch_size=64, epochs=2)
    a = unlearn(scrub, original, view(scrub.reads()), context()).model
    assert same(a, unlearn(plain, original, view(plain.reads()), context()).model)
    stayed = scrub.model_copy(update={"alpha": 0.5})
    assert not same(a, unlearn(stayed, original, view(scrub.reads()), context()).model)


def test_scrub_climbs_on_the_forget_set(view: Callable[..., MeteredView], context: Callable[..., Context]) -> None:
    """Without BatchNorm, whose statistics blur it: a pass over the forget set leads away from the teacher's answers."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    scrub = Scrub(lr=0.02, epochs=1, order="min_first", weight_decay=0, momentum=0, forget_batch=20)
    x, _ = next(iter(view(PARTS).forget.batches(60)))
    far = []
    for msteps in (0, 1):
        after = unlearn(scrub.model_copy(update={"msteps": msteps}), plain, view(PARTS), context()).model
        with torch.no_grad():
            far.append(float(divergence(after(x), plain(x), 4.0)))
    assert far[1] > 1.05 * far[0]


def test_scrub_passes_in_the_order_asked_and_decays_after_the_epochs_named(
    original: nn.Module,
    view: Callable[..., MeteredView],
    context: Callable[..., Context],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps: list[tuple[str, float]] = []
    directions: list[str] = []
    monkeypatch.setattr(loop.SGD, "step", lambda self, lr: steps.append((directions[-1], round(lr, 9))))
    true_loss = Scrub._loss

    def spy(self: Scrub, direction: str, *rest: Any) -> Tensor:
        directions.append(direction)
        return true_loss(self, direction, *rest)

    monkeypatch.setattr(Scrub, "_loss", spy)
    unlearn(Scrub(msteps=2, lr=0.5, decay_epochs=(1, 2), retain_batch=540), original, view(PARTS), context())
    assert steps == [("max", 0.5), ("min", 0.5), ("max", 0.05), ("min", 0.05), ("min", 0.005)]
    steps.clear()
    unlearn(Scrub(msteps=1, order="min_first", epochs=1, retain_batch=540), original, view(PARTS), context())
    assert [direction for direction, _ in steps] == ["min", "max"]


def test_the_teacher_stays_as_it_was(
    original: nn.Module,
    view: Callable[..., MeteredView],
    context: Callable[..., Context],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    teachers: set[nn.Module] = set()
    true_loss = Scrub._loss

    def spy(self: Scrub, direction: str, student: nn.Module, teacher: nn.Module, *rest: Any) -> Tensor:
        teachers.add(teacher)
        return true_loss(self, direction, student, teacher, *rest)

    monkeypatch.setattr(Scrub, "_loss", spy)
    after = unlearn(Scrub(lr=0.05), original, view(PARTS), context()).model
    (teacher,) = teachers
    assert same(teacher, original)
    assert not teacher.training
    assert distance(after, original) > 0.01


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_rewinding_returns_the_checkpoint_of_an_epoch(
    optimizer: Any,
    original: nn.Module,
    view: Callable[..., MeteredView],
    context: Callable[..., Context],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scrub = Scrub(lr=0.02, epochs=4, forget_batch=8, optimizer=optimizer)
    script = iter([0.0, 0.4, 0.9, 1.0, 0.5])  # forget errors of the four epochs, then that of validation data
    samples = torch.full((10,), 6.0).double()
    monkeypatch.setattr(_rewind, "class_errors", lambda model, part, classes: (samples * next(script), samples))
    rewound = unlearn(scrub.model_copy(update={"rewind": True}), original, view(PARTS), context())
    assert rewound.notes["epoch"] == 2
    shorter = scrub.model_copy(update={"epochs": 2})
    assert same(rewound.model, unlearn(shorter, original, view(PARTS), context()).model)


class Constant(nn.Module):
    """Always answers class 0; one number tells its states apart."""

    def __init__(self) -> None:
        super().__init__()
        self.mark = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        out = torch.zeros(len(x), 10)
        out[:, 0] = 1
        return out


@pytest.mark.parametrize(
    ("errors", "epoch"),
    [
        ([0.0, 0.4, 0.9, 1.0], 2),  # 0.4 is nearer to 0.5 than 0.9 is
        ([0.6, 0.4, 0.9, 1.0], 2),  # of equals the latest
        ([0.5, 0.9, 0.0, 0.4], 4),  # not above the reference: nothing to take back
    ],
)
def test_rewind_chooses_by_the_error_on_validation_data_of_the_same_classes(
    errors: list[float], epoch: int, view: Callable[..., MeteredView]
) -> None:
    samples = torch.zeros(10).double()
    samples[0] = samples[4] = 50  # the forget set holds classes 0 and 4 only; the constant model errs on the second
    states = [{"mark": torch.tensor([float(at)])} for at in range(len(errors))]
    runs = [Checkpoint(samples * error, samples, state) for error, state in zip(errors, states, strict=True)]
    model = Constant()
    notes = _rewind.rewind(model, runs, view(PARTS).validation, 10)
    assert notes == {"epoch": epoch, "reference_error": 0.5}
    assert model.mark.item() == epoch - 1


def test_a_class_without_validation_samples_has_no_weight(digits: Dataset, images: dict[str, Images]) -> None:
    samples = torch.zeros(10).double()
    samples[0] = samples[4] = 50
    fours = torch.from_numpy(np.flatnonzero(digits.validation_y == 4))
    held_out = MeteredPart(images["validation"], fours, torch.full((len(fours),), 4))
    runs = [Checkpoint(samples, samples, {"mark": torch.zeros(1)})]
    assert _rewind.rewind(Constant(), runs, held_out, 10)["reference_error"] == 1


def test_scrub_reads_validation_only_to_rewind() -> None:
    assert Need.VALIDATION not in Scrub().reads()
    assert Need.VALIDATION in Scrub(rewind=True).reads()
    assert "wrong labels" in Scrub(rewind=True).refuses("depoisoning")
    assert not Scrub(rewind=True).refuses("sample_removal")
    assert not Scrub().refuses("depoisoning")


def test_what_an_instance_refuses_is_skipped_with_the_reason() -> None:
    chosen = config.resolve("digits", {"scenario": "depoisoning", "methods": "scrub,scrub+rewind=true"})
    rows = {row.name: row for row in plan.make(chosen).rows}
    assert not rows["scrub"].skipped
    assert "turn it off" in rows["scrub+rewind=true"].skipped
    assert not rows["scrub+rewind=true"].runs


# --- NegGrad ---


def test_a_neg_grad_step_climbs_the_gradient(
    original: nn.Module, view: Callable[..., MeteredView], context: Callable[..., Context]
) -> None:
    method = NegGrad(lr=0.01, epochs=1, momentum=0, weight_decay=0, clip=None)
    after = unlearn(method, original, view(PARTS), context()).model
    expected = copy.deepcopy(original)
    x, y = next(iter(view(PARTS).forget.batches(60, torch.Generator().manual_seed(0))))
    old = list(expected.parameters())
    slopes = torch.autograd.grad(loop.cross_entropy(expected(x), y), old)
    for p, q, slope in zip(after.parameters(), old, slopes, strict=True):
        assert torch.equal(p, torch.add(q, slope, alpha=0.01))
    clipped = unlearn(method.model_copy(update={"clip": 1e-4}), original, view(PARTS), context()).model
    moved = torch.cat([(p - q).flatten() for p, q in zip(clipped.parameters(), original.parameters(), strict=True)])
    assert float(moved.norm().detach()) == pytest.approx(0.01 * 1e-4, rel=0.05)


def test_neg_grad_stops_at_the_validation_accuracy(
    original: nn.Module, view: Callable[..., MeteredView], context: Callable[..., Context]
) -> None:
    done = unlearn(NegGrad(lr=0.02, epochs=50), original, view(PARTS), context())
    forget, held_out = (loop.error_rate(done.model, part) for part in (view(PARTS).forget, view(PARTS).validation))
    assert done.status == "ok"
    assert 1 < done.notes["epochs"] < 50
    assert forget >= held_out
    assert unlearn(NegGrad(lr=1e-9), original, view(PARTS), context()).status == "not_converged"
    assert unlearn(NegGrad(epochs=0), original, view(PARTS), context()).status == "ok", "there was no step"
