"""How much the answer to a training sample depends on having been trained on it: memorization scores, from half models.

Pr[correct | in] - Pr[correct | out] (Feldman 2020), told from models trained on random halves of the training set.
Inclusion is balanced as in the likelihood-ratio attack (Carlini et al. 2022): every sample is in half of the models.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from bench import keys, plan, pool, seeds, store
from bench.config import Config
from bench.interface import Dataset
from bench.keys import BENCH
from bench.logits import error_percent, phi
from bench.plan import Model, Plan
from bench.progress import Progress
from bench.scenarios import SampleRemoval
from bench.store import Store

KIND = "memorization"  # of the store's entries
CODE = ("memorization.py", "logits.py")


def inclusion(models: int, samples: int, generator: np.random.Generator) -> np.ndarray:
    """Which model is trained on which sample, bool `[models, samples]`; every column holds as many of either."""
    ranks = generator.random((models, samples)).argsort(axis=0).argsort(axis=0)
    return np.asarray(ranks < models // 2)


def score(logits: Iterable[np.ndarray], labels: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Memorization scores and what breaks their ties, float64 `[n, 2]`.

    The first column is the difference in the share of correct models, in minus out, -1 to 1. The second is that in the
    mean log-odds of the label: where a few hundred images are easy, most of the first are 0. Outputs that are not
    finite count as wrong and have no log-odds.

    Args:
        logits: raw logits `[n, classes]` of one model after the other.
        labels: int64 `[n]`, those that the models were trained with.
        inside: bool `[models, n]` of `inclusion`.
    """
    right, odds, told = np.zeros((3, 2, len(labels)))
    everywhere = np.arange(len(labels))
    for one, trained in zip(logits, inside, strict=True):
        side = trained.astype(np.int64), everywhere
        log_odds = phi(one, labels)
        right[side] += error_percent(one[:, None], labels[:, None]) == 0
        odds[side] += np.where(np.isfinite(log_odds), log_odds, 0.0)
        told[side] += np.isfinite(log_odds)
    mean = odds / np.maximum(told, 1)
    # Whole numbers are subtracted first, so that equal scores are equal to the last bit.
    return np.stack([(right[1] - right[0]) / (len(inside) // 2), mean[1] - mean[0]], axis=1)


def half_models(config: Config, dataset: Dataset) -> list[Model]:
    """The models that the scores are told from, trained with the true labels; the samples forgotten play no part."""
    assert isinstance(config.scenario_settings, SampleRemoval)
    kind, labels = keys.model_kind(config, dataset), dataset.train_y
    models = []
    for number, inside in enumerate(_inside(config, len(labels))):
        index, seed = np.flatnonzero(inside), seeds.derive(config.seed, "half", number)
        made_of = store.key(kind=kind, index=index, labels=labels[index])
        models.append(Model(store.key(made_of=made_of, seed=seed), "half", f"half{number}", 0, seed, index, labels))
    return models


def _inside(config: Config, samples: int) -> np.ndarray:
    assert isinstance(config.scenario_settings, SampleRemoval)
    return inclusion(config.scenario_settings.half_models, samples, seeds.rng(config.seed, "halves"))


def jobs(models: list[Model]) -> Iterator[tuple[str, str, str]]:
    """`(stage, kind, key)` of every entry that the scores take, as `Plan.jobs`."""
    for model in models:
        yield "train half models", "model", model.key
    yield "score memorization", KIND, _key(models)


def needed(planned: Plan) -> Iterator[tuple[str, str, str]]:
    """The same for a plan whose draw is by the scores; nothing for any other."""
    if planned.config.scenario_settings.needs_hardness:
        yield from jobs(half_models(planned.config, planned.dataset))


def _key(models: list[Model]) -> str:
    code = store.code_version(*(BENCH / file for file in CODE))
    return store.key(models=[model.key for model in models], code=code)


def scores(config: Config, dataset: Dataset, entries: Store, workers: int) -> np.ndarray:
    """The scores of all training samples, float64 `[n, 2]` as in `score`; trains the half models that are missing.

    Raises Damaged where an entry that is read is not whole.
    """
    models = half_models(config, dataset)
    if not entries.has(KIND, _key(models)):
        missing = {model.key for model in models if not entries.has("model", model.key)}
        with Progress(len(missing)) as progress:
            pool.train_models(config, dataset, models, entries, workers, progress)
        logits = (entries.get("model", model.key)[0]["logits/train"] for model in models)
        found = score(logits, dataset.train_y, _inside(config, len(dataset.train_y)))
        entries.put(KIND, _key(models), {"scores": found}, {"half_models": len(models)})
    return entries.get(KIND, _key(models))[0]["scores"]


def stored(config: Config, dataset: Dataset, entries: Store) -> np.ndarray | None:
    """The scores, if the store has them."""
    key = _key(half_models(config, dataset))
    if entries.has(KIND, key):
        with contextlib.suppress(store.Damaged):
            return entries.get(KIND, key)[0]["scores"]
    return None


def outline(config: Config) -> Plan:
    """The plan before there are scores: where it needs them, it forgets as many samples, but not the right ones."""
    if not config.scenario_settings.needs_hardness:
        return plan.make(config)
    return plan.make(config, np.zeros((len(pool.loaded(config.dataset, test=True).train_y), 2)))


def scored(outline: Plan, entries: Store, workers: int, *, force: bool) -> Plan:
    """The plan with the scores; with `force`, those in the store and their models are made anew."""
    config, dataset = outline.config, outline.dataset
    if force:
        for _, kind, key in jobs(half_models(config, dataset)):
            entries.drop(kind, key)
    return plan.make(config, entries.mending(lambda: scores(config, dataset, entries, workers)))


def foreseen(config: Config, entries: Store) -> tuple[Plan, list[tuple[str, str, str]]]:
    """The plan as far as it can be known without any work, and the jobs that come before it, none if it is final."""
    known = outline(config)
    if not config.scenario_settings.needs_hardness:
        return known, []
    if (hardness := stored(config, known.dataset, entries)) is not None:
        return plan.make(config, hardness), []
    return known, list(jobs(half_models(config, known.dataset)))


def summary(planned: Plan, entries: Store) -> dict[str, Any] | None:
    """Mean scores of the forget set and of all samples, if there are scores: canaries' labels have none."""
    settings = planned.config.scenario_settings
    if not isinstance(settings, SampleRemoval) or settings.draw == "canaries":
        return None
    hardness = planned.hardness
    if hardness is None:
        hardness = stored(planned.config, planned.dataset, entries)
    if hardness is None:
        return None
    means = {"forget": hardness[planned.requests[-1].forgotten, 0], "all": hardness[:, 0]}
    return {"half_models": settings.half_models} | {name: float(values.mean()) for name, values in means.items()}
