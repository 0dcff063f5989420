"""The figures of the classes that the forget set is taken for, beside the retrained pool."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.records import Results
from reports import style, words
from reports.numbers import REFERENCE, Numbers, fixed

SHARE = "predicted_share:"
TV = "class_shift_tv"
MOST_CLASSES = 12  # rows a reader can still follow; smaller classes are added up
OTHERS = "all others"
TELLING = 0.25  # share of the forget samples that must go elsewhere for a figure of many classes to be worth its place


def class_shift(results: Results, *, width: float = style.TWO_COLUMNS) -> Figure | None:
    """What the forgotten training samples are taken for after the last request, one panel per method."""
    return _figure(results, "forget", width) if informs(results) else None


def class_shift_test(results: Results, *, width: float = style.TWO_COLUMNS) -> Figure | None:
    """The same for the test samples of the removed classes."""
    return _figure(results, "forget_test", width) if results.run["removed_classes"] else None


def informs(results: Results) -> bool:
    """Whether a reader learns from the figure: with one class to forget, or if a method sends samples far elsewhere.

    Shares of a forget set of many classes otherwise repeat its mix of classes.
    """
    run, numbers, last = results.run, Numbers(results.records), results.run["steps"] - 1
    if run["removed_classes"] or own_class(run) is not None:
        return True
    floor = numbers.value(REFERENCE, TV, "forget", last)
    return any(numbers.value(m, TV, "forget", last) > floor + TELLING for m in _methods(run) if m != "original")


def own_class(run: dict[str, Any]) -> str | None:
    """The name of the only class of the forget set, where that class stays; bars for it would hide the others."""
    classes = run.get("forget_classes", [])
    return run["class_names"][classes[0]] if len(classes) == 1 and not run["removed_classes"] else None


def _methods(run: dict[str, Any]) -> list[str]:
    return [entry["name"] for entry in run["methods"]]


def _figure(results: Results, part: str, width: float) -> Figure | None:
    run, numbers, last = results.run, Numbers(results.records), results.run["steps"] - 1
    classes = shown_classes(results, numbers)
    methods = [m for m in _methods(run) if classes and numbers.value(m, SHARE + classes[0], part, last) >= 0]
    if not methods:
        return None
    rows = with_others(run, classes)
    longest = max(len(name) for name in rows)
    shape = style.grid_shape(len(methods), width)
    room = 24 if width > style.ONE_COLUMN else 14  # characters
    height, left = 0.25 + 0.17 * len(rows), 0.3 + 0.06 * min(longest, room)
    figure, grid = style.panels(*shape, width=width, height=height, left=left)
    axes = [ax for row in grid for ax in row]
    for ax, method in zip(axes, methods, strict=False):
        draw(ax, results, method, part, rows, style.look(run, method)[0])
        title(ax, results, method, part, method)
    style.blank(axes[len(methods) :])
    name_rows(axes[0], rows, room)
    which = "" if width <= style.ONE_COLUMN else "test " if part == "forget_test" else "forget "
    style.label_columns(grid, len(methods), f"% of {which}samples")
    style.pool_legend(figure, pool_label(results, part), "the method named above the panel")
    return figure


def pool_label(results: Results, part: str) -> str:
    """The pool, how many models it has, and the floor of the distance to it."""
    run, numbers = results.run, Numbers(results.records)
    floor = numbers.value(REFERENCE, TV, part, run["steps"] - 1)
    noise = "" if math.isnan(floor) else f", TV floor {fixed(floor)}"
    return f"{words.pool(run)}, {run['reference_models']} models{noise}"


def name_rows(ax: Axes, rows: Sequence[str], room: int = 24) -> None:
    """Name the classes beside the bars in so many characters, the first one on top."""
    ax.set_yticks(range(len(rows)), [style.shortened(name, room) for name in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlim(0, min(ax.get_xlim()[1], 100))


def _drawable(run: dict[str, Any]) -> list[str]:
    """Names of the classes that samples can be taken for, but the one that would hide the others."""
    removed, own = run["removed_classes"], own_class(run)
    return [name for c, name in enumerate(run["class_names"]) if c not in removed and name != own]


def shown_classes(results: Results, numbers: Numbers) -> list[str]:
    """The classes that the pool or a method sends most forget samples to, those of the pool's largest shares first."""
    run, last = results.run, results.run["steps"] - 1

    def share(method: str, name: str) -> float:
        value = numbers.value(method, SHARE + name, "forget", last)
        return 0.0 if math.isnan(value) else value

    names = [name for name in _drawable(run) if numbers.summary(REFERENCE, SHARE + name, "forget", last)]
    if len(names) > MOST_CLASSES:
        largest = {name: max(share(method, name) for method in (REFERENCE, *_methods(run))) for name in names}
        names = sorted(names, key=lambda name: (-largest[name], name))[: MOST_CLASSES - 1]
    return sorted(names, key=lambda name: (-share(REFERENCE, name), name))


def with_others(run: dict[str, Any], classes: Sequence[str]) -> list[str]:
    """The rows of bars: these classes and, where they are not all, the others together."""
    return [*classes, *([OTHERS] if len(classes) < len(_drawable(run)) else [])]


def draw(ax: Axes, results: Results, method: str, part: str, rows: Sequence[str], color: str) -> None:
    """The bars of a method beside those of the pool."""
    last, numbers = results.run["steps"] - 1, Numbers(results.records)
    places = np.arange(len(rows))
    rest = [name for name in _drawable(results.run) if name not in rows]
    for name, shift, fill in ((REFERENCE, -0.2, style.POOL), (method, 0.2, color)):
        shares = [numbers.value(name, SHARE + c, part, last) for c in rows]
        spread = [numbers.deviation(name, SHARE + c, part, last) for c in rows]
        if rows[-1] == OTHERS:  # their deviation is not the sum of deviations, so they have no whisker
            shares[-1] = float(np.nansum([numbers.value(name, SHARE + c, part, last) for c in rest]))
        whiskers = {"elinewidth": 0.7, "ecolor": "#444444"}
        ax.barh(places + shift, shares, 0.38, color=fill, xerr=np.nan_to_num(spread), error_kw=whiskers)
    ax.tick_params(axis="y", length=0)


def title(ax: Axes, results: Results, method: str, part: str, name: str) -> None:
    """Name a panel and say how far the method's shares are from the pool's."""
    moved = Numbers(results.records).value(method, TV, part, results.run["steps"] - 1)
    style.title(ax, name, "" if math.isnan(moved) else f" · TV {fixed(moved)}")


def caption(run: dict[str, Any], part: str) -> str:
    """What is shown, which depends on what was forgotten."""
    own = own_class(run)
    if part == "forget_test":
        what = "What test samples of the removed classes are taken for once those classes are masked, in percent"
    elif run["removed_classes"]:
        what = "What training samples of the removed classes are taken for once those classes are masked, in percent"
    elif own is not None:
        what = f"What the forget samples, all of class {own}, are taken for where not for their own class, in percent"
    else:
        after = " after the last request" if run["steps"] > 1 else ""
        what = f"What the forget samples are taken for{after}, in percent; drawn since a method moves many of them"
    whiskers = "Whiskers are standard deviations over models; TV is the total variation distance to the"
    return f"{what}. {whiskers} {words.pool(run)}, its floor that of one model of the pool to the others."
