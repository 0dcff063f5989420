"""The keys under which the store keeps things: hashes of all that decides what they are, code included."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import registry, store
from bench.attack import Attack
from bench.config import Config
from bench.interface import Dataset, Request

if TYPE_CHECKING:
    from bench.plan import Plan

BENCH = Path(__file__).resolve().parent
TRAINING_CODE = ("training.py", "stack.py", "loop.py", "step.py", "dataview.py")
METHOD_CODE = ("loop.py", "step.py", "dataview.py", "unlearning.py")
READOUT_CODE = ("logits.py", "readings.py", "readouts.py", "statistics.py", "evaluation.py")
AUDIT_CODE = (
    "attack.py",
    "logits.py",
    "statistics.py",
    "roc.py",
    "permutation.py",
    "distances.py",
    "competition.py",
    "margins.py",
    "pairs.py",
    "observation.py",
    "examination.py",
    "audit.py",
    "auditor.py",
    "views.py",
)


def model_kind(config: Config, dataset: Dataset) -> str:
    """The part of a model's key that every pool shares: data, architecture, recipe, device and code."""
    architecture = registry.source("architectures", registry.variant(config.architecture)[0])
    code = [BENCH / name for name in TRAINING_CODE] + ([architecture] if architecture else [])
    return store.key(
        data=store.fingerprint(dataset),
        architecture=registry.row_name(config.architecture),
        recipe=config.recipe.model_dump(exclude={"name"}),
        device=config.device.split(":")[0],
        torch=version_of("torch"),
        code=store.code_version(*code),
    )


def version_of(package: str) -> str:
    """The installed version without its local part, or nothing: numbers of one version do not pass for another's."""
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return ""


def view_key(source: str, request: Request) -> str:
    """Where the predictions of a model on shifted copies of what was forgotten so far are kept."""
    code = store.code_version(BENCH / "views.py")
    return store.key(views=source, forget=request.forgotten, code=code)


def method_code(config: Config, name: str) -> str:
    """The version of a method's code: its file, the helpers beside it, and what the harness adds."""
    path = registry.source("methods", config.entry(name))
    own = store.sources(path) if path else []
    return store.code_version(*own, *(BENCH / file for file in METHOD_CODE))


def attack_keys(plan: Plan) -> dict[str, str]:
    """Where the attacks that learn from originals are kept: they are the same for every method."""
    known = {name: attack for name, attack in plan.attacks().items() if attack.knows == "original"}
    pools = [[model.key for model in plan.of(pool, plan.shadows())] for pool in (plan.originals, plan.retrained[-1])]
    forget, validation = plan.requests[-1].forgotten, plan.config.shadow.validation
    return {
        name: store.key(attack=_attack(plan, name, attack), pools=pools, validation=validation, forget=forget)
        for name, attack in known.items()
    }


def _attack(plan: Plan, name: str, attack: Attack) -> dict[str, Any]:
    """What an attack is made of."""
    entry = next(entry for entry in plan.config.attacks if registry.short_name(entry) == name)
    path = registry.source("attacks", entry)
    return {
        "name": name,
        "settings": attack.model_dump(exclude={"n_threads"}),
        "code": store.code_version(*(store.sources(path) if path else [])),
        "libraries": [version_of(package) for package in ("xgboost-cpu", "xgboost", "scikit-learn")],
    }


def audit_key(plan: Plan, name: str, runs: Sequence[str], shadows: Sequence[str]) -> str:
    """Where the audit of a row with these runs is kept, or that of the retrained pool; empty without attacks."""
    attacks = plan.attacks()
    if not attacks:
        return ""
    return store.key(
        name=name,  # which the records bear; two rows may share their runs
        margin=plan.config.audit.margin,
        seed=plan.config.seed,
        steps=len(plan.requests),
        numbers=[*plan.unlearned(), *map(str, plan.config.seeds)],
        attacks=[_attack(plan, entry, attack) for entry, attack in attacks.items()],
        runs=runs,
        shadows=shadows,
        pools=[[model.key for model in pool] for pool in (plan.originals, plan.retrained[-1])],
        validation=plan.config.shadow.validation,
        forget=plan.requests[-1].forgotten,
        code=store.code_version(*(BENCH / file for file in AUDIT_CODE)),
    )


def evaluation_key(plan: Plan, name: str, runs: list[str]) -> str:
    """Where the readouts of a row with these runs are kept, or of the retrained pool."""
    return store.key(
        name=name,
        runs=runs,
        forget=[request.forget for request in plan.requests],  # one reference pool serves every share of known poison
        reference=[[model.key for model in pool] for pool in plan.retrained],
        originals=[model.key for model in plan.originals],
        scenario=plan.config.scenario,
        code=store.code_version(*(BENCH / file for file in READOUT_CODE)),
    )
