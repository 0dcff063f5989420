"""Contract tests: what every method must do, a third party's too, tried out on a tiny problem in float64.

`python run_benchmark.py check NAME|FILE` prints them; the test suite runs them on every registered method.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from bench import ledger, training, tuning, unlearning
from bench.dataview import OPENS
from bench.interface import SCENARIOS, Method, Need, UndeclaredRead
from bench.probe import TEN, Broken, Probe, finite_outputs, logits_of
from bench.recipe import describe

# No class keeps its number, none is one up or down, and the classes that go are others before and after.
RENAMED = np.array([6, 9, 5, 7, 8, 2, 4, 1, 3, 0])


@dataclass(frozen=True)
class Result:
    """The outcome of one contract test."""

    test: str
    passed: bool
    message: str = ""

    def line(self) -> str:
        """One line for a terminal."""
        return f"{'ok  ' if self.passed else 'FAIL'} {self.test}" + (f": {self.message}" if self.message else "")


class Skip(Exception):
    """A contract test does not apply to this method; the message says why."""


def declares_itself(probe: Probe) -> None:
    """Docstring, defaults with descriptions, known scenarios, BatchNorm policy, budget field and values to search."""
    cls = probe.cls
    if not (cls.__doc__ or "").strip() or cls.__doc__ == Method.__doc__:
        raise Broken("the class needs a docstring whose first line says what the method does")
    if bare := [name for name, field in cls.model_fields.items() if field.is_required()]:
        raise Broken(f"every hyper-parameter needs a default; {bare[0]} has none")
    if bare := [name for name, field in cls.model_fields.items() if not field.description]:
        raise Broken(f"every hyper-parameter needs a description; {bare[0]} has none")
    if not cls.supports or set(cls.supports) - set(SCENARIOS):
        raise Broken(f"supports must name some of {', '.join(SCENARIOS)}, got {cls.supports}")
    if cls.batch_norm not in ("train", "eval", "frozen"):
        raise Broken(f"batch_norm must be train, eval or frozen, got {cls.batch_norm!r}")
    require_budget_field(probe)
    try:
        tuning.check_search(cls)
    except ValueError as error:
        raise Broken(str(error)) from error


def changes_weights(probe: Probe) -> None:
    """Some learnable weight changes; the identity is what is declared as such."""
    moved = unlearning.changed(probe.original, probe.run().model)
    if probe.cls.identity and moved:
        raise Broken("declares identity = True but changes weights")
    if not probe.cls.identity and not moved:
        raise Broken("no learnable weight changes: is the optimizer built on the model that is returned?")


def reads_what_it_declares(probe: Probe) -> None:
    """Every declared part is read, and no other."""
    taken = probe.run().taken
    if Need.CORRECTED in probe.method.reads():  # which exists in depoisoning only
        taken = taken | {"corrected": probe.carry_out(scenario="depoisoning").taken.get("corrected", 0)}
    wanted = {part for part, need in OPENS.items() if need in probe.method.reads()}
    if idle := sorted(part for part in wanted if not taken.get(part)):
        raise Broken(f"declares {', '.join(idle)} data but never reads it")


def repeats_itself(probe: Probe) -> None:
    """The same seed gives the same weights, bit for bit; so does another seed, if declared not stochastic."""
    first, again = training.weights_of(probe.run().model), training.weights_of(probe.carry_out().model)
    if not _same(first, again):
        raise Broken("the same seed gives different weights: draw everything random from ctx.generator")
    if not probe.cls.stochastic and not _same(first, training.weights_of(probe.run(seed=2).model)):
        raise Broken("declares stochastic = False, but another seed gives another result")


def leaves_no_trace(probe: Probe) -> None:
    """Images stay as they were, no hook stays behind, and learnable weights stay learnable."""
    before = probe.dataset.train_x.copy()
    model = probe.run().model
    if not np.array_equal(before, probe.dataset.train_x):
        raise Broken("changes the training images in place")
    own = _hooks(probe.original)
    hooked = [module for module in model.modules() if not _hooks(module) <= own]
    if hooked:
        raise Broken(f"leaves a hook on {type(hooked[0]).__name__}")
    frozen = [name for name, value in model.named_parameters() if not value.requires_grad]
    if frozen:
        raise Broken(f"leaves {frozen[0]} frozen (requires_grad is False)")


def outputs_are_finite(probe: Probe) -> None:
    """Outputs are finite numbers of the right shape."""
    finite_outputs(probe.run().model, probe.dataset)


def require_budget_field(probe: Probe) -> None:
    """Raise Broken where `budget` names a field that the class does not have."""
    if probe.cls.budget is not None and probe.cls.budget not in probe.cls.model_fields:
        raise Broken(
            f"budget names {probe.cls.budget!r}, which is no field; set budget = None if nothing turns the method off"
        )


def zero_budget_is_identity(probe: Probe) -> None:
    """With the budget field at 0, weights and buffers come back bit for bit."""
    field = probe.cls.budget
    if field is None:
        raise Skip("declares no budget field")
    require_budget_field(probe)
    try:
        idle = probe.cls(**{field: 0})
    except ValidationError as error:
        raise Broken(f"budget names {field!r}, which cannot be 0: {describe(error, probe.name, probe.cls)}") from error
    done = probe.carry_out(method=idle)
    if not _same(training.weights_of(probe.original), training.weights_of(done.model)):
        raise Broken(f"with {field}=0 the model is not the original, weights and buffers included")


def empty_request_is_handled(probe: Probe) -> None:
    """An empty forget set is a clear ValueError, or the identity for a method that reads it; never a wreck."""
    scenario = probe.scenario()
    request = probe.request(scenario)[0]
    nothing = np.empty(0, dtype=np.int64)
    everything = np.arange(len(probe.dataset.train_y))
    empty = dataclasses.replace(
        request, forget=nothing, forgotten=nothing, retain=everything, poisoned=nothing, wrong_labels=nothing
    )
    try:
        model = probe.carry_out(scenario=scenario, requests=[empty]).model
    except ValueError as error:
        if not str(error):
            raise Broken("raises a ValueError without a message on an empty forget set") from error
        return
    finite_outputs(model, probe.dataset)
    if (
        Need.FORGET in probe.method.reads()
        and Need.RETAIN not in probe.method.reads()
        and unlearning.changed(probe.original, model)
    ):
        raise Broken("changes weights although there is nothing to forget")


def knows_no_class_by_number(probe: Probe) -> None:
    """Calling the classes by other numbers gives the same model with its outputs renumbered, on all ten digits."""
    if probe.cls.random_by_class:
        raise Skip("declares random_by_class")
    ten = Probe(probe.name, probe.cls, TEN)
    for scenario in (name for name in ("sample_removal", "class_removal") if name in probe.cls.supports):
        plain = ten.carry_out(scenario=scenario).model
        renamed = ten.carry_out(scenario=scenario, permutation=RENAMED).model
        ours, theirs = (logits_of(model, ten.dataset) for model in (plain, renamed))
        gap = float((theirs[:, RENAMED] - ours).abs().max() / (1 + ours.abs().max()))
        if not gap < 1e-3:
            raise Broken(
                f"in {scenario} the result depends on the number of a class (outputs differ by {gap:.1e} of their size)"
            )


def treats_batch_norm_as_declared(probe: Probe) -> None:
    """BatchNorm statistics, scale and shift move only as far as `batch_norm` declares."""
    before, after = training.weights_of(probe.original), training.weights_of(probe.run().model)
    if before.keys() != after.keys():
        raise Skip("returns an ensemble, which trained anew")
    names = [name for name, module in probe.original.named_modules() if isinstance(module, nn.BatchNorm2d)]
    statistics = [f"{name}.{part}" for name in names for part in ("running_mean", "running_var", "num_batches_tracked")]
    scale = [f"{name}.{part}" for name in names for part in ("weight", "bias")]
    fixed = {"train": [], "eval": statistics, "frozen": statistics + scale}[probe.cls.batch_norm]
    if moved := [name for name in fixed if not torch.equal(before[name], after[name])]:
        raise Broken(f"declares batch_norm = {probe.cls.batch_norm!r}, but {moved[0]} changes")
    if probe.cls.batch_norm == "train" and all(torch.equal(before[name], after[name]) for name in statistics):
        raise Broken("declares batch_norm = 'train', but no BatchNorm statistic changes")


def serves_every_scenario(probe: Probe) -> None:
    """Every scenario it supports runs, requests chain, and the model can be evaluated with a mask."""
    for scenario in probe.cls.supports:
        try:
            model = probe.carry_out(scenario=scenario).model
        except (UndeclaredRead, Broken):
            raise
        except Exception as error:  # a method may fail in any way
            raise Broken(f"{scenario} raises {type(error).__name__}: {error}") from error
        finite_outputs(model, probe.dataset)


TESTS: tuple[Callable[[Probe], None], ...] = (
    declares_itself, changes_weights, reads_what_it_declares, repeats_itself, leaves_no_trace, outputs_are_finite,
    zero_budget_is_identity, empty_request_is_handled, knows_no_class_by_number, treats_batch_norm_as_declared,
    serves_every_scenario,
)  # fmt: skip


def check(name: str, cls: type[Method]) -> Iterator[Result]:
    """Run every contract test on a method class; a test that raises has failed, and says why."""
    ledger.settle()
    with double():
        probe = Probe(name, cls)
    for test in TESTS:
        yield run_one(probe, test)


def run_one(probe: Probe, test: Callable[[Probe], None]) -> Result:
    """The outcome of one contract test."""
    title = test.__name__.replace("_", " ")
    try:
        with double():
            test(probe)
    except Skip as reason:
        return Result(title, True, f"not applicable, {reason}")
    except (Exception, SystemExit) as error:  # whatever a method raises is its failure
        kind = "" if isinstance(error, Broken | UndeclaredRead) else f"{type(error).__name__}: "
        return Result(title, False, kind + str(error).split("\n")[0])
    return Result(title, True)


@contextlib.contextmanager
def double() -> Iterator[None]:
    """float64 and one thread inside: rounding must not decide whether two results are the same."""
    before, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
        torch.set_num_threads(threads)


def _hooks(module: nn.Module) -> set[object]:
    held = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    return {hook for hooks in held for hook in hooks.values()}


def _same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
