"""The run as one self-contained HTML page: the finding first, then tables, figures, methods and how it was made."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from bench.records import Results
from reports import cards, findings, hints, metrics, verdicts, words
from reports.figures import Drawn
from reports.grid import Table
from reports.leagues import headed
from reports.metrics import Entry
from reports.numbers import Numbers

TEMPLATE, STYLE, SCRIPT = (Path(__file__).with_name(f"page.{kind}") for kind in ("html.j2", "css", "js"))


def render(results: Results, tables: Sequence[Table], figures: Sequence[Drawn]) -> str:
    """The page as HTML text; it asks for nothing from outside, and every text from the run is escaped."""
    # The template is compiled here, not by a loader, because a page is rendered once per process.
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters["code"] = code
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    run, numbers = results.run, Numbers(results.records)
    badges, glossary = verdicts.badges(results), _glossary(results)
    return template.render(
        **_inline(),
        run=run,
        setting=words.setting(run),
        verdicts=verdicts.grouped(run, badges),
        badges=badges,
        glossary=glossary,
        attacks=[cards.attack(run, one) for one in (run.get("audit") or {}).get("attacks") or ()],
        anchors={metric: _anchor(metric, glossary) for table in tables for metric in table.metrics},
        document=metrics.DOCUMENT,
        findings=findings.sentences(results),
        tables=tables,
        titles=hints.titles,
        headed=headed,
        good=hints.good,
        hints=lambda row: hints.of(run, numbers, row),
        controls=words.controls(run),
        key=words.key(results, tables),
        figures=[(figure, base64.b64encode(figure.png).decode()) for figure in figures],
        costed=any(entry.get("cost") for entry in run["methods"]),
        cards=[cards.method(run, numbers, entry) for entry in run["methods"]],
        provenance=_provenance(run),
        config=json.dumps(run.get("config", {}), indent=2, sort_keys=True, ensure_ascii=False),
    )


def _inline() -> dict[str, str]:
    """Style and script, and a policy by which a browser runs no other script and loads nothing from anywhere."""
    style, script = (file.read_text(encoding="utf-8") for file in (STYLE, SCRIPT))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    sources = {"default": "'none'", "img": "data:", "style": "'unsafe-inline'", "script": f"'sha256-{digest}'"}
    policy = "; ".join(f"{kind}-src {source}" for kind, source in sources.items())
    return {"style": _own(style), "script": _own(script), "policy": _own(policy)}


def _own(text: str) -> Markup:
    """Text that goes onto the page as it is, none of a run."""
    return Markup(text)  # nosec B704 # style and script are files of ours


def code(text: str) -> Markup:
    """Text whose parts between backticks are code."""
    parts = [escape(part) for part in text.split("`")]
    return Markup("").join(Markup("<code>{}</code>").format(part) if at % 2 else part for at, part in enumerate(parts))


def _glossary(results: Results) -> list[Entry]:
    """What the numbers of a run with an audit mean; the verdict first, which no record holds."""
    if results.run.get("audit") is None:
        return []
    first = [metrics.entries()["verdict"]] if verdicts.judged(results.run) else []
    return [*first, *metrics.present(results.records)]


def _anchor(metric: str, glossary: Sequence[Entry]) -> str:
    """The place on the page that explains a metric, empty where there is none."""
    one = metrics.entry(metric)
    return f"metric-{one.key}" if one in glossary and one is not None else ""


def _provenance(run: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Groups of facts on how the run was made, each a heading and its pairs."""
    pools = {"reference models": run["reference_models"], **{
        f"attack models, {part}": number for part, number in run.get("shadow", {}).items()}}  # fmt: skip
    groups = {
        "Run": {
            "configuration hash": run["config_hash"],
            "code version": run.get("git", ""),
            "seeds": run["seeds"],
            **pools,
        },
        "Recipe": run.get("recipe", {}),
        "Versions": run.get("versions", {}),
        "Hardware": run.get("hardware", {}),
        "Seconds by phase": run.get("seconds", {}),
    }
    return [
        (head, [(key, cards.text(value)) for key, value in pairs.items()]) for head, pairs in groups.items() if pairs
    ]
