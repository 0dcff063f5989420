"""What the audits of weights come to, as records: every method's models against the retrained ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench import deep, readouts, statistics
from bench.deep import CONTROL, KIND, Job, jobs_of
from bench.interface import Record
from bench.plan import Plan
from bench.progress import Progress
from bench.recipe import Deep
from bench.store import Store

Audit = Mapping[str, Any]  # an entry of the store
METRICS = {
    "relearn_steps": "forget",
    "relearn_censored": "forget",
    "relearn_ratio": "forget",
    "recovered_error": "forget",
    "recovered_error_gap": "forget",
    "recovery": "forget",
    "weight_distance": "-",
    "weight_cosine": "-",
    "weights_changed": "-",
}


def carry_out(plan: Plan, store: Store, processes: int, progress: Progress) -> list[Record]:
    """Audit the weights where the config asks for it: all records, with summaries; else none."""
    if plan.config.audit.level != "deep":
        return []
    chosen = plan.config.deep
    reasons = deep.carry_out(plan, deep.jobs_of(plan, chosen), chosen, store, processes, progress)
    found = records(plan, chosen, store, reasons)
    counted = [record for record in found if record.metric != "relearn_steps"]  # its summary is a median already
    return found + readouts.summarize(counted, [record for record in found if record.method == CONTROL])


def records(plan: Plan, deep: Deep, store: Store, failures: Mapping[str, str] | None = None) -> list[Record]:
    """Records of the audits that the store has, those of the control first; a row whose runs failed has none.

    One for every repeat and metric; for the control the mean over its models with its t-interval, and `<metric>_sd`.
    `relearn_steps` over all repeats of a method is the median of Kaplan and Meier, or the budget where most of its
    models did not relearn within it, and then the mean of `relearn_censored` is above a half. The other summaries are
    `readouts.summarize`'s.

    Args:
        failures: why audits failed, by the jobs' keys; their records say so.
    """
    jobs, reasons = jobs_of(plan, deep), failures or {}
    step = plan.requests[-1].step
    audits = {job.key: store.meta(KIND, job.key) for job in jobs if store.has(KIND, job.key)}
    by_method: dict[str, list[Audit]] = {job.method: [] for job in jobs}
    for job in jobs:
        by_method[job.method] += [audits[job.key]] if job.key in audits else []
    control = by_method[CONTROL]
    found = list(_control_records(step, deep, control))
    for job in jobs:
        if job.key in reasons:
            found.append(
                Record(job.method, str(job.repeat), step, "forget", "relearn_steps", math.nan, status=reasons[job.key])
            )
        elif job.key in audits and job.method != CONTROL:
            found += _repeat_records(job, audits[job.key], _numbers(audits[job.key], control, deep))
    return found + [record for method, own in by_method.items() for record in _relearned(method, step, deep, own)]


def _numbers(audit: Audit, control: Sequence[Audit], deep: Deep) -> dict[str, float]:
    """Every metric of one model, against the retrained ones."""
    errors = audit["recovered_error"]
    pool_error = statistics.mean_interval([one["recovered_error"][-1] for one in control])[0]
    found = {metric: audit[metric] for metric in METRICS if metric in audit}
    found |= {"recovered_error": errors[-1], "recovered_error_gap": errors[-1] - pool_error}
    return found | {"recovery": errors[0] - errors[-1], "relearn_ratio": _ratio(audit, control, deep)}


def _ratio(audit: Audit, control: Sequence[Audit], deep: Deep) -> float:
    """Steps over the retrained models' median: nan where that is 0, and where neither came to an end.

    Where only one of them did, the budget stands for the other: a bound, as `relearn_censored` shows.
    """
    median = _median(control)
    usual = min(median, float(deep.relearn_steps))
    if not usual > 0 or (math.isinf(median) and audit["relearn_censored"]):
        return math.nan
    return float(audit["relearn_steps"] / usual)


def _median(audits: Sequence[Audit]) -> float:
    return kaplan_meier_median(
        [one["relearn_steps"] for one in audits], [bool(one["relearn_censored"]) for one in audits]
    )


def _repeat_records(job: Job, audit: Audit, numbers: Mapping[str, float]) -> Iterator[Record]:
    for metric, part in METRICS.items():
        if metric not in numbers:  # the distance to an original that nobody knows
            continue
        value, n = numbers[metric], audit["n"]["forget" if part == "forget" else "weights"]
        reasons = [audit["status"], "ok" if math.isfinite(value) else _absent(metric, audit)]
        status = " and ".join(dict.fromkeys(reason for reason in reasons if reason != "ok")) or "ok"
        yield Record(job.method, str(job.repeat), job.request.step, part, metric, value, n=n, status=status)


def _absent(metric: str, audit: Audit) -> str:
    """Why a metric has no value."""
    if metric.startswith("weight"):
        return "diverged"
    return "undefined" if audit["n"]["forget"] else "empty"


def _control_records(step: int, deep: Deep, control: Sequence[Audit]) -> Iterator[Record]:
    """Mean, interval and spread over the retrained models; a gap to their own mean says nothing."""
    numbers = [_numbers(one, control, deep) for one in control]
    for metric, part in METRICS.items() if control else ():
        values = [one[metric] for one in numbers]
        mean, low, high, n = statistics.mean_interval(values)
        reason = "ok" if n else _absent(metric, control[0])
        if metric not in ("recovered_error_gap", "relearn_steps"):
            yield Record(CONTROL, "all", step, part, metric, mean, low, high, n, reason)
        if metric != "recovered_error_gap":
            spread = statistics.sd(values)
            yield Record(CONTROL, "all", step, part, f"{metric}_sd", spread, n=n, status=reason)


def _relearned(method: str, step: int, deep: Deep, audits: Sequence[Audit]) -> Iterator[Record]:
    """The median steps of a method, or the budget."""
    if audits:
        value = min(_median(audits), float(deep.relearn_steps))
        reason = "empty" if math.isnan(value) else "ok"
        yield Record(method, "all", step, "forget", "relearn_steps", value, n=len(audits), status=reason)


def kaplan_meier_median(steps: Sequence[float], censored: Sequence[bool]) -> float:
    """The least time by which at least half have come to an end, where some were watched no longer than their time.

    Returns:
        The median in the units of `steps`, by the product-limit estimator; infinity where it does not fall to a half,
        nan for no finite time.

    Source: E. L. Kaplan and P. Meier (1958).
    """
    pairs = sorted((step, bool(cut)) for step, cut in zip(steps, censored, strict=True) if math.isfinite(step))
    if not pairs:
        return math.nan
    surviving = 1.0
    for moment in sorted({step for step, _ in pairs}):
        at_risk = sum(step >= moment for step, _ in pairs)
        ended = sum(step == moment and not cut for step, cut in pairs)
        surviving *= 1.0 - ended / at_risk
        if surviving <= 0.5 + 1e-12:
            return float(moment)
    return math.inf
