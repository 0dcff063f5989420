"""The one visual language of all figures: palette, type, panels, and deterministic encoding."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib import ticker
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

# Okabe and Ito's palette and three of Paul Tol's: apart for color-blind eyes; the dashes keep them apart in grey.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#999933", "#332288")
DASHES: tuple[Any, ...] = (
    "-", (0, (5, 1.5)), (0, (1.5, 1)), (0, (6, 1.5, 1.5, 1.5)), (0, (3, 1)), (0, (9, 2)), (0, (1, 2.5)),
    (0, (6, 1.5, 1.5, 1.5, 1.5, 1.5)), (0, (3, 1, 1, 1)),
)  # fmt: skip
ANCHORS: dict[str, tuple[str, Any]] = {"original": ("#111111", (0, (1, 1.2))), "retrain": ("#767676", "-")}
POOL = "#CFCFCF"
INK = "#222222"
MARKERS = "sD^vPX<>ph*d8H"  # a circle is a row with a known answer
ONE_COLUMN, TWO_COLUMNS = 3.35, 7.0  # inches: the widths of one and of both columns of a journal's page
PAGE = 9.0  # inches: the height of a page's text
STYLE: Any = {
    "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7,
    "legend.fontsize": 7.5, "legend.frameon": False, "axes.titlelocation": "left", "axes.titlepad": 4,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6, "axes.edgecolor": "#555555",
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.major.size": 2.5, "ytick.major.size": 2.5,
    "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.titley": 1.0,  # a fixed place: looking for a free one lays every panel out twice
    "text.parse_math": False,  # a class may be called `$x$`
    "pdf.fonttype": 42,  # TrueType: some publishers refuse Type 3
    "axes.unicode_minus": True,  # as in the tables, though the font is embedded again for its block of characters
}  # fmt: skip


@contextmanager
def drawing() -> Iterator[None]:
    """Draw in this style alone: a `matplotlibrc`, as in the working folder, changes nothing and runs no TeX."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def look(run: Mapping[str, Any], method: str) -> tuple[str, Any]:
    """Color and dashes of a method, the same in every figure of a run; shorter retraining is grey as retraining is."""
    if method in ANCHORS:
        return ANCHORS[method]
    place = _place(run, method)
    if _retrains(method):
        return ANCHORS["retrain"][0], DASHES[1 + place % (len(DASHES) - 1)]
    # Past the palette the colors come again with other dashes.
    return COLORS[place % len(COLORS)], DASHES[(place + place // len(COLORS)) % len(DASHES)]


def marker(run: Mapping[str, Any], method: str) -> str:
    """The marker of a method where it is a point; like its color, the same in every figure of a run."""
    return "o" if method in ANCHORS else MARKERS[_place(run, method) % len(MARKERS)]


def _place(run: Mapping[str, Any], method: str) -> int:
    """The place of a method among those of its kind."""
    others = [entry["name"] for entry in run["methods"] if entry["name"] not in ANCHORS]
    return [name for name in others if _retrains(name) == _retrains(method)].index(method)


def _retrains(method: str) -> bool:
    return method.partition("+")[0] == "retrain"


def panels(
    rows: int, columns: int, *, height: float, left: float = 0.55, width: float = TWO_COLUMNS
) -> tuple[Figure, list[list[Axes]]]:
    """A grid of panels on shared axes with room for a legend above; sizes in inches.

    The margins are set by hand: constrained layout would draw everything twice.
    """
    top, bottom, between = (0.5, 0.42, 0.36) if width > ONE_COLUMN else (0.75, 0.42, 0.46)
    total = top + bottom + rows * height + (rows - 1) * between
    figure = plain(width, total)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    figure.subplots_adjust(
        left=left / width, right=1 - 0.12 / width, bottom=bottom / total, top=1 - top / total,
        hspace=between / height, wspace=0.1,
    )  # fmt: skip
    return figure, [list(row) for row in grid]


def most_columns(width: float) -> int:
    """Panels that fit beside each other."""
    return 4 if width > ONE_COLUMN else 2


def grid_shape(count: int, width: float = TWO_COLUMNS) -> tuple[int, int]:
    """Rows and columns for `count` panels in a width: the last row as full as can be."""
    rows = math.ceil(count / most_columns(width))
    return rows, math.ceil(count / rows)


LEGEND = 1.55  # inches: its width beside panels
LINE = 0.165  # inches: the height of a line in it


def pair(width: float, *, lines: int, height: float = 2.0, stacked: bool = True) -> tuple[Figure, list[Axes]]:
    """Two panels of this height and room for a legend of so many lines: beside them, below where it is too long.

    In one column the panels stand on each other if `stacked`.
    """
    rows = 2 if width <= ONE_COLUMN and stacked else 1
    beside = width > ONE_COLUMN and lines * LINE <= 1.3 * height
    below = 0.0 if beside else math.ceil(lines / most_columns(width)) * LINE + 0.1
    height = max(height, lines * LINE - 0.3) if beside else height
    figure = plain(width, rows * height + (rows - 1) * 0.65 + 0.75 + below)
    axes = figure.subplots(rows, 3 - rows)
    right = LEGEND + 0.1 if beside else 0.1
    across = 0.26 if width > ONE_COLUMN else 0.4
    _margins(figure, 0.56, right, 0.45 + below, 0.3, across=across, down=0.65 / height)
    return figure, list(axes)


def _margins(
    figure: Figure, left: float, right: float, bottom: float, top: float, *, across: float, down: float
) -> None:
    """Set the margins, in inches, and the gaps between panels, as shares of a panel."""
    width, height = figure.get_size_inches()
    figure.subplots_adjust(
        left=left / width, right=1 - right / width, bottom=bottom / height, top=1 - top / height,
        wspace=across, hspace=down,
    )  # fmt: skip


def pair_legend(figure: Figure, handles: Sequence[Artist], title: str = "") -> None:
    """The legend of a pair of panels, where `pair` left room for it."""
    width, height = figure.get_size_inches()
    beside = (1 - figure.subplotpars.right) * width > LEGEND
    anchor = (1 - LEGEND / width, 1 - 0.1 / height) if beside else (0.05 / width, 0.02 / height)
    figure.legend(
        handles=handles, title=title or None, alignment="left", borderaxespad=0, handlelength=2.4, labelspacing=0.5,
        columnspacing=1.0, loc="upper left" if beside else "lower left", bbox_to_anchor=anchor,
        ncols=1 if beside else most_columns(width),
    )  # fmt: skip


def plain(width: float, height: float) -> Figure:
    """An empty figure that needs no window system; sizes in inches."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def shortened(name: str, room: int) -> str:
    """A name cut in the middle to about `room` characters, since variants of a method differ at the end.

    In ASCII, as every other block of characters embeds its own font.
    """
    if len(name) <= room:
        return name
    room = max(room - 2, 4)
    end = room // 3
    return f"{name[: room - end]}..{name[-end:]}"


def title(ax: Axes, name: str, addition: str) -> None:
    """Name a panel within its width, in ink: some colors of the palette are too pale to read.

    In a narrow panel the addition stands below the name.
    """
    figure = ax.get_figure(root=True)
    assert figure is not None
    room = int(17 * ax.get_position().width * figure.get_figwidth())
    if len(name) + len(addition) > room and figure.get_figwidth() <= ONE_COLUMN:
        ax.set_title(f"{shortened(name, room)}\n{addition.removeprefix(' · ')}".strip(), linespacing=1.1)
    else:
        ax.set_title(shortened(name, room - len(addition)) + addition)


def blank(axes: Sequence[Axes]) -> None:
    """Hide panels of a grid that nothing is drawn in."""
    for ax in axes:
        ax.set_visible(False)


def pool_legend(figure: Figure, pool: str, other: str) -> None:
    """Say once, above the panels, that the grey is the retrained pool and the color the method in the title."""
    handles = [Patch(color=POOL, label=pool), Patch(facecolor="none", edgecolor=INK, linewidth=1.1, label=other)]
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=top_left(figure), handlelength=1.6, labelspacing=0.3,
        ncols=2 if figure.get_figwidth() > ONE_COLUMN else 1, borderpad=0.2,
    )  # fmt: skip


def top_left(figure: Figure) -> tuple[float, float]:
    """Where a legend above the panels begins: over the first of two columns, at the edge of one."""
    return (figure.subplotpars.left if figure.get_figwidth() > ONE_COLUMN else 0.02), 1


def plain_marks(axis: Axis, values: Sequence[float], within: tuple[float, float]) -> None:
    """Ticks at those of the values that are within the limits, as plain numbers: powers need a second font."""
    shown = [value for value in values if within[0] <= value <= within[1]]
    axis.set_minor_locator(ticker.NullLocator())
    axis.set_major_locator(ticker.FixedLocator(shown))
    axis.set_major_formatter(ticker.FixedFormatter([mark(value) for value in shown]))


def mark(value: float) -> str:
    """A number at a tick, with the minus sign of the tables."""
    return f"{value:g}".replace("-", "−")


def label_rows(axes: Sequence[Axes], label: str) -> None:
    """Name the vertical axis at the left of the figure: of one panel of a row, of both of a column."""
    for ax in axes:
        if ax.get_position().x0 <= axes[0].get_position().x0:
            ax.set_ylabel(label)


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
