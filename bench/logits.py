"""What raw logits say: log-odds, log-entropies, masked heads and errors, in float64 and without a softmax."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def phi(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Log-odds of the label, log(p / (1 - p)), float64 `[..., n]` from logits `[..., n, classes]` and labels `[n]`.

    Never through a softmax, which saturates at a logit gap of 17 in float32. A class with logit -inf does not exist;
    rows with any other value that is not finite give nan.
    """
    z = np.array(logits, dtype=np.float64)
    place = np.broadcast_to(np.asarray(labels), z.shape[:-1])[..., None]
    own = np.take_along_axis(z, place, axis=-1)[..., 0]
    bad = ~_usable(z)
    np.put_along_axis(z, place, -np.inf, axis=-1)
    with np.errstate(invalid="ignore"):
        return np.where(bad, np.nan, own - _logsumexp(z))


def log_entropy(logits: np.ndarray) -> np.ndarray:
    """Natural log of the softmax's entropy in nats, float64 `[..., n]` from logits `[..., n, classes]`.

    Computed in the log domain throughout: the entropy itself underflows from a logit gap of 745. Infinite and bad
    logits as in `phi`.
    """
    z = np.asarray(logits, dtype=np.float64)
    bad = ~_usable(z)
    z = np.where(bad[..., None], 0.0, z)
    top = np.argmax(z, axis=-1)
    gap = phi(z, top)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        log_p = z - _logsumexp(z)[..., None]
        terms = np.where(np.isneginf(log_p), -np.inf, log_p + np.log(-log_p))
        # -log p of the dominant class is too near 0 for a subtraction to tell; its log-odds still know it.
        own = np.where(gap > 30, -gap, np.log(np.log1p(np.exp(-gap)))) - np.log1p(np.exp(-gap))
        np.put_along_axis(terms, top[..., None], own[..., None], axis=-1)
        return np.where(bad, np.nan, _logsumexp(terms))


def mask(logits: np.ndarray, removed_classes: Sequence[int]) -> np.ndarray:
    """A copy without the removed classes: logit -inf, so that class indices stay; equals deleting rows of the head."""
    z = np.array(logits)
    z[..., list(removed_classes)] = -np.inf
    return z


def error_percent(logits: np.ndarray, labels: np.ndarray, removed_classes: Sequence[int] = ()) -> np.ndarray:
    """Percent of samples whose label is not the single largest logit, float64 `[...]` for logits `[..., n, classes]`.

    A tie counts as wrong, and so does a row with a value that is not finite. nan when there is no sample.
    """
    z = np.asarray(logits)
    if not z.shape[-2]:
        return np.full(z.shape[:-2], np.nan)
    finite = np.isfinite(z).all(-1)
    z = mask(z, removed_classes) if len(removed_classes) else z
    own = np.take_along_axis(z, np.broadcast_to(labels, z.shape[:-1])[..., None], axis=-1)
    right = finite & ((z >= own).sum(-1) == 1)
    return np.asarray(100.0 * (1.0 - right.mean(-1)))


def _usable(z: np.ndarray) -> np.ndarray:
    """Rows without nan or +inf in which some class exists."""
    return np.asarray((np.isfinite(z) | np.isneginf(z)).all(-1) & np.isfinite(z).any(-1))


def _logsumexp(z: np.ndarray) -> np.ndarray:
    """log(sum(exp(z))) along the last axis; -inf where everything is -inf."""
    top = z.max(-1, keepdims=True)
    top = np.where(np.isneginf(top), 0.0, top)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.log(np.exp(z - top).sum(-1)) + top[..., 0])
