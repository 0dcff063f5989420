"""The figure of what forgetting costs: the gap that is left against the time and against the accuracy lost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib import colors
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from bench.interface import Record
from bench.records import Results
from reports import style, tradeoff
from reports.numbers import fixed
from reports.quantities import ANCHORS
from reports.tradeoff import Point, Tradeoff

LEAST = 0.003  # the cost, as a share of retraining, below which a point stands at the edge of the axis
BENT = 2.0  # values above which an axis is linear up to 1 and logarithmic from there


def forgetting_cost(results: Results, *, width: float = style.TWO_COLUMNS) -> Figure | None:
    """Forgetting gap against request time and against the loss of accuracy, a marker per method.

    None where no method has all three numbers or nothing tells the original from retrained models.
    """
    found = tradeoff.measure(results)
    found = replace(found, points=tuple(p for p in found.points if math.isfinite(p.forgetting.value)))
    if not any(point.method not in ANCHORS for point in found.points):
        return None
    named = _named(found.points)
    figure, (left, right) = style.pair(width, lines=len(named) + 2, height=2.2 if width > style.ONE_COLUMN else 1.8)
    ends = _ends(found.points)
    for ax, across in ((left, "cost"), (right, "loss")):
        ax.axhline(0, color="#8a8a8a", linewidth=0.7, zorder=1)
        ax.axhline(1, color="#8a8a8a", linewidth=0.7, linestyle=(0, (1, 2)), zorder=1)
        _retraining(ax, found.points, across)
        for point in found.points:
            _point(ax, results.run, found, point, across, ends[0])
    _axes(left, right, found.points, ends)
    style.pair_legend(figure, _legend(results.run, named, found))
    _key(figure)
    return figure


def _named(points: Sequence[Point]) -> list[str]:
    """The methods that the legend names; shorter retraining is written at its curve."""
    return [point.method for point in points if math.isnan(point.compute) or point.compute == 1]


def _ends(points: Sequence[Point]) -> tuple[float, float]:
    """The range of costs that is drawn."""
    shown = [value for p in points for value in (p.cost.value, p.cost.low, p.cost.high, p.prepared) if value >= LEAST]
    return min([1.0, *shown]) / 1.4, max([1.0, *shown]) * 1.4


def _retraining(ax: Axes, points: Sequence[Point], across: str) -> None:
    """The curve through retraining with a share of the compute, the shares written at its points."""
    own = sorted((p for p in points if math.isfinite(p.compute)), key=lambda p: p.compute)
    if len(own) < 2:
        return
    places = [(getattr(p, across).value, p.forgetting.value) for p in own]
    ax.plot(*zip(*places, strict=True), color=style.ANCHORS["retrain"][0], linewidth=1.0, zorder=1.5)
    if across == "cost":
        _name_shares(ax, own)


def _name_shares(ax: Axes, own: Sequence[Point]) -> None:
    """Write the shares at their points, the first one to the left: short retraining is close together."""
    gaps = list(dict.fromkeys(p.forgetting.value for p in own))
    for gap in gaps:
        same = [p for p in own if p.forgetting.value == gap]  # shares of a short recipe may be the same epochs
        label = f"{', '.join(f'{100 * p.compute:g}' for p in same)} %"
        place, side = (same[-1].cost.value, gap), "right" if gap == gaps[0] else "left"
        ax.annotate(label, place, xytext=(3, 3), textcoords="offset points", fontsize=6.5, ha=side)


def _point(ax: Axes, run: Mapping[str, Any], found: Tradeoff, point: Point, across: str, edge: float) -> None:
    """A marker with its cross of intervals, filled where no method is better on all axes."""
    color, _ = style.look(run, point.method)
    named = point.method in _named(found.points)
    own, hidden = getattr(point, across), across == "cost" and point.cost.value < edge
    x, y = (edge if hidden else own.value), point.forgetting.value
    whiskers = [_whisker(record.value, record.low, record.high) for record in (own, point.forgetting)]
    ax.errorbar(
        x, y, whiskers[1], None if hidden else whiskers[0], color=color, marker="<" if hidden else
        style.marker(run, point.method) if named else "o", markersize=4.6 if named else 3.2, linestyle="none",
        markerfacecolor="white" if found.dominated[point.method] else color, markeredgewidth=1.0, elinewidth=0.8,
        ecolor=colors.to_rgba(color, 0.5), clip_on=not hidden, zorder=3 if named else 2,
    )  # fmt: skip
    if across == "cost" and point.prepared > 1.05 * point.cost.value and not hidden:
        ax.plot([x, point.prepared], [y, y], color=color, linestyle=(0, (1, 1.2)), linewidth=0.9, marker="|",
                markevery=[1], markersize=5)  # fmt: skip


def _whisker(value: float, low: float, high: float) -> list[list[float]]:
    """Lengths below and above a value; none where there is no interval."""
    ends = np.nan_to_num([[value - low], [high - value]])
    return np.clip(ends, 0, None).tolist()  # type: ignore[no-any-return]


def _axes(left: Axes, right: Axes, points: Sequence[Point], ends: tuple[float, float]) -> None:
    left.set(xscale="log", xlim=ends, xlabel="request time ÷ retraining")
    decades = [10.0**power for power in range(-3, 4)]
    few = ends[1] / ends[0] < 30
    style.plain_marks(left.xaxis, [v * m for v in decades for m in ((1, 2, 5) if few else (1,))], ends)
    gaps, losses = ([getattr(p, which) for p in points] for which in ("forgetting", "loss"))
    right.set_xlabel(_label("accuracy lost", _most(losses)))
    _bend(right, "x", 0.0, _most(losses))
    for ax in (left, right):
        _bend(ax, "y", min(gap.value for gap in gaps), _most(gaps))
    style.label_rows((left, right), _label("forgetting gap", _most(gaps)))


def _label(name: str, most: float) -> str:
    """The name of an axis, which says where it is logarithmic."""
    return f"{name} (logarithmic from 1)" if most > BENT else name


def _most(records: Sequence[Record]) -> float:
    """How far an axis goes: to the largest value, and to the ends of intervals that are not much farther."""
    most = max([1.0, *(record.value for record in records)])
    return max([most, *(min(record.high, 2 * most) for record in records if math.isfinite(record.high))])


def _bend(ax: Axes, which: str, least: float, most: float) -> None:
    """An axis from 0 that is linear to 1, and logarithmic beyond it where it has to go far."""
    axis = ax.xaxis if which == "x" else ax.yaxis
    limit = (min(least, 0.0) - 0.06 * min(most, 2.0), most * (1.5 if most > BENT else 1.12))
    marks = [0.0, 0.5, 1.0]
    if most > BENT:
        (ax.set_xscale if which == "x" else ax.set_yscale)("symlog", linthresh=1.0)
        (ax.axvspan if which == "x" else ax.axhspan)(1.0, limit[1], color="#f3f3f3", linewidth=0, zorder=0)
    ax.set(**{f"{which}lim": limit})
    style.plain_marks(axis, [*marks, *(m * 10.0**power for power in range(3) for m in (2, 5, 10))], limit)


def _legend(run: Mapping[str, Any], named: Sequence[str], found: Tradeoff) -> list[Artist]:
    handles = [
        _handle(style.look(run, name)[0], style.marker(run, name), name, filled=not found.dominated[name])
        for name in named
    ]
    if len(named) < len(found.points):
        grey = style.ANCHORS["retrain"][0]
        handles.append(
            Line2D([], [], color=grey, linewidth=1.0, marker="o", markersize=3.2, label="retrain, % of epochs")
        )
    return [*handles]


def _key(figure: Figure) -> None:
    """Above the panels what a filled and an open marker mean; patches, since a circle is the original's marker."""
    handles = [
        Patch(facecolor=style.INK, edgecolor=style.INK, label="filled: no row better on all three"),
        Patch(facecolor="white", edgecolor=style.INK, label="open: beaten"),
    ]
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=style.top_left(figure), ncols=2,
        handlelength=0.9, handleheight=0.9, borderpad=0.2, columnspacing=1.2,
    )  # fmt: skip


def _handle(color: str, marker: str, label: str, *, filled: bool) -> Line2D:
    return Line2D([], [], color=color, linestyle="none", marker=marker, markersize=4.6, markeredgewidth=1.0,
                  markerfacecolor=color if filled else "white", label=style.shortened(label, 19))  # fmt: skip


CAPTION = (
    "What forgetting costs. Vertical: the gap that is left, {signals}, on a scale with retrained models at 0 and the "
    "original at 1; above 1 is farther off than the original, on either side. Left: request time as a share of "
    "retraining, with preparation at the end of a dotted line; what costs less than the axis shows is at its edge. "
    "Right: accuracy lost, the larger of retained and test data, 1 being {whole}. Crosses are 95 % intervals, where "
    "there are any. Filled: by the means no row is better on all three axes. {curve}"
    "An axis that goes beyond 2 is logarithmic from 1, where the panel is shaded."
)
CURVE = "The grey curve is retraining with a share of the epochs. "


def caption(results: Results) -> str:
    """What is shown, which depends on what the run can tell forgetting by."""
    found = tradeoff.measure(results)
    short = any(point.compute < 1 for point in found.points)
    return CAPTION.format(
        signals=tradeoff.told_by(found), whole=tradeoff.whole_loss(found), curve=CURVE if short else ""
    )


def alternative(results: Results) -> str:
    """The content of the figure in words."""
    found = tradeoff.measure(results)
    told = ", ".join(
        f"{point.method} {fixed(point.forgetting.value)} at {fixed(point.cost.value)}"
        for point in found.points
        if math.isfinite(point.forgetting.value)
    )
    return f"Forgetting gap against request time and accuracy lost; gap at cost: {told}."
