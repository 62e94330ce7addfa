"""Outcomes that do not fit a curve that rises for good, and which trials settle whether it turns around."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.axis import Array
from orchestrator.monotone import SUSPICIOUS, Counts, isotonic, statistic, turning

DOUBTFUL = 0.2
"""Chance at which a curve that rises for good would look as if it did not, up to which it is followed up: a trial
that fails after three that solved. Lapses and wide transitions make falls that are likelier than that; following
all of those up as well took a quarter of the trials, and none of them told of the threshold.
"""
REPLICATES = 99
SEED = 20240731
PROVEN = 15.0
"""Statistic at which follow-ups end, plus 2 log(number of curves). A search looks again after every trial: a
likelihood ratio of fixed curves ever exceeds 100 in one case of 100 (Ville), which is a statistic of 9; the rest
allows for the curves having been fitted. (At 10, 7 % of rising curves were called proven.)
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


def doubt(trials: Iterable[tuple[int, bool]], sign: int, n_curves: int) -> Doubt | None:
    """From (candidate, solved) of one of `n_curves` curves; None if its trials fit a curve that keeps its
    direction. Proven: `monotone.turning` says so, and it would in the company of the other curves.
    """
    counts = _counts(trials, sign)
    if len(counts.position) < 2:
        return None
    excess = float(statistic(counts.solved[None], counts.tried)[0])
    if excess <= SUSPICIOUS or _chance(counts, excess) > DOUBTFUL:
        return None
    first, split, last = _violation(counts)
    place = (sign * counts.position).astype(np.int64)
    proven = excess > PROVEN + 2 * math.log(n_curves) and turning([counts])[0]
    tried = int(counts.tried[first:split].sum()), int(counts.tried[split:last].sum())
    return Doubt(np.sort(place[first:split]), np.sort(place[split:last]), tried, proven)


def _counts(trials: Iterable[tuple[int, bool]], sign: int) -> Counts:
    """Along positions on which solving should become more likely."""
    given = np.array([(sign * candidate, solved) for candidate, solved in trials], np.float64).reshape(-1, 2)
    position, column = np.unique(given[:, 0], return_inverse=True)
    solved = np.bincount(column, weights=given[:, 1], minlength=len(position))
    tried = np.bincount(column, minlength=len(position))
    return Counts(position, solved.astype(np.float64), tried.astype(np.float64))


def _chance(counts: Counts, excess: float) -> float:
    """Of such an excess where the isotonic fit is true, by a parametric bootstrap."""
    rate = isotonic(counts.solved, counts.tried)
    rng = np.random.default_rng(SEED)  # the same trials always give the same questions
    drawn = rng.binomial(counts.tried.astype(np.int64), rate, (REPLICATES, len(rate)))
    larger = statistic(drawn.astype(np.float64), counts.tried) >= excess - 1e-9
    return float((1 + larger.sum()) / (1 + REPLICATES))


def _violation(counts: Counts) -> tuple[int, int, int]:
    """Start, split and end of the stretch in which a fall explains most: one that the isotonic fit pools."""
    rate = isotonic(counts.solved, counts.tried)
    starts = np.flatnonzero(np.diff(rate, prepend=-1.0))
    first = np.repeat(starts, np.diff(starts, append=len(rate)))  # [X], of the stretch of each position
    last = np.repeat(np.append(starts[1:], len(rate)), np.diff(starts, append=len(rate)))
    solved, tried = (np.concatenate([[0.0], np.cumsum(n)]) for n in (counts.solved, counts.tried))
    split = np.arange(len(rate))

    def loglik(a: NDArray[np.int64], b: NDArray[np.int64]) -> Array:
        return _best_loglik(solved[b] - solved[a], tried[b] - tried[a])

    gain = loglik(first, split) + loglik(split, last) - loglik(first, last)
    at = int(np.where(split > first, gain, -np.inf).argmax())
    return int(first[at]), at, int(last[at])


def _best_loglik(solved: Array, tried: Array) -> Array:
    """At the rate that fits best."""
    rate = solved / np.maximum(tried, 1)
    return np.asarray(
        sum(n * np.log(np.maximum(p, 1e-300)) for n, p in ((solved, rate), (tried - solved, 1 - rate)))
    )
