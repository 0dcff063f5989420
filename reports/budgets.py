"""The figure of depoisoning over budgets: several runs that differ in the number of wrong labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.interface import Record
from bench.records import Results
from reports import style, words
from reports.numbers import REFERENCE, Numbers, fixed, wrecked

PANELS = {"error": "test error, %", "restored": "lost accuracy restored"}


def wrong_labels(run: Mapping[str, Any]) -> int:
    """How many training labels were wrong, known to the methods or not."""
    return int(sum(run["forget_samples"])) + words.undetected(run)


def alike(runs: Sequence[Results]) -> list[list[Results]]:
    """Depoisoning runs by their setting, each group with several numbers of wrong labels, the fewest first."""
    groups: dict[tuple[Any, ...], dict[int, Results]] = {}
    for results in runs:
        run = results.run
        if run["scenario"] == "depoisoning" and run["steps"] == 1:
            known = round(sum(run["forget_samples"]) / max(wrong_labels(run), 1), 2)
            setting = (run["dataset"], run["architecture"], words.recipe(run), known)
            groups.setdefault(setting, {})[wrong_labels(run)] = results
    return [[found[count] for count in sorted(found)] for found in groups.values() if len(found) > 1]


def budgets(runs: Sequence[Results], *, width: float = style.TWO_COLUMNS) -> Figure | None:
    """Test error and restored accuracy against the number of wrong labels, a line per method.

    None for runs of which fewer than two budgets have numbers. `runs` are those of one setting, the fewest first.
    """
    methods = list(dict.fromkeys(entry["name"] for results in runs for entry in results.run["methods"]))
    run = {"methods": [{"name": method} for method in methods]}
    found = {wrong_labels(results.run): Numbers(results.records) for results in runs}
    drawn = [method for method in methods if len(_line(found, method, "error")) > 1]
    if not drawn:
        return None
    figure, axes = style.pair(width, lines=len(drawn) + 2, height=1.9)
    for ax, metric in zip(axes, PANELS, strict=True):
        _panel(ax, run, found, drawn, metric, words.pool(runs[0].run))
    style.pair_legend(figure, axes[0].get_legend_handles_labels()[0])
    return figure


def _line(found: Mapping[int, Numbers], method: str, metric: str) -> dict[int, Record]:
    """The number at each budget that has one."""
    lines = {count: numbers.summary(method, metric, "test") for count, numbers in found.items()}
    return {count: record for count, record in lines.items() if record is not None and np.isfinite(record.value)}


def _panel(
    ax: Axes, run: Mapping[str, Any], found: Mapping[int, Numbers], methods: Sequence[str], metric: str, pool: str
) -> None:
    counts = np.array(list(found))
    inside = _pool(ax, found, metric, pool)
    for number, method in enumerate(methods):
        line = _line(found, method, metric)
        # Whiskers stand beside, not on top of each other.
        aside = 0.25 * np.diff(counts).min() * ((number + 0.5) / len(methods) - 0.5)
        _draw(ax, style.look(run, method), method, line, float(aside))
        inside += [record.value for record in line.values() if not wrecked(record) and record.value >= -1]
    low, high = min(inside), max(inside)
    ax.set_ylim(low - 0.08 * (high - low), high + 0.1 * (high - low))
    ax.set_xticks(counts, [f"{count:,}" for count in counts])
    ax.set_xlabel("wrong labels")
    ax.set_ylabel(PANELS[metric])


def _pool(ax: Axes, found: Mapping[int, Numbers], metric: str, pool: str) -> list[float]:
    """The pool's band of errors, or the lines that restored accuracy lies between; the values that must be in view."""
    if metric == "restored":
        for level in (0.0, 1.0):
            ax.axhline(level, color="#8a8a8a", linewidth=0.7)
        return [0.0, 1.0]
    means = np.array([numbers.value(REFERENCE, metric, "test") for numbers in found.values()])
    spread = np.nan_to_num([numbers.deviation(REFERENCE, metric, "test") for numbers in found.values()])
    ax.fill_between(list(found), means - spread, means + spread, color=style.POOL, linewidth=0,
                    label=f"{pool},\nmean ± deviation")  # fmt: skip
    ax.plot(list(found), means, color="#8a8a8a", linewidth=0.7)
    return [float(end) for end in (*(means - spread), *(means + spread)) if np.isfinite(end)]


def _draw(ax: Axes, look: tuple[str, Any], method: str, line: Mapping[int, Record], aside: float) -> None:
    color, dashes = look
    values = np.array([record.value for record in line.values()])
    ends = np.array([[r.value - r.low, r.high - r.value] for r in line.values()]).reshape(-1, 2).T
    ax.errorbar(
        np.array(list(line)) + aside, values, np.clip(np.nan_to_num(ends), 0, None), color=color, linestyle=dashes,
        linewidth=1.2, marker="o", markersize=2.5, elinewidth=0.8, ecolor=colors.to_rgba(color, 0.45),
        label=style.shortened(method, 18),
    )  # fmt: skip


def caption(runs: Sequence[Results]) -> str:
    """What is shown."""
    pool = words.pool(runs[0].run)
    return (
        "Test error, and the share of the accuracy lost to wrong labels that came back, against the number of wrong "
        f"labels; a share of 0 is the original, 1 the {pool}. Lines are means over seeds, whiskers 95 % intervals, "
        f"which may leave the panel; the grey band is the {pool}, mean and standard deviation of its models."
    )


def alternative(runs: Sequence[Results]) -> str:
    """The content of the figure in words."""
    counts = words.listed([f"{wrong_labels(results.run):,}" for results in runs])
    last = Numbers(runs[-1].records)
    names = [entry["name"] for entry in runs[-1].run["methods"]]
    told = ", ".join(f"{name} {fixed(last.value(name, 'error', 'test'))}" for name in names if last.knows(name))
    return f"Curves of test error over {counts} wrong labels; at the most: {told}."
