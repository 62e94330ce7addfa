"""Outcomes that do not fit a curve that rises for good, and which trials settle whether it turns around."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np

from orchestrator.axis import Array
from orchestrator.monotone import BIN, SUSPICIOUS, Counts, isotonic, statistic, turning, violation

DOUBTFUL = 0.4
"""Chance at which a curve that rises for good would look as if it did not, up to which it is followed up."""
REPLICATES = 39
SEED = 20240731
PROVEN = 12.0
"""Statistic at which follow-ups end, plus 2 log(number of curves). A search looks again after every trial: the
largest value that it sees of a curve that rises for good is under 7 in 99 % of searches where all solve in the end,
and over 12 in 3 % where a lapse of 0.4 is left. tests/benchmarks/dips.py says how many are flagged by mistake.
"""


@dataclass(frozen=True)
class Doubt:
    """A curve that may turn around: more solve in `easy` than in `hard`, though fewer should."""

    easy: Array  # [.], candidates that were tried there
    hard: Array
    tried: tuple[int, int]
    """Trials there."""
    is_proven: bool

    def candidate(self, pending: Collection[int]) -> int:
        """One on the side with fewer trials, pending ones included; in its middle."""
        counts = [
            n + sum(side[0] <= p <= side[-1] for p in pending)
            for n, side in zip(self.tried, (self.easy, self.hard), strict=True)
        ]
        side = self.easy if counts[0] < counts[1] else self.hard
        return int(side[len(side) // 2])


def doubt(trials: Iterable[tuple[int, bool]], candidates: Array, sign: int, n_curves: int) -> Doubt | None:
    """From (candidate, solved) of one of `n_curves` curves; None if its trials fit a curve that keeps its
    direction. Proven: `monotone.turning` says so, and it would in the company of the other curves.
    """
    given = np.array([(candidate, solved) for candidate, solved in trials], np.int64).reshape(-1, 2)
    bins, column = np.unique(np.rint(sign * candidates[given[:, 0]] / BIN), return_inverse=True)
    if len(bins) < 2:
        return None
    solved = np.bincount(column, weights=given[:, 1]).astype(np.float64)
    counts = Counts(bins * BIN, solved, np.bincount(column).astype(np.float64))
    excess = float(statistic(counts.solved[None], counts.tried, counts.position)[0])
    if excess <= SUSPICIOUS or _chance(counts, excess) > DOUBTFUL:
        return None
    first, split, last = violation(counts)
    sides = [(first <= column) & (column < split), (split <= column) & (column < last)]
    easy, hard = (np.unique(given[side, 0]) for side in sides)
    proven = excess > PROVEN + 2 * math.log(n_curves) and turning([counts])[0]
    return Doubt(easy, hard, (int(sides[0].sum()), int(sides[1].sum())), proven)


def _chance(counts: Counts, excess: float) -> float:
    """Of such an excess where the isotonic fit is true, by a parametric bootstrap."""
    rate = isotonic(counts.solved, counts.tried)
    rng = np.random.default_rng(SEED)  # the same trials always give the same questions
    drawn = rng.binomial(counts.tried.astype(np.int64), rate, (REPLICATES, len(rate)))
    larger = statistic(drawn.astype(np.float64), counts.tried, counts.position) >= excess - 1e-9
    return float((1 + larger.sum()) / (1 + REPLICATES))
