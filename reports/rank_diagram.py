"""The diagram of average ranks with their critical difference, after J. Demsar (2006)."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports import style
from reports.ranking import Ranking

STEP = 0.19  # inches between the names of two methods, and between the bars of two groups
TOP = 0.8  # inches above the line
SIDE = 1.9  # inches for the names on either side
NAME = 26  # characters


def rank_diagram(ranking: Ranking) -> Figure | None:
    """Average ranks on a line, 1 at the left; a bar joins methods that are not told apart.

    None where no methods can be told apart with so few cells.
    """
    if not ranking.tells:
        return None
    average = ranking.ranks[ranking.by].average
    places = [average[row] for row in ranking.rows]
    bars = [(places[group[0]], places[group[-1]]) for group in ranking.groups if len(group) > 1]
    half = -(-len(places) // 2)
    bottom = STEP * (len(bars) + half + 1)
    figure = style.plain(style.TWO_COLUMNS, TOP + bottom)
    ax = figure.add_axes((SIDE / style.TWO_COLUMNS, 0, 1 - 2 * SIDE / style.TWO_COLUMNS, 1))
    ax.set_xlim(1, len(places))
    ax.set_ylim(-bottom, TOP)
    ax.axis("off")
    _scale(ax, len(places))
    _difference(ax, ranking.difference)
    for level, (low, high) in enumerate(bars):
        ax.plot([low, high], [-STEP * (level + 0.75)] * 2, color=style.INK, linewidth=3, solid_capstyle="round")
    for at, (row, place) in enumerate(zip(ranking.rows, places, strict=True)):
        left = at < half
        depth = at if left else len(places) - 1 - at
        _name(ax, style.shortened(row, NAME), place, -STEP * (len(bars) + depth + 1), left=left)
    return figure


def _scale(ax: Axes, methods: int) -> None:
    ax.plot([1, methods], [0, 0], color=style.INK, linewidth=0.8, clip_on=False)
    for place in range(1, methods + 1):
        ax.plot([place, place], [0, 0.06], color=style.INK, linewidth=0.8, clip_on=False)
        ax.text(place, 0.09, str(place), ha="center", va="bottom", fontsize=7)
    ax.text(1, 0.28, "average rank, 1 the best", ha="left", va="bottom")


def _difference(ax: Axes, difference: float) -> None:
    """The critical difference as a length of the scale, at its right end."""
    high = ax.get_xlim()[1]
    ax.plot([high - difference, high], [0.55, 0.55], color=style.COLORS[0], linewidth=1.4, clip_on=False)
    for end in (high - difference, high):
        ax.plot([end, end], [0.51, 0.59], color=style.COLORS[0], linewidth=1.4, clip_on=False)
    ax.text(high, 0.61, f"critical difference {difference:.2f}", ha="right", va="bottom")


def _name(ax: Axes, name: str, place: float, depth: float, *, left: bool) -> None:
    """A method's name at the side, and a line from its rank to it."""
    end, side = (ax.get_xlim()[0], "right") if left else (ax.get_xlim()[1], "left")
    ax.plot([place, place, end], [0, depth, depth], color=style.INK, linewidth=0.6, clip_on=False)
    ax.annotate(
        f"{name} ({place:.2f})", (end, depth), xytext=(-4 if left else 4, 0), textcoords="offset points",
        ha=side, va="center", annotation_clip=False,
    )  # fmt: skip
