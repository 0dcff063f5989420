"""Distances between the outputs of every pair of an unlearned and a retrained model: logits in, matrices out."""

from __future__ import annotations

import math

import numpy as np

OUTPUTS = ("activation_l2", "activation_l1", "output_js")
CELLS = 250_000  # entries of the largest temporary array: what a processor's cache holds


def output_distances(unlearned: np.ndarray, retrained: np.ndarray) -> dict[str, np.ndarray]:
    """Mean distances over samples of every pair of models' softmax outputs, float64 `[m, k]` by metric.

    `activation_l2` and `activation_l1` are the means of ||p - q|| in that norm; `output_js` is the mean Jensen-Shannon
    divergence in units of ln 2. Means over samples and nothing else: they do not depend on how samples are batched.

    Args:
        unlearned: finite logits `[m, n, classes]`, n of at least one.
        retrained: finite logits `[k, n, classes]` on the same samples.
    """
    n, classes = unlearned.shape[1:]
    totals = {metric: np.zeros((len(unlearned), len(retrained))) for metric in OUTPUTS}
    block = max(1, CELLS // (len(retrained) * classes))
    for start in range(0, n, block):
        some = slice(start, start + block)
        p, q = softmax(unlearned[:, some]), softmax(retrained[:, some])
        own, other = _entropy(p), _entropy(q)
        for at, one in enumerate(p):
            gap = one - q
            totals["activation_l2"][at] += np.sqrt(np.einsum("kic,kic->ki", gap, gap)).sum(axis=1)
            totals["activation_l1"][at] += np.abs(gap).sum(axis=(1, 2))
            mixed = _entropy((one + q) / 2) - (own[at] + other) / 2
            totals["output_js"][at] += np.maximum(mixed, 0.0).sum(axis=1) / math.log(2)
    return {metric: total / n for metric, total in totals.items()}


def softmax(logits: np.ndarray) -> np.ndarray:
    """Class probabilities in float64; a class with logit -inf has none."""
    z = np.asarray(logits, np.float64)
    raised = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True))


def _entropy(p: np.ndarray) -> np.ndarray:
    """Entropy along the last axis in nats, with 0 log 0 = 0."""
    return np.asarray(-np.einsum("...c,...c->...", p, np.log(np.where(p > 0, p, 1.0))))


def agreement(unlearned: np.ndarray, retrained: np.ndarray) -> np.ndarray:
    """Percent of samples that both models of a pair give the same class, float64 `[m, k]`; logits as above.

    Two retrained models agree well below 100: the floor is what to aim at.
    """
    ours, theirs = unlearned.argmax(axis=-1), retrained.argmax(axis=-1)
    return np.array([100.0 * (one == theirs).mean(axis=1) for one in ours])
