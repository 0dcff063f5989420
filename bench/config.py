"""What a run is: the recipe, the scenario's parameters, the methods and the pool, from a preset and flags; strict.

Flags override the preset. Unknown names and values out of range are refused with one line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import Field, ValidationError

from bench import choices, registry, scenarios
from bench import preset as presets
from bench.attack import Attack
from bench.datasets import SUBSET
from bench.interface import SCENARIOS, Method, UsageError
from bench.preset import NOTHING
from bench.recipe import Audit, Deep, Recipe, Shadow, Strict, describe, load_recipe


class Config(Strict):
    """One cell of the benchmark: one data set, architecture, recipe and scenario, and the methods to compare."""

    preset: str
    dataset: str
    architecture: str
    recipe: Recipe
    scenario: str
    scenario_settings: scenarios.Scenario
    methods: tuple[str, ...]
    method_settings: dict[str, dict[str, Any]]  # by row
    attacks: tuple[str, ...]
    attack_settings: dict[str, dict[str, Any]]  # by attack
    shadow: Shadow
    audit: Audit
    deep: Deep
    seeds: tuple[int, ...]
    seed: int = Field(ge=0, description="root of every random stream")
    device: str
    time_limit: float | None = None  # seconds that a request may take before a method should stop
    provenance: dict[str, dict[str, Any]] = {}  # by method, where the preset's tuned values come from
    published: str = ""  # the table of the paper that a report compares with
    changes: tuple[str, ...] = ()  # what was changed by hand, with --set

    def entry(self, row: str) -> str:
        """The method of a row: its name, or the path to its file."""
        return registry.variant(self.typed(row))[0]

    def typed(self, row: str) -> str:
        """What the user typed for a row."""
        return next((entry for entry in self.methods if registry.row_name(entry) == row), row)

    def method(self, row: str) -> Method:
        """The configured method of a row (its class may come from a file), with the row's own changes."""
        instance: Method = _instance(registry.load("methods", self.entry(row)), self.method_settings[row], row)
        return instance

    def attack(self, entry: str) -> Attack:
        """The configured attack of a name, or of the path to its file."""
        name = registry.short_name(entry)
        instance: Attack = _instance(registry.load("attacks", entry), self.attack_settings[name], name)
        return instance

    def rows(self) -> list[str]:
        """Names of the rows in the order of the table; the original and retraining are always there."""
        chosen = [registry.row_name(entry) for entry in self.methods]
        return [*choices.BASELINES, *(name for name in chosen if name not in choices.BASELINES)]


def _instance(cls: Any, settings: Mapping[str, Any], name: str) -> Any:
    try:
        optional = {field for field, info in cls.model_fields.items() if type(None) in get_args(info.annotation)}
        # TOML has no null: the word stands for it, where a field may be nothing.
        return cls(**{k: None if v == NOTHING and k in optional else v for k, v in settings.items()})
    except ValidationError as error:
        raise UsageError(describe(error, name, cls)) from error
    except Exception as error:  # a plug-in's class may fail in any way, such as with a type that is not imported
        raise UsageError(f"cannot configure {name}: {type(error).__name__}: {error}") from error


def resolve(preset: str, flags: Mapping[str, Any], changes: Sequence[str] = (), *, part: Sequence[str] = ()) -> Config:
    """The config of a preset, flags (those that are not None) and `--set` changes, checked throughout.

    The changes of a `part` of a preset are written alike, and those by hand go over them.

    Raises UsageError, in one line, for an unknown name or field and for a value out of range.
    """
    tables = presets.load(preset)
    run = dict(tables.get("run", {}))
    choices.require_named(preset, run, flags)
    run |= {key: value for key, value in flags.items() if value is not None}
    edits = choices.edits([*part, *changes], run)
    scenario = run.get("scenario", "class_removal")
    methods = choices.methods(run.get("methods", choices.QUICK))
    rows = {registry.row_name(entry): entry for entry in (*choices.BASELINES, *methods)}
    given = _given(tables, scenario, rows)
    architecture = _architecture(run.get("architecture", "digits_cnn"), run.get("width"))
    changed = tables.get("recipe", {}) | edits.get("recipe", {})
    config = Config(
        preset=preset,
        dataset=run.get("dataset", "digits"),
        architecture=architecture,
        recipe=load_recipe(run.get("recipe", "digits"), changed, architecture),
        scenario=scenario,
        scenario_settings=scenarios.create(
            scenario, tables.get("scenario", {}).get(scenario, {}) | edits.get("scenario", {})
        ),
        methods=methods,
        method_settings={row: given[row] | _own(entry, edits) for row, entry in rows.items()},
        attacks=(attacks := choices.attacks(run.get("attacks", "all"))),
        attack_settings=_attack_settings(tables, attacks, edits),
        shadow=_section("shadow", Shadow, tables.get("shadow", {}) | edits.get("shadow", {})),
        audit=_section("audit", Audit, _audit(tables, run) | edits.get("audit", {})),
        deep=_section("deep", Deep, tables.get("deep", {}) | edits.get("deep", {})),
        seeds=choices.seeds(run.get("seeds", 5)),
        seed=choices.whole("seed", run.get("seed", 0)),
        device=run.get("device", "cpu"),
        time_limit=choices.seconds(run.get("time_limit")),
        provenance=_provenance(tables.get("provenance", {}).get(scenario, {}), rows, edits),
        published=run.get("published", ""),
        changes=tuple(changes),
    )
    _check(config)
    if "unlearned" in edits.get("shadow", {}):  # a preset's number is cut to what there is
        _require_originals(config.shadow)
    return config


def _provenance(credits: Mapping[str, Any], rows: Mapping[str, str], edits: Mapping[str, Any]) -> dict[str, Any]:
    """Where the values of rows come from that no change has touched."""
    keys = {row: choices.preset_key(entry) for row, entry in rows.items() if choices.short(entry) not in edits}
    return {row: credits[key] for row, key in keys.items() if key in credits}


def _require_originals(shadow: Shadow) -> None:
    """Raise UsageError where attacks are to see a method applied to more originals than there are."""
    there = shadow.train + shadow.validation
    if shadow.unlearned > there:
        raise UsageError(
            f"shadow.unlearned is {shadow.unlearned}, but there are only {there} shadow originals (shadow.train + "
            "shadow.validation); lower it or raise those"
        )


def _architecture(entry: str, width: Any) -> str:
    """The architecture with its settings, `--width` among them."""
    base, changes = registry.variant(entry)
    changes |= {} if width is None else {"width": f"{width:g}" if isinstance(width, int | float) else str(width)}
    if "width" in changes:
        given = registry.value(changes["width"])
        if not isinstance(given, int | float) or not 0 < given <= 1000:
            raise UsageError(f"the width of {registry.short_name(base)} must be a number above 0, got {given!r}")
    return base + "".join(f"+{name}={text}" for name, text in changes.items())


def resolve_all(preset: str, flags: Mapping[str, Any], changes: Sequence[str]) -> list[Config]:
    """`resolve` for the scenario of the flags or the preset; for all of them, if the flags say `all`."""
    if flags.get("scenario") != "all":
        return [resolve(preset, flags, changes)]
    found = []
    for name in SCENARIOS:
        others = tuple(f"{other}." for other in SCENARIOS if other != name)
        own = [change for change in changes if not change.startswith(others)]
        found.append(resolve(preset, {**flags, "scenario": name}, own))
    return found


def _given(tables: Mapping[str, Any], scenario: str, rows: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """What the preset sets of each row; one with changes of its own has the values of the plain row, below its own."""
    general, special = tables.get("method", {}), tables.get("tuned", {}).get(scenario, {})
    known = {*registry.names("methods"), *(choices.preset_key(registry.variant(entry)[0]) for entry in rows.values())}
    named = {registry.variant(name)[0] for name in (*general, *special)}
    if strange := sorted(name for name in named - known if not name.endswith(".py")):
        raise registry.unknown("methods", strange[0], known)
    given = {}
    for row, entry in rows.items():
        key, plain = choices.preset_key(entry), choices.preset_key(registry.variant(entry)[0])
        given[row] = general.get(plain, {}) | special.get(plain, {}) | special.get(key, {})
    return given


def _own(entry: str, edits: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """What the command line sets of a row: `--set`, then the row's own changes."""
    changes = registry.variant(entry)[1]
    return edits.get(choices.short(entry), {}) | {name: registry.value(text) for name, text in changes.items()}


def _attack_settings(
    tables: Mapping[str, Any], attacks: Sequence[str], edits: Mapping[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    names = [registry.short_name(entry) for entry in attacks]
    known = {*registry.names("attacks"), *names}
    if strange := sorted(set(tables.get("attack", {})) - known):
        raise registry.unknown("attacks", strange[0], known)
    return {name: dict(tables.get("attack", {}).get(name, {})) | edits.get(name, {}) for name in names}


def _audit(tables: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    return dict(tables.get("audit", {})) | ({"level": run["audit"]} if run.get("audit") else {})


S = TypeVar("S", bound=Strict)


def _section(name: str, cls: type[S], values: Mapping[str, Any]) -> S:
    try:
        return cls(**values)
    except ValidationError as error:
        raise UsageError(describe(error, name, cls)) from error


def _check(config: Config) -> None:
    """Load every plug-in's class and build every instance, so that all mistakes surface before any work."""
    registry.function("datasets", config.dataset, besides=SUBSET)
    base, changes = registry.variant(config.architecture)
    registry.source("architectures", base)
    if changes:
        registry.function("architectures", config.architecture)  # imports torch, which nothing else here waits for
    bases = choices.bases(config.methods)
    shorts = [registry.short_name(name) for name in bases]
    for name, short in zip(bases, shorts, strict=True):
        registry.source("methods", name)
        if shorts.count(short) > 1 or (short in choices.BASELINES and short != name):
            raise UsageError(f"two methods are called {short}; rename the file {name}, since its name names its row")
    for row in config.rows():
        config.method(row)
    attacks = [registry.short_name(entry) for entry in config.attacks]
    if twice := [name for name in attacks if attacks.count(name) > 1 or name in config.method_settings]:
        raise UsageError(f"{twice[0]} names two things, one of them an attack; rename its file")
    for entry in config.attacks:
        config.attack(entry)
    if config.device != "cpu" and not config.device.startswith(("cuda", "mps")):
        raise UsageError(f"unknown device '{config.device}'; use cpu, cuda, cuda:N or mps")
