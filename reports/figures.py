"""The figures of a run: entropy histograms, ROC curves and where a removed class went."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.records import Results, write_whole
from reports import curves, histograms, style, words
from reports.curves import Array
from reports.numbers import REFERENCE, Numbers, fixed, with_interval

SHARE = "predicted_share:"
MOST_CLASSES = 12  # rows a reader can still follow; smaller classes are added up


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
        for name, draw in (
            ("entropy_histograms", histograms.entropy_histograms),
            ("roc", roc),
            ("class_shift", class_shift),
        ):
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


def class_shift(results: Results) -> Figure | None:
    """Where the removed classes' samples are predicted to belong, one panel per method beside the retrained pool."""
    numbers = Numbers(results.records)
    classes = _shown_classes(results, numbers)
    methods = [m for m in _methods(results) if classes and numbers.value(m, SHARE + classes[0], "forget") >= 0]
    if not methods:
        return None
    shape = style.grid_shape(len(methods))
    longest = max(len(name) for name in classes)
    figure, grid = style.panels(*shape, height=0.25 + 0.17 * len(classes), left=0.3 + 0.06 * min(longest, 24))
    axes = [ax for row in grid for ax in row]
    for ax, method in zip(axes, methods, strict=False):
        _shift_panel(ax, results, numbers, method, classes)
    style.blank(axes[len(methods) :])
    axes[0].set_yticks(range(len(classes)), [style.shortened(name, 24) for name in classes])
    axes[0].set_ylim(len(classes) - 0.4, -0.6)
    axes[0].set_xlim(left=0)
    style.label_columns(grid, len(methods), "% of forget samples")
    style.pool_legend(
        figure,
        f"{words.pool(results.run)}, {results.run['reference_models']} models",
        "the method named above the panel",
    )
    return figure


def _shown_classes(results: Results, numbers: Numbers) -> list[str]:
    """The classes with the largest shares in the pool, largest first."""
    shares = {r.metric.removeprefix(SHARE): r.value for r in results.records
              if r.method == REFERENCE and r.seed == "all" and r.metric.startswith(SHARE)}  # fmt: skip
    shares = {
        name: value for name, value in shares.items() if name.removesuffix("_sd") not in shares or name[-3:] != "_sd"
    }
    return sorted(shares, key=lambda name: (-shares[name], name))[:MOST_CLASSES]


def _shift_panel(ax: Axes, results: Results, numbers: Numbers, method: str, classes: Sequence[str]) -> None:
    color, _ = style.look(results.run, method)
    rows = np.arange(len(classes))
    for name, shift, fill in ((REFERENCE, -0.2, style.POOL), (method, 0.2, color)):
        shares = [numbers.value(name, SHARE + c, "forget") for c in classes]
        spread = np.nan_to_num([numbers.deviation(name, SHARE + c, "forget") for c in classes])
        ax.barh(rows + shift, shares, 0.38, color=fill, xerr=spread, error_kw={"elinewidth": 0.7, "ecolor": "#444444"})
    moved = numbers.value(method, "class_shift_tv", None)
    style.title(ax, method, "" if math.isnan(moved) else f" · TV {fixed(moved)}")
    ax.tick_params(axis="y", length=0)


CAPTIONS = {
    "entropy_histograms": "Log-entropy of the predictions on the forget set, all models of a method together. A method "
    "that forgot as {ideal} does covers the grey of the {pool}; W1 is the distance between the two in nats. "
    "Values beyond the axis are in the bars at its ends, so no sample is left out; the share is written beside a bar "
    "that is taller than the panel.",
    "roc": "Membership attack on the forget set: the method's models against the {pool}'s. On the diagonal the "
    "attack learns nothing. Lines are means over seeds, bands reach from the lowest to the highest seed; the right "
    "panel goes down to the false positive rate that ten samples of the {pool} support.",
    "class_shift": "What the samples of the removed classes are taken for once those classes are masked, in percent. "
    "Whiskers are standard deviations over models; TV is the total variation distance to the {pool}.",
}


def _caption(name: str, run: Mapping[str, Any]) -> str:
    return CAPTIONS[name].format(ideal=words.ideal(run), pool=words.pool(run))


def _alternative(name: str, results: Results) -> str:
    """The content of a figure in words, for readers who do not see it."""
    numbers, last = Numbers(results.records), results.run["steps"] - 1
    metric, what = {
        "entropy_histograms": ("log_entropy_w1", "Histograms of log-entropy against the {pool}; distance W1"),
        "roc": ("attack_auc", "ROC curves of the membership attack; area under the curve"),
        "class_shift": ("class_shift_tv", "Bars of predicted classes against the {pool}; total variation"),
    }[name]
    found = [(m, numbers.value(m, metric, None, last)) for m in _methods(results)]
    what = what.format(pool=words.pool(results.run))
    return f"{what}: " + ", ".join(f"{method} {fixed(value)}" for method, value in found if not math.isnan(value)) + "."
