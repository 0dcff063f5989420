"""The one visual language of all figures: palette, type, panels, and deterministic encoding."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

# Okabe and Ito's palette, which stays apart for color-blind eyes; the dashes keep it apart in grey.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (6, 1.5, 1.5, 1.5)), (0, (3, 1)), (0, (9, 2)))
ANCHORS: dict[str, tuple[str, Any]] = {"original": ("#111111", (0, (1, 1.2))), "retrain": ("#767676", "-")}
POOL = "#CFCFCF"
INK = "#222222"
WIDTH = 7.2  # inches: the text width of a two-column page
STYLE: Any = {
    "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7,
    "legend.fontsize": 7.5, "legend.frameon": False, "axes.titlelocation": "left", "axes.titlepad": 4,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6, "axes.edgecolor": "#555555",
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.major.size": 2.5, "ytick.major.size": 2.5,
    "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.titley": 1.0,  # a fixed place: looking for a free one lays every panel out twice
    "text.parse_math": False,  # a class may be called `$x$`
    "pdf.fonttype": 42,  # TrueType: some publishers refuse Type 3
    "axes.unicode_minus": False,  # each block of 256 characters embeds the font again
}  # fmt: skip


def look(run: Mapping[str, Any], method: str) -> tuple[str, Any]:
    """Color and dashes of a method, the same in every figure of a run."""
    if method in ANCHORS:
        return ANCHORS[method]
    others = [entry["name"] for entry in run["methods"] if entry["name"] not in ANCHORS]
    place = others.index(method)
    # Past the palette the colors come again with other dashes.
    return COLORS[place % len(COLORS)], DASHES[(place + place // len(COLORS)) % len(DASHES)]


def panels(rows: int, columns: int, *, height: float, left: float = 0.55) -> tuple[Figure, list[list[Axes]]]:
    """A grid of panels on shared axes with room for a legend above; sizes in inches.

    The margins are set by hand: constrained layout would draw everything twice.
    """
    width = max(WIDTH, left + 1.4 * columns)
    top, bottom, between = 0.5, 0.42, 0.36
    total = top + bottom + rows * height + (rows - 1) * between
    figure = plain(width, total)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    figure.subplots_adjust(
        left=left / width, right=1 - 0.12 / width, bottom=bottom / total, top=1 - top / total,
        hspace=between / height, wspace=0.1,
    )  # fmt: skip
    return figure, [list(row) for row in grid]


def grid_shape(count: int) -> tuple[int, int]:
    """Rows and columns for `count` panels: at most four in a row, the last row as full as can be."""
    rows = math.ceil(count / 4)
    return rows, math.ceil(count / rows)


def plain(width: float, height: float) -> Figure:
    """An empty figure that needs no window system; sizes in inches."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def shortened(name: str, room: int) -> str:
    """A name cut to about `room` characters; in ASCII, as every other block of characters embeds its own font."""
    return name if len(name) <= room else f"{name[: max(room - 2, 4)]}.."


def title(ax: Axes, name: str, addition: str) -> None:
    """Name a panel within its width, in ink: some colors of the palette are too pale to read."""
    figure = ax.get_figure(root=True)
    inches = ax.get_position().width * (figure.get_figwidth() if figure else WIDTH)
    ax.set_title(shortened(name, int(17 * inches) - len(addition)) + addition)


def blank(axes: Sequence[Axes]) -> None:
    """Hide panels of a grid that nothing is drawn in."""
    for ax in axes:
        ax.set_visible(False)


def pool_legend(figure: Figure, pool: str, other: str) -> None:
    """Say once, above the panels, that the grey is the retrained pool and the color the method in the title."""
    handles = [Patch(color=POOL, label=pool), Patch(facecolor="none", edgecolor=INK, linewidth=1.1, label=other)]
    left = figure.subplotpars.left
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(left, 1), ncols=2, borderpad=0.2, handlelength=1.6)


def label_columns(grid: list[list[Axes]], used: int, label: str) -> None:
    """Name the horizontal axis under the lowest panel of each column."""
    columns = len(grid[0])
    for column in range(columns):
        lowest = grid[(used - 1 - column) // columns][column]
        lowest.set_xlabel(label)
        lowest.tick_params(labelbottom=True)


def encode(figure: Figure, kind: str) -> bytes:
    """PNG at 150 dots per inch or PDF; the same figure gives the same bytes, so no dates."""
    stream = io.BytesIO()
    if kind == "png":
        figure.savefig(stream, format="png", dpi=150, metadata={"Software": None})
    else:
        figure.savefig(stream, format="pdf", metadata={"CreationDate": None})
    return stream.getvalue()
