"""Made-up results folders of every scenario, for tests of what reads one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from bench.interface import SCENARIOS, Record
from bench.records import Results, save
from tests import fabricated_audit

SEEDS = 5
FORGET = 60
NASTY = '<img src=x onerror="alert(1)">'
CLASSES = ["airplane", "cat_&_dog 100%", NASTY, "ship $x$", "frog|toad", "truck #1"]
# Forget error, test error, log-entropy mean, attack score mean, seconds.
TRUTH = {
    "original": (0.1, 9.8, -7.0, 0.9, 0.001),
    "retrain": (9.3, 9.9, -4.0, 0.0, 12.0),
    "pgu": (9.35, 9.9, -4.1, 0.05, 1.1),
    "eu_k": (0.4, 10.4, -6.8, 0.7, 8.0),
    "scrub": (13.9, 11.0, -3.0, -0.4, 3.2),
}
ERRORS = {
    "sample_removal": [("error", "retain"), ("error", "forget"), ("error", "test")],
    "class_removal": [
        ("error", "retain"), ("error", "retained_test"), ("error_unmasked", "forget"),
        ("error_unmasked", "forget_test"), ("error_unmasked", "retained_test"),
    ],
    "incremental": [("error", "retain"), ("error", "forget"), ("error", "test")],
    "depoisoning": [("error", "retain"), ("error", "forget"), ("error", "corrected"),
                    ("confusion", "test"), ("error", "test")],
}  # fmt: skip


MISSED = [("error", "undetected"), ("error", "undetected_corrected")]  # where some poison is not known


def summary(values: np.ndarray, shift: float = 0.0) -> dict[str, Any]:
    """Value, interval and count of a summary record."""
    half = 2.78 * values.std(ddof=1) / math.sqrt(len(values))
    mean = float(values.mean()) - shift
    return {"value": mean, "low": mean - half, "high": mean + half, "n": len(values)}


def repeated(method: str, step: int, part: str, metric: str, values: np.ndarray) -> list[Record]:
    """One record per seed and their summary."""
    single = [Record(method, str(seed), step, part, metric, float(v), n=1) for seed, v in enumerate(values)]
    return [*single, Record(method, "all", step, part, metric, **summary(values))]


def records(scenario: str, steps: int, rng: np.random.Generator, *, missed: int = 0) -> list[Record]:
    """Everything that a run of a scenario records."""
    made: list[Record] = []
    for step in range(steps):
        chunks = [("error", f"chunk{k + 1}") for k in range(step + 1)] if scenario == "incremental" else []
        for metric, part in ERRORS[scenario] + chunks + (MISSED if missed else []):
            center = {"retain": 0.1, "forget": 9.3, "forget_test": 9.3, "chunk": 9.3, "corrected": 9.3}
            center = center.get(part.rstrip("0123456789"), 9.9)
            pool = center + rng.normal(0, 0.2, 50)
            made.append(Record("reference", "all", step, part, metric, **summary(pool)))
            made.append(Record("reference", "all", step, part, f"{metric}_sd", float(pool.std(ddof=1)), n=50))
            for method, (forget, test, *_) in TRUTH.items():
                mean = 0.1 if part == "retain" else test if part.endswith("test") and "forget" not in part else forget
                values = np.abs(mean + rng.normal(0, 0.1, SEEDS))
                made += repeated(method, step, part, metric, values)
                gap = summary(values, shift=float(pool.mean()))
                made.append(Record(method, "all", step, part, f"{metric}_gap", **gap))
        made.append(Record("reference", "all", step, "forget", "log_entropy_w1", 0.31, 0.28, 0.35, 50))
        for method, (*_, entropy, _, seconds) in TRUTH.items():
            made += repeated(method, step, "forget", "log_entropy_w1", abs(entropy + 4) + rng.uniform(0.2, 0.3, SEEDS))
            made += repeated(method, step, "all", "seconds_request", seconds * rng.uniform(0.9, 1.1, SEEDS))
            made += repeated(method, step, "all", "peak_bytes", np.full(SEEDS, 3.5e6))
            for part in ("forget", "retain", "validation", "train"):
                read = {"forget": 25_000.0, "train": 0.0 if step else 600.0}.get(part, 0.0) if method == "pgu" else 0.0
                made += repeated(method, step, part, "samples_read", np.full(SEEDS, read))
    return made + last_records(scenario, steps - 1, rng)


LOST = "failed: out of memory in step 1 | 80% & <b>"


def last_records(scenario: str, step: int, rng: np.random.Generator) -> list[Record]:
    """What is recorded once: the attack, the preparation, the extras of a scenario, the method without numbers."""
    made = repeated("pgu", 0, "all", "seconds_prepare", np.full(SEEDS, 0.75))
    for method, (*_, score, _) in TRUTH.items():
        made += repeated(method, step, "forget", "attack_auc", 0.5 + score / 5 + rng.normal(0, 0.02, SEEDS))
        if scenario == "depoisoning":
            made += repeated(method, 0, "test", "restored", rng.uniform(0.8, 1.1, SEEDS))
    return [*made, *shifts(scenario, step, rng), Record("ntk", "all", 0, "forget", "error", math.nan, status=LOST)]


def shifts(scenario: str, step: int, rng: np.random.Generator) -> list[Record]:
    """Predicted classes after the last request: far from even in class removal, else the mix of the forget set."""
    made = []
    names = [name for name in CLASSES if scenario != "class_removal" or name != NASTY]
    pool = (40.0, 25.0, 20.0, 10.0, 5.0) if scenario == "class_removal" else np.full(6, 100 / 6)
    for part in ("forget", "forget_test") if scenario == "class_removal" else ("forget",):
        made.append(Record("reference", "all", step, part, "class_shift_tv", 0.06, 0.05, 0.07, 50))
        for share, name in zip(pool, names, strict=True):
            made.append(Record("reference", "all", step, part, f"predicted_share:{name}", share, n=50))
            made.append(Record("reference", "all", step, part, f"predicted_share:{name}_sd", 3.0, n=50))
        for method in TRUTH:
            made += repeated(method, step, part, "class_shift_tv", rng.uniform(0.05, 0.1, SEEDS))
            for share, name in zip(pool, names, strict=True):
                values = np.abs(share + rng.normal(0, 0.5, SEEDS))
                made += repeated(method, step, part, f"predicted_share:{name}", values)
    return made


def samples(steps: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Log-entropies with values on either side of the range, and attack scores."""
    made = {}
    for step in range(steps):
        for method, mean in [("reference", -4.0), *((m, t[2]) for m, t in TRUTH.items())]:
            values = rng.normal(mean, 3.0, (50 if method == "reference" else SEEDS, FORGET))
            values[:, 0] = -25.0
            made[f"log_entropy/{method}/{step}"] = np.minimum(values, 0.8)
    for method, truth in TRUTH.items():
        made[f"score/{method}"] = rng.normal(truth[3], 1, (SEEDS, FORGET))
    return {**made, "score/negatives": rng.normal(0, 1, (SEEDS, FORGET))}


def run(scenario: str, steps: int, *, missed: int = 0) -> dict[str, Any]:
    """What `run.json` holds."""
    methods: list[dict[str, Any]] = [
        {
            "name": name, "summary": f"What {name} does in one line.", "needs": ["forget"], "cite": "hoang2024pgu",
            "settings": {"lr": 0.05, "epochs": 100}, "tuned": {"lr": 0.05} if name == "pgu" else {}, "status": "ok",
            "notes": [{"seed": seed, "step": 0, "status": "ok", "numbers": {}} for seed in range(SEEDS)],
        }
        for name in [*TRUTH, "ntk"]
    ]  # fmt: skip
    methods[-1]["status"] = LOST
    methods[4]["notes"][1] = {"seed": 1, "step": 0, "status": "not_converged", "numbers": {"epochs": 7.0}}
    return {
        "title": f"Unlearning on digits: {scenario}", "command": "python run_benchmark.py --preset digits",
        "config": {"dataset": "digits", "note": NASTY}, "config_hash": "ab12cd34", "dataset": "digits",
        "architecture": "digits_cnn", "scenario": scenario, "class_names": CLASSES, "steps": steps,
        "recipe": {"name": "digits", "epochs": 20, "batch_size": 64, "lr": 0.05}, "methods": methods,
        "forget_samples": [FORGET] * steps, "undetected_samples": [missed] * steps,
        "forget_classes": [2] if scenario == "class_removal" else list(range(len(CLASSES))),
        "removed_classes": [2] if scenario == "class_removal" else [], "reference_models": 50,
        "shadow": {"train": 40, "validation": 5, "test": 5}, "seeds": list(range(SEEDS)), "git": "d7d3380",
        "versions": {"torch": "2.13.0", "numpy": "2.4.6"}, "hardware": {"cpu": "8 cores"}, "seconds": {"train": 41.5},
    }  # fmt: skip


def fabricate(folder: Path, scenario: str, *, missed: int = 0, audit: bool = False, deep: bool = False) -> Path:
    """Save a results folder of a scenario, the same at every call.

    With so many undetected wrong labels, and with an audit if asked, `deep` for that of the weights too.
    """
    rng = np.random.default_rng(SCENARIOS.index(scenario))
    steps = 4 if scenario == "incremental" else 1
    made, arrays = records(scenario, steps, rng, missed=missed), samples(steps, rng)
    told = run(scenario, steps, missed=missed)
    if audit or deep:
        told["audit"] = fabricated_audit.description(deep=deep)
        made = [one for one in made if one.metric != "attack_auc"] + fabricated_audit.records(steps - 1, deep=deep)
        arrays = {NAMES.get(name, name.replace("score/", "score:shadow_xgboost/")): own for name, own in arrays.items()}
        arrays |= fabricated_audit.samples(rng)
    save(folder, Results(told, made, arrays))
    return folder


NAMES = {"score/negatives": "negatives:shadow_xgboost"}  # what an audit calls an array of older runs
