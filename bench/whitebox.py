"""Audits that need a model's weights: how soon it relearns, what comes back by itself, how far its weights moved.

Every audit works on a private copy, and a retrained model that goes through the same is the control.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from bench import loop, scenarios, seeds
from bench.dataview import MeteredPart
from bench.logits import error_percent

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.interface import Request
    from bench.recipe import Deep
    from bench.unlearning import Setting

MOST = 1000  # forget samples on which every step of relearning is evaluated
SHARES = (0.0, 0.25, 0.5, 1.0)  # of the recovery's steps, after which it is read out
TINY = 1e-12  # stands for the norm of weights that are all zero

Audit = dict[str, "float | list[float]"]


def audit_model(
    setting: Setting, model: nn.Module, request: Request, original_accuracy: float, deep: Deep, seed: int
) -> Audit:
    """Fine-tune copies of `model` on what was forgotten so far, and on retained data; labels are those of training.

    Args:
        original_accuracy: the original's, in percent, on the rows of `watched(request)`.
        seed: it alone decides the orders of examples, and dropout.

    Returns:
        `relearn_steps` on the forget set until accuracy is within `deep.relearn_within` points of the original's, 0
        where it is at once; where it never was, the steps taken, with `relearn_censored` 1 instead of 0.
        `recovered_error` percent of the forget set after each of the `recovered_at` steps on retained data, unmasked,
        the first of them before any. nan where nothing was forgotten.

    Source: relearning A. Golatkar et al. (2020), counted in steps as in V. S. Chundawat et al. (2023), whose index is
    a ratio of such counts; recovery S. A. Siddiqui et al. (2025). The benchmark fixes one budget for both.
    """
    steps, censored = relearn(setting, model, request, original_accuracy, deep, seeds.derive(seed, "relearn"))
    at, errors = recover(setting, model, request, deep, seeds.derive(seed, "recover"))
    return {"relearn_steps": steps, "relearn_censored": censored, "recovered_at": at, "recovered_error": errors}


def watched(request: Request) -> np.ndarray:
    """The forgotten rows int64 on which relearning is evaluated: all, or 1000 spread evenly over them."""
    rows = request.forgotten
    return rows if len(rows) <= MOST else rows[np.linspace(0, len(rows) - 1, MOST).round().astype(np.int64)]


def relearn(
    setting: Setting, model: nn.Module, request: Request, original_accuracy: float, deep: Deep, seed: int
) -> tuple[float, float]:
    """Steps until the forget set is relearned, and 1 where it never was, as `audit_model` explains.

    The model stays in evaluation mode: batches of one forgotten class would pull BatchNorm's statistics away from what
    it was trained with, and every model would pay for that alike (on the digits, SCRUB could no longer be told from
    retraining).
    """
    if not len(request.forgotten):
        return np.nan, np.nan
    own, part, seen = copy.deepcopy(model).eval(), _part(setting, request.forgotten), _part(setting, watched(request))
    most = (100.0 - original_accuracy + deep.relearn_within) / 100.0 * len(seen)
    for taken in _fine_tune(own, part, deep, seed, deep.relearn_steps):
        if _at_most(own, seen, most):
            return float(taken), 0.0
    return float(deep.relearn_steps), 1.0


def recover(
    setting: Setting, model: nn.Module, request: Request, deep: Deep, seed: int
) -> tuple[list[float], list[float]]:
    """Steps on retained data, and the forget error in percent after each of them, as `audit_model` explains.

    Retained poison is left out, known or not: what comes back must come from the weights.
    """
    own, forgotten = copy.deepcopy(model).train(), _part(setting, request.forgotten)
    retained = _part(setting, scenarios.reference_data(request))
    passes = deep.recover_epochs * len(loop.batch_bounds(len(retained), deep.batch_size))
    total = min(deep.recover_steps, passes)
    at = [int(share * total) for share in SHARES]
    errors: dict[int, float] = {}
    with loop.seeded(seeds.derive(seed, "dropout"), setting.device):
        for taken in _fine_tune(own, retained, deep, seed, total):
            if taken in at:
                errors[taken] = _error(own, forgotten)
    return [float(step) for step in at], [errors[step] for step in at]


def weight_change(model: nn.Module, original: nn.Module) -> dict[str, float]:
    """How far learnable weights are from the original's (BatchNorm's running statistics do not count).

    Returns:
        `weight_distance`, the norm of the difference over the original's; `weight_cosine`, the cosine of the angle
        between both; `weights_changed`, percent of weights that differ. nan where a weight is not finite.
    """
    new, old = _flat(model), _flat(original)
    if not (np.isfinite(new).all() and np.isfinite(old).all()):
        return dict.fromkeys(("weight_distance", "weight_cosine", "weights_changed"), np.nan)
    norms = max(float(np.linalg.norm(new)), TINY), max(float(np.linalg.norm(old)), TINY)
    return {
        "weight_distance": float(np.linalg.norm(new - old)) / norms[1],
        "weight_cosine": float(new @ old) / (norms[0] * norms[1]),
        "weights_changed": 100.0 * float(np.mean(new != old)),
    }


def _flat(model: nn.Module) -> np.ndarray:
    """All learnable weights in the order of their names, float64."""
    named = sorted((name, value.detach().cpu().double().numpy()) for name, value in model.named_parameters())
    return np.concatenate([value.ravel() for _, value in named])


def _part(setting: Setting, rows: np.ndarray) -> MeteredPart:
    labels = torch.from_numpy(setting.labels[rows]).to(setting.device)
    return MeteredPart(setting.images["train"], torch.from_numpy(rows).to(setting.device), labels)


def _fine_tune(model: nn.Module, part: MeteredPart, deep: Deep, seed: int, steps: int) -> Iterator[int]:
    """Take steps in place, in the mode the model is in; gives the steps taken so far before and after every one."""
    update, generator = loop.SGD(model.parameters(), momentum=deep.momentum), torch.Generator().manual_seed(seed)
    taken = 0
    yield taken
    while taken < steps:
        for x, y in part.batches(deep.batch_size, generator):
            loop.cross_entropy(model(x), y).backward()
            update.step(deep.lr)
            taken += 1
            yield taken
            if taken == steps:
                return


@torch.no_grad()
def _at_most(model: nn.Module, part: MeteredPart, most: float) -> bool:
    """Whether a model in evaluation mode gets at most so many of the part wrong; looks no further than it must.

    Evaluation after every step would otherwise cost several times what the steps do.
    """
    wrong = 0
    for x, y in part.batches(128):
        wrong += round(float(error_percent(_logits(model, x), y.cpu().numpy())) * len(y) / 100.0)
        if wrong > most + 1e-6:
            return False
    return True


@torch.no_grad()
def _error(model: nn.Module, part: MeteredPart) -> float:
    """Percent of the part that the model gets wrong in evaluation mode; its mode is put back."""
    if not len(part):
        return np.nan
    was_training = model.training
    model.eval()
    pairs = [(_logits(model, x), y.cpu().numpy()) for x, y in part.batches(512)]
    model.train(was_training)
    logits, labels = (np.concatenate(column) for column in zip(*pairs, strict=True))
    return float(error_percent(logits, labels))


def _logits(model: nn.Module, x: Tensor) -> np.ndarray:
    return np.asarray(model(x).float().cpu().numpy())
