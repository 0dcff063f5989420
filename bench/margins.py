"""How differently two groups of models treat the same samples, told from log-odds alone: arrays in, numbers out.

Log-odds are float64 `[models, n]` (`bench.logits.phi`). Every number here but the shift grows as models get fewer, also
between models of one kind: compare only what was computed with the same numbers of models.
"""

from __future__ import annotations

import numpy as np

from bench import statistics

CLIP = 100.0  # log-odds beyond are as certain as a model can be
BINS, LEAST = 20, 1e-5  # of KLoM; the least share bounds it by 11.51 nats
QUANTILES = 10
PRIOR_MODELS = 4  # how many degrees of freedom the average variance of a sample counts as
BAND = (0.025, 0.975)


def klom(unlearned: np.ndarray, retrained: np.ndarray) -> np.ndarray:
    """KL divergence of margins per sample, KL(unlearned || retrained) in nats, float64 `[n]`, at most 11.51.

    Histograms over the models, of log-odds clipped at +-100, on 20 equal bins of the joint range, the last one closed;
    shares of the retrained models are at least 1e-5 where unlearned ones are, without renormalization. nan for samples
    with a value that is nan. Source: easydub/EasyDUB-code at commit 5de3c4c.
    """
    both = np.clip(np.concatenate([unlearned, retrained]), -CLIP, CLIP)
    valid = ~np.isnan(both).any(axis=0)
    both = np.where(valid, both, 0.0)
    low, width = both.min(axis=0), np.ptp(both, axis=0)
    bins = np.minimum((both - low) / np.where(width > 0, width, 1.0) * BINS, BINS - 1).astype(np.int64)
    p, q = (
        _counts(bins[: len(unlearned)], BINS) / len(unlearned),
        _counts(bins[len(unlearned) :], BINS) / len(retrained),
    )
    return np.where(valid, _kl(p, np.maximum(q, LEAST)), np.nan)


def klom_quantile(unlearned: np.ndarray, retrained: np.ndarray) -> np.ndarray:
    """KL(unlearned || retrained) per sample in nats on ten bins that the pooled models fill evenly, float64 `[n]`.

    Half a model is added to every bin. Only the order of the models counts, so that any increasing function of
    log-odds gives the same; tied models share a bin. Its floor is far lower than that of `klom`. nan as in `klom`.
    """
    both = np.concatenate([unlearned, retrained])
    valid = ~np.isnan(both).any(axis=0)
    below = _below(np.where(valid, both, 0.0))
    bins = QUANTILES * below // len(both)
    p, q = (_counts(side, QUANTILES) + 0.5 for side in (bins[: len(unlearned)], bins[len(unlearned) :]))
    divergence = _kl(p / (len(unlearned) + QUANTILES / 2), q / (len(retrained) + QUANTILES / 2))
    return np.where(valid, divergence, np.nan)


def _below(values: np.ndarray) -> np.ndarray:
    """How many values of the same column are smaller, int64 `[models, n]`."""
    order = np.argsort(values, axis=0, kind="stable")
    ordered = np.take_along_axis(values, order, axis=0)
    first = np.zeros(values.shape, dtype=np.int64)  # where the run of equal values starts
    first[1:] = np.where(ordered[1:] != ordered[:-1], np.arange(1, len(values))[:, None], 0)
    below = np.empty_like(first)
    np.put_along_axis(below, order, np.maximum.accumulate(first, axis=0), axis=0)
    return below


def _counts(bins: np.ndarray, number: int) -> np.ndarray:
    """How many models of each column lie in each bin, int64 `[n, bins]`."""
    n = bins.shape[1]
    return np.bincount((bins + number * np.arange(n)).ravel(), minlength=number * n).reshape(n, number)


def _kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    ratio = np.divide(p, q, out=np.ones_like(p), where=p > 0)
    return np.asarray((p * np.log(ratio)).sum(axis=-1))


def pair_shifts(unlearned: np.ndarray, retrained: np.ndarray) -> np.ndarray:
    """How much more confident an unlearned model is than a retrained one, for every pair, float64 `[m, k]`.

    Mean over samples of the difference of log-odds, in standard deviations `spread` of the retrained models; positive =
    more confident. nan where retrained models do not differ at all, or are fewer than two.
    """
    scale = spread(retrained)
    if not scale.size or not np.all(scale > 0):
        return np.full((len(unlearned), len(retrained)), np.nan)
    center = retrained.mean(axis=0)
    ours, theirs = (((side - center) / scale).mean(axis=1) for side in (unlearned, retrained))
    return np.asarray(ours[:, None] - theirs[None])


def spread(retrained: np.ndarray) -> np.ndarray:
    """Standard deviation of each sample's log-odds over models, drawn toward the average one, float64 `[n]`.

    The variance is a mean of the sample's own, with its degrees of freedom, and the average over samples, which counts
    as four. nan for fewer than two models; 0 only where no sample's log-odds differ.
    """
    if len(retrained) < 2:
        return np.full(retrained.shape[1], np.nan)
    own, free = retrained.var(axis=0, ddof=1), len(retrained) - 1
    own = np.where(np.ptp(retrained, axis=0) > 0, own, 0.0)  # rounding gives equal values a variance of 1e-32
    return np.asarray(np.sqrt(statistics.shrunken(own, free, PRIOR_MODELS)))


def beyond(unlearned: np.ndarray, retrained: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Percent of samples at which each model lies above and below the retrained models' band, float64 `[models]` each.

    The band is from the 2.5 to the 97.5 percent quantile of all retrained models, per sample, interpolated. A further
    retrained model lies above it in 2.5 percent of samples only with very many models: about
    100 (1 - (1 + .975 (k - 1)) / (k + 1)) with k of them, 4.4 with 50 and 8.1 with 16. Compare with a measured floor.
    """
    low, high = np.quantile(retrained, BAND, axis=0)
    return 100.0 * (unlearned > high).mean(axis=1), 100.0 * (unlearned < low).mean(axis=1)
