"""The figures of a run: which there are, their captions, and the ROC curves."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from bench.records import Results, write_whole
from reports import budgets, histograms, pareto, roc, sequence, shift, style, words
from reports.numbers import PAPERS_ATTACK, Numbers, fixed


@dataclass(frozen=True)
class Drawn:
    """A figure that was written: the name of its files, its PNG bytes, and the words that go with it."""

    name: str
    png: bytes
    caption: str
    alternative: str


def write(results: Results, folder: Path, *, one_column: bool = False) -> list[Drawn]:
    """Write the figures that a run has numbers for as PNG and PDF, and remove those it has none for.

    They are as wide as both columns of a page. With `one_column` there is `NAME-column.pdf` too, as wide as one, of
    every figure that a page is high enough for.
    """
    drawn = []
    with style.drawing():
        for kind, draw in FIGURES.items():
            name = roc.file_name(roc.headline(results)) if kind == DECIDING else kind
            png = _save(functools.partial(draw, results), folder / name, one_column=one_column)
            if png is not None:
                drawn.append(Drawn(name, png, _caption(kind, results), _alternative(kind, results)))
    _clear(folder, {figure.name for figure in drawn}, one_column=one_column)
    return drawn


def write_parts(runs: Sequence[Results], folder: Path, *, one_column: bool = False) -> list[Drawn]:
    """Write what only several runs together show: depoisoning over budgets, and `budgets_2` of another setting.

    Runs that have none of it leave the folder as it is.
    """
    drawn = []
    with style.drawing():
        for number, alike in enumerate(budgets.alike(runs), start=1):
            name = "budgets" if number == 1 else f"budgets_{number}"
            png = _save(functools.partial(budgets.budgets, alike), folder / name, one_column=one_column)
            if png is not None:
                drawn.append(Drawn(name, png, budgets.caption(alike), budgets.alternative(alike)))
    return drawn


def _save(draw: Callable[..., Figure | None], path: Path, *, one_column: bool) -> bytes | None:
    """Write a figure beside its name and return the PNG; None, and nothing is written, if there is none."""
    figure = draw(width=style.TWO_COLUMNS)
    if figure is None:
        return None
    png = style.encode(figure, "png")
    write_whole(path.with_name(f"{path.name}.png"), png)
    write_whole(path.with_name(f"{path.name}.pdf"), style.encode(figure, "pdf"))
    narrow = draw(width=style.ONE_COLUMN) if one_column else None
    if narrow is not None and narrow.get_figheight() <= style.PAGE:
        write_whole(path.with_name(f"{path.name}{COLUMN}.pdf"), style.encode(narrow, "pdf"))
    return png


def _clear(folder: Path, drawn: set[str], *, one_column: bool) -> None:
    """Remove what an earlier build drew and this one did not."""
    mine = {*FIGURES, *(path.stem.removesuffix(COLUMN) for path in folder.glob("roc_*.p*"))}
    for name in mine:
        for ending in (".png", ".pdf", f"{COLUMN}.pdf"):
            if name not in drawn or (ending.startswith(COLUMN) and not one_column):
                (folder / f"{name}{ending}").unlink(missing_ok=True)


def _methods(results: Results) -> list[str]:
    return [entry["name"] for entry in results.run["methods"]]


DECIDING = "roc_deciding"  # whose file is named after the attack
COLUMN = "-column"  # ends the name of a file that is as wide as one column
FIGURES: dict[str, Callable[..., Figure | None]] = {
    DECIDING: roc.deciding,
    "gaps_by_request": sequence.gaps_by_request,
    "entropy_histograms": histograms.entropy_histograms,
    "roc": roc.roc,
    "class_shift": shift.class_shift,
    "class_shift_test": shift.class_shift_test,
    "forgetting_cost": pareto.forgetting_cost,
}
CAPTIONS = {
    "gaps_by_request": "Errors after each request, less the mean of the {pool} of that request: above 0 is more error "
    "than after {ideal}, below 0 less. Lines are means over seeds, whiskers 95 % intervals, which may leave the panel; "
    "the grey band is the standard deviation of the pool's models.",
    "entropy_histograms": "Log-entropy of the predictions on the forget set, all models of a method together. A method "
    "that forgot as {ideal} does covers the grey of the {pool}; W1 is the distance between the two in nats. "
    "Values beyond the axis are in the bars at its ends, so no sample is left out; the share is written beside a bar "
    "that is taller than the panel.",
    DECIDING: "The attack {attack}, which knows the method, on the forget set: test models of the method against "
    "retrained ones. On the diagonal it learns nothing. Lines are means over models, bands hold their middle half "
    "(all, of up to eight); in the right panel a curve begins at the false positive rate that ten scores of retrained "
    "models support.",
    "roc": "Membership attack on the forget set: the method's models against the {pool}'s. On the diagonal the "
    "attack learns nothing. Lines are means over seeds, bands reach from the lowest to the highest seed; the right "
    "panel goes down to the false positive rate that ten samples of the {pool} support.",
}
PARTS = {"class_shift": "forget", "class_shift_test": "forget_test"}


def _caption(name: str, results: Results) -> str:
    run = results.run
    if name in PARTS:
        return shift.caption(run, PARTS[name])
    if name == "forgetting_cost":
        return pareto.caption(results)
    text = CAPTIONS[name].format(ideal=words.ideal(run), pool=words.pool(run), attack=roc.headline(results))
    if name == "roc" and roc.headline(results):  # which one of two it is must be said
        text = f"The attack {PAPERS_ATTACK} of the paper, which learned from the original. {text}"
    if name == "entropy_histograms" and len(histograms.shown_steps(results, style.TWO_COLUMNS)) < results.run["steps"]:
        text = f"After the last request. {text}"
    return text


def _alternative(name: str, results: Results) -> str:
    """The content of a figure in words, for readers who do not see it."""
    if name == "forgetting_cost":
        return pareto.alternative(results)
    numbers, last = Numbers(results.records), results.run["steps"] - 1
    metric, what = {
        "gaps_by_request": ("error_gap", "Curves of error gaps over requests; gap of the forget error after the last"),
        "entropy_histograms": ("log_entropy_w1", "Histograms of log-entropy against the {pool}; distance W1"),
        DECIDING: (
            f"attack_auc:{roc.headline(results)}",
            "ROC curves of the attack that decides; area under the curve",
        ),
        "roc": ("attack_auc", "ROC curves of the membership attack; area under the curve"),
        "class_shift": (shift.TV, "Bars of predicted classes against the {pool}; total variation"),
        "class_shift_test": (shift.TV, "The same bars for test samples; total variation"),
    }[name]
    found = [(m, numbers.value(m, metric, PARTS.get(name, "forget"), last)) for m in _methods(results)]
    told = ", ".join(f"{method} {fixed(value)}" for method, value in found if not math.isnan(value))
    return f"{what.format(pool=words.pool(results.run))}: {told}."
