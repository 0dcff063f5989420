"""The handbook of the methods, `docs/methods.md`: Markdown written from their classes, without importing torch."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from bench import layers, references, registry
from bench.choices import BASELINES
from bench.interface import SCENARIOS, Method, Need, UsageError

READS = {
    Need.FORGET: "the forget set, with the labels of training",
    Need.RETAIN: "the training data that stays",
    Need.VALIDATION: "held-out data, to stop and to choose by",
    Need.CORRECTED: "the forget set with its true labels, in depoisoning only",
    Need.STATISTICS: "the whole training set, in `prepare`, before any request is known",
    Need.INITIAL_WEIGHTS: "the weights that the original started from",
    Need.OWN_TRAINING: "it replaces the training of the original, in `prepare`",
}
BATCH_NORM = {
    "train": "trains: statistics, scale and shift move",
    "eval": "statistics stay, scale and shift may move",
    "frozen": "nothing of it moves",
}
SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
DEVIATIONS = re.compile(r"(Deviations?[^.:]*[.:]|No deviations\b)")
TOP = """\
<!-- Written by `make docs` from the code; edit the docstrings and declarations of the methods, not this file. -->

# Methods

What every method does, reads and costs, and where it differs from its paper; written from the methods' own files. For a
method of your own: `python run_benchmark.py list methods --markdown path/to/method.py`.
"""
COLUMNS = """\
- **Reads**: the data that the method is handed. Asking for more fails the run, and every example is counted.
{reads}
- **Scenarios**: those it makes sense for; others are skipped with the reason.
- **Cost**: what one request takes, in forward passes. F1 is one forward pass of one example; a backward pass costs two
  more, so a training step costs 3 F1 an example. `n_forget`, `n_retain`, `n_validation` and `n_train` are numbers of
  examples; other names are hyper-parameters. The table of a run has the seconds and the examples read.
- **Source**: the paper, by its key in `reports/references.bib`.
- **Default**: the authors' value, unless the method says otherwise. Presets and `--set` change it, which † marks in the
  tables of a run. A value outside the **range** is refused with one line.
- **`tune` tries**: the values that tuning draws from, with equally many trials for every method that publishes some."""
CONTRACT = """\
`python run_benchmark.py check NAME` tries a method on a tiny problem, and the test suite tries every method here."""
LAYERS = """\
EU-k, CF-k and others change the last k layers of a network. An architecture publishes what counts (`LAYERS` in its
file), by module names, in the order they run; shortcuts do not count. Where it publishes nothing, every convolution and
linear layer counts, in the order it runs."""


def page() -> str:
    """The whole page: what the columns mean, overview, contract, layers, and a section for every method that ships."""
    shipped = registry.shipped("methods")
    names = [*BASELINES, *(name for name in shipped if name not in BASELINES)]
    reads = "\n".join(f"  - *{_words(need)}*: {text}" for need, text in READS.items())
    parts = [
        TOP,
        "## Overview\n",
        _table(("method", "reads", "scenarios", "cost of a request", "source"), map(_overview, names)),
        "\n## How to read it\n",
        COLUMNS.format(reads=reads),
        "\n## What every method passes\n",
        CONTRACT + "\n",
        *(f"- **{title}**: {text}" for title, text in contract()),
        "\n## The last k layers\n",
        LAYERS + "\n",
        _table(
            ("architecture", "layers", "module names, first to last"), map(_layers, registry.shipped("architectures"))
        ),
        *("\n" + section(name) for name in names),
    ]
    return "\n".join(parts)


def section(name: str) -> str:
    """What there is to know of one method: summary, docstring, facts, deviations, hyper-parameters."""
    cls = registry.load("methods", name)
    told, _ = split(cls)
    parts = [f"## {registry.short_name(name)}", f"{_text(registry.summary('methods', name))}.", *map(_text, told)]
    parts.append("\n".join(f"- **{title}**: {text}" for title, text in _facts(name, cls)))
    parts += [_deviations(*one) for one in deviations(cls)]
    if cls.model_fields:
        rows = (_field(field, info) for field, info in cls.model_fields.items())
        parts.append(_table(("name", "type", "default", "range", "meaning"), rows))
    if cls.search:
        tried = (f"`{field}` {', '.join(map(_value, values))}" for field, values in cls.search.items())
        parts.append(f"**`tune` tries** {'; '.join(tried)}.")
    return "\n\n".join(parts)


def split(cls: type[Method]) -> tuple[list[str], list[str]]:
    """The paragraphs of a class's docstring: those that say what the method does, and those on deviations."""
    paragraphs = [_joined(text) for text in re.split(r"\n\s*\n", inspect.cleandoc(cls.__doc__ or "")) if text]
    about = [text for text in paragraphs if DEVIATIONS.match(text)]
    return [text for text in paragraphs if text not in about], about


def deviations(cls: type[Method]) -> list[tuple[str, list[str]]]:
    """What a class's docstring says of deviations: first words and clauses, one clause where that is no long list."""
    return [_clauses(text) for text in split(cls)[1]]


def _clauses(text: str) -> tuple[str, list[str]]:
    lead, rest = DEVIATIONS.split(text, maxsplit=1)[1:]
    clauses = re.split(r";\s+(?![^(]*\))", rest.strip().rstrip("."))
    listed = lead.endswith(":") and len(clauses) >= 4 and ". " not in rest
    return lead, clauses if listed else [rest.strip()]


def _deviations(lead: str, clauses: Sequence[str]) -> str:
    """The first words bold; many clauses are a list."""
    if len(clauses) > 1:
        return "\n".join([f"**{lead}**\n", *(f"- {_text(clause)}" for clause in clauses)])
    space = "" if clauses[0].startswith(":") else " "
    return f"**{lead}**{space}{_text(clauses[0])}"


def contract() -> list[tuple[str, str]]:
    """The contract tests and what each asks, from their docstrings; read as text, since the tests need torch."""
    tree = ast.parse(Path(__file__).with_name("contract.py").read_text(encoding="utf-8"))
    tests = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    [listed] = [
        node.value for node in tree.body if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "TESTS"
    ]
    assert isinstance(listed, ast.Tuple)
    named = [tests[ast.unparse(element)] for element in listed.elts]
    return [(test.name.replace("_", " "), _joined(ast.get_docstring(test) or "")) for test in named]


def _overview(name: str) -> Sequence[str]:
    cls = registry.load("methods", name)
    entry = references.load().get(cls.cite)
    source = references.short(entry) if entry else "none"
    return f"[{name}](#{name})", _words(cls.needs), _scenarios(cls), _cost(cls), source


def _layers(name: str) -> Sequence[str]:
    listed = layers.published(name)
    return f"`{name}`", str(len(listed) or "as they run"), " ".join(f"`{layer}`" for layer in listed)


def _facts(name: str, cls: type[Method]) -> list[tuple[str, str]]:
    try:
        usual = cls().reads()
    except Exception as error:  # a plug-in may fail in any way
        raise UsageError(f"cannot describe {name}: without settings it raises {type(error).__name__}") from error
    entry = references.load().get(cls.cite)
    facts = {
        "Reads": "; ".join([_words(usual), *_other_reads(cls, usual)]),
        "Scenarios": _scenarios(cls),
        "BatchNorm": BATCH_NORM.get(cls.batch_norm, cls.batch_norm),
        "Another seed": "gives another result" if cls.stochastic else "gives the same result",
        "Before any request": _prepares(cls),
        "Cost": _cost(cls),
        "Turned off by": f"`{cls.budget} = 0`" if cls.budget else "nothing",
        "Source": f"{references.full(entry)} (`{cls.cite}`)" if entry else "none",
    }
    return list(facts.items())


def _prepares(cls: type[Method]) -> str:
    if cls.prepare is Method.prepare:
        return "nothing"
    told = (inspect.getdoc(cls.prepare) or "").split("\n")[0].rstrip(".")
    fields = cls.model_fields if cls.prepares_with is None else cls.prepares_with
    return told + (f"; anew when {' or '.join(f'`{field}`' for field in fields)} changes" if fields else "")


def _other_reads(cls: type[Method], usual: Need) -> list[str]:
    """What one changed hyper-parameter makes the method read besides, or lets it do without."""
    found = []
    for name, info in cls.model_fields.items():
        for value in _choices(info.annotation):
            try:
                reads = cls(**{name: value}).reads()
            except ValidationError:  # this value needs another one beside it
                continue
            if more := reads & ~usual:
                found.append(f"with `{name} = {_value(value)}` also {_words(more)}")
            if less := usual & ~reads:
                found.append(f"with `{name} = {_value(value)}` not {_words(less)}")
    return found


def _choices(annotation: Any) -> tuple[Any, ...]:
    """The values of a type that has few."""
    if annotation is bool:
        return (False, True)
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def _field(name: str, info: FieldInfo) -> Sequence[str]:
    default = f"`{_value(info.get_default(call_default_factory=True))}`"
    return f"`{name}`", _type(info.annotation), default, _range(info.metadata), _text(info.description or "")


def _type(annotation: Any) -> str:
    inner, origin = [arg for arg in get_args(annotation) if arg not in (NoneType, ...)], get_origin(annotation)
    if origin is Literal:
        return " or ".join(f"`{choice}`" for choice in inner)
    if origin is Annotated:
        limits = _range([m for info in inner[1:] for m in getattr(info, "metadata", [info])])
        return _type(inner[0]) + (f" {limits}" if limits else "")
    if origin is dict:
        return f"{_type(inner[1])}, by name"
    if origin in (tuple, list):
        return f"list of {_type(inner[0])}"
    if inner:
        return " or ".join(map(_type, inner)) + (" or none" if NoneType in get_args(annotation) else "")
    return str(getattr(annotation, "__name__", annotation))


def _range(metadata: Iterable[Any]) -> str:
    limits = [(sign, getattr(item, name, None)) for item in metadata for name, sign in SIGNS.items()]
    return ", ".join(f"{sign}\N{NO-BREAK SPACE}{_value(limit)}" for sign, limit in limits if limit is not None)


def _value(value: Any) -> str:
    """A value as one writes it in a preset, but for none."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_value, value))}]"
    return str(value)


def _words(need: Need) -> str:
    return ", ".join(word.replace("_", " ") for word in need.words()) or "nothing"


def _cost(cls: type[Method]) -> str:
    return _text(cls.cost.replace(" x ", " × "))


def _scenarios(cls: type[Method]) -> str:
    left = [name.replace("_", " ") for name in SCENARIOS if name not in cls.supports]
    named = [name.replace("_", " ") for name in cls.supports]
    return "all" if not left else f"all but {left[0]}" if len(left) == 1 else ", ".join(named)


def _joined(paragraph: str) -> str:
    """A paragraph on one line, so that no line of it begins like a list; a list as it is."""
    is_list = paragraph.lstrip().startswith(("- ", "* "))
    return paragraph if is_list else " ".join(paragraph.split())


def _text(text: str) -> str:
    """Text in which only code between backticks is Markdown."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([*<])", r"\\\1", part) for part in parts)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, [":---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)
