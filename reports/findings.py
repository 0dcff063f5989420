"""What a run found, in sentences that follow from its numbers and claim no more than its intervals allow."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.interface import Record
from bench.records import Results
from reports import verdicts, words
from reports.numbers import AUDITS, REFERENCE, Numbers, alike, fixed, with_interval, wrecked
from reports.quantities import ACCURACY, ANCHORS, FORGOTTEN, KEPT, UNDETECTED, Quantity
from reports.tables import ratio

IDLE = {"unchanged", "refused", "too_fast"}  # statuses of a model that is the original


def sentences(results: Results) -> list[str]:
    """The findings after the last request, most important first."""
    numbers = Numbers(results.records)
    aside = words.aside(results.run)
    methods = [entry["name"] for entry in results.run["methods"] if entry["name"] not in aside]
    known = [method for method in methods if numbers.knows(method)]
    broken = [method for method in known if _wrecked(results, numbers, method)]
    idle = [method for method in known if method not in broken and _idle(results, method)]
    known = [method for method in known if method not in (*broken, *idle)]
    return [
        *verdicts.sentences(results, [method for method in methods if numbers.knows(method)]),
        *_forgotten(results, numbers, known),
        *_accuracy(results, numbers, known),
        *_restored(results, numbers, known),
        *_returned(results, numbers, known),
        *_missed(results, numbers, known),
        *_attack(results, numbers, known),
        *_controls(results, numbers),
        *_unusable(results, broken),
        *_untouched(idle),
        *_without_numbers(results, numbers),
    ]


def _wrecked(results: Results, numbers: Numbers, method: str) -> bool:
    """Whether some run of a method left no usable model."""
    mine = (one for one in results.records if one.method == method and one.seed == "all")
    return any(wrecked(one) for one in mine if not one.metric.startswith(AUDITS))


def _unusable(results: Results, methods: Sequence[str]) -> list[str]:
    where = "from their errors" if verdicts.judged(results.run) else "there"
    if not methods:
        return []
    sentence = (
        f"Some models of {words.listed(methods)} diverged, collapsed or were not made; nothing is concluded {where}."
    )
    return [sentence]


def _idle(results: Results, method: str) -> bool:
    """Whether every run of a method gave the original back."""
    (entry,) = (entry for entry in results.run["methods"] if entry["name"] == method)
    statuses = [note["status"] for note in entry.get("notes", ())]
    return bool(statuses) and all(IDLE & set(status.split(" and ")) for status in statuses)


def _untouched(methods: Sequence[str]) -> list[str]:
    if not methods:
        return []
    return [f"All models of {words.listed(methods)} are the original, unchanged: a step was refused or there was none."]


def _gap(results: Results, numbers: Numbers, method: str, quantity: Quantity) -> tuple[Record | None, bool]:
    """The gap of a method after the last request, None without an interval; and whether no difference is shown."""
    step = results.run["steps"] - 1
    gap = numbers.summary(method, f"{quantity.metric}_gap", quantity.part, step)
    if gap is None or math.isnan(gap.low) or math.isnan(gap.high):
        return None, False
    return gap, alike(gap, numbers.deviation(REFERENCE, quantity.metric, quantity.part, step))


def _sorted_gaps(
    results: Results, numbers: Numbers, methods: Sequence[str], quantity: Quantity
) -> tuple[list[str], str, str, list[str]]:
    """Methods like retraining; in words, with their gaps, those below and those above it; those without an interval."""
    same: list[str] = []
    below: list[tuple[str, str]] = []
    above: list[tuple[str, str]] = []
    silent: list[str] = []
    for method in methods:
        gap, close = _gap(results, numbers, method, quantity)
        if gap is None:
            silent.append(method)
        elif close:
            same.append(method)
        else:
            (below if gap.value < 0 else above).append((method, f"({with_interval(gap, signed=True)} points)"))
    return same, words.numbered(below), words.numbered(above), silent


def _forgotten(results: Results, numbers: Numbers, methods: Sequence[str]) -> list[str]:
    quantity = FORGOTTEN[results.run["scenario"]][0]
    same, below, above, silent = _sorted_gaps(results, numbers, methods, quantity)
    ideal = words.ideal(results.run)
    found = []
    if same:
        seeds = min(gap.n for method in same if (gap := _gap(results, numbers, method, quantity)[0]))
        basis = f"95 % intervals over {seeds} seeds against the {results.run['reference_models']} models of the pool"
        speed = _fastest(results, numbers, same)
        found.append(f"By forget error, no difference from {ideal} is shown for {words.listed(same)} ({basis}).{speed}")
    elif methods and not silent:
        found.append(f"By forget error, every method differs from {ideal}.")
    if below:
        found.append(f"Forget error stays below that of {ideal}, as if part were remembered, for {below}.")
    if above:
        found.append(f"Forget error goes beyond that of {ideal} for {above}.")
    if silent:
        found.append(
            f"Forget error has no interval for {words.listed(silent)}, so nothing is concluded about forgetting there."
        )
    return found


def _fastest(results: Results, numbers: Numbers, methods: Sequence[str]) -> str:
    """A sentence to go on with, empty where nothing was timed."""
    step = results.run["steps"] - 1
    times = {method: numbers.value(method, "seconds_request", None, step) for method in methods}
    elsewhere = results.run.get("timed_elsewhere", [])
    timed = [m for m in methods if math.isfinite(times[m]) and m not in (*elsewhere, *ANCHORS)]
    if not timed or not math.isfinite(numbers.value("retrain", "seconds_request", None, step)):
        return ""
    first = min(timed, key=times.__getitem__)
    who = "It" if len(methods) == 1 else f"The fastest method among them, {first},"
    return f" {who} takes {ratio(numbers, first, [step])} of the time that retraining takes for a request."


def _accuracy(results: Results, numbers: Numbers, methods: Sequence[str]) -> list[str]:
    quantity = ACCURACY.get(results.run["scenario"], KEPT)[1]
    same, below, above, _ = _sorted_gaps(results, numbers, methods, quantity)
    found = []
    ideal = words.ideal(results.run)
    if same and not below and not above:
        found.append(f"No method's test error is shown to differ from that of {ideal}.")
    if above:
        found.append(f"Test error is higher than after {ideal} for {above}.")
    if below:
        found.append(f"Test error is lower than after {ideal} for {below}.")
    return found


def _restored(results: Results, numbers: Numbers, methods: Sequence[str]) -> list[str]:
    """What came back of the accuracy that wrong labels cost."""
    shares = {method: numbers.summary(method, "restored", "test") for method in methods}
    said = [f"{m} {with_interval(s)}" for m, s in shares.items() if s is not None and math.isfinite(s.value)]
    return [f"Of the accuracy that wrong labels cost came back, as a share: {words.listed(said)}."] if said else []


def _returned(results: Results, numbers: Numbers, methods: Sequence[str]) -> list[str]:
    """Single requests, after the last one: those that were forgotten and came back, and those forgotten too well."""
    last, back, beyond = results.run["steps"] - 1, [], []
    for method in methods:
        for step in range(results.run["steps"] if last else 0):
            then, now = (numbers.summary(method, "error_gap", f"chunk{step + 1}", at) for at in (step, last))
            if not then or not now:
                continue
            said = f"{method} (request {step + 1}: {with_interval(now, signed=True)} points)"
            # The pool moves too: what came back is what the method itself gets right again.
            error = [numbers.summary(method, "error", f"chunk{step + 1}", at) for at in (step, last)]
            fell = error[0] is not None and error[1] is not None and error[1].value < error[0].value
            back += [said] if fell and then.high >= 0 > now.high and now.value < then.value else []
            beyond += [said] if now.low > 0 else []
    return [
        *(
            [f"What earlier requests took was forgotten and is recognized again by {words.listed(back)}."]
            if back
            else []
        ),
        *([f"Of single requests, error goes beyond the pool's for {words.listed(beyond)}."] if beyond else []),
    ]


def _missed(results: Results, numbers: Numbers, methods: Sequence[str]) -> list[str]:
    """What became of the wrong labels that no method was told of."""
    if not words.undetected(results.run):
        return []
    _, below, above, _ = _sorted_gaps(results, numbers, methods, UNDETECTED[1])
    if above:
        return [f"On samples with undetected wrong labels the true-label error stays higher for {above}."]
    return [] if below else ["On samples with undetected wrong labels no method's true-label error is shown to differ."]


def _attack(results: Results, numbers: Numbers, methods: Sequence[str]) -> list[str]:
    if verdicts.judged(results.run):  # which says more
        return []
    areas = {method: numbers.summary(method, "attack_auc", "forget", results.run["steps"] - 1) for method in methods}
    judged = {
        method: area for method, area in areas.items() if area is not None and not math.isnan(area.low + area.high)
    }
    told = [f"{m} (AUC {with_interval(a)})" for m, a in judged.items() if not a.low <= 0.5 <= a.high]
    ideal = words.ideal(results.run)
    if told:
        return [f"The membership attack tells from {ideal}: {words.listed(told)}."]
    return [f"The membership attack tells no method from {ideal}: every AUC interval holds 0.5."] if judged else []


def _controls(results: Results, numbers: Numbers) -> list[str]:
    """Warnings where the two rows with a known answer do not give it."""
    forgotten = FORGOTTEN[results.run["scenario"]][0]
    tested = ACCURACY.get(results.run["scenario"], KEPT)[1]
    found = []
    for name, quantity in (("forget", forgotten), ("test", tested)):
        retrain, close = _gap(results, numbers, "retrain", quantity)
        if retrain and not close and not words.undetected(results.run):
            size = fixed(retrain.value, signed=True)
            found.append(
                f"Caution: by {name} error the control row retrain is itself {size} points off the pool; read gaps of "
                "that size as noise."
            )
    original, close = _gap(results, numbers, "original", forgotten)
    if original and close:
        found.append(
            "Caution: by forget error not even original is shown to differ from the pool: there is little to forget, "
            "or there are too few seeds to tell."
        )
    return found


def _without_numbers(results: Results, numbers: Numbers) -> list[str]:
    lost = [entry for entry in results.run["methods"] if entry["status"] != "ok"]
    return [f"{entry['name']} {words.status(results.run, entry, numbers).rstrip('.')}." for entry in lost]
