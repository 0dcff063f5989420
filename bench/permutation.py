"""An exact test of whether unlearned and retrained models are exchangeable, on every forget example at once."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from bench import roc, statistics

PRIOR = 4.0  # degrees of freedom that the mean variance over examples counts for, as in the per-example attack
CELLS = 2_000_000  # permutations x examples that are worked on at a time
TIE = 1e-9  # relative: the same split of the models, summed in another order


def permutation_p(unlearned: np.ndarray, retrained: np.ndarray, *, permutations: int = 1000, seed: int = 0) -> float:
    """p-value of "unlearned and retrained models are exchangeable" from log-odds `[m, n]` and `[k, n]`; two-sided.

    The labels of whole models are permuted, so that it holds for any statistic, any dependence between examples and
    any offset between models. The statistic is a likelihood ratio summed over examples: two normal distributions with
    shrunken variances against one, which notices means that moved up, down or both ways, and spreads that changed.

    Returns:
        (1 + permutations with as large a statistic) / (1 + permutations): at least 1 / (1 + permutations), 1 where
        all models agree. nan for fewer than two models on a side, no example, or a value that is not finite.
    """
    both = np.concatenate([np.asarray(unlearned, np.float64), np.asarray(retrained, np.float64)])
    m, k = len(unlearned), len(retrained)
    if min(m, k) < 2 or not both.size or not np.isfinite(both).all():
        return math.nan
    x = _standardized(both)
    ratios = np.concatenate([_ratios(rows, x, m) for rows in _splits(m, k, x.shape[1], permutations, seed)])
    found, drawn = ratios[0], ratios[1:]
    return float(1 + (drawn >= found - TIE * max(1.0, abs(found))).sum()) / (1 + permutations)


def _standardized(x: np.ndarray) -> np.ndarray:
    """Every example at zero mean and unit spread over all models, which no permutation changes; constant ones go."""
    x = x - x.mean(axis=0)
    spread = x.std(axis=0)
    varies = spread > 1e-7 * np.maximum(1.0, np.abs(x).max(axis=0))
    return np.asarray(x[:, varies] / spread[varies])


def _splits(m: int, k: int, n: int, permutations: int, seed: int) -> Iterator[np.ndarray]:
    """Which models count as unlearned, float64 `[rows, m + k]` of 0 and 1 in blocks; the first row is the truth."""
    generator = np.random.default_rng(seed)
    first = np.repeat([1.0, 0.0], [m, k])[None]
    yield first
    block = max(1, min(permutations, CELLS // max(n, m + k)))
    for start in range(0, permutations, block):
        yield generator.permuted(np.repeat(first, min(block, permutations - start), axis=0), axis=1)


def _ratios(splits: np.ndarray, x: np.ndarray, m: int) -> np.ndarray:
    """Log-likelihood ratio of every split, up to a factor and to what all splits share, `[splits]`."""
    squares = np.square(x)
    total, total_squares = x.sum(axis=0), squares.sum(axis=0)
    sums, sums_squares = splits @ x, splits @ squares
    k = len(x) - m
    ratio = np.zeros(len(splits))
    for models, s, q in ((m, sums, sums_squares), (k, total - sums, total_squares - sums_squares)):
        deviations = np.maximum(q - s * s / models, 0.0)
        variance = statistics.shrunken(deviations / (models - 1), models - 1, PRIOR)
        ratio -= models * np.log(np.maximum(variance, 1e-12)).sum(axis=1)
    return ratio


def relabeled_p(positives: np.ndarray, negatives: np.ndarray, *, permutations: int = 1000, seed: int = 0) -> float:
    """p-value of an area of 0.5 between the scores `[m, n]` and `[k, n]` of models that an attack has not learned from.

    Given what it has learned, their scores are exchangeable if the models are, so that permuting the labels of whole
    models is exact, however few there are. Two-sided; nan as `permutation_p`.
    """
    both, m = np.concatenate([positives, negatives]), len(positives)
    if min(m, len(negatives)) < 2 or not both.size or not np.isfinite(both).all():
        return math.nan
    pairs = roc.areas(both, both)
    generator = np.random.default_rng(seed)
    orders = [np.arange(len(both)), *(generator.permutation(len(both)) for _ in range(permutations))]
    found = np.array([abs(pairs[np.ix_(order[:m], order[m:])].mean() - 0.5) for order in orders])
    return float(1 + (found[1:] >= found[0] - TIE).sum()) / (1 + permutations)


def exchangeable_p(
    unlearned: np.ndarray, retrained: np.ndarray, *, originals: np.ndarray | None = None, seed: int = 0
) -> float:
    """The same for any number of unlearned models: of one it asks how it stands among the retrained ones."""
    if len(unlearned) == 1:
        return outlier_p(unlearned[0], retrained, originals)
    return permutation_p(unlearned, retrained, seed=seed)


def outlier_p(model: np.ndarray, retrained: np.ndarray, originals: np.ndarray | None = None) -> float:
    """p-value of "this model is one more of the retrained ones" from log-odds `[n]` and `[k, n]`; two-sided.

    Every model is held against all others, by the mean over examples of its squared distance from theirs and, with
    `originals` `[o, n]`, by how much likelier it is one of those; of the two, at zero mean and unit spread over all
    models, the larger counts. Among k + 1 exchangeable models any rank is as likely, so that p is at least 1 / (k + 1).
    nan for fewer than two retrained models, no example, or a value that is not finite.
    """
    both = np.concatenate([np.asarray(model, np.float64)[None], np.asarray(retrained, np.float64)])
    if len(retrained) < 2 or not both.size or not np.isfinite(both).all():
        return math.nan
    others = [_normal(np.delete(both, at, axis=0)) for at in range(len(both))]
    far = np.array([_squares(one, *normal).mean() for one, normal in zip(both, others, strict=True)])
    if originals is None or len(originals) < 2 or not np.isfinite(originals).all():
        return _rank(far)
    mean, _ = _normal(np.asarray(originals, np.float64))
    nearer = [  # one variance for both, as in the likelihood-ratio attack: nothing but the level decides
        (_squares(one, *normal) - _squares(one, mean, normal[1])).mean()
        for one, normal in zip(both, others, strict=True)
    ]
    return _rank(np.maximum(_scaled(far), _scaled(np.array(nearer))))


def _scaled(values: np.ndarray) -> np.ndarray:
    spread = values.std()
    return np.asarray((values - values.mean()) / (spread if spread > 0 else 1.0))


def _rank(values: np.ndarray) -> float:
    """Share of values that are as large as the first, itself included."""
    return float((values >= values[0] - TIE * max(1.0, abs(values[0]))).mean())


def _normal(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and shrunken variance of every example, float64 `[n]` each."""
    return values.mean(axis=0), statistics.shrunken(values.var(axis=0, ddof=1), len(values) - 1, PRIOR)


def _squares(one: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    gaps = (one - mean) ** 2
    return np.asarray(np.divide(gaps, variance, out=np.zeros_like(gaps), where=variance > 0))
