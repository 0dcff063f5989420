"""Models made elsewhere: weights and requests from files, put where a method's own runs would be."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from bench import keys, pool, registry, store
from bench.interface import Method, UsageError
from bench.plan import Plan, Row, Run

if TYPE_CHECKING:
    from torch import nn

MOST = 1 << 32  # bytes of a file of weights
KNOWN = ("forget", "removed_classes")


class Given(Method):
    """Weights from a file, made elsewhere: what they read and cost is not known."""

    supports: ClassVar[tuple[str, ...]] = ("sample_removal", "class_removal")


@dataclass(frozen=True)
class Weights:
    """One file of weights: where it lies, its SHA-256, and its arrays by name."""

    path: Path
    digest: str
    arrays: dict[str, np.ndarray]


def request(path: Path) -> tuple[str, list[str]]:
    """The scenario that a request file stands for, and the changes, written as for `--set`, that make it.

    The file is JSON: `{"forget": [12, 7, ...]}` lists training samples by their place in the data set, or
    `{"removed_classes": [3]}` whole classes. Raises UsageError, in one line, for anything else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"cannot read the request {path}: {_line(error)}") from error
    if not isinstance(content, dict) or len(content) != 1 or not set(content) <= set(KNOWN):
        raise UsageError(f'the request {path} must be {{"forget": [12, 7]}} or {{"removed_classes": [3]}}')
    ((kind, places),) = content.items()
    if not isinstance(places, list) or not places or any(type(place) is not int or place < 0 for place in places):
        raise UsageError(f"{kind} in the request {path} must be a list of whole numbers from 0, and not empty")
    if kind == "removed_classes":
        return "class_removal", [f"scenario.removed={places}"]
    return "sample_removal", ["scenario.draw=listed", f"scenario.listed={places}"]


def row_name(name: str, others: Sequence[str]) -> str:
    """The name of the row; raises UsageError for one that is empty or taken."""
    if not name.strip() or name in others:
        raise UsageError(f"the name {name!r} of the row is {'taken' if name in others else 'empty'}; give --name")
    return name


def read(path: Path) -> Weights:
    """The arrays of a safetensors file, which cannot execute code. Raises UsageError for anything else."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        if path.stat().st_size > MOST:
            raise UsageError(f"{path} has more than {MOST >> 30} GiB; is it a file of weights?")
        raw = path.read_bytes()
        return Weights(path, hashlib.sha256(raw).hexdigest(), load(raw))
    except OSError as error:
        raise UsageError(f"cannot read the weights {path}: {error.strerror}") from error
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        hint = "save them with safetensors.torch.save_file(model.state_dict(), FILE); pickles are not opened"
        raise UsageError(f"{path} is not a whole safetensors file ({_line(error)}); {hint}") from error


def row(plan: Plan, files: Sequence[Weights], name: str) -> Row:
    """The row of some models made elsewhere: a run for each, whose outputs `keep` puts into the store."""
    last = plan.requests[-1]
    runs = []
    for number, file in enumerate(files):
        key = store.key(given=file.digest, pool=[model.key for model in plan.originals], forget=last.forget)
        runs.append(Run(key, name, number, last, 0, plan.originals[-1], None, None, last=True))
    made_of = [run.key for run in runs]
    given = tuple((str(file.path), file.digest) for file in files)
    made = Row(name, Given(), tuple(runs), key=keys.evaluation_key(plan, name, made_of), given=given)
    return replace(made, audit_key=keys.audit_key(plan, name, made_of, []))


def keep(plan: Plan, row: Row, files: Sequence[Weights], entries: store.Store) -> None:
    """Evaluate the models as all others are, and put them where runs are kept.

    Raises UsageError, in one line, where the weights do not fit the architecture.
    """
    from bench import training

    device = plan.config.device
    build = training.maker(pool.network(plan.config.architecture), plan.dataset, device)
    for run, file in zip(row.runs, files, strict=True):
        if entries.has("unlearned", run.key):
            continue
        model = build(0)
        _load(model, file, registry.row_name(plan.config.architecture))
        outputs = training.evaluate(model, plan.dataset, device)
        arrays = {f"weights/{name}": value.numpy() for name, value in training.weights_of(model).items()}
        arrays |= {f"logits/{part}": rows for part, rows in outputs.arrays().items()}
        entries.put("unlearned", run.key, arrays, META)


# Nothing is known of how the weights came to be.
META: Mapping[str, Any] = {"status": "ok", "notes": {}, "seconds_request": None, "samples_read": None, "session": None}


def _load(model: nn.Module, file: Weights, architecture: str) -> None:
    """Put the weights into the network; extra counters such as BatchNorm's may be missing."""
    import torch

    own = model.state_dict()
    named = {name: torch.from_numpy(np.array(value)) for name, value in file.arrays.items()}
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    missing, strange = sorted(set(own) - set(named) - counters), sorted(set(named) - set(own))
    odd = [name for name in own if name in named and own[name].shape != named[name].shape]
    if missing or strange or odd:
        fault = (
            f"{missing[0]} is missing" if missing else f"{strange[0]} is not among its weights" if strange
            else f"{odd[0]} has the shape {list(named[odd[0]].shape)}, not {list(own[odd[0]].shape)}"
        )  # fmt: skip
        hint = "give the architecture that they were trained with, its width too"
        raise UsageError(f"the weights in {file.path} do not fit {architecture}: {fault}; {hint}")
    model.load_state_dict(own | named)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
