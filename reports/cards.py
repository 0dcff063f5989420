"""The cards of the page: one for each method and one for each attack, what it is, reads, costs and where it is from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reports import words
from reports.hints import PARTS
from reports.numbers import MISSING, Numbers, count, memory, significant
from reports.tables import READ, TOLD, highest, ratio

Facts = list[tuple[str, str]]

KNOWS = {
    "unlearned": "the method, and makes models with it",
    "original": "the original's kind, not the method",
    "model": "one model and unseen data",
}


def method(run: Mapping[str, Any], numbers: Numbers, entry: Mapping[str, Any]) -> dict[str, Any]:
    """What is shown of one method; a run of before has no `source`, `deviations` and `cost`."""
    files = [(file["name"], f"SHA-256 {file['sha256']}") for file in entry.get("files") or ()]
    return {
        "name": entry["name"],
        "summary": entry.get("summary", ""),
        "status": words.status(run, entry, numbers),
        "facts": _facts(run, numbers, entry),
        "deviations": [_deviations(one["lead"], one["clauses"]) for one in entry.get("deviations", ())],
        "files": files,
        "settings": [
            (key, text(value), key in entry.get("tuned", {})) for key, value in entry.get("settings", {}).items()
        ],
        "notes": _remarks(entry),
    }


def attack(run: Mapping[str, Any], one: Mapping[str, Any]) -> dict[str, Any]:
    """What an attack does, what its attacker knows and sees, and whether it decides verdicts."""
    decides = one["name"] in run["audit"].get("family", ())
    heads = one["name"] == run["audit"].get("headline")
    sees = "labels alone" if one.get("labels_only") else "outputs"
    part = "shows a difference, or that it is small" if heads else "shows a difference" if decides else "none"
    facts = [("knows", KNOWS.get(one["knows"], one["knows"])), ("sees", sees), ("for the verdict", part)]
    reference = one.get("source") or one.get("cite")
    facts += [("reference", reference)] if reference else []
    return {"name": one["name"], "summary": one.get("summary", ""), "facts": facts}


def _facts(run: Mapping[str, Any], numbers: Numbers, entry: Mapping[str, Any]) -> Facts:
    """What it may read and did read, what it cost, and the paper; of weights made elsewhere little is known."""
    name, unknown = entry["name"], "not known" if entry.get("files") else ""
    peak = memory(numbers.value(name, "peak_bytes", None, highest(numbers, name, range(run["steps"]))))
    cost, reference = entry.get("cost"), entry.get("source") or entry.get("cite")
    return [
        ("may read", unknown or ", ".join(need.replace("_", " ") for need in entry.get("needs", ())) or "nothing"),
        ("read", unknown or _read(numbers, name)),
        ("time", unknown or _time(run, numbers, name)),
        *([("peak memory", peak)] if peak != MISSING else []),
        *([("cost, F1", cost)] if cost else []),
        *([("reference", reference)] if reference else []),
    ]


def _deviations(lead: str, clauses: Sequence[str]) -> tuple[str, list[str]]:
    """From what it deviates, empty where that is not told apart, and how."""
    lead = lead.rstrip(".:")
    return "" if lead == "Deviations" else lead, [clause.removeprefix(":").strip() for clause in clauses]


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
        said += [f"{key} {text(value)}" for key, value in note.get("numbers", {}).items()]
        if said:
            lines.append(f"seed {note['seed']}, request {int(note['step']) + 1}: " + ", ".join(said))
    return lines


def text(value: object) -> str:
    """A setting as one reads it: six digits, lists with commas."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return ", ".join(map(text, value)) if isinstance(value, list | tuple) else str(value)
