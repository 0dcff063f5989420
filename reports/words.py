"""What a report says in words about a run as a whole: its setting, the state of each method, the key to the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.records import Results
from reports import audit_words, legend
from reports.leagues import headed
from reports.numbers import REFERENCE, Numbers
from reports.quantities import ANCHORS

if TYPE_CHECKING:
    from reports.grid import Table


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


FEW = 6  # names with numbers that can still be read in a sentence


def numbered(pairs: Sequence[tuple[str, str]]) -> str:
    """Names with their numbers, `a (1) and b (2)`; of many, the names alone, as the numbers stand in the tables."""
    if len(pairs) > FEW:
        return f"{listed([name for name, _ in pairs])} (numbers in the tables)"
    return listed([f"{name} {number}".rstrip() for name, number in pairs])


def row_name(run: Mapping[str, Any], method: str) -> str:
    """The name a method has in a table; a dagger marks tuned hyper-parameters."""
    if method == REFERENCE:
        return f"{pool(run)} (n={run['reference_models']})"
    tuned = any(entry["name"] == method and entry.get("tuned") for entry in run["methods"])
    named = f"{method} (no method)" if method in ceilings(run) else method
    return f"{named} †" if tuned else named


def undetected(run: Mapping[str, Any]) -> int:
    """How many poisoned samples no method was told of; the row retrain trains on them, the reference pool does not."""
    return sum(run.get("undetected_samples", ()))


def controls(run: Mapping[str, Any]) -> tuple[str, ...]:
    """The rows with a known answer. Where some poison was not found, retraining learns it: a method like the others."""
    return ("original",) if undetected(run) else ANCHORS


def ceilings(run: Mapping[str, Any]) -> tuple[str, ...]:
    """The rows that are no methods: they use what makes unlearning needless."""
    return tuple(entry["name"] for entry in run["methods"] if entry.get("ceiling"))


def aside(run: Mapping[str, Any]) -> tuple[str, ...]:
    """The rows that no method competes with: those with a known answer, and those that are no methods."""
    return (*controls(run), *ceilings(run))


def ideal(run: Mapping[str, Any]) -> str:
    """What the reference pool stands for, as the second half of a comparison."""
    return "clean training" if undetected(run) else "retraining"


def pool(run: Mapping[str, Any]) -> str:
    """What the reference pool is called."""
    return "clean pool" if undetected(run) else "retrained pool"


def status(run: Mapping[str, Any], entry: Mapping[str, Any], numbers: Numbers, step: int | None = None) -> str:
    """`ok`, the reason for which numbers are missing, or what was odd in how many runs (of one step)."""
    noted = {(str(note["seed"]), int(note["step"]), str(note["status"])) for note in entry.get("notes", ())}
    told = {(seed, at, text) for seed, at, text in noted | numbers.statuses(entry["name"]) if step in (None, at)}
    repeats = len(entry.get("files") or run["seeds"])
    runs = repeats * (run["steps"] if step is None else 1)
    if entry["status"] != "ok":
        lost = len({(seed, at) for seed, at, text in told if text.startswith("failed")})
        where = f" (in {lost} of {runs} runs)" if lost and numbers.knows(entry["name"]) else ""
        return " ".join(str(entry["status"]).split()) + where
    # A run may have said several things at once, `not_converged and diverged`.
    odd = [
        word for _, _, word in {(s, at, word) for s, at, text in told for word in text.split(" and ")} if word != "ok"
    ]
    counted = [f"{word.replace('_', ' ')} in {odd.count(word)} of {runs} runs" for word in sorted(set(odd))]
    if few := entry.get("lost_for_attacks"):
        reason = str(few["reason"]).removeprefix("failed: ")
        counted.append(f"failed in {few['runs']} of {few['of']} runs for the attacks: {reason}")
    return "; ".join(counted) or "ok"


def settings(values: Mapping[str, Any]) -> str:
    """`lr=0.05, epochs=100`."""
    return ", ".join(
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in values.items()
    )


def recipe(run: Mapping[str, Any]) -> str:
    """The recipe in a few words: its name and the values that say most about it."""
    values = run.get("recipe", {})
    main = {name: values[name] for name in ("epochs", "batch_size", "lr") if name in values}
    main |= run.get("recipe_changes", {})
    return f"{values.get('name', 'unnamed')} ({settings(main)})" if main else str(values.get("name", "unnamed"))


def removed(run: Mapping[str, Any]) -> str:
    """Names of the removed classes, empty where none was removed."""
    names = run.get("class_names", [])
    return ", ".join(
        str(names[index]) if index < len(names) else str(index) for index in run.get("removed_classes", [])
    )


def draw(run: Mapping[str, Any]) -> str:
    """How the forget set was drawn, empty where the scenario leaves no choice."""
    return str(run.get("config", {}).get("scenario_settings", {}).get("draw", ""))


def hard(run: Mapping[str, Any]) -> str:
    """How hard the forget set is, in a few words: canaries, or its mean memorization score where that was told."""
    scores = run.get("memorization")
    if draw(run) == "canaries":
        return "forget set: canaries, trained with wrong labels"
    if not scores:
        return ""
    name, mean, every = draw(run).replace("_", " "), scores["forget"], scores["all"]
    told = f"memorization {mean:.3f} (all samples {every:.3f}, {scores['half_models']} half models)"
    return f"forget set: {name}, {told}"


def setting(run: Mapping[str, Any]) -> str:
    """One line on what was run: data, network, scenario, recipe, repeats, references."""
    seeds = ", ".join(map(str, run["seeds"]))
    facts = [
        f"Dataset {run['dataset']}",
        f"architecture {run['architecture']}",
        f"scenario {run['scenario']}",
        f"removed classes: {removed(run)}" if removed(run) else "",
        f"wrong labels: {sum(run['forget_samples'])} known, {undetected(run)} undetected" if undetected(run) else "",
        hard(run),
        f"recipe {recipe(run)}",
        f"seed {seeds}" if len(run["seeds"]) == 1 else f"{len(run['seeds'])} seeds ({seeds})",
        f"{run['reference_models']} {'clean' if undetected(run) else 'retrained'} reference models",
        f"configuration {run['config_hash']}",
    ]
    return " · ".join(fact for fact in facts if fact)


def key(results: Results, tables: Sequence[Table]) -> list[str]:
    """How to read the tables, in sentences; only what the tables of this run need."""
    run, heads = results.run, {head for table in tables for head, _ in table.heads}
    after = " It was run after the last request." if run["steps"] > 1 else ""
    notes = [_pool_note(run), _gap_note(run), legend.STAR]
    notes += [legend.MASKED] if run["scenario"] == "class_removal" else []
    notes += [legend.ENTROPY] if "entropy W1" in heads else []
    notes += [legend.MEMORIZATION] if run.get("memorization") else []
    notes += [legend.CANARIES] if draw(run) == "canaries" else []
    notes += [legend.RESTORED] if "restored" in heads else []
    notes += [legend.UNDETECTED] if undetected(run) else []
    notes += [legend.BY_REQUEST] if any(table.by_request for table in tables) else []
    notes += [legend.CONFUSION] if "pair confusion" in heads else []
    decides = (run.get("audit") or {}).get("headline")
    notes += [legend.ATTACK + after] if "attack AUC" in heads and not decides else []
    notes += audit_words.notes(run, tables)
    notes += [legend.TRADEOFF]
    notes += [legend.PUBLISHED] if any(table.name == "paper" for table in tables) else []
    own = any("own_training" in entry.get("needs", ()) for entry in run["methods"])
    failed = any(entry["status"].startswith("failed") for entry in run["methods"])
    notes += [_given_note(run, entry) for entry in run["methods"] if entry.get("files")]
    notes += [legend.CEILING.format(listed(ceilings(run)))] if ceilings(run) else []
    notes += [legend.LEAGUES] if any(any(headed(table.rows)) for table in tables) else []
    notes += [legend.TIME, legend.EVEN, *([legend.OWN] if own else []), legend.READ]
    notes += [legend.FAILED] if failed else []
    return [*notes, *_elsewhere_notes(run), *_tuned_notes(run)]


def _pool_note(run: Mapping[str, Any]) -> str:
    seen = "any wrong label, known or not," if undetected(run) else "the forget set,"
    retrain = (
        "The row retrain knows of no more wrong labels than the methods and learns the undetected ones, as a user's "
        "retraining would: it is no control here"
        if undetected(run)
        else "The row retrain is an independent draw that should look like the pool"
    )
    return (
        f"The {pool(run)}, {run['reference_models']} models trained without {seen} is what every method is compared "
        f"with (mean ± standard deviation over models). {retrain}; the row original has forgotten nothing."
    )


def _gap_note(run: Mapping[str, Any]) -> str:
    repeats = len(run["seeds"])
    over = "one seed, so there is no interval" if repeats == 1 else f"{repeats} seeds"
    return (
        f"Errors are mean ± standard deviation over {over}. A gap is the value minus the mean of the pool, in "
        "percentage points, with its 95 % interval over both (Welch). Best is nearest to the pool, not the highest "
        "forget error."
    )


def _given_note(run: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """What can be said of weights made elsewhere; `examination.FEWEST` models must learn and be judged."""
    files = len(entry["files"])
    models = f"{files} models" if files > 1 else "one model"
    told = f"{entry['name']}: weights made elsewhere, {models}; what making them read and cost is not known."
    if not (run.get("audit") or {}).get("headline"):
        return told
    if files >= ENOUGH:
        return f"{told} Attacks that know the method learned from {files // 2} of them and judged the others."
    return (
        f"{told} Attacks that know the method need {ENOUGH} models, half to learn from and half to judge. With fewer a "
        "difference can be found (p if chance: how often as many retrained models would stand out as much), but its "
        "absence cannot be shown."
    )


ENOUGH = 8  # models that attacks which know the method need: four to learn from and four to judge


def _elsewhere_notes(run: Mapping[str, Any]) -> list[str]:
    names = ", ".join(run.get("timed_elsewhere", []))
    return [f"Timed in another session than retrain, so read their ratios with care: {names}."] if names else []


def _tuned_notes(run: Mapping[str, Any]) -> list[str]:
    tuned = [f"{entry['name']}: {settings(entry['tuned'])}" for entry in run["methods"] if entry.get("tuned")]
    note = "† other than the method's defaults, by the preset or by hand: " + "; ".join(tuned) + "."
    return [" ".join([note, *_sources(run)])] if tuned else []


def _sources(run: Mapping[str, Any]) -> list[str]:
    """Which presets found values for which methods, a sentence each, and whether what is reported had a part in it."""
    credits = {name: credit for name, credit in run.get("provenance", {}).items() if credit["trials"] > 1}
    sentences = []
    for preset in dict.fromkeys(credit["preset"] for credit in credits.values()):
        mine = {name: credit for name, credit in credits.items() if credit["preset"] == preset}
        one = next(iter(mine.values()))
        seen = any(_reported(draw, run) for credit in mine.values() for draw in credit["draws"])
        which = "some of the requests" if seen else "other draws"
        sentences.append(
            f"{', '.join(mine)}: found for the preset {preset} ({one['date']}, commit {one['commit']}) by up to "
            f"{max(credit['trials'] for credit in mine.values())} trials each on {one['dataset']} with "
            f"{one['architecture']}, {which} and other models than these, no test data, no retrained model."
        )
    return sentences


def _reported(draw: Mapping[str, Any], run: Mapping[str, Any]) -> bool:
    """Whether a draw that was chosen on is, or shares classes with, what this run reports."""
    settings = run.get("config", {}).get("scenario_settings", {})
    same_class = "target_class" in draw and draw["target_class"] == settings.get("target_class")
    first = settings.get("draw") == "class_first"  # of other draws the seeds differ
    return bool(set(draw.get("removed", ())) & set(run["removed_classes"])) or (first and same_class)
