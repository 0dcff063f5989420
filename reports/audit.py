"""The tables of an audit: what attacks find, how far the outputs are from retrained ones, what fine-tuning recovers."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.interface import Record
from bench.records import Results
from reports import compared, words
from reports.grid import Place, Table, line, methods
from reports.numbers import MISSING, REFERENCE, TOLERANCE, Numbers, alike, chance, fixed, with_interval

Cell = Callable[[Numbers, str, int], str]  # numbers, method and step to the text of a cell
UNLIKELY = 0.05  # p-values below it make a difference
MOST = 8  # columns that the width of a page can hold beside the names
SHORT_OF = re.compile(r"needs (\d+) negatives and has (\d+)")
KNOWING = "What the attacks find: attackers who know the method"
OTHERS = "Attacks that do not know the method, for comparison with papers"
OUTPUTS, LABELS = "outputs", "labels only"


@dataclass(frozen=True)
class Column:
    """One column: its head, which way is good, the metric behind it and how its cells are written."""

    head: str
    goal: str
    metric: str
    cell: Cell
    part: str | None = "forget"
    optional: bool = False  # not shown where there is no number, whatever the reason
    scale: float = 1.0  # from the records' unit to that of the cells

    def known(self, run: Mapping[str, Any], numbers: Numbers) -> bool:
        """Whether any row has something to say here, were it the reason for which there is no number."""
        names = (REFERENCE, *(entry["name"] for entry in run["methods"]))
        found = (numbers.summary(name, self.metric, self.part, run["steps"] - 1) for name in names)
        return any(
            one is not None and (math.isfinite(one.value) or (_lacks(one) and not self.optional)) for one in found
        )


def tables(results: Results) -> list[Table]:
    """The tables that the audit of a run has numbers for, after the last request; [] for a run without an audit."""
    if results.run.get("audit") is None:
        return []
    run, numbers = results.run, Numbers(results.records)
    distance = f"How far from {'clean training' if words.undetected(run) else 'retrained'}"
    far = "Distances of outputs to the pool with 95 % intervals; the pool's own row is the floor"
    way = (
        "Log-odds of the label on the forget set in sd of the pool, and the samples beyond what 95 % of its models show"
    )
    white = "Attackers who hold the weights; the pool's row is the same done to retrained models"
    return [
        *_attacks(run, numbers),
        *_table(run, numbers, "distance", distance, far, DISTANCE),
        *_table(run, numbers, "direction", "Surer or less sure", way, DIRECTION),
        *_table(run, numbers, "whitebox", "White-box audit", white, WHITEBOX),
        *_compared(run, numbers),
    ]


def _compared(run: dict[str, Any], numbers: Numbers) -> list[Table]:
    """The methods ranked; above the table why there are no p-values, where no difference could be shown."""
    units = "Ranked by how far the area of the attack that decides is from 0.5; paired p-values, adjusted (Holm)"
    reason = compared.too_few(run, numbers)
    columns = [
        Column("average rank", "↓", compared.RANK, compared.rank),
        Column("p", "against the best", compared.P, compared.against_best(tells=not reason)),
    ]
    made = _table(run, numbers, "compared", "Methods compared", units, columns, rows=methods(run))
    return [dataclasses.replace(table, warning=reason) for table in made]


def _table(
    run: dict[str, Any],
    numbers: Numbers,
    name: str,
    caption: str,
    units: str,
    columns: Sequence[Column],
    rows: Sequence[str] = (),
) -> list[Table]:
    shown = [column for column in columns if column.known(run, numbers)]
    if not shown:
        return []
    heads = [("method", ""), *((column.head, _goal(run, column.goal)) for column in shown)]
    last = run["steps"] - 1
    places = [Place(column.metric, column.part, last, column.scale) for column in shown]
    lines = [
        line(run, numbers, method, [column.cell(numbers, method, last) for column in shown], places=places)
        for method in rows or (REFERENCE, *methods(run))
    ]
    return [Table(name, caption, units, heads, lines, metrics=("", *(column.metric for column in shown)))]


def _goal(run: Mapping[str, Any], goal: str) -> str:
    return goal.replace("retrained", "clean") if words.undetected(run) else goal


def _attacks(run: dict[str, Any], numbers: Numbers) -> list[Table]:
    """Attacks that know the method, the one that decides first; then those that do not."""
    attacks, headline = run["audit"].get("attacks") or [], run["audit"].get("headline")
    knowing = [one for one in attacks if one["knows"] == "unlearned"]
    others = sorted((one for one in knowing if one["name"] != headline), key=lambda one: bool(one.get("labels_only")))
    first = _headline(headline, run["audit"].get("margin", math.nan)) if headline else []
    rest = [_comparable(one) for kind in ("original", "model") for one in attacks if one["knows"] == kind]
    models = run["audit"].get("models") or {}
    tested = f" ({models['unlearned_test']} of a method, {models['retrained_test']} retrained)" if models else ""
    found = "Areas under the ROC curve with 95 % intervals over test models"
    return [
        *_split(run, numbers, "attacks", KNOWING, found + tested, first, _areas(others)),
        *_split(run, numbers, "population", OTHERS, found, [], rest),
    ]


def _split(
    run: dict[str, Any],
    numbers: Numbers,
    name: str,
    caption: str,
    units: str,
    first: Sequence[Column],
    rest: Sequence[Sequence[Column]],
) -> list[Table]:
    """One table, or several where there are more attacks than one can hold."""
    blocks = [list(first)]
    for attack in rest:
        if len(blocks[-1]) + len(attack) > MOST:
            blocks.append([])
        blocks[-1] += attack
    found: list[Table] = []
    for place, columns in enumerate(blocks):
        also, number = (", continued", str(place + 1)) if place else ("", "")
        found += _table(run, numbers, f"{name}{number}", caption + also, units, columns)
    return found


def _headline(name: str, margin: float) -> list[Column]:
    """The attack that decides: its area, the p-values of both questions, and rates where few are wrongly accused."""
    return [
        Column(name, "AUC → 0.5", f"attack_auc:{name}", _interval(f"attack_auc:{name}")),
        Column("p", "if chance", f"attack_p:{name}", _p(f"attack_p:{name}")),
        Column("p", f"if beyond ± {margin:g}", f"attack_equivalence_p:{name}", _p(f"attack_equivalence_p:{name}")),
        _rare("TPR at 1 % FPR", "→ 1 %", f"attack_tpr_1:{name}"),
        _rare("TPR at 0.1 % FPR", "→ 0.1 %", f"attack_tpr_01:{name}", optional=True),
    ]


def _rare(head: str, goal: str, metric: str, *, optional: bool = False) -> Column:
    return Column(head, goal, metric, _rate(metric), optional=optional, scale=100.0)


def _areas(attacks: Sequence[Mapping[str, Any]]) -> list[list[Column]]:
    found = []
    for one in attacks:
        seen = LABELS if one.get("labels_only") else OUTPUTS
        found.append([_column(one["name"], f"AUC, {seen}", f"attack_auc:{one['name']}")])
    return found


def _comparable(attack: Mapping[str, Any]) -> list[Column]:
    name = attack["name"]
    area, rate = f"attack_auc:{name}", f"attack_rate:{name}"
    if attack["knows"] == "original":
        return [Column(name, "AUC → 0.5", area, _interval(area))]
    return [
        Column(name, "AUC → pool", area, _starred(area, f"attack_p:{name}")),
        Column("members", "%, gap → 0", rate, _with_gap(rate)),
    ]


def _interval(metric: str, part: str = "forget", digits: int = 2, *, signed: bool = False) -> Cell:
    def cell(numbers: Numbers, method: str, step: int) -> str:
        record = numbers.summary(method, metric, part, step)
        return _lacks(record) or with_interval(record, digits, signed=signed and method != REFERENCE)

    return cell


def _rate(metric: str) -> Cell:
    """A rate in `[0, 1]` as percent, or how many negatives there are of those that it needs."""

    def cell(numbers: Numbers, method: str, step: int) -> str:
        record = numbers.summary(method, metric, "forget", step)
        return _lacks(record) or with_interval(_percent(record), 1)

    return cell


def _percent(record: Record | None) -> Record | None:
    if record is None:
        return None
    value, low, high = (100 * number for number in (record.value, record.low, record.high))
    return dataclasses.replace(record, value=value, low=low, high=high)


def _lacks(record: Record | None) -> str:
    """`n/a, 560 of 1,000` where a number would need more scores than there are; empty otherwise."""
    short = SHORT_OF.search(record.status) if record is not None and math.isnan(record.value) else None
    return f"{MISSING}, {int(short[2]):,} of {int(short[1]):,}" if short else ""


def _plain(metric: str, digits: int, scale: float = 1.0) -> Cell:
    """The value alone, from whatever part has it."""
    return lambda numbers, method, step: fixed(scale * numbers.value(method, metric, None, step), digits)


def _p(metric: str) -> Cell:
    return lambda numbers, method, step: chance(numbers.value(method, metric, "forget", step))


def _starred(metric: str, likely: str) -> Cell:
    """An interval with a star where no difference from the pool is shown."""

    def cell(numbers: Numbers, method: str, step: int) -> str:
        text = _interval(metric)(numbers, method, step)
        return text + ("*" if numbers.value(method, likely, "forget", step) >= UNLIKELY and text != MISSING else "")

    return cell


def _with_gap(metric: str) -> Cell:
    """`31.2 (+4.1*)`: the value and its gap to the pool, which has none."""

    def cell(numbers: Numbers, method: str, step: int) -> str:
        value = numbers.value(method, metric, "forget", step)
        gap = numbers.summary(method, metric.replace("attack_rate", "attack_rate_gap"), "forget", step)
        if math.isnan(value) or gap is None or method == REFERENCE:
            return fixed(value, 1)
        pool = numbers.summary(REFERENCE, metric, "forget", step)
        spread = math.nan if pool is None else pool.high - pool.low  # 0 where all of the pool's models agree
        return f"{fixed(value, 1)} ({fixed(gap.value, 1, signed=True)}{'*' if alike(gap, spread) else ''})"

    return cell


def _share_of_floor(metric: str) -> Cell:
    def cell(numbers: Numbers, method: str, step: int) -> str:
        own, floor = (numbers.value(name, metric, "forget", step) for name in (method, REFERENCE))
        return fixed(own / floor, 2) if floor > 0 else MISSING

    return cell


def _beside_floor(metric: str, part: str) -> Cell:
    """A number without interval, with a star where it is not beyond what chance does to the floor, whose range is told.

    Both depend on the number of models, so that they compare only where it is the same.
    """

    def cell(numbers: Numbers, method: str, step: int) -> str:
        own, floor = (numbers.summary(name, metric, part, step) for name in (method, REFERENCE))
        if own is None or method == REFERENCE or math.isfinite(own.low):
            return with_interval(own)
        within = floor is not None and own.n == floor.n and own.value <= floor.high + TOLERANCE
        return fixed(own.value) + ("*" if within else "")

    return cell


def _column(
    head: str, goal: str, metric: str, part: str = "forget", digits: int = 2, *, signed: bool = False
) -> Column:
    return Column(head, goal, metric, _interval(metric, part, digits, signed=signed), part)


DISTANCE = [
    Column("KLoM, forget", "↓ floor", "klom_quantile", _beside_floor("klom_quantile", "forget")),
    Column("KLoM, unseen", "↓ floor", "klom_quantile", _beside_floor("klom_quantile", "unseen"), "unseen"),
    _column("agreement, %", "→ pool", "agreement", digits=1),
    _column("output JS", "↓ floor", "output_js", digits=3),
    _column("activation L2", "↓ floor", "activation_l2", digits=3),
    Column("forgetting score", "÷ floor, → 1", "forgetting_score", _share_of_floor("forgetting_score")),
]
DIRECTION = [
    _column("log-odds shift", "→ 0", "phi_shift", signed=True),
    _column("surer than the pool", "%, → pool", "phi_above", digits=1),
    _column("less sure than the pool", "%, → pool", "phi_below", digits=1),
]
WHITEBOX = [
    Column("steps to relearn", "median, → pool", "relearn_steps", _plain("relearn_steps", 0)),
    _column("÷ pool", "→ 1", "relearn_ratio"),
    Column("never relearned", "%, → pool", "relearn_censored", _plain("relearn_censored", 0, 100.0), scale=100.0),
    Column("fine-tuned error", "%, → pool", "recovered_error", _plain("recovered_error", 2)),
    _column("gap", "→ 0", "recovered_error_gap", signed=True),
    _column("recovered", "points, → pool", "recovery", signed=True),
    Column("weight distance", "from original", "weight_distance", _plain("weight_distance", 3), None),
    Column("changed", "% of weights", "weights_changed", _plain("weights_changed", 1), None),
]
