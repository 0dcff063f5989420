"""Does the audit find what is there, and nothing where nothing is? Measured on worlds whose truth is known.

    python benchmarks/calibration.py [--repeats 200] [--models 300] [--jobs 2] [--write docs/calibration.md]

Made-up models (`bench/worlds.py`) of exact retraining and of six planted faults go through the very attacks, intervals
and rules of a run; so do real retrained models of the digits, one part of the pool against another. With --write the
tables go into the page between its marks. 25 minutes of one core, half of that on two.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import joblib
import numpy as np
from scipy import stats
from tabulate import tabulate

from bench import config, machine, observation, plan, pool, registry, roc, store, verdict
from bench.attack import Known, Seen
from bench.audit import family, headline
from bench.examination import Examiner, Sides
from bench.interface import Record
from bench.progress import Progress
from bench.recipe import Audit
from bench.worlds import KINDS, World

MADE, RETRAINED = 32, 50  # models of a method and of the pool in the quick start
SAMPLES, MANY = 60, 500  # forget samples of the quick start and of the paper's Table 1
BEGIN, END = "<!-- measured -->", "<!-- end of measured -->"
NAMES = [
    "exact",
    "no_op",
    "half_forgotten",
    "partly_leaking",
    "few_leaking",
    "over_forgotten",
    "both_ways",
    "too_peaky",
]


def main() -> None:
    """Measure everything and print or write the page's tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=200, help="worlds of exact retraining (default: %(default)s)")
    parser.add_argument("--models", type=int, default=300, help="real retrained models (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--write", type=Path, metavar="FILE", help="page whose tables are replaced")
    args = parser.parse_args()
    run = joblib.Parallel(args.jobs)
    sections = [
        golden(run),
        null(run, args.repeats),
        coverage(run, args.repeats),
        power(run, SAMPLES, (8, 32), max(args.repeats // 25, 4)),
        power(run, MANY, (32,), max(args.repeats // 50, 4)),
        real(run, args.repeats, args.models),
    ]
    versions, hardware = machine.versions(), machine.hardware("cpu")
    listed = ", ".join(f"{name} {versions[name]}" for name in ("python", "numpy", "scipy", "xgboost-cpu", "torch"))
    words = f"--repeats {args.repeats} --models {args.models}"
    head = f"`python benchmarks/calibration.py {words}`, commit {machine.commit()}, {listed}, {hardware['cpu']}."
    text = "\n\n".join([head, *sections])
    print(text)
    if args.write:
        page = args.write.read_text(encoding="utf-8")
        before, _, rest = page.partition(BEGIN)
        args.write.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def attacks(names: Sequence[str] = ()) -> dict[str, Any]:
    """The attacks of these names, or those that decide verdicts."""
    every = {name: registry.load("attacks", name)() for name in registry.names("attacks")}
    skipped = os.environ.get("CALIBRATION_SKIP", "").split(",")  # boosted trees take nine tenths of the time
    return {name: every[name] for name in names or family(every) if name not in skipped}


def found(world: World, kind: str, made: int, seed: int, spread: float = 0.0) -> dict[str, Record]:
    """What the attacks that decide find in a world, by metric."""
    views = {"spread": spread, "views": 9}
    return examined(world.seen(kind, made, **views), world.seen("exact", RETRAINED, **views), seed)


def examined(unlearned: Seen, retrained: Seen, seed: int) -> dict[str, Record]:
    """What the attacks that decide find in some models, by metric."""
    examiner = Examiner(attacks(), Audit().margin, seed=seed)
    records, _ = examiner.examine("method", Sides(unlearned, retrained), {}, {}, 0)
    return {record.metric: record for record in records}


def judged(numbers: Mapping[str, Record]) -> str:
    """The verdict on these numbers."""
    every = attacks()
    own = {(metric, "forget"): record for metric, record in numbers.items()}
    return verdict.judge(own, headline(every), family(every), Audit().margin).word


def golden(run: Any) -> str:
    """Areas that the attacks find in the worlds, where each sees a different side."""
    rows = np.array(run(joblib.delayed(_golden)(seed) for seed in range(12)))  # [worlds, kinds, columns]
    mean, sd = rows.mean(axis=0), rows.std(axis=0, ddof=1)
    cells = [
        [kind, *(f"{m:.3f} ± {s:.3f}" for m, s in zip(mean[at], sd[at], strict=True))] for at, kind in enumerate(NAMES)
    ]
    heads = ["world", "loss, forget against test, one model", "fixed, originals against retrained", "per example",
             "its true positives at 1 % false"]  # fmt: skip
    return _section(
        "Planted faults, one attack after the other",
        f"{MANY} forget samples, 48 models a side, 32 to learn from and 16 to judge; mean ± sd over 12 worlds.",
        heads,
        cells,
    )


def _golden(seed: int) -> list[list[float]]:
    world, known, rows = World(seed, samples=MANY), attacks(["loss", "lira", "per_example"]), []
    learn, judge = slice(32), slice(32, None)
    retrained, originals = world.seen("exact", 48), world.seen("no_op", 48)
    fixed = known["lira"].fit(Known(originals.only(learn), retrained.only(learn)), seed)
    for kind in NAMES:
        made = world.seen(kind, 48)
        adaptive = known["per_example"].fit(Known(made.only(learn), retrained.only(learn)), seed)
        own, others = made.only(judge), retrained.only(judge)

        def area(name: str, fitted: Any, own: Seen = own, others: Seen = others) -> tuple[float, float]:
            sides = [known[name].score(fitted, side, side.forget) for side in (own, others)]
            return roc.between(*sides).value, roc.rate(*sides, 0.01).value

        loss = roc.within(*(known["loss"].score({}, own, part) for part in (own.forget, own.unseen))).value
        rows.append([loss, area("lira", fixed)[0], *area("per_example", adaptive)])
    return rows


def null(run: Any, repeats: int) -> str:
    """Exact retraining: p-values must be uniform, and verdicts must not accuse."""
    cells = []
    fewer = max(repeats // 4, 4)  # the first is the quick start's size
    for samples, made, worlds in ((SAMPLES, MADE, repeats), (SAMPLES, 8, fewer), (MANY, MADE, fewer // 2)):
        numbers = run(joblib.delayed(_null)(seed, samples, made, 0.3) for seed in range(worlds))
        cells.append([f"{samples}, {made}", worlds, *_calibrated(numbers)])
    return _section(
        "Exact retraining: nothing must be found",
        f"Against {RETRAINED} retrained models. What: forget samples, models of the method. All log-odds of one model "
        "share an offset with a standard deviation of .3 (a sample's own has a median of 1). KS: p-value that the "
        "permutation test's p-values are uniform.",
        _calibration_heads(),
        cells,
    )


def _calibration_heads() -> list[str]:
    names = [f"{name}: p < .05, %" for name in family(attacks())]
    return ["what", "worlds", "KS", *names, *(f"{word}, %" for word in verdict.WORDS)]


def _calibrated(numbers: Sequence[Mapping[str, Record]]) -> list[str]:
    """KS of the headline's p-values, false alarms of each attack, shares of the verdicts."""
    every = attacks()
    top = np.array([one[f"attack_p:{headline(every)}"].value for one in numbers])
    alarms = [np.mean([one[f"attack_p:{name}"].value < 0.05 for one in numbers]) for name in family(every)]
    words = Counter(judged(one) for one in numbers)
    shares = [words[word] / len(numbers) for word in verdict.WORDS]
    return [f"{stats.kstest(top, 'uniform').pvalue:.2f}", *(f"{100 * share:.1f}" for share in (*alarms, *shares))]


def _null(seed: int, samples: int, made: int, spread: float) -> dict[str, Record]:
    return found(World(seed, samples=samples), "exact", made, seed, spread)


def coverage(run: Any, repeats: int) -> str:
    """How often the 95 % interval of the headline's area holds the area over many more models."""
    settings = [("exact", 0.3), ("half_forgotten", 0.3), ("no_op", 0.0), ("no_op", 0.3)]
    cells = []
    for kind, spread in settings:
        rows = np.array(run(joblib.delayed(_covered)(seed, kind, spread) for seed in range(repeats)))
        held, narrow, width = rows.mean(axis=0)
        cells.append([f"{kind}, {spread:g}", f"{100 * held:.1f}", f"{100 * narrow:.1f}", f"{width:.3f}"])
    return _section(
        "Do 95 % intervals hold the truth?",
        f"The per-example attack, {SAMPLES} samples, learned from {MADE // 2} models and {RETRAINED // 2} retrained "
        f"ones, judged on as many; truth: 300 fresh models a side. {repeats} worlds each. The second column is what an "
        "interval over pooled rows would reach (DeLong), which takes samples of one model for independent.",
        ["world, spread", "holds it, %", "over pooled rows, %", "mean width"],
        cells,
    )


def _covered(seed: int, kind: str, spread: float) -> tuple[float, float, float]:
    world, attack = World(seed, samples=SAMPLES, others=2), attacks(["per_example"])["per_example"]
    made, retrained = (world.seen(one, n, spread=spread) for one, n in ((kind, MADE), ("exact", RETRAINED)))
    sides = Sides(made, retrained)
    fitted = attack.fit(Known(*sides.known), seed)
    scores = [attack.score(fitted, side, side.forget) for side in sides.judged]
    fresh = [world.seen(one, 300, spread=spread) for one in (kind, "exact")]
    truth = roc.between(*(attack.score(fitted, side, side.forget) for side in fresh)).value
    area = roc.between(*scores)
    half = _pooled_half_width(*map(np.ravel, scores))
    return float(area.low <= truth <= area.high), float(abs(area.value - truth) <= half), area.high - area.low


def _pooled_half_width(positives: np.ndarray, negatives: np.ndarray) -> float:
    """Half the 95 % interval of an area by DeLong's formula, every row taken for an independent one."""
    above = np.searchsorted(np.sort(negatives), positives) / negatives.size
    below = 1 - np.searchsorted(np.sort(positives), negatives) / positives.size
    return roc.half_width([above, below])


def power(run: Any, samples: int, sizes: Sequence[int], repeats: int) -> str:
    """Verdicts by fault and by number of models: what a run of a given size can see."""
    cells = []
    for made in sizes:
        for kind in NAMES:
            words = run(joblib.delayed(_verdict)(seed, kind, made, samples) for seed in range(repeats))
            shares = Counter(words)
            cells.append([made, kind, *(f"{100 * shares[word] / repeats:.0f}" for word in verdict.WORDS)])
    return _section(
        f"What a run of a given size can tell: {samples} forget samples",
        f"{samples} forget samples, {RETRAINED} retrained models, spread 0.3; percent of {repeats} worlds each.",
        ["models of the method", "world", *verdict.WORDS],
        cells,
    )


def _verdict(seed: int, kind: str, made: int, samples: int) -> str:
    return judged(found(World(seed, samples=samples), kind, made, seed, 0.3))


def real(run: Any, repeats: int, models: int) -> str:
    """Real retrained models of the digits, some against others: exact retraining with all that real networks do."""
    cells = []
    with tempfile.TemporaryDirectory() as folder:
        for scenario in ("sample_removal", "class_removal"):
            retrained = _retrained(scenario, models, Path(folder))
            numbers = run(joblib.delayed(_real)(retrained, seed) for seed in range(repeats // 5))
            cells.append([scenario, repeats // 5, *_calibrated(numbers)])
    return _section(
        "The same with real networks",
        f"{models} retrained models of the digits, {repeats // 5} random choices of {MADE} against {RETRAINED} of "
        "them. The choices overlap, so that KS is a guide and no test.",
        _calibration_heads(),
        cells,
    )


def _retrained(scenario: str, models: int, folder: Path) -> Seen:
    """Retrained models of the quick start's request, and nothing else of a run."""
    flags = {"scenario": scenario, "methods": "original", "seeds": 1, "attacks": "label_only"}
    resolved = config.resolve("digits", flags, [f"shadow.train={models - 2}", "shadow.validation=1"])
    planned, entries = plan.make(resolved), store.Store(folder)
    planned.originals, planned.rows = [], []
    with Progress(models) as progress:
        pool.train_pool(planned, entries, 2, progress)
        from bench import shadows

        shadows.look(planned, entries, [], 2, progress)
    return observation.Observer(planned, entries).models(planned.retrained[-1])


def _real(retrained: Seen, seed: int) -> dict[str, Record]:
    chosen = np.random.default_rng(seed).permutation(len(retrained))
    return examined(retrained.only(chosen[:MADE]), retrained.only(chosen[MADE : MADE + RETRAINED]), seed)


def _section(head: str, text: str, heads: Sequence[str], cells: Sequence[Sequence[Any]]) -> str:
    table = tabulate(cells, list(heads), tablefmt="github", disable_numparse=True)
    return f"## {head}\n\n{text}\n\n{table}"


if __name__ == "__main__":
    assert set(NAMES) == set(KINDS)
    main()
