"""What an attacker sees of the models in the store: their outputs on the forget set and on data to compare it with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench import keys, scenarios, seeds
from bench.attack import Points, Seen
from bench.plan import Model, Plan, Run
from bench.store import Store

RETAINED = 2000  # retained samples that an attacker sees at most


class Observer:
    """Reads models of a plan from the store, all on the same examples: those of its last request."""

    def __init__(self, plan: Plan, store: Store) -> None:
        self.plan, self.store = plan, store
        self.request = plan.requests[-1]
        self._views = plan.views()
        self.forget = self.request.forgotten
        retained = scenarios.reference_data(self.request)
        chosen = seeds.rng(plan.config.seed, "audit", "retained").permutation(len(retained))[:RETAINED]
        self.retain = retained[np.sort(chosen)]
        classes = np.unique(plan.dataset.train_y[self.forget])
        self.unseen = np.flatnonzero(np.isin(plan.dataset.test_y, classes))

    def models(self, pool: Sequence[Model]) -> Seen:
        """What originals or retrained models show."""
        return self._seen([("model", model.key) for model in pool])

    def runs(self, shadows: Sequence[Run], repeats: Sequence[Run]) -> Seen:
        """What a method's models show: those made of shadow originals, then those of the repeats."""
        made = [("shadow", keys.view_key(run.key, self.request)) for run in shadows]
        return self._seen([*made, *(("unlearned", run.key) for run in repeats)])

    def _seen(self, sources: Sequence[tuple[str, str]]) -> Seen:
        data, shown = self.plan.dataset, [self._shown(*source) for source in sources]
        forget, retain, validation, unseen, seen_shifted = (
            np.stack([one[at] for one in shown]) for at in range(len(shown[0]))
        )
        return Seen(
            Points(forget, self.plan.labels[self.forget], seen_shifted),
            Points(retain, self.plan.labels[self.retain]),
            Points(validation, data.validation_y),
            Points(unseen, data.test_y[self.unseen]),
        )

    def _shown(self, kind: str, key: str) -> tuple[np.ndarray, ...]:
        """Logits of one model on forget, retained, validation and unseen samples, and its views."""
        arrays, _ = self.store.get(kind, key)
        train = arrays["logits/train"]
        shifted = np.empty((0, 0), dtype=np.int64)
        if self._views:
            seen = arrays if kind == "shadow" else self.store.get("views", keys.view_key(key, self.request))[0]
            shifted = seen["views"].astype(np.int64)
        parts = (
            train[self.forget],
            train[self.retain],
            arrays["logits/validation"],
            arrays["logits/test"][self.unseen],
        )
        return (*parts, shifted)
