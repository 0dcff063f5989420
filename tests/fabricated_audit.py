"""A made-up audit: what its attacks, distances and white-box attackers would record of every method."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from bench.interface import Record

NASTY_ATTACK = "mine_<b>|100%_&_$x$"
FORGET = 60
MODELS = 8
# Area of the attacks that know the method, the p-value of chance and of being beyond the margin, shift of the log-odds.
AREAS = {
    "reference": (0.500, math.nan, math.nan, 0.0),
    "original": (0.912, 0.0002, 1.0, 2.1),
    "retrain": (0.497, 0.81, 0.0021, -0.02),
    "pgu": (0.511, 0.34, 0.0093, 0.04),
    "eu_k": (0.784, 0.0002, 1.0, 0.9),
    "scrub": (0.856, 0.0002, 1.0, -1.3),
}
FAMILY = ["per_example", "adaptive_xgboost", "rmia", "label_only"]
ATTACKS = [
    *({"name": name, "knows": "unlearned", "labels_only": name == "label_only"} for name in FAMILY),
    {"name": "shadow_xgboost", "knows": "original", "labels_only": False},
    {"name": "mia_loss_lr", "knows": "model", "labels_only": False},
    {"name": NASTY_ATTACK, "knows": "model", "labels_only": False},
]
LACKS = "needs 10000 negatives and has 1680"


def description(*, deep: bool = False) -> dict[str, Any]:
    """What `run.json` says of an audit."""
    told = {"summary": "What it does in one line.", "cite": "hoang2024pgu"}
    return {
        "headline": "per_example", "family": FAMILY, "margin": 0.05, "level": "deep" if deep else "standard",
        "attacks": [one | told for one in ATTACKS],
        "models": {"unlearned_fit": 16, "unlearned_test": MODELS, "retrained_fit": 22, "retrained_test": 28},
    }  # fmt: skip


def one(method: str, step: int, metric: str, value: float, half: float = 0.02, part: str = "forget") -> Record:
    """A summary with an interval of this half width; none where it is not finite."""
    ends = (value - half, value + half) if math.isfinite(half) else (math.nan, math.nan)
    return Record(method, "all", step, part, metric, value, *ends, MODELS)


def records(step: int, *, deep: bool = False) -> list[Record]:
    """All that an audit records after the last request."""
    made = []
    for method, (area, likely, apart, shift) in AREAS.items():
        made += _attacks(method, step, area, likely, apart)
        made += _population(method, step, area, shift)
        made += _distances(method, step, shift)
        made += _whitebox(method, step, shift) if deep else []
        if method != "reference":
            ranks = sorted(name for name in AREAS if name != "reference")
            likely = math.nan if method == ranks[0] else 0.03
            ranked = (("compared_rank", 1.0 + ranks.index(method)), ("compared_p", likely))
            made += [replace(one(method, step, metric, value, math.nan), n=2 * MODELS) for metric, value in ranked]
    return made


def _attacks(method: str, step: int, area: float, likely: float, apart: float) -> list[Record]:
    made = []
    for place, name in enumerate(FAMILY):
        weaker = 0.5 + (area - 0.5) * (1 - 0.2 * place)
        made.append(one(method, step, f"attack_auc:{name}", weaker))
        made += [Record(method, str(seed), step, "forget", f"attack_auc:{name}", weaker) for seed in range(5)]
        if method != "reference":
            made.append(one(method, step, f"attack_p:{name}", likely, math.nan))
            made.append(one(method, step, f"attack_equivalence_p:{name}", apart, math.nan))
            made.append(one(method, step, f"attack_tpr_1:{name}", 0.01 + abs(area - 0.5) / 3, 0.004))
            made.append(Record(method, "all", step, "forget", f"attack_tpr_01:{name}", math.nan, status=LACKS))
    return made


def _population(method: str, step: int, area: float, shift: float) -> list[Record]:
    made = []
    if method != "reference":
        made.append(one(method, step, "attack_auc:shadow_xgboost", 0.5 + math.copysign(area - 0.5, shift) / 3, 0.03))
    for name in ("mia_loss_lr", NASTY_ATTACK):
        value = 0.52 + (area - 0.5) / 4
        made.append(one(method, step, f"attack_auc:{name}", value))
        made.append(one(method, step, f"attack_rate:{name}", 100 * value, 1.5))
        if method != "reference":
            made.append(one(method, step, f"attack_p:{name}", 0.4 if abs(area - 0.5) < 0.1 else 0.001, math.nan))
            made.append(one(method, step, f"attack_rate_gap:{name}", 100 * (value - 0.52), 1.5))
    return made


def _distances(method: str, step: int, shift: float) -> list[Record]:
    far = abs(shift)
    half = 0.03 if method == "reference" else math.nan  # a method is held against the range of the floor
    made = [one(method, step, "klom_quantile_mean", 0.16 + far / 2, half)]
    for part, weight in (("forget", 1.0), ("retain", 0.1), ("unseen", 0.3)):
        made.append(one(method, step, "klom_quantile", 0.31 + weight * far, half, part))
    for part in ("forget", "unseen"):
        made.append(one(method, step, "agreement", 93.4 - 9 * far, 0.8, part))
        made.append(one(method, step, "output_js", 0.011 + far / 30, 0.002, part))
        made.append(one(method, step, "activation_l2", 0.082 + far / 9, 0.01, part))
        made.append(one(method, step, "activation_l1", 0.131 + far / 7, 0.01, part))
    made += [one(method, step, "klom", 5.65 + far, half), one(method, step, "klom_mean", 3.1 + far, half)]
    made.append(one(method, step, "forgetting_score", 0.184 / (1 + far), half))
    made.append(one(method, step, "phi_shift", shift, 0.08))
    made.append(one(method, step, "phi_above", 2.5 + 12 * max(shift, 0), 0.6))
    made.append(one(method, step, "phi_below", 2.5 + 12 * max(-shift, 0), 0.6))
    return made


def _whitebox(method: str, step: int, shift: float) -> list[Record]:
    made = [one(method, step, "relearn_steps", round(41 - 15 * shift), math.nan)]
    made.append(one(method, step, "relearn_censored", 0.125, 0.0))
    made.append(one(method, step, "recovered_error", max(9.3 - 3 * abs(shift), 0), 0.4))
    same = method == "original"
    made.append(one(method, step, "weight_distance", 0.0 if same else 0.214, 0.01, "-"))
    made.append(one(method, step, "weight_cosine", 1.0 if same else 0.93, 0.01, "-"))
    made.append(one(method, step, "weights_changed", 0.0 if same else 100.0, 0.0, "-"))
    made.append(one(method, step, "recovery", 3 * abs(shift), 0.3))
    if method != "reference":
        made.append(one(method, step, "relearn_ratio", 1 - 0.3 * shift, 0.1))
        made.append(one(method, step, "recovered_error_gap", -3 * abs(shift), 0.5))
    return made


def samples(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Scores of the attack that decides, its own negatives for every method."""
    made = {}
    for method, (area, *_) in AREAS.items():
        if method != "reference":
            made[f"score:per_example/{method}"] = rng.normal(3 * (area - 0.5), 1, (MODELS, FORGET))
            made[f"negatives:per_example/{method}"] = rng.normal(0, 1, (28, FORGET))
    return made
