"""Models made elsewhere: weights and requests from files, put where a method's own runs would be."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bench import keys, pool, registry, store
from bench.interface import Method, UsageError
from bench.plan import Plan, Row, Run
from bench.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor, nn

MOST = 1 << 32  # bytes of a file of weights
LONGEST = 80  # characters of a name that a table can hold
KNOWN = ("forget", "removed_classes")


class Given(Method):
    """Weights from a file, made elsewhere: what they read and cost is not known."""

    supports: ClassVar[tuple[str, ...]] = ("sample_removal", "class_removal")


@dataclass(frozen=True)
class Weights:
    """One file of weights: where it lies, its SHA-256, and its arrays by name."""

    path: Path
    digest: str
    arrays: Mapping[str, Tensor]


def request(path: Path) -> tuple[str, list[str]]:
    """The scenario that a request file stands for, and the changes, written as for `--set`, that make it.

    The file is JSON: `{"forget": [12, 7, ...]}` lists training samples by their place in the data set, or
    `{"removed_classes": [3]}` whole classes. Raises UsageError, in one line, for anything else.
    """
    try:
        pairs = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=list)
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"cannot read the request {path}: {_line(error)}") from error
    if not (isinstance(pairs, list) and len(pairs) == 1 and isinstance(pairs[0], tuple) and pairs[0][0] in KNOWN):
        raise UsageError(f'the request {path} must be {{"forget": [12, 7]}} or {{"removed_classes": [3]}}')
    ((kind, places),) = pairs
    if not isinstance(places, list) or not places or any(type(place) is not int or place < 0 for place in places):
        raise UsageError(f"{kind} in the request {path} must be a list of whole numbers from 0, and not empty")
    if twice := len(places) - len(set(places)):
        raise UsageError(f"{kind} in the request {path} has {twice} numbers twice; list each once")
    if kind == "removed_classes":
        return "class_removal", [f"scenario.removed={places}"]
    return "sample_removal", ["scenario.draw=listed", f"scenario.listed={places}"]


def require_unchanged(changes: Sequence[str]) -> None:
    """Raises UsageError where `--set` would change what the request file says."""
    for change in changes:
        if change.partition(".")[0] in ("scenario", *Given.supports):
            raise UsageError(f"the request says what must go; leave --set {change} out")


def row_name(name: str, paths: Sequence[Path], others: Sequence[str]) -> str:
    """The name of the row, by default what the files' names begin with; raises UsageError for one that cannot be."""
    stems = [path.stem for path in paths]
    found = name or _beginning(stems) or stems[0]
    fault = (
        "is empty" if not found.strip()
        else "is taken" if found in (*others, "reference")
        else "has characters that cannot be printed" if not found.isprintable()
        else f"is longer than {LONGEST} characters" if len(found) > LONGEST
        else ""
    )  # fmt: skip
    if fault:
        raise UsageError(f"the name {found[:LONGEST]!r} of the row {fault}; give it another with --name")
    return found


def _beginning(names: Sequence[str]) -> str:
    """What all names begin with, without the separator of what follows."""
    first, last = min(names), max(names)
    same = next((at for at, letter in enumerate(first) if letter != last[at : at + 1]), len(first))
    return first[:same].rstrip("-_. ")


def read(paths: Sequence[Path]) -> list[Weights]:
    """The arrays of safetensors files, which cannot execute code. Raises UsageError for anything else."""
    found: list[Weights] = []
    for path in paths:
        one = _read(path)
        if same := [other.path for other in found if other.digest == one.digest]:
            raise UsageError(f"{path} and {same[0]} are the same file: one model is not two; give it once")
        found.append(one)
    return found


def _read(path: Path) -> Weights:
    from safetensors import SafetensorError
    from safetensors.torch import load

    if not str(path).isprintable():
        raise UsageError(f"the name {str(path)!r} has characters that cannot be printed; rename the file")
    try:
        if path.exists() and not path.is_file():
            raise UsageError(f"{path} is not a file")
        if path.stat().st_size > MOST:
            raise UsageError(f"{path} has more than {MOST >> 30} GiB; is it a file of weights?")
        raw = path.read_bytes()
        return Weights(path, hashlib.sha256(raw).hexdigest(), load(raw))
    except OSError as error:
        raise UsageError(f"cannot read the weights {path}: {error.strerror}") from error
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        hint = "save them with safetensors.torch.save_file(model.state_dict(), FILE); pickles are not opened"
        raise UsageError(f"{path} is not a whole safetensors file ({_line(error)}); {hint}") from error


def fitted(plan: Plan, files: Sequence[Weights]) -> list[Weights]:
    """The same with the names and types that the network of the plan gives its weights, checked before any work.

    Raises UsageError, in one line, where weights do not fit the architecture, and where two files hold the same ones.
    """
    if not files:
        return []
    from bench import training

    build = pool.network(plan.config.architecture)
    pool.require_network(plan.config.architecture, plan.dataset, build)
    model, found = training.new_model(build, plan.dataset, 0), dict[str, Weights]()
    for file in files:
        _load(model, file, registry.row_name(plan.config.architecture))
        one = replace(file, arrays=training.weights_of(model))
        contents = store.key(weights={name: value.numpy() for name, value in one.arrays.items()})
        if contents in found:
            raise UsageError(f"{file.path} and {found[contents].path} hold the same weights: one model is not two")
        found[contents] = one
    return list(found.values())


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


def keep(plan: Plan, row: Row, files: Sequence[Weights], entries: store.Store, progress: Progress) -> None:
    """Evaluate the models as all others are, and put them where runs are kept."""
    from bench import training

    device = plan.config.device
    build = training.maker(pool.network(plan.config.architecture), plan.dataset, device)
    for run, file in zip(row.runs, files, strict=True):
        if entries.has("unlearned", run.key):
            continue
        model = build(0)
        model.load_state_dict(dict(file.arrays))
        outputs = training.evaluate(model, plan.dataset, device)
        arrays = {f"weights/{name}": value.numpy() for name, value in training.weights_of(model).items()}
        arrays |= {f"logits/{part}": rows for part, rows in outputs.arrays().items()}
        entries.put("unlearned", run.key, arrays, META)
        progress.done(f"evaluated {file.path.name}")


# Nothing is known of how the weights came to be.
META: Mapping[str, Any] = {"status": "ok", "notes": {}, "seconds_request": None, "samples_read": None, "session": None}
WRAPPERS = ("module.", "_orig_mod.")  # what training on several devices and compiling put before every name


def _load(model: nn.Module, file: Weights, architecture: str) -> None:
    """Put the weights into the network; extra counters such as BatchNorm's may be missing."""
    own, named = model.state_dict(), dict(file.arrays)
    for wrapper in WRAPPERS:
        if named and all(name.startswith(wrapper) for name in named):
            named = {name.removeprefix(wrapper): value for name, value in named.items()}
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    missing, strange = sorted(set(own) - set(named) - counters), sorted(set(named) - set(own))
    odd = [name for name in own if name in named and own[name].shape != named[name].shape]
    whole = [name for name in own if name in named and own[name].is_floating_point() != named[name].is_floating_point()]
    fault = (
        f"{missing[0]} is missing" if missing else f"{strange[0]} is not among its weights" if strange
        else f"{odd[0]} has the shape {list(named[odd[0]].shape)}, not {list(own[odd[0]].shape)}" if odd
        else f"{whole[0]} is {named[whole[0]].dtype}, not {own[whole[0]].dtype}" if whole else ""
    )  # fmt: skip
    if fault:
        hint = "give the architecture that they were trained with, its width too"
        raise UsageError(f"the weights in {file.path} do not fit {architecture}: {fault}; {hint}")
    model.load_state_dict(own | named)


def _line(error: Exception) -> str:
    known = error.strerror if isinstance(error, OSError) else ""
    return known or " ".join(str(error).split())[:200] or type(error).__name__
