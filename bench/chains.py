"""A method's runs from one original, request after request, in a worker process: nothing of it is timed."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from bench import claims, pool, registry, runner
from bench.interface import Method, State
from bench.plan import Place, Run
from bench.store import Store

if TYPE_CHECKING:
    from torch import nn

    from bench.unlearning import Done, Setting


def configured(entry: str, settings: Mapping[str, Any]) -> Method:
    """The method of a name or path with these settings: what a worker is sent instead of an instance."""
    method: Method = registry.load("methods", entry)(**settings)
    return method


def follow(
    setting: Setting, method: Method, runs: Sequence[Run], entries: Store, *, keep: bool
) -> Iterator[tuple[Run, Done, nn.Module]]:
    """Carry the runs out and yield each with the model that its weights make. Raises what the method raises.

    What the method prepares is kept where that is asked for and other settings can share it: it may be large.
    """
    from bench import unlearning

    arrays, _ = entries.get("model", runs[0].original.key)
    model = runner.model_of(setting, arrays)
    state = _prepared(setting, runs[0], method, model, entries, keep=keep)
    for run in runs:
        done = unlearning.unlearn(
            setting, run.method, method, model, run.request,
            state=state, seed=run.seed, original_seed=run.original.seed,
        )  # fmt: skip
        model, state = setting.build(0), done.state
        model.load_state_dict(done.model.state_dict())  # the weights count, whatever else the method returned
        yield run, done, model


class Chained(Protocol):
    """A task that follows runs."""

    @property
    def runs(self) -> tuple[Run, ...]:
        """They, in order."""


def reads(job: Chained) -> list[tuple[str, str]]:
    """Kinds and keys of the entries that following a job's runs may read."""
    first = job.runs[0]
    return [("model", first.original.key), *([("prepared", first.prepared)] if first.prepared else [])]


def _prepared(setting: Setting, run: Run, method: Method, model: nn.Module, entries: Store, *, keep: bool) -> State:
    from bench import unlearning

    if run.prepared is None:
        return {}
    prepare = functools.partial(unlearning.prepare, setting, run.method, method, model, run.original.seed)
    key = run.prepared
    if not entries.has("prepared", key):
        if not (keep and method.prepares_with is not None):
            return prepare()[0]
        claims.once(entries, "prepared", key, lambda: runner.keep_prepared(entries, key, *prepare()))
    return runner.prepared(entries, key, setting.device)


@functools.cache
def setting_at(place: Place, *, test: bool) -> Setting:
    """What all runs of one place share, with the true labels; its data set holds test data only where asked."""
    dataset = pool.loaded(place[0], test=test)
    return runner.setting_of(place, dataset, dataset.train_y)
