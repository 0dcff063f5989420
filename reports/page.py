"""The run as one self-contained HTML page: the finding first, then tables, figures, methods and how it was made."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from bench.records import Results
from reports import findings, metrics, verdicts, words
from reports.figures import Drawn
from reports.grid import Table
from reports.metrics import Entry
from reports.numbers import MISSING, Numbers, count, significant
from reports.tables import READ, TOLD, ratio

TEMPLATE, STYLE = (Path(__file__).with_name(f"page.{kind}") for kind in ("html.j2", "css"))
PARTS = {"forget": "forget", "retain": "retain", "validation": "validation", "train": "training set (statistics)",
         "corrected": "true labels of forget"}  # fmt: skip


def render(results: Results, tables: Sequence[Table], figures: Sequence[Drawn]) -> str:
    """The page as HTML text; it asks for nothing from outside, and every text from the run is escaped."""
    # The template is compiled here, not by a loader, because a page is rendered once per process.
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    run, numbers = results.run, Numbers(results.records)
    badges, glossary = verdicts.badges(results), _glossary(results)
    return template.render(
        style=Markup(STYLE.read_text(encoding="utf-8")),
        run=run,
        setting=words.setting(run),
        verdicts=verdicts.grouped(run, badges),
        badges=badges,
        glossary=glossary,
        attacks=[_attack(run, one) for one in (run.get("audit") or {}).get("attacks") or ()],
        anchors={metric: _anchor(metric, glossary) for table in tables for metric in table.metrics},
        document=metrics.DOCUMENT,
        findings=findings.sentences(results),
        tables=tables,
        key=words.key(results, tables),
        figures=[(figure, base64.b64encode(figure.png).decode()) for figure in figures],
        cards=[_card(run, numbers, entry) for entry in run["methods"]],
        provenance=_provenance(run),
        config=json.dumps(run.get("config", {}), indent=2, sort_keys=True, ensure_ascii=False),
    )


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


KNOWS = {
    "unlearned": "the method, and makes models with it",
    "original": "the original's kind, not the method",
    "model": "one model and unseen data",
}


def _attack(run: Mapping[str, Any], attack: Mapping[str, Any]) -> dict[str, Any]:
    """What an attack does, what its attacker knows and sees, and whether it decides verdicts."""
    decides = attack["name"] in run["audit"].get("family", ())
    heads = attack["name"] == run["audit"].get("headline")
    sees = "labels alone" if attack.get("labels_only") else "outputs"
    part = "shows a difference, or that it is small" if heads else "shows a difference" if decides else "none"
    facts = [("knows", KNOWS.get(attack["knows"], attack["knows"])), ("sees", sees), ("for the verdict", part)]
    cite = [("reference", attack["cite"])] if attack.get("cite") else []
    return {"name": attack["name"], "summary": attack.get("summary", ""), "facts": [*facts, *cite]}


def _card(run: Mapping[str, Any], numbers: Numbers, entry: Mapping[str, Any]) -> dict[str, Any]:
    """What is shown of one method: what it is, what it may and did read, its time, settings and remarks."""
    name, remark = entry["name"], words.status(run, entry, numbers)
    files = [(file["name"], f"SHA-256 {file['sha256']}") for file in entry.get("files") or ()]
    unknown = "not known" if files else ""
    return {
        "name": name,
        "summary": entry.get("summary", ""),
        "status": remark,
        "cite": entry.get("cite", ""),
        "facts": [
            ("may read", unknown or ", ".join(entry.get("needs", ())) or "nothing"),
            ("read", unknown or _read(numbers, name)),
            ("time", unknown or _time(run, numbers, name)),
        ],
        "files": files,
        "settings": [
            (key, _text(value), key in entry.get("tuned", {})) for key, value in entry.get("settings", {}).items()
        ],
        "notes": _remarks(entry),
    }


def _read(numbers: Numbers, method: str) -> str:
    read = {part: numbers.value(method, "samples_read", part) for part in (*READ, TOLD)}
    named = [f"{count(value)} {PARTS[part]}" for part, value in read.items() if value > 0]
    if named:
        return ", ".join(named) + " examples"
    return "no examples" if any(value == 0 for value in read.values()) else MISSING


def _time(run: Mapping[str, Any], numbers: Numbers, method: str) -> str:
    """Seconds of the first request and of preparing for it, and the share of retraining."""
    request, prepare = (numbers.value(method, f"seconds_{kind}", None) for kind in ("request", "prepare"))
    if not request >= 0:
        return MISSING
    share = ratio(numbers, method, [0])
    before = f", {significant(prepare)} s to prepare" if prepare > 0 else ""
    first = "first request " if run["steps"] > 1 else "request "
    return f"{first}{significant(request)} s{before}" + ("" if share == MISSING else f"; {share} × retraining")


def _remarks(entry: Mapping[str, Any]) -> list[str]:
    """The notes of the runs that are not ok or that left numbers, one line each."""
    lines = []
    for note in entry.get("notes", ()):
        said = [note["status"]] if note["status"] != "ok" else []
        said += [f"{key} {_text(value)}" for key, value in note.get("numbers", {}).items()]
        if said:
            lines.append(f"seed {note['seed']}, request {int(note['step']) + 1}: " + ", ".join(said))
    return lines


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return ", ".join(map(_text, value)) if isinstance(value, list | tuple) else str(value)


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
    return [(head, [(key, _text(value)) for key, value in pairs.items()]) for head, pairs in groups.items() if pairs]
