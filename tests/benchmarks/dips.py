"""How surely is a curve that turns around found, and how often is one named that does not?

    python tests/benchmarks/dips.py [--sweeps 200] [--searches 200] [--seed 1]

A dip: over two octaves the probability of solving falls by at least a half, at the end of the axis or in its
middle, after which it recovers. Curves rise somewhere in 2^8 .. 2^12, and dips begin at least 1.5 octaves later.
Aim: 95 % of dips found, under 5 % of sweeps of rising curves with a false flag. `±`: Monte Carlo standard error.

Grids: five seeds at 25 sizes, half an octave apart; alone, and beside 15 rising curves, sharp or of any width and
lapse. `limit`: what a test could find at most that knows the dip's place and rates beforehand, and that calls
the rising curve most like it turning in 5 % of sweeps, shared among 16 curves.

Searches: one curve each, precision 0.5, by the number of trials that every two octaves get (`check`) and the most
that a curve may have. Then curves that rise for good: how many are flagged, their trials and the median error.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

import numpy as np
from surfaces import SURFACES, searched, sigmoid

from orchestrator.axis import Array
from orchestrator.monotone import Counts, isotonic, turning
from orchestrator.search.threshold import Rules

AT = np.arange(6, 18.1, 0.5)
SEEDS = 5
PLANS = (Rules(), Rules(check=3), Rules(check=5), Rules(check=5, max_trials=120))
RISING = ("sharp", "usual", "wide", "lapse 0.2", "lapse 0.4", "stepped")


@dataclass(frozen=True)
class Dip:
    """Solves with `top * sigmoid((u - rise) / width)`, and at most `low` between two positions."""

    rise: float
    first: float
    last: float
    low: float
    top: float
    width: float
    threshold: float | None = None

    def solving(self, position: Array | float, effect: Array | float) -> Array:
        p = self.top * sigmoid((np.asarray(position) - self.rise) / self.width)
        is_low = (position >= self.first) & (position < self.last)
        return np.where(is_low, np.minimum(p, self.low), p)


@dataclass(frozen=True)
class Kind:
    """Of dips."""

    low: float
    top: float
    recovers: bool
    width: float = 0.2

    def drawn(self, rng: np.random.Generator) -> Dip:
        rise = float(rng.uniform(8, 12))
        first = float(rng.uniform(rise + 1.5, 14)) if self.recovers else 16.0
        last = first + 2 if self.recovers else math.inf
        return Dip(rise, first, last, self.low, self.top, self.width)


DIPS = {
    "1 to 0, at the end": Kind(0.01, 1.0, recovers=False),
    "1 to 0, recovers": Kind(0.01, 1.0, recovers=True),
    "1 to 0, recovers, wide": Kind(0.01, 1.0, recovers=True, width=0.6),
    "1 to 0.25, recovers": Kind(0.25, 1.0, recovers=True),
    "1 to 0.5, at the end": Kind(0.5, 1.0, recovers=False),
    "1 to 0.5, recovers": Kind(0.5, 1.0, recovers=True),
    "0.75 to 0.25, at the end": Kind(0.25, 0.75, recovers=False),
    "0.75 to 0.25, recovers": Kind(0.25, 0.75, recovers=True),
}


def rising(rng: np.random.Generator, n_curves: int, *, is_mixed: bool) -> list[Array]:
    """Rates of curves that rise for good: sharp ones, or of any width and lapse."""
    widths = rng.uniform(0.05, 1.0, n_curves) if is_mixed else np.full(n_curves, 0.05)
    tops = 1 - (rng.uniform(0, 0.6, n_curves) if is_mixed else np.zeros(n_curves))
    places = rng.uniform(8, 16, n_curves)
    return [top * sigmoid((AT - at) / width) for top, at, width in zip(tops, places, widths, strict=True)]


def tried(rng: np.random.Generator, rate: Array) -> Counts:
    return Counts(AT, rng.binomial(SEEDS, rate).astype(float), np.full(len(AT), float(SEEDS)))


def share(hits: list[bool]) -> str:
    p, n = float(np.mean(hits)), len(hits)
    return f"{p:.3f} ± {math.sqrt(max(p * (1 - p), 1 / (4 * n)) / n):.3f}"


def limit(rng: np.random.Generator, kind: Kind, n_curves: int, draws: int = 2000) -> float:
    """Power of the likelihood-ratio test of the dip against the rising curve most like it."""
    found = []
    for _ in range(50):
        rate = np.clip(kind.drawn(rng).solving(AT, 0.0), 1e-6, 1 - 1e-6)
        like = np.clip(isotonic(rate, np.ones(len(AT))), 1e-6, 1 - 1e-6)
        ratio = np.log(rate / like) - np.log((1 - rate) / (1 - like))
        null, dip = (rng.binomial(SEEDS, p, (draws, len(AT))) @ ratio for p in (like, rate))
        found.append((dip > np.quantile(null, 1 - 0.05 / n_curves)).mean())
    return float(np.mean(found))


def grids(rng: np.random.Generator, n_sweeps: int) -> None:
    print(f"{'grids, rising curves':>26}  sweeps with a false flag")
    for n_curves, is_mixed in ((1, True), (16, True), (16, False)):
        sweeps = [[tried(rng, r) for r in rising(rng, n_curves, is_mixed=is_mixed)] for _ in range(n_sweeps)]
        title = f"{n_curves} {'mixed' if is_mixed else 'sharp'}"
        print(f"{title:>26}  {share([any(turning(sweep)) for sweep in sweeps])}", flush=True)
    print(f"\n{'grids, found':>26}  alone          limit  beside sharp   beside mixed   limit")
    for name, kind in DIPS.items():
        columns = []
        for n_others, is_mixed in ((0, False), (15, False), (15, True)):
            hits = []
            for _ in range(n_sweeps):
                rates = [kind.drawn(rng).solving(AT, 0.0), *rising(rng, n_others, is_mixed=is_mixed)]
                hits.append(turning([tried(rng, rate) for rate in rates])[0])
            columns.append(share(hits))
        alone, sharp, mixed = columns
        ends = [f"{limit(rng, kind, n):5.2f}" for n in (1, 16)]
        print(f"{name:>26}  {alone}  {ends[0]}  {sharp}  {mixed}  {ends[1]}", flush=True)


def searches(seed: int, n_searches: int) -> None:
    head = "  ".join(f"check {plan.check}, {plan.max_trials:3} trials" for plan in PLANS)
    print(f"\n{'searches, found: trials':>26}  {head}")
    for name, kind in DIPS.items():
        columns = []
        for plan in PLANS:
            rng = np.random.default_rng(seed)
            runs = [searched(rng, [kind.drawn(rng)], plan) for _ in range(n_searches)]
            hits = [run.verdicts[0].reason == "non-monotone" for run in runs]
            columns.append(f"{share(hits)}: {np.mean([len(run.told[0]) for run in runs]):4.1f}")
        print(f"{name:>26}  " + "  ".join(columns), flush=True)
    print(f"\n{'flagged: trials, error':>26}  {head}")
    for name in RISING:
        columns = [cost(name, plan, seed, n_searches) for plan in PLANS]
        print(f"{name:>26}  " + "  ".join(columns), flush=True)


def cost(name: str, plan: Rules, seed: int, n_searches: int) -> str:
    """How many rising curves are flagged, their trials and the median error."""
    rng, errors, trials, flags = np.random.default_rng(seed), [], [], []
    for _ in range(n_searches):
        curves = SURFACES[name](rng)
        run = searched(rng, curves, plan)
        threshold = run.verdicts[0].threshold
        errors.append(math.inf if threshold is None else abs(threshold - (curves[0].threshold or math.nan)))
        trials.append(len(run.told[0]))
        flags.append(run.verdicts[0].reason == "non-monotone")
    return f"{np.mean(flags):.3f}: {np.mean(trials):5.1f}, {np.median(errors):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sweeps", type=int, default=200)
    parser.add_argument("--searches", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.sweeps:
        grids(np.random.default_rng(arguments.seed), arguments.sweeps)
    if arguments.searches:
        searches(arguments.seed, arguments.searches)


if __name__ == "__main__":
    main()
