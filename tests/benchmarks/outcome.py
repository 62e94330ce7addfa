"""Which outcome says more of a threshold: solved or not, or the score that a trial reached?

    python tests/benchmarks/outcome.py [--curves 200] [--run runs/quickstart ...]

Made-up trainings whose threshold is known: where half of the trials reach 0.95. Each curve's trials go to two
estimators: the posterior of `orchestrator.posterior` from solved or not; and the posterior of a regression of
logit(score) that is linear in position with normal noise and a share of trials that lapse. A trial stops once it is
solved, so its score says no more than that it reached 0.95, and scores under a half count as such only. Printed for
both: root mean square error and bias in octaves, and how often the 95 % interval holds the truth. Trials are placed
by the search (50 of them) or on a grid (25 sizes, 2 seeds).

--run: both estimates from the trials of real runs (threshold, low, high), and the standard deviation in octaves of
estimates from a random half of the trials. What the truth is there, nobody knows.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import polars as pl
from surfaces import CANDIDATES, HIGH, LOW, sigmoid

from orchestrator.axis import Array
from orchestrator.posterior import Outcome, Posterior, Tables
from orchestrator.run import Run
from orchestrator.search.threshold import CurveSpace, Policy, Rules, Tried

TARGET = 0.95
N_TRIALS = 50
TABLES = Tables(LOW, HIGH)
FLOOR = 0.5
"""Below it a score only counts as below: there it tends to be at chance or on a plateau."""
SLOPES = np.geomspace(0.3, 12.0, 9)
NOISES = np.geomspace(0.1, 4.0, 9)
"""Of logit(score): per octave, and standard deviation."""
LAPSES = np.array([0.0, 0.1, 0.25, 0.4])
"""Share of trials that stay below the floor wherever they are."""
Scores = Callable[[np.random.Generator, Array], Array]
"""Scores of trials at octaves above the threshold."""


def gradual(rng: np.random.Generator, away: Array) -> Array:
    """As the regression has it."""
    return sigmoid(_logit(TARGET) + 2 * away + rng.normal(size=away.shape))


def kinked(rng: np.random.Generator, away: Array) -> Array:
    """Two octaves below the threshold the score begins to rise; before, it is at chance."""
    return sigmoid(_logit(TARGET) + 2 * np.maximum(away, -2) + rng.normal(size=away.shape))


def all_or_nothing(rng: np.random.Generator, away: Array) -> Array:
    """Trials that have learned are near 1, others at chance, wherever they are."""
    chance = 0.1 + 0.02 * rng.normal(size=away.shape)
    return np.where(_learned(rng, away), 0.99, np.clip(chance, 0.01, 0.5))


def plateau(rng: np.random.Generator, away: Array) -> Array:
    """An easier half is learned three octaves earlier; what is left is learned at once or not at all."""
    half = 0.05 + 0.45 * sigmoid((away + 3) / 0.5) + 0.03 * rng.normal(size=away.shape)
    return np.where(_learned(rng, away), 0.99, np.clip(half, 0.01, 0.9))


def lapsing(rng: np.random.Generator, away: Array) -> Array:
    """Gradual, but a fifth of all trials stays at chance."""
    lead = 0.32  # in the units of the noise, so that half of all trials solve at the threshold
    score = sigmoid(_logit(TARGET) + 2 * away + lead + rng.normal(size=away.shape))
    return np.where(rng.random(away.shape) < 0.2, 0.1, score)


def _learned(rng: np.random.Generator, away: Array) -> np.ndarray:
    return rng.random(away.shape) < sigmoid(away / 0.3)


def _logit(p: Array | float) -> Array:
    return np.asarray(np.log(p) - np.log1p(-np.asarray(p)))


SHAPES: dict[str, Scores] = {
    "gradual": gradual,
    "kinked": kinked,
    "all or nothing": all_or_nothing,
    "plateau": plateau,
    "gradual, lapse 0.2": lapsing,
}


@dataclass(frozen=True)
class Trials:
    position: Array  # [N]
    score: Array  # [N]


def by_search(rng: np.random.Generator, threshold: float, shape: Scores) -> Trials:
    policy, told, scores = Policy([CurveSpace(CANDIDATES)], Rules(0.01, N_TRIALS)), [], []
    while asked := policy.ask([told], [[]], 1):
        ((_, candidate),) = asked
        scores.append(float(shape(rng, np.array(CANDIDATES[candidate] - threshold))))
        told.append(Tried(candidate, len(told), scores[-1] >= TARGET))
    return Trials(CANDIDATES[[trial.candidate for trial in told]], np.array(scores))


def by_grid(rng: np.random.Generator, threshold: float, shape: Scores) -> Trials:
    position = np.tile(np.arange(LOW, HIGH + 0.1, 0.5), 2)
    return Trials(position, shape(rng, position - threshold))


Estimate = tuple[float, float, float]
"""Threshold, low, high."""


def binary(trials: Trials) -> Estimate:
    pairs = zip(trials.position.tolist(), (trials.score >= TARGET).tolist(), strict=True)
    belief = Posterior.of(TABLES, [Outcome(u, y, seed) for seed, (u, y) in enumerate(pairs)]).belief()
    return belief.quantile(0.5), *belief.interval()


def graded(trials: Trials) -> Estimate:
    """Posterior of where half of all trials reach the target, lapses included."""
    t, slope, noise = TABLES.t[:, None, None, None], SLOPES[:, None, None], NOISES[:, None]
    lead = np.array([NormalDist().inv_cdf(0.5 / (1 - lapse)) for lapse in LAPSES])
    loglik = np.zeros((len(TABLES.t), len(SLOPES), len(NOISES), len(LAPSES)))
    for u, score in zip(trials.position, trials.score, strict=True):
        above = (
            lead + slope * (u - t) / noise
        )  # [T, S, N, L], of the line over the target, in standard deviations
        if score >= TARGET:
            chance = (1 - LAPSES) * _normal_cdf(above)
        elif score <= FLOOR:
            chance = LAPSES + (1 - LAPSES) * _normal_cdf(-above - (_logit(TARGET) - _logit(FLOOR)) / noise)
        else:
            z = above + (_logit(TARGET) - _logit(score)) / noise
            chance = (1 - LAPSES) * np.exp(-np.minimum(z**2, 60) / 2) / noise
        loglik += np.log(np.maximum(chance, 1e-9))
    mass = np.exp(loglik - loglik.max()).sum((1, 2, 3))
    ends = np.interp([0.5, 0.025, 0.975], np.cumsum(mass) / mass.sum(), TABLES.t)
    return float(ends[0]), float(ends[1]), float(ends[2])


def _normal_cdf(z: Array) -> Array:
    """Within 0.0002, by the logistic function with a cubic argument (Page 1977)."""
    z = np.clip(z, -8, 8)
    return sigmoid(1.5976 * z * (1 + 0.04417 * z * z))


def compare(name: str, n_curves: int) -> None:
    for place, design in (("search", by_search), ("grid", by_grid)):
        rng = np.random.default_rng(1)
        line = f"{name:>20}  {place:>6}"
        truths = rng.uniform(9, 15, n_curves)
        tried = [design(rng, truth, SHAPES[name]) for truth in truths]
        for estimator in (binary, graded):
            found = np.array([estimator(trials) for trials in tried])
            error = np.clip(found[:, 0], LOW, HIGH) - truths
            held = ((found[:, 1] <= truths) & (truths <= found[:, 2])).mean()
            noise = math.sqrt(float(np.var(error**2)) / n_curves) / (2 * math.sqrt(np.mean(error**2)))
            line += f"   {np.sqrt(np.mean(error**2)):5.3f} ± {noise:.3f}  {error.mean():+.3f}  {held:.3f}"
        print(line, flush=True)


def of_run(path: str, n_splits: int = 30) -> None:
    """Both estimates of every curve along data_size, and the standard deviation of those of its random halves."""
    run = Run(path)
    keys = [axis.name for axis in run.sweep.axes if axis.name not in ("data_size", "seed")]
    trials = (
        run.trials().filter(pl.col("data_size").is_finite(), pl.col("best_score").is_not_null()).collect()
    )
    rng = np.random.default_rng(1)
    for place, rows in sorted(trials.group_by(keys), key=lambda group: str(group[0])):
        solved = (rows["status"] == "solved").to_numpy()
        score = np.where(solved, 0.99, np.minimum(rows["best_score"].to_numpy(), TARGET - 1e-4))
        curve = Trials(np.log2(rows["data_size"].to_numpy()), score)
        halves = [np.array_split(rng.permutation(len(score)), 2) for _ in range(n_splits)]
        share = (score[~solved] > FLOOR).mean()
        line = f"{path} {place}: {len(score)} trials, {share:.2f} of the unsolved ones above {FLOOR}"
        for name, estimator in (("solved or not", binary), ("score", graded)):
            whole = ", ".join(f"{2**end:.0f}" for end in estimator(curve))
            ends = np.array([[estimator(_part(curve, half))[0] for half in pair] for pair in halves])
            line += f"; {name}: {whole} ± {np.sqrt(np.mean(np.diff(ends) ** 2) / 2):.3f}"
        print(line, flush=True)


def _part(trials: Trials, which: np.ndarray) -> Trials:
    return Trials(trials.position[which], trials.score[which])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--curves", type=int, default=200)
    parser.add_argument("--run", nargs="*", default=[], help="Run directories.")
    arguments = parser.parse_args()
    if arguments.curves:
        print(f"{'':>28}   solved or not: error, bias, holds   score: error, bias, holds")
        for name in SHAPES:
            compare(name, arguments.curves)
    for path in arguments.run:
        of_run(path)


if __name__ == "__main__":
    main()
