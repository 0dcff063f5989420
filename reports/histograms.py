"""The figure of log-entropies on the forget set, every method before the retrained pool."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.records import Results
from reports import curves, style, words
from reports.curves import Array
from reports.numbers import REFERENCE, Numbers, fixed

BAND = 0.07  # width of the under- and overflow bars as a share of the range
Shares = Mapping[tuple[str, int], Array]


def entropy_histograms(results: Results, *, width: float = style.TWO_COLUMNS) -> Figure | None:
    """Log-entropy densities on the forget set, one panel per method.

    Of a sequence, rows are its steps where the methods fit beside each other; otherwise it is the last.
    """
    methods = _methods(results)
    if not methods or f"log_entropy/{REFERENCE}/0" not in results.samples:
        return None
    steps = shown_steps(results, width)
    several = len(steps) > 1
    shape = (len(steps), len(methods)) if several else style.grid_shape(len(methods), width)
    height, left = (1.0, 0.72) if several else (1.4 if width > style.ONE_COLUMN else 0.95, 0.55)
    figure, grid = style.panels(*shape, width=width, height=height, left=left)
    edges = shared_edges(results, methods)
    shares = entropy_shares(results, methods, edges)
    limit(grid, edges, {place: own for place, own in shares.items() if place[1] in steps})
    places = [(method, step) for step in steps for method in methods]
    axes = [ax for row in grid for ax in row]
    for ax, (method, step) in zip(axes, places, strict=False):
        if (method, step) in shares and (REFERENCE, step) in shares:
            _panel(ax, results, edges, shares, method, step)
    style.blank(axes[len(places) :])
    for step, row in enumerate(grid):
        row[0].set_ylabel(f"request {step + 1}\ndensity" if several else "density")
    style.label_columns(grid, len(places), "log-entropy, nats")
    style.pool_legend(figure, _pool_label(results, steps), "the method named above the panel")
    return figure


def _methods(results: Results) -> list[str]:
    """The methods that there is anything to draw of."""
    return [entry["name"] for entry in results.run["methods"] if f"log_entropy/{entry['name']}/0" in results.samples]


def shown_steps(results: Results, width: float) -> list[int]:
    """The requests that are drawn: all, or the last where the methods do not fit beside each other."""
    steps = results.run["steps"]
    return list(range(steps)) if len(_methods(results)) <= style.most_columns(width) else [steps - 1]


def _pool_label(results: Results, steps: Sequence[int]) -> str:
    label = f"{words.pool(results.run)}, {results.run['reference_models']} models"
    floor = Numbers(results.records).value(REFERENCE, "log_entropy_w1", "forget", steps[-1])
    return label if len(steps) > 1 or math.isnan(floor) else f"{label}, W1 floor {fixed(floor)}"


def shared_edges(results: Results, methods: Sequence[str]) -> Array:
    """Shared bin edges: as fine as the smallest method allows, as low as the pool and the original go."""
    samples = results.samples
    count = min(samples[f"log_entropy/{method}/0"].size for method in methods)
    known = [samples[name] for name in (f"log_entropy/{REFERENCE}/0", "log_entropy/original/0") if name in samples]
    finite = [values[np.isfinite(values)] for values in known]
    tails = [float(np.quantile(values, 0.05)) for values in finite if values.size]
    return curves.bin_edges(results.run["scenario"], count, min(tails, default=math.inf))


def entropy_shares(results: Results, methods: Sequence[str], edges: Array) -> dict[tuple[str, int], Array]:
    """Shares `[bins + 2]` of the samples of each method and step, the pool included."""
    shares = {}
    for step in range(results.run["steps"]):
        for method in (REFERENCE, *methods):
            values = results.samples.get(f"log_entropy/{method}/{step}")
            if values is not None:
                counts = curves.binned(values.ravel(), edges)
                shares[method, step] = counts / max(counts.sum(), 1)
    return shares


def pieces(shares: Array, edges: Array) -> list[tuple[Array, Array]]:
    """Heights and borders of the underflow bar, the histogram and the overflow bar; areas are shares everywhere."""
    bar = BAND * (edges[-1] - edges[0])
    below = np.array([edges[0] - 1.4 * bar, edges[0] - 0.4 * bar])
    above = np.array([edges[-1] + 0.4 * bar, edges[-1] + 1.4 * bar])
    return [(shares[:1] / bar, below), (shares[1:-1] / np.diff(edges), edges), (shares[-1:] / bar, above)]


def _panel(ax: Axes, results: Results, edges: Array, shares: Shares, method: str, step: int) -> None:
    color, _ = style.look(results.run, method)
    draw(ax, shares[REFERENCE, step], edges, style.POOL, filled=True)
    draw(ax, shares[method, step], edges, color)
    title(ax, results, method, step, method)
    if not shares[method, step].any():
        ax.text(0.5, 0.9, "no finite value", transform=ax.transAxes, ha="center", va="top")


def draw(ax: Axes, own: Array, edges: Array, ink: str, *, filled: bool = False, width: float = 1.1) -> None:
    """One distribution, shares `[bins + 2]`; that of the pool is filled. A bar taller than the panel has its share."""
    for share, (heights, borders) in zip((own[0], 1, own[-1]), pieces(own, edges), strict=True):
        if share and own.any():  # solid: dashes would hide in the steps
            ax.stairs(heights, borders, fill=filled, color=ink, linewidth=0 if filled else width)
        if own.any() and heights.size == 1 and heights[0] > ax.get_ylim()[1]:
            _name_clipped(ax, float(share), borders, own=not filled)


def title(ax: Axes, results: Results, method: str, step: int, name: str) -> None:
    """Name a panel and say how far the method's log-entropies are from the pool's."""
    record = Numbers(results.records).summary(method, "log_entropy_w1", "forget", step)
    style.title(ax, name, "" if record is None else f" · W1 {fixed(record.value)}")


def _name_clipped(ax: Axes, share: float, borders: Array, *, own: bool) -> None:
    """Write the share beside a bar that is taller than the panel; drawn in full it would flatten everything else."""
    top = ax.get_ylim()[1]
    ax.text(borders[1] + 0.15 * (borders[1] - borders[0]), top * (1 if own else 0.86), f"{100 * share:.0f} %",
            color=style.INK if own else "#767676", fontsize=6.5, va="top", ha="left")  # fmt: skip


def limit(grid: list[list[Axes]], edges: Array, shares: Shares) -> None:
    """Shared limits that leave out empty ends, and ticks that name the under- and overflow bars."""
    occupied = np.flatnonzero(np.sum(list(shares.values()), axis=0)[1:-1])
    bar = BAND * (edges[-1] - edges[0])
    under, over = any(own[0] for own in shares.values()), any(own[-1] for own in shares.values())
    first = edges[0] if under or not occupied.size else edges[occupied[0]]
    last = edges[-1] if over or not occupied.size else edges[occupied[-1] + 1]
    figure = grid[0][0].get_figure(root=True)
    wide = figure is not None and figure.get_figwidth() / len(grid[0]) > 2
    clear = (0.1 if wide else 0.25) * (last - first)  # what the label of an end bar needs
    inner = [t for t in ticker.MaxNLocator(5 if wide else 3, integer=True).tick_values(first, last)
             if first + clear * under <= t <= last - clear * over]  # fmt: skip
    ticks = [(edges[0] - 0.9 * bar, f"<{style.mark(edges[0])}")] * under + [(t, style.mark(t)) for t in inner]
    ticks += [(edges[-1] + 0.9 * bar, f">{style.mark(edges[-1])}")] * over
    tallest = max(float(np.max(own[1:-1] / np.diff(edges))) for own in shares.values())
    base = grid[0][0]
    base.set_xlim(first - (1.6 * bar if under else 0.2), last + (1.6 * bar if over else 0.2))
    base.set_ylim(0, 1.1 * tallest or 1)
    base.set_xticks([place for place, _ in ticks], [label for _, label in ticks])
    base.yaxis.set_major_locator(ticker.MaxNLocator(3))
