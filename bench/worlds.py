"""Made-up models whose memory of the forget set is set by hand: what attacks and verdicts are held against.

Per example the log-odds of the label are N(a, s) in a model that was not trained on it and N(a + d, s) in one that was,
with a ~ N(6, 3), s = exp N(0, .4) and d = |N(0, 1.5)|. Real models of a world share the examples and differ in noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bench.attack import Points, Seen


@dataclass(frozen=True)
class Examples:
    """Examples of one kind: their means `a`, spreads `s` and what training adds, `d`, float64 `[n]`; labels; profile.

    `profile` float64 `[n, classes]` are the other logits of an example, up to noise.
    """

    a: np.ndarray
    s: np.ndarray
    d: np.ndarray
    labels: np.ndarray
    profile: np.ndarray


Odds = Callable[[Examples, np.ndarray, np.random.Generator], np.ndarray]  # examples, noise [models, n] -> log-odds


def _partly(e: Examples, noise: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A tenth of the examples is too confident by 3 sd."""
    tenth = np.arange(len(e.a)) < len(e.a) // 10
    return np.asarray(e.a + np.where(tenth, 3.0, 0.0) * e.s + e.s * noise)


def _few(e: Examples, noise: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """One example in twenty-five is too confident by 6 sd: too few for an average to show."""
    few = np.arange(len(e.a)) < max(len(e.a) // 25, 1)
    return np.asarray(e.a + np.where(few, 6.0, 0.0) * e.s + e.s * noise)


def _both_ways(e: Examples, noise: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Every other example is too confident by 1.5 sd, the rest as much too unsure."""
    return np.asarray(e.a + np.where(np.arange(len(e.a)) % 2, 1.5, -1.5) * e.s + e.s * noise)


# What unlearned models of each world know of the forget set.
KINDS: dict[str, Odds] = {
    "exact": lambda e, noise, generator: e.a + e.s * noise,
    "no_op": lambda e, noise, generator: e.a + e.d + e.s * noise,
    "half_forgotten": lambda e, noise, generator: e.a + e.d / 2 + e.s * noise,
    "partly_leaking": _partly,
    "few_leaking": _few,
    "over_forgotten": lambda e, noise, generator: e.a - 2 * e.s + e.s * noise,
    "both_ways": _both_ways,
    "too_peaky": lambda e, noise, generator: e.a + e.s * noise / 10,
}


class World:
    """One draw of examples, and as many models of it as one asks for."""

    def __init__(self, seed: int, *, samples: int = 500, others: int = 500, classes: int = 10) -> None:
        """`samples` forget examples, and `others` each of retained, validation and test."""
        self.generator = np.random.default_rng(seed)
        self.classes = classes
        sizes = {"forget": samples, "retain": others, "validation": others, "unseen": others}
        self.examples = {name: self._examples(size) for name, size in sizes.items()}

    def _examples(self, n: int) -> Examples:
        g = self.generator
        a, s, d = g.normal(6, 3, n), np.exp(g.normal(0, 0.4, n)), np.abs(g.normal(0, 1.5, n))
        return Examples(a, s, d, g.integers(0, self.classes, n), g.normal(0, 1, (n, self.classes)))

    def seen(self, kind: str, models: int, *, spread: float = 0.0, views: int = 0) -> Seen:
        """What `models` models of a kind in `KINDS` show; retrained models are of the kind `exact`.

        Args:
            spread: standard deviation of what all log-odds of one model share.
            views: shifted copies of the forget set, whose log-odds differ from the example's by N(0, 1).
        """
        shift = spread * self.generator.normal(size=(models, 1))
        told = {"forget": KINDS[kind], "retain": KINDS["no_op"], "validation": KINDS["exact"], "unseen": KINDS["exact"]}
        parts = {name: self._odds(name, odds, models) + shift for name, odds in told.items()}
        points = {name: Points(self._logits(odds, name), self.examples[name].labels) for name, odds in parts.items()}
        if views:
            points["forget"] = self._viewed(points["forget"], parts["forget"], views)
        return Seen(**points)

    def _odds(self, name: str, odds: Odds, models: int) -> np.ndarray:
        examples = self.examples[name]
        return odds(examples, self.generator.normal(size=(models, len(examples.a))), self.generator)

    def _logits(self, odds: np.ndarray, name: str) -> np.ndarray:
        """Logits float32 `[models, n, classes]` with these log-odds of the label."""
        examples, g = self.examples[name], self.generator
        z = examples.profile + 0.3 * g.normal(size=(*odds.shape, self.classes))
        own = np.broadcast_to(examples.labels, odds.shape)[..., None]
        np.put_along_axis(z, own, -np.inf, axis=-1)
        np.put_along_axis(z, own, (odds + np.log(np.exp(z).sum(-1)))[..., None], axis=-1)
        return z.astype(np.float32)

    def _viewed(self, points: Points, odds: np.ndarray, views: int) -> Points:
        moved = [self._logits(odds + self.generator.normal(size=odds.shape), "forget") for _ in range(views)]
        return Points(points.logits, points.labels, np.stack([z.argmax(-1) for z in moved], axis=-1))
