"""What `run.json` must hold for a report: names, types and bounds; what else is in it or absent is let be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bench.interface import SCENARIOS

Count = Annotated[int, Field(ge=0, le=10**9)]
Table = dict[str, Any]
SIDES = (
    "retrained_fit",
    "retrained_test",
    "unlearned_fit",
    "unlearned_test",
)  # of models


class _Part(BaseModel):
    """A part of the file: strict in what it names, open to what other versions add."""

    model_config = ConfigDict(strict=True, extra="allow")


class Note(_Part):
    """What one run of a method said."""

    seed: int | str
    step: Count
    status: str
    numbers: dict[str, float | None] = {}
    session: str | None = None


class Deviation(_Part):
    """Where a method differs from its paper."""

    lead: str
    clauses: list[str]


class File(_Part):
    """A file of weights made elsewhere."""

    name: str
    sha256: str


class Lost(_Part):
    """How many of a method's runs for the attacks failed; empty for none."""

    runs: Count = 0
    of: Count = 0
    reason: str = ""


class Row(_Part):
    """A method of the run."""

    name: str = Field(min_length=1)
    status: str
    summary: str = ""
    needs: list[str] = []
    cite: str = ""
    source: str = ""
    cost: str = ""
    settings: Table = {}
    tuned: Table = {}
    deviations: list[Deviation] = []
    files: list[File] = []
    lost_for_attacks: Lost = Lost()
    notes: list[Note] = []


class Attack(_Part):
    """An attack of the audit."""

    name: str
    knows: str
    labels_only: bool = False
    summary: str = ""
    cite: str = ""
    source: str = ""
    settings: Table = {}


class Audit(_Part):
    """The rules of the audit; empty without attacks."""

    headline: str | None = None
    family: list[str] = []
    level: str = "standard"
    margin: float = Field(default=0.05, gt=0, lt=0.5)
    models: dict[str, Count] = {}
    attacks: list[Attack] | None = []

    @model_validator(mode="after")
    def _whole(self) -> Audit:
        if self.headline and not (self.headline in self.family and "margin" in self.model_fields_set):
            raise ValueError(f"{self.headline} decides, but is not in family, or there is no margin")
        if (self.attacks or self.models) and (missing := [name for name in SIDES if name not in self.models]):
            raise ValueError(f"models has no {missing[0]}")
        return self


class Memorization(_Part):
    """Mean memorization scores, where there are any."""

    half_models: Count
    forget: float
    all: float


class Draw(_Part):
    """The parameters of the scenario that texts speak of."""

    removed: list[int] = []
    draw: str = ""


class Setting(_Part):
    """The configuration of the run."""

    scenario_settings: Draw = Draw()
    method_settings: dict[str, Table] = {}


class Credit(_Part):
    """Where a method's tuned values come from."""

    preset: str
    date: str
    commit: str
    dataset: str
    architecture: str
    trials: Count
    draws: list[Table]


class Recipe(_Part):
    """How models were trained, as far as texts speak of it."""

    name: str = ""


class Run(_Part):
    """The whole file."""

    title: str
    config_hash: str
    dataset: str
    architecture: str
    scenario: Literal[SCENARIOS]  # type: ignore[valid-type]
    steps: int = Field(ge=1, le=10_000)
    methods: list[Row]
    reference_models: Count
    seeds: list[Count]
    records: Count | None = None
    command: str | None = None
    git: str | None = None
    started: str | None = None
    published: str = ""
    audit: Audit | None = None
    config: Setting = Setting()
    recipe: Recipe = Recipe()
    recipe_changes: Table = {}
    changes: list[str] = []
    class_names: list[str] = []
    removed_classes: list[Count] = []
    forget_classes: list[Count] = []
    forget_samples: list[Count] = []
    undetected_samples: list[Count] = []
    memorization: Memorization | None = None
    provenance: dict[str, Credit] = {}
    shadow: dict[str, Count] = {}
    timed_elsewhere: list[str] = []
    entries: dict[str, list[str]] = {}
    versions: dict[str, str] = {}
    hardware: Table = {}
    seconds: dict[str, float] = {}

    @model_validator(mode="after")
    def _names_fit(self) -> Run:
        names = [row.name for row in self.methods]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"methods has {twice[0]} twice")
        if self.class_names and max([*self.removed_classes, *self.forget_classes], default=0) >= len(self.class_names):
            raise ValueError(f"a class is above those of class_names, which are {len(self.class_names)}")
        return self


def require_sound(run: Any) -> None:
    """Raise ValueError, with the first fault in one line, unless this is what a run says of itself."""
    if not isinstance(run, Mapping):
        raise ValueError("run.json is not a table")
    try:
        Run.model_validate(run)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "missing":
            raise ValueError(f"run.json has no {place}") from error
        raise ValueError(f"run.json, {place or 'as a whole'}: {fault['msg']}, got {fault['input']!r:.80}") from error
