"""The paper's Figures 1 to 6 in its arrangement: the paper's methods by its names, one function for each figure."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from bench.records import Results
from reports import histograms, published, roc, shift, style, words
from reports.numbers import PAPERS_ATTACK, REFERENCE, Numbers, fixed
from reports.published import Ours

ORIGINAL = "original"
THIN = 0.7  # the line of the original, which is there for comparison
NAMED = "the method named above the panel"


@dataclass(frozen=True)
class Shown:
    """A figure of the paper: the run it is of, by the name of its table, what draws it, what it shows and needs."""

    table: str
    draw: Callable[[Results], Figure | None]
    caption: str
    needs: str = "since the run has stored no log-entropies"


def names(results: Results) -> dict[str, str]:
    """The paper's names of the methods of its table that a run has, but original and retraining, by ours."""
    rows = published.paper()[published.stands_for(results.run)[0]]["rows"]
    ran = {entry["name"] for entry in results.run["methods"]}
    named = {row["ours"]: str(name) for name, row in rows.items()}
    return {ours: name for ours, name in named.items() if ours in ran and ours not in style.ANCHORS}


def look(method: str) -> tuple[str, Any]:
    """Color and dashes of a method, the same in all six figures."""
    tables = [table for table in published.paper().values() if isinstance(table, dict)]
    every = dict.fromkeys(row["ours"] for table in tables for row in table["rows"].values())
    return style.look({"methods": [{"name": name} for name in every]}, method)


def figure1(results: Results) -> Figure | None:
    """Log-entropy on the forget set, a panel for each method, over the original and the retrained pool."""
    methods = _with_entropy(results)
    places, titles = [(method, 0) for method in methods], [names(results)[method] for method in methods]
    return _entropies(results, places, titles, _outline(NAMED, style.INK)) if places else None


def figure2(results: Results) -> Figure | None:
    """ROC curves of the attack on each method's models and on the originals."""
    if not (methods := _attacked(results)):
        return None
    named = {ORIGINAL: "Original", **names(results)}
    figure = style.plain(0.7 * style.TWO_COLUMNS, 2.9)
    ax = figure.add_axes((0.11, 0.15, 0.49, 0.8))
    _rates(ax, results, {name: roc.label(results, PAPERS_ATTACK, name, named[name]) for name in methods})
    roc.legend(figure, ax, (0.64, 0.95))
    return figure


def figure3(results: Results) -> Figure | None:
    """Log-entropy of the retrained pool and of each method, and beside them the ROC curves, panels (a) to (d)."""
    methods = _with_entropy(results)
    if not methods:
        return None
    figure, grid = style.panels(1, len(methods), height=1.5)
    attacked = [method for method in _attacked(results) if method != ORIGINAL]
    if attacked:
        figure.subplots_adjust(right=0.72)
    _draw_entropies(grid, results, [(method, 0) for method in methods], original=False)
    for letter, ax, method in zip(string.ascii_lowercase, grid[0], methods, strict=False):
        histograms.title(ax, results, method, 0, f"({letter}) {names(results)[method]}")
    if attacked:
        around = figure.subplotpars
        ax = figure.add_axes((0.79, around.bottom, 0.19, around.top - around.bottom))
        _rates(ax, results, {method: _short_label(results, method) for method in attacked})
        ax.set_xticks([0, 50, 100])
        ax.legend(loc="lower right", fontsize=6.5, borderpad=0.1, handlelength=1.6, labelspacing=0.3)
        style.title(ax, f"({string.ascii_lowercase[len(methods)]}) attack, AUC", "")
    _legend(figure, [_pool(results), _outline(NAMED, style.INK)])
    return figure


def figure4(results: Results) -> Figure | None:
    """What training and test images of the removed class are taken for, by retrained models and by PGU."""
    numbers, last = Numbers(results.records), results.run["steps"] - 1
    classes = shift.shown_classes(results, numbers)
    parts = [
        part
        for part in ("forget", "forget_test")
        if classes and numbers.value("pgu", shift.SHARE + classes[0], part, last) >= 0
    ]
    if not parts:
        return None
    rows = shift.with_others(results.run, classes)
    left = 0.3 + 0.06 * min(max(map(len, rows)), 24)
    figure, grid = style.panels(1, len(parts), height=0.25 + 0.17 * len(rows), left=left)
    images = {"forget": "training images", "forget_test": "test images"}
    for ax, part in zip(grid[0], parts, strict=True):
        shift.draw(ax, results, "pgu", part, rows, look("pgu")[0])
        shift.title(ax, results, "pgu", part, images[part])
    shift.name_rows(grid[0][0], rows)
    style.label_columns(grid, len(parts), "predicted, %")
    pool = Patch(color=style.POOL, label=shift.pool_label(results, "forget"))
    _legend(figure, [pool, Patch(color=look("pgu")[0], label="PGU")])
    return figure


def figure5(results: Results) -> Figure | None:
    """Log-entropy on all images forgotten so far after each request: the original, the retrained pool, PGU."""
    places = [("pgu", step) for step in range(results.run["steps"])]
    titles = [f"request {step + 1}" for _, step in places]
    pgu = _outline("PGU", look("pgu")[0])
    return _entropies(results, places, titles, pgu) if "pgu" in _with_entropy(results) else None


def _with_entropy(results: Results) -> list[str]:
    if f"log_entropy/{REFERENCE}/0" not in results.samples:
        return []
    return [method for method in names(results) if f"log_entropy/{method}/0" in results.samples]


def _attacked(results: Results) -> list[str]:
    scores = roc.scores_of(results, PAPERS_ATTACK)
    return [method for method in (ORIGINAL, *names(results)) if method in scores]


def _entropies(results: Results, places: Sequence[tuple[str, int]], titles: Sequence[str], drawn: Artist) -> Figure:
    figure, grid = style.panels(*style.grid_shape(len(places)), height=1.4)
    _draw_entropies(grid, results, places, original=True)
    axes = [ax for row in grid for ax in row]
    for ax, (method, step), title in zip(axes, places, titles, strict=False):
        histograms.title(ax, results, method, step, title)
    style.blank(axes[len(places) :])
    original = Line2D([], [], color=look(ORIGINAL)[0], linewidth=THIN, label="original")
    _legend(figure, [_pool(results), original, drawn])
    return figure


def _draw_entropies(
    grid: list[list[Axes]], results: Results, places: Sequence[tuple[str, int]], *, original: bool
) -> None:
    """A panel for each method and step: the pool filled, the original if asked, the method over both."""
    methods = [*([ORIGINAL] if original else []), *dict.fromkeys(method for method, _ in places)]
    edges = histograms.shared_edges(results, methods)
    shares = histograms.entropy_shares(results, methods, edges)
    histograms.limit(grid, edges, shares)
    for ax, (method, step) in zip([ax for row in grid for ax in row], places, strict=False):
        for name in (REFERENCE, *([ORIGINAL] if original else []), method):
            if (name, step) in shares:
                ink = style.POOL if name == REFERENCE else look(name)[0]
                width = THIN if name == ORIGINAL else 1.1
                histograms.draw(ax, shares[name, step], edges, ink, filled=name == REFERENCE, width=width)
    for row in grid:
        row[0].set_ylabel("density")
    style.label_columns(grid, len(places), "log-entropy, nats")


def _legend(figure: Figure, handles: Sequence[Artist]) -> None:
    """Say once, above the panels, what the grey and the other colors are."""
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(figure.subplotpars.left, 1), ncols=3,
                  borderpad=0.2, handlelength=1.6)  # fmt: skip


def _outline(name: str, ink: str) -> Artist:
    return Patch(facecolor="none", edgecolor=ink, linewidth=1.1, label=name)


def _pool(results: Results) -> Artist:
    return Patch(color=style.POOL, label=f"{words.pool(results.run)}, {results.run['reference_models']} models")


def _rates(ax: Axes, results: Results, labels: Mapping[str, str]) -> None:
    scores = roc.scores_of(results, PAPERS_ATTACK)
    for method, label in labels.items():
        roc.curve(ax, *scores[method], roc.GRID, look(method), label)
    roc.linear_axes(ax)


def _short_label(results: Results, method: str) -> str:
    last = results.run["steps"] - 1
    area = Numbers(results.records).value(method, "attack_auc", "forget", last)
    return f"{names(results)[method]} {fixed(area)}"


ENTROPY = (
    "W1 is the distance between the method and the pool in nats. Values beyond the axis are in the bars at its ends; "
    "the share is written beside a bar that is taller than the panel."
)
ATTACK = (
    "of the membership attack that learned from originals and retrained models: a method's models on the forget set "
    "against retrained ones. On the diagonal it learns nothing. Lines are means over seeds, bands reach from the "
    "lowest to the highest seed."
)
NEEDS_ATTACK = f"since it needs the attack {PAPERS_ATTACK} (--attacks {PAPERS_ATTACK})"
FIGURES = {
    "figure1": Shown(
        "table1",
        figure1,
        "Log-entropy of the predictions on the forget set: retrained, original and unlearned models. " + ENTROPY,
    ),
    "figure2": Shown("table1", figure2, f"ROC curves {ATTACK}", NEEDS_ATTACK),
    "figure3": Shown(
        "table2",
        figure3,
        f"Log-entropy of the predictions on the forget set. {ENTROPY} The last panel has the ROC curves {ATTACK}",
    ),
    "figure4": Shown(
        "figure4",
        figure4,
        "What images of the removed class are taken for, in percent, by retrained models and by PGU, the removed "
        "class's output masked. The paper does not tell whether it shows training or test images. Whiskers are "
        "standard deviations over models; TV is the total variation distance to the pool.",
        "since the run has no shares of predicted classes of PGU",
    ),
    "figure5": Shown(
        "table3",
        figure5,
        "Log-entropy of the predictions on all images forgotten so far, after each request: retrained models, "
        "originals and PGU. " + ENTROPY,
    ),
    "figure6": Shown("table3", figure2, f"ROC curves, after the last request, {ATTACK}", NEEDS_ATTACK),
}


def caption(name: str, results: Results) -> str:
    """What a figure shows, the paper's areas under the curves if it has any, and which of its methods are missing."""
    text = FIGURES[name].caption
    return " ".join([text, *_areas(name, results), *_missing(name, results)])


def _areas(name: str, results: Results) -> Iterator[str]:
    """The published areas and how far ours are from them."""
    paper, found = published.paper()[FIGURES[name].table], []
    if FIGURES[name].draw is not figure2:
        return
    ours = Ours(results.run, Numbers(results.records), results.run["steps"] - 1)
    for method, row in paper["rows"].items():
        if "attack_auc" in row:
            printed, _, gap = published.beside(paper, method, "attack_auc", 0, ours)
            found.append(f"{method} {printed} (ours {gap})")
    if found:
        yield f"Published AUC, and how far ours is from it: {', '.join(found)}."


def _missing(name: str, results: Results) -> Iterator[str]:
    """Methods of the paper that a figure lacks, each with the reason."""
    drawn = _attacked(results) if FIGURES[name].draw is figure2 else _with_entropy(results)
    ran = {entry["name"]: str(entry["status"]).split(":")[0] for entry in results.run["methods"]}
    rows = published.paper()[FIGURES[name].table]["rows"].items()
    lost = [
        f"{method} ({ran.get(row['ours'], published.NOT_RUN)})"
        for method, row in rows
        if row["ours"] not in (*drawn, *style.ANCHORS)
    ]
    if lost and name != "figure4":
        yield f"Missing: {', '.join(lost)}."
