"""How a model is trained, how large the pool is and how deep audits go: recipes, read from TOML files, strict."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bench import registry, untrusted
from bench.interface import UsageError

FOLDER = Path(__file__).resolve().parent


class Strict(BaseModel):
    """Frozen, and refuses unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Recipe(Strict):
    """How a model is trained; `docs/digits.md` shows where the digits values come from."""

    name: str
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr: float = Field(gt=0, le=10, description="start (exponential), peak (cosine) or only learning rate")
    end_lr: float = Field(default=0.0005, gt=0, le=10, description="nominal last learning rate (exponential)")
    schedule: Literal["cosine", "exponential", "constant"] = "cosine"
    warmup: float = Field(default=0.1, ge=0, lt=1, description="share of the steps that rise to the peak (cosine)")
    epochs: int = Field(ge=1, le=10_000)
    batch_size: int = Field(ge=2, le=100_000)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = True
    weight_decay: float = Field(default=5e-4, ge=0, le=1, description="L2 weight decay of the mean loss")
    augment: Literal["none", "crop_flip"] = "none"
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="of convolutions and products in training; weights are float32"
    )
    compile: bool = Field(
        default=False, description="on a GPU, fuse what surrounds convolutions; costs some 15 s once a process"
    )

    def line(self) -> str:
        """The recipe in a few words."""
        rate = f"lr {self.lr:g} {self.schedule}" + (f" to {self.end_lr:g}" if self.schedule == "exponential" else "")
        steps = f"{self.epochs} epochs, batch {self.batch_size}"
        rest = ", bfloat16" if self.precision == "bfloat16" else ""
        return f"{steps}, {self.optimizer} {rate}, weight decay {self.weight_decay:g}{rest}"

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Recipe:
        if self.optimizer == "sgd" and self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        return self


class Shadow(Strict):
    """The pool of originals and retrained models: attacks learn from some, the last `seeds` are reported on."""

    train: int = Field(default=40, ge=2, le=10_000, description="pairs that attacks learn from")
    validation: int = Field(default=5, ge=1, le=1_000, description="pairs that choose an attack's settings")
    unlearned: int = Field(
        default=0,
        ge=0,
        le=10_000,
        description="of these originals, how many (at most all) every method also unlearns from, untimed",
    )
    first: int = Field(default=0, ge=0, le=10**9, description="number of the first pair; another gives fresh models")


class Audit(Strict):
    """What is asked of the audit, fixed before any number is seen."""

    level: Literal["standard", "deep"] = Field(default="standard", description="deep: what needs a model's weights too")
    margin: float = Field(
        default=0.05, gt=0, lt=0.5, description="around 0.5, the areas that count as no difference from retraining"
    )


class Deep(Strict):
    """What the audits that need weights may spend on each model; SGD without augmentation or weight decay."""

    models: int = Field(default=3, ge=1, le=1_000, description="repeats of every method that are audited")
    lr: float = Field(default=1e-3, gt=0, le=10, description="learning rate of the fine-tuning")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of the fine-tuning")
    batch_size: int = Field(default=64, ge=2, le=100_000, description="of the fine-tuning")
    relearn_steps: int = Field(default=500, ge=0, le=1_000_000, description="most steps on the forget set")
    relearn_within: float = Field(
        default=5.0, ge=0, le=100, description="points below the original's forget accuracy that count as relearned"
    )
    recover_steps: int = Field(default=500, ge=0, le=1_000_000, description="most steps on retained data")
    recover_epochs: int = Field(default=10, ge=0, le=10_000, description="most passes over retained data")


def describe(error: ValidationError, name: str, cls: type[BaseModel]) -> str:
    """One line for the first fault in a set of values: the field, what is wrong, and what there is instead."""
    fault = error.errors()[0]
    field = ".".join(str(part) for part in fault["loc"]) or name
    if fault["type"] == "extra_forbidden":
        known = [known for known in cls.model_fields if known != "kind"]
        message = str(registry.unknown(f"field of {name}", field, known))
        return message
    given = fault.get("input")
    got = "" if isinstance(given, dict) else f", got {given!r}"
    return f"{name}.{field}: {fault['msg']}{got}".replace(f"{name}.{name}:", f"{name}:")


def recipes() -> dict[str, Path]:
    """The recipes that come with the benchmark, by name."""
    return {path.stem: path for path in sorted((FOLDER / "recipes").glob("*.toml"))}


def read_toml(kind: str, name: str, known: Mapping[str, Path]) -> dict[str, Any]:
    """A preset or recipe by name, or by path to a TOML file. Raises UsageError for anything unreadable."""
    path = Path(name) if name.endswith(".toml") else known.get(name)
    if path is None:
        raise registry.unknown(kind, name, known)
    try:
        tables: dict[str, Any] = untrusted.from_toml(path)
        return tables
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise UsageError(f"cannot read the {kind} {path}: {reason}") from error


def load_recipe(name: str, changes: Mapping[str, Any] | None = None, architecture: str = "") -> Recipe:
    """The recipe of a name or TOML path, with some values changed.

    `fast` stands for `allcnn_fast` where that is the architecture and no recipe is called `fast` itself.
    """
    known = recipes()
    if name not in known:
        net = registry.short_name(registry.variant(architecture)[0])
        nets = [one.removesuffix(f"_{name}") for one in known if one.endswith(f"_{name}")]
        if nets and net not in nets:
            only = f"only {', '.join(nets)} have; give it one with --recipe FILE.toml"
            raise UsageError(f"{net} has no recipe '{name}', {only}")
        name = f"{net}_{name}" if nets else name
    values = read_toml("recipe", name, known) | dict(changes or {})
    try:
        return Recipe(**({"name": Path(name).stem} | values))
    except ValidationError as error:
        raise UsageError(describe(error, "recipe", Recipe)) from error
