"""What the key to the tables says, note by note; `reports.words` chooses those that a run needs."""

from __future__ import annotations

STAR = (
    "*: no difference from the pool is shown, since the interval holds 0; that is not a proof that there is none. "
    "Where all models of the pool agree, any gap is a difference. A method of which "
    "some models diverged or collapsed has no star, whatever its interval."
)
MASKED = "Masked: the outputs of the removed classes are taken away first, as in the paper; unmasked: they are not."
ENTROPY = (
    "Entropy W1: distance in nats between the log-entropies on the forget set and those of the pool. "
    "The pool's own row is the floor, one of its models against another; nothing can be asked to go below it."
)
MEMORIZATION = (
    "Memorization of a sample: the share of models trained on it that get it right, minus that of models trained "
    "without it; each half model is trained on a random half of the training set."
)
CANARIES = (
    "Canaries: samples with a wrong label, drawn at random, that the originals were trained with. The forget error "
    "counts against that label: models that never saw it miss nearly all of them, and one that remembers does not."
)
RESTORED = (
    "Restored: share of the test accuracy lost to the wrong labels that came back; 1 is what the pool brings back."
)
UNDETECTED = (
    "Undetected: the samples whose wrong label no method was told of. They are in the retain set that methods read; "
    "the retain error leaves them out."
)
BY_REQUEST = (
    "Request by request: the pool of each request is trained without all that was forgotten until then; intervals are "
    "in records.csv. Worst earlier request: the one, by its number, on whose samples the method is now farthest from "
    "the pool; the farthest of several looks worse than any one would."
)
CONFUSION = "Pair confusion: percent of a class's test samples taken for the class whose label its poison carried."
ATTACK = (
    "Attack AUC: how well a membership attack tells the method from the pool on the forget set. 0.5 is chance, "
    "below 0.5 the forget set stands out the other way, which is no better."
)
TIME = (
    "Request: seconds from the request to the model, evaluation excluded; prepare: once, before any request. "
    "÷ retrain: request time as a share of retraining for the same request. Times hold for one machine only."
)
READ = (
    "Examples read: how often an example was handed out in one run, F forget, R retain, V validation, "
    "S whole training set for statistics in prepare, C the forget set with its true labels."
)
LEAGUES = (
    "Lines in italics part the methods by the most that they may read. Who reads other things "
    "has another task: compare within a group."
)
EVEN = (
    "Pays after: requests from which on preparing once and serving each takes less time than retraining for each; "
    "never, where serving alone takes as long."
)
OWN = (
    "Preparing a method with control of the training is all of its own training; that it makes the original's needless "
    "is not counted."
)
TRADEOFF = (
    "What forgetting costs: by the means alone, a row is better than another where it is no worse on all three of gap, "
    "accuracy lost and request time, and better on one; the intervals tell what chance does to that. An attack's area "
    "ends at 1, and KLoM where the answers of two sets of models no longer overlap: rows with a gap of 1 are told from "
    "retrained models as surely as the original, not equally far from them."
)
PUBLISHED = (
    "Against the paper: retrained models are our pool, but for their time, which is that of the row retrain; in "
    "parentheses the number of our runs or models. Where both sides have a deviation, a difference has a 95 % interval "
    "(Welch, and half a unit of the last printed digit); ≠ marks one that does not hold 0. Seconds are of different "
    "machines, so only their shares of retraining are compared, with the deviation that those of both times make."
)
LAYOUT = (
    "In the paper's layout, below each other: ours, the paper's, and the difference, ours less the paper's; – stands "
    "where the paper has no number. What differs from the paper's setting stands above a table."
)
CEILING = (
    "No method: {} uses a model that was retrained on the retained data for it, which nobody who has to unlearn has. "
    "It competes with no row, and a method may be nearer to the pool."
)
FAILED = "Failed: the traceback of every failed run is in failures.txt, in the folder of the results."
