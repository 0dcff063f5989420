"""How to read the tables of an audit, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reports.grid import Table

TOO_FEW = (
    "n/a, so many of 1,000: a rate at 1 % false positives needs ten scores of retrained models above the threshold, so "
    "1,000 in all (10,000 at 0.1 %), and there are only so many."
)
POPULATION = (
    "Attacks that do not know the method are here for comparison with papers and decide nothing. Those that see one "
    "model ask whether the forget set looks like training data beside unseen samples; retraining is not at 0.5 there "
    "where forget and unseen samples differ by themselves, so read them against the pool's row. *: no difference from "
    "the pool is shown (p not below 0.05; for members, the gap's interval holds 0)."
)
DISTANCE = (
    "KLoM: the divergence of the method's log-odds from the pool's, sample by sample in the pool's quantiles; of all "
    "samples the 95th percentile. The pool's row has the range of 95 % of random groups of it against each other; * is "
    "not beyond that range. Agreement: samples on which a model decides as a retrained one. Output JS, activation L2: "
    "distances of the probabilities. The forgetting score is that of the NeurIPS 2023 contest; retraining does not "
    "reach 1 in it, so it is given as a share of what retraining reaches."
)
DIRECTION = (
    "Surer, less sure: percent of forget samples whose log-odds lie above, below the range of 95 % of the pool's "
    "models. With many models retraining has about 2.5 on either side, with few more: the pool's row says. Far more "
    "that is less sure is over-forgetting, not privacy."
)
WHITEBOX = (
    "Steps to relearn: updates on the forget set until a model is within deep.relearn_within (5) points of the "
    "original; models that never got there count with the last step, and where retrained models need none, nothing "
    "can be told. Three models of each are looked at, of the pool too. Fine-tuned error: on the forget set, after "
    "fine-tuning on retained data alone; where it falls below the pool's, what was forgotten was only hidden."
)
NO_VERDICT = "No verdict: no attack that decides one was asked for (per_example does)."
UNMASKED = (
    "Attacks and distances see all outputs, those of removed classes too: a mask at the end hides nothing from them."
)
CHANCE = (
    "p if chance, which verdicts go by, is of another test than the interval of the area: it permutes all models, also "
    "those that the attack learned from, by their log-odds (a single model is ranked among the retrained ones), and is "
    "exact however few there are. The interval is of the scores of the judged models alone (Student's t). One may see "
    "a difference where the other does not: of 20 intervals of models that are alike about one leaves out 0.5."
)
COMPARED = "Average rank over models of a method's area, nearest to 0.5 first"
AGAINST_BEST = "; a p-value above 0.05 shows no difference from the best."
NOT_AGAINST = (
    "; best is nearest to 0.5 on average. With so few models no p-value could be below 0.05 whatever the areas, so "
    "there is none, which is no sign of no difference."
)


def notes(run: Mapping[str, Any], tables: Sequence[Table]) -> list[str]:
    """The sentences that these tables need; [] without an audit."""
    audit = run.get("audit")
    if audit is None:
        return []
    shown = {table.name for table in tables}
    refused = any(cell.startswith("n/a, ") for table in tables for row in table.rows for cell in row.cells)
    told = [_verdict(audit), _headline(audit), CHANCE] if audit.get("headline") else []
    told += [NO_VERDICT] if audit and not audit.get("headline") else []
    told += [UNMASKED] if audit and run["scenario"] == "class_removal" else []
    told += [TOO_FEW] if refused else []
    told += [POPULATION] if "population" in shown else []
    for name, note in (("distance", DISTANCE), ("direction", DIRECTION), ("whitebox", WHITEBOX)):
        told += [note] if name in shown else []
    told += [COMPARED + (NOT_AGAINST if one.warning else AGAINST_BEST) for one in tables if one.name == "compared"]
    return told


def _verdict(audit: Mapping[str, Any]) -> str:
    family, margin = audit["family"], audit["margin"]
    one = "the attack that decides" if len(family) == 1 else f"one of the {len(family)} attacks that decide"
    several = "Holm's over the attacks, and " if len(family) > 1 else ""
    return (
        f"Verdict, by rules fixed before any number: a method leaks or over-forgets where {one} "
        f"({', '.join(family)}) finds a difference that matters (p below 0.05, {several}"
        f"not shown to be within the margin, or beyond 2 % TPR at 1 % FPR), in whichever direction; "
        f"indistinguishable is shown, not assumed: {audit['headline']}'s area lies within "
        f"0.5 ± {margin:g} (p if beyond is below 0.05). Where neither is shown, there is not enough data."
    )


def _headline(audit: Mapping[str, Any]) -> str:
    learned = audit.get("models") or {}
    fit = (
        f", learned from {learned['unlearned_fit']} models of the method and {learned['retrained_fit']} retrained ones"
        if learned
        else ""
    )
    return (
        f"Attack AUC: how well {audit['headline']}, which knows the method{fit}, tells other models of it from "
        "retrained ones on the forget set. 0.5 is chance; an area below 0.5 is a finding too, not privacy. "
        "The pool's row is retrained models against each other."
    )
