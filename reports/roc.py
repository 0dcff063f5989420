"""ROC curves of membership attacks: the one that decides the verdict, and the paper's."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.records import Results
from reports import curves, style, verdicts
from reports.curves import Array
from reports.numbers import PAPERS_ATTACK, Numbers, with_interval

FEW = 8  # models up to which a band holds them all: of more, the extremes would cover each other
LEGEND = "AUC [95 % interval]"
GRID = np.linspace(0, 1, 201)  # false positive rates of a linear axis
Scores = tuple[Array, Array]  # of a method's models and of retrained ones, [models, samples]


def roc(results: Results, *, width: float = style.TWO_COLUMNS) -> Figure | None:
    """ROC curves of the paper's attack, mean and range over seeds; linear, and log-log where the samples support it."""
    return _figure(results, PAPERS_ATTACK, width)


def deciding(results: Results, *, width: float = style.TWO_COLUMNS) -> Figure | None:
    """The same of the attack that decides the verdict, over test models; None without one or for the paper's."""
    name = headline(results)
    return _figure(results, name, width) if name else None


def headline(results: Results) -> str:
    """The attack that decides the verdict, empty where there is none that has a figure of its own."""
    name = results.run["audit"]["headline"] if verdicts.judged(results.run) else ""
    return "" if name == PAPERS_ATTACK else str(name)


def file_name(attack: str) -> str:
    """What the figure of an attack is called; the attack of a third party may have any name."""
    return f"roc_{re.sub(r'[^A-Za-z0-9_-]+', '_', attack)}"


def scores_of(results: Results, attack: str) -> dict[str, Scores]:
    """The finite scores of every method that has them, by today's names of the arrays or by those of older runs."""
    found, samples, old = {}, results.samples, attack == PAPERS_ATTACK
    for entry in results.run["methods"]:
        method = entry["name"]
        own = samples.get(f"score:{attack}/{method}", samples.get(f"score/{method}") if old else None)
        names = [f"negatives:{attack}/{method}", f"negatives:{attack}", *(["score/negatives"] if old else [])]
        others = next((samples[name] for name in names if name in samples), None)
        if own is not None and others is not None and np.isfinite(others).any():
            found[method] = (own, others)
    return found


def _figure(results: Results, attack: str, width: float) -> Figure | None:
    scores = scores_of(results, attack)
    if not scores:
        return None
    wide = width > style.ONE_COLUMN
    figure, (linear, tails) = style.pair(width, lines=2 * len(scores) + 2, height=2.1 if wide else 1.3, stacked=False)
    lowest = min(curves.lowest_rate(others) for _, others in scores.values())
    for method, (own, others) in scores.items():
        look, name = style.look(results.run, method), label(results, attack, method, method)
        curve(linear, own, others, GRID, look, name)
        # Each curve begins where its own retrained scores support it.
        curve(tails, own, others, np.geomspace(curves.lowest_rate(others), 1, 101), look, name)
    linear.set_title(f"attack {style.shortened(attack, 34 if wide else 22)}")
    linear_axes(linear)
    _tail_axes(tails, lowest)
    style.pair_legend(figure, linear.get_legend_handles_labels()[0], LEGEND)
    return figure


def legend(figure: Figure, ax: Axes, corner: tuple[float, float]) -> None:
    """The names and areas of the curves of `ax`, from this upper left corner on, in parts of the figure."""
    handles, labels = ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper left", bbox_to_anchor=corner, title=LEGEND,
                  alignment="left", borderaxespad=0, handlelength=2.4, labelspacing=0.7)  # fmt: skip


def label(results: Results, attack: str, method: str, name: str) -> str:
    """The name of a curve and, below it, the area under it."""
    numbers, last = Numbers(results.records), results.run["steps"] - 1
    area = with_interval(numbers.summary(method, f"attack_auc:{attack}", "forget", last))
    return f"{style.shortened(name, 19)}\n{area}"


def curve(ax: Axes, own: Array, others: Array, grid: Array, look: tuple[str, Any], name: str) -> None:
    """Mean and band of the curves of one method, scores `[models, samples]`, in a color and dashes."""
    found = curves.rates(own, others, grid)
    if not len(found):
        return
    color, dashes = look
    ax.plot(100 * grid, 100 * found.mean(0), color=color, linestyle=dashes, linewidth=1.2, label=name)
    if len(found) > 1:
        low, high = np.quantile(found, [0, 1] if len(found) <= FEW else [0.25, 0.75], axis=0)
        ax.fill_between(100 * grid, 100 * low, 100 * high, color=color, alpha=0.12, linewidth=0)


def linear_axes(ax: Axes) -> None:
    """Axes in percent from 0 to 100, and the diagonal of chance."""
    ax.set(xlabel="false positive rate, %", ylabel="true positive rate, %", xlim=(0, 100), ylim=(0, 100))
    _diagonal(ax, GRID)


def _tail_axes(ax: Axes, lowest: float) -> None:
    """Axes that go down to the lowest false positive rate that can be told, both by powers."""
    ax.set(xlabel="false positive rate, %", xscale="log", yscale="log", xlim=(100 * lowest, 100),
           ylim=(100 * lowest, 100))  # fmt: skip
    _diagonal(ax, np.geomspace(lowest, 1, 101))
    marks = (1, 2, 5) if lowest > 0.01 else (1,)
    decades = range(math.floor(math.log10(lowest)), 1)
    shares = [100 * mark * 10.0**power for power in decades for mark in marks if lowest <= mark * 10.0**power <= 1]
    for axis in (ax.xaxis, ax.yaxis):
        style.plain_marks(axis, shares, (100 * lowest, 100))


def _diagonal(ax: Axes, grid: Array) -> None:
    ax.plot(100 * grid, 100 * grid, color="#999999", linewidth=0.7, zorder=1.9)
