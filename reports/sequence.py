"""The figure of what became of errors from request to request."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.interface import Record
from bench.records import Results
from reports import style, words
from reports.numbers import REFERENCE, Numbers, wrecked

PANELS = {"forget": "error on all forgotten so far", "test": "error on the test set"}


def gaps_by_request(results: Results, *, width: float = style.TWO_COLUMNS) -> Figure | None:
    """Gaps to the pool over requests, of everything forgotten so far and of the test set; None for one request."""
    run, numbers = results.run, Numbers(results.records)
    methods = [e["name"] for e in run["methods"] if any(_gaps(results, numbers, e["name"], part) for part in PANELS)]
    if run["steps"] < 2 or not methods:
        return None
    figure, axes = style.pair(width, lines=len(methods) + 2, height=1.75)
    for ax, (part, title) in zip(axes, PANELS.items(), strict=True):
        _panel(ax, results, numbers, methods, part)
        style.title(ax, title, "")
        ax.set_xlabel("request")
    style.label_rows(axes, "gap to the pool, points")
    style.pair_legend(figure, axes[0].get_legend_handles_labels()[0])
    return figure


def _gaps(results: Results, numbers: Numbers, method: str, part: str) -> dict[int, Record]:
    """The gap after each request that there is a number for."""
    found = {step: numbers.summary(method, "error_gap", part, step) for step in range(results.run["steps"])}
    return {step: gap for step, gap in found.items() if gap is not None and np.isfinite(gap.value)}


def _panel(ax: Axes, results: Results, numbers: Numbers, methods: Sequence[str], part: str) -> None:
    steps = np.arange(results.run["steps"])
    spread = np.array([numbers.deviation(REFERENCE, "error", part, int(step)) for step in steps])
    label = f"{words.pool(results.run)},\nmean ± deviation"
    ax.fill_between(steps + 1, -spread, spread, color=style.POOL, linewidth=0, label=label)
    ax.axhline(0, color="#8a8a8a", linewidth=0.7)
    inside = [-spread, spread]
    for number, method in enumerate(methods):
        gaps = _gaps(results, numbers, method, part)
        # Whiskers stand beside, not on top of each other.
        aside = min(0.04, 0.5 / len(methods)) * (number - (len(methods) - 1) / 2)
        _line(ax, results, method, gaps, aside)
        if not any(wrecked(gap) for gap in gaps.values()):
            inside.append(np.array([gap.value for gap in gaps.values()]))
    low, high = (float(end(np.concatenate(inside), initial=0)) for end in (np.nanmin, np.nanmax))
    margin = 0.2 * (high - low) or 1.0
    ax.set_ylim(low - margin, high + margin)
    ax.set_xlim(0.7, len(steps) + 0.3)
    ax.set_xticks(steps + 1)


def _line(ax: Axes, results: Results, method: str, gaps: dict[int, Record], aside: float) -> None:
    values = np.array([gap.value for gap in gaps.values()])
    ends = np.array([[gap.value - gap.low, gap.high - gap.value] for gap in gaps.values()]).reshape(-1, 2).T
    ends = np.clip(np.nan_to_num(ends), 0, None)  # one seed has no interval; rounding may put an end beyond the value
    color, dashes = style.look(results.run, method)
    ax.errorbar(
        np.array(list(gaps)) + 1 + aside, values, ends, color=color, linestyle=dashes, linewidth=1.2, marker="o",
        markersize=2.5, elinewidth=0.8, ecolor=colors.to_rgba(color, 0.45), label=style.shortened(method, 18),
    )  # fmt: skip
