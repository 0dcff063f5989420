"""The figures of a run: which there are, their captions, and the ROC curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.records import Results, write_whole
from reports import curves, histograms, sequence, shift, style, words
from reports.curves import Array
from reports.numbers import Numbers, fixed, with_interval


@dataclass(frozen=True)
class Drawn:
    """A figure that was written: the name of its files, its PNG bytes, and the words that go with it."""

    name: str
    png: bytes
    caption: str
    alternative: str


def write(results: Results, folder: Path) -> list[Drawn]:
    """Write the figures that a run has numbers for as PNG and PDF, and remove those it has none for."""
    drawn = []
    with mpl.rc_context(style.STYLE):
        for name, draw in FIGURES.items():
            figure = draw(results)
            if figure is None:
                for kind in ("png", "pdf"):
                    (folder / f"{name}.{kind}").unlink(missing_ok=True)
                continue
            png = style.encode(figure, "png")
            write_whole(folder / f"{name}.png", png)
            write_whole(folder / f"{name}.pdf", style.encode(figure, "pdf"))
            drawn.append(Drawn(name, png, _caption(name, results.run), _alternative(name, results)))
    return drawn


def _methods(results: Results) -> list[str]:
    return [entry["name"] for entry in results.run["methods"]]


def roc(results: Results) -> Figure | None:
    """ROC curves of the attack, mean and range over seeds; linear, and log-log as far as the samples support it."""
    methods = [m for m in _methods(results) if f"score/{m}" in results.samples]
    negatives = results.samples.get("score/negatives")
    if not methods or negatives is None or not np.isfinite(negatives).any():
        return None
    height = max(2.75, 0.4 + 0.33 * len(methods))  # the legend has two lines per method
    figure = style.plain(style.WIDTH, height)
    linear, tails = figure.subplots(1, 2)
    bottom, top = 0.45 / height, 1 - 0.16 / height
    figure.subplots_adjust(left=0.07, right=0.775, bottom=bottom, top=top, wspace=0.26)
    lowest = curves.lowest_rate(negatives)
    _roc_panel(linear, results, methods, np.linspace(0, 1, 201))
    _roc_panel(tails, results, methods, np.geomspace(lowest, 1, 101))
    _roc_axes(linear, tails, lowest)
    handles, labels = linear.get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper left", bbox_to_anchor=(0.8, top), title="AUC [95 % interval]",
                  alignment="left", borderaxespad=0, handlelength=2.4, labelspacing=0.7)  # fmt: skip
    return figure


def _roc_panel(ax: Axes, results: Results, methods: Sequence[str], grid: Array) -> None:
    numbers, last = Numbers(results.records), results.run["steps"] - 1
    ax.plot(100 * grid, 100 * grid, color="#999999", linewidth=0.7)
    for method in methods:
        found = curves.rates(results.samples[f"score/{method}"], results.samples["score/negatives"], grid)
        if not len(found):
            continue
        color, dashes = style.look(results.run, method)
        name = style.shortened(method, 19)
        area = with_interval(numbers.summary(method, "attack_auc", "forget", last))
        ax.plot(100 * grid, 100 * found.mean(0), color=color, linestyle=dashes, linewidth=1.2, label=f"{name}\n{area}")
        if len(found) > 1:
            ax.fill_between(100 * grid, 100 * found.min(0), 100 * found.max(0), color=color, alpha=0.12, linewidth=0)


def _roc_axes(linear: Axes, tails: Axes, lowest: float) -> None:
    for ax in (linear, tails):
        ax.set_xlabel("false positive rate, %")
    linear.set_ylabel("true positive rate, %")
    linear.set(xlim=(0, 100), ylim=(0, 100))
    marks = (1, 2, 5) if lowest > 0.01 else (1,)
    decades = range(math.floor(math.log10(lowest)), 1)
    shares = [100 * mark * 10.0**power for power in decades for mark in marks if lowest <= mark * 10.0**power <= 1]
    names = [f"{share:g}" for share in shares]  # plain numbers: powers of ten would need a second font
    tails.set(xscale="log", yscale="log", xlim=(100 * lowest, 100), ylim=(100 * lowest, 100))
    for axis in (tails.xaxis, tails.yaxis):
        axis.set_minor_locator(ticker.NullLocator())
        axis.set_major_locator(ticker.FixedLocator(shares))
        axis.set_major_formatter(ticker.FixedFormatter(names))


FIGURES: dict[str, Callable[[Results], Figure | None]] = {
    "gaps_by_request": sequence.gaps_by_request,
    "entropy_histograms": histograms.entropy_histograms,
    "roc": roc,
    "class_shift": shift.class_shift,
    "class_shift_test": shift.class_shift_test,
}
CAPTIONS = {
    "gaps_by_request": "Errors after each request, less the mean of the {pool} of that request: above 0 is more error "
    "than after {ideal}, below 0 less. Lines are means over seeds, whiskers 95 % intervals, which may leave the panel; "
    "the grey band is the standard deviation of the pool's models.",
    "entropy_histograms": "Log-entropy of the predictions on the forget set, all models of a method together. A method "
    "that forgot as {ideal} does covers the grey of the {pool}; W1 is the distance between the two in nats. "
    "Values beyond the axis are in the bars at its ends, so no sample is left out; the share is written beside a bar "
    "that is taller than the panel.",
    "roc": "Membership attack on the forget set: the method's models against the {pool}'s. On the diagonal the "
    "attack learns nothing. Lines are means over seeds, bands reach from the lowest to the highest seed; the right "
    "panel goes down to the false positive rate that ten samples of the {pool} support.",
}
PARTS = {"class_shift": "forget", "class_shift_test": "forget_test"}


def _caption(name: str, run: dict[str, Any]) -> str:
    if name in PARTS:
        return shift.caption(run, PARTS[name])
    return CAPTIONS[name].format(ideal=words.ideal(run), pool=words.pool(run))


def _alternative(name: str, results: Results) -> str:
    """The content of a figure in words, for readers who do not see it."""
    numbers, last = Numbers(results.records), results.run["steps"] - 1
    metric, what = {
        "gaps_by_request": ("error_gap", "Curves of error gaps over requests; gap of the forget error after the last"),
        "entropy_histograms": ("log_entropy_w1", "Histograms of log-entropy against the {pool}; distance W1"),
        "roc": ("attack_auc", "ROC curves of the membership attack; area under the curve"),
        "class_shift": (shift.TV, "Bars of predicted classes against the {pool}; total variation"),
        "class_shift_test": (shift.TV, "The same bars for test samples; total variation"),
    }[name]
    found = [(m, numbers.value(m, metric, PARTS.get(name, "forget"), last)) for m in _methods(results)]
    told = ", ".join(f"{method} {fixed(value)}" for method, value in found if not math.isnan(value))
    return f"{what.format(pool=words.pool(results.run))}: {told}."
