"""Do curves rise for good, or do they turn around? A likelihood-ratio test, shared by a sweep's curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.axis import Array

Integers = NDArray[np.int64]

LEVEL = 0.03
"""Nominal. Isotonic fits follow the dips of their own sample, so that a bootstrap from them thinks dips
rarer than they are. tests/benchmarks/dips.py says how many sweeps are flagged by mistake.
"""
REPLICATES = 499
SEED = 20240731
"""Of the bootstrap: the same trials always get the same verdict."""
SUSPICIOUS = 4.0
"""If no curve has a larger statistic than this, nothing is bootstrapped: it never suffices."""
STRETCH = 2.0
"""Units that a stretch of another rate takes up at least; a shorter one, whose chance is larger, has to beat the
rising curve by SHORT more."""
SHORT = 4.0
BIN = 0.25
"""Units within which trials are counted together."""
LEVELS = np.concatenate([[0.001], np.arange(0.05, 1.0, 0.05), [0.999]])
"""Rates that the fits inside the statistic may take."""


@dataclass(frozen=True)
class Counts:
    """A curve: how many of how many trials solved, at increasing positions."""

    position: Array  # [X]
    solved: Array  # [X]
    tried: Array  # [X], > 0


def turning(curves: Sequence[Counts]) -> list[bool]:
    """Which curves turn around. In at most 5 % of sweeps of rising curves is any curve named.

    The statistic is how much better a curve fits that rises but for one stretch than one that rises throughout. A
    curve is named if its statistic is rare as the *largest of the sweep* under a parametric bootstrap of all
    isotonic fits; so sharp curves, which have no room for chance dips, cost the others no power. Trials are
    drawn independently: an effect of the seed makes real curves smoother than that.
    """
    curves = [_pooled(curve) for curve in curves]
    observed = np.array([statistic(c.solved[None], c.tried, c.position)[0] for c in curves])
    if not (observed > SUSPICIOUS).any():
        return [False] * len(curves)
    rng = np.random.default_rng(SEED)
    largest = np.zeros(REPLICATES)
    for curve in curves:
        rate = isotonic(curve.solved, curve.tried)
        drawn = rng.binomial(curve.tried.astype(np.int64), rate, (REPLICATES, len(rate)))
        different, which = np.unique(drawn, axis=0, return_inverse=True)  # few, of sharp curves
        found = statistic(different.astype(np.float64), curve.tried, curve.position)
        largest = np.maximum(largest, found[which])
    chance = (1 + (largest >= observed[:, None] - 1e-9).sum(1)) / (1 + REPLICATES)
    return [bool(verdict) for verdict in chance <= LEVEL]


def _pooled(curve: Counts) -> Counts:
    """Positions that are closer than BIN counted together: time grows with the square of their number."""
    bins, column = np.unique(np.rint(curve.position / BIN), return_inverse=True)
    solved, tried = (np.bincount(column, n).astype(np.float64) for n in (curve.solved, curve.tried))
    return Counts(bins * BIN, solved, tried)


def statistic(solved: Array, tried: Array, position: Array) -> Array:
    """Twice the log-likelihood by which a rising curve with a stretch of another rate beats one without, for a
    batch of curves `[B, X]` -> `[B]`; less SHORT where the stretch is not longer than STRETCH.
    """
    up, rest = _prefixes(solved, tried), _prefixes(solved[:, ::-1], tried[::-1], falls=True)[::-1]
    rising = up[-1].max(0)
    hits = np.concatenate([np.zeros((len(solved), 1)), np.cumsum(solved, 1)], 1).T  # [X + 1, B]
    counts = np.concatenate([[0.0], np.cumsum(tried)])
    spacing = np.diff(position).min(initial=STRETCH)
    around = np.concatenate([[position[0] - spacing], position, [position[-1] + spacing]])
    best = np.zeros(len(solved))
    for first in range(len(tried)):
        ends = np.arange(first + 1, len(tried) + 1)
        outside = (up[first] + rest[ends]).max(1)  # [ends, B]
        inside = _best_loglik(hits[ends] - hits[first], (counts[ends] - counts[first])[:, None])
        is_short = around[ends + 1] - around[first] <= STRETCH + 1e-9
        gain = 2 * (outside + inside - rising) - np.where(is_short, SHORT, 0.0)[:, None]
        best = np.maximum(best, gain.max(0))
    return best


def _prefixes(solved: Array, tried: Array, *, falls: bool = False) -> Array:
    """Log-likelihood of the first n positions at the best rates that rise (or fall) up to each of LEVELS at the
    most (the least): `[X + 1, L, B]`.
    """
    log_p, log_q = np.log(LEVELS)[:, None], np.log1p(-LEVELS)[:, None]
    found = np.zeros((len(tried) + 1, len(LEVELS), len(solved)))
    towards = slice(None, None, -1 if falls else 1)
    for n, (hits, size) in enumerate(zip(solved.T, tried, strict=True)):
        here = found[n] + hits * log_p + (size - hits) * log_q
        found[n + 1] = np.maximum.accumulate(here[towards], axis=0)[towards]
    return found


def _best_loglik(hits: Array, size: Array) -> Array:
    """At the rate that fits best."""
    rate = np.clip(hits / size, LEVELS[0], LEVELS[-1])
    return np.asarray(hits * np.log(rate) + (size - hits) * np.log1p(-rate))


def isotonic(solved: Array, tried: Array) -> Array:
    """The best non-decreasing rates `[X]`, by the max-min formula (what pooling adjacent violators gives)."""
    hits, size = (np.concatenate([[0.0], np.cumsum(n)]) for n in (solved, tried))
    first, last = np.triu_indices(len(solved))
    mean = np.full((len(solved), len(solved)), np.inf)  # [first, last]
    mean[first, last] = (hits[last + 1] - hits[first]) / (size[last + 1] - size[first])
    lowest = np.minimum.accumulate(mean[:, ::-1], axis=1)[:, ::-1]
    lowest[np.tril_indices(len(solved), -1)] = -np.inf  # windows must begin at or before the position
    return np.asarray(lowest.max(0))


def up_then_down(curve: Counts) -> Array:
    """The best rates `[X]` that rise up to some position and fall after it."""
    fits = []
    for split in range(len(curve.tried) + 1):
        up = isotonic(curve.solved[:split], curve.tried[:split]) if split else np.empty(0)
        rest, n = curve.solved[split:][::-1], curve.tried[split:][::-1]
        fits.append(np.concatenate([up, isotonic(rest, n)[::-1] if len(n) else n]))
    return max(fits, key=lambda rate: _loglik(curve, rate))


def _loglik(curve: Counts, rate: Array) -> float:
    p = np.clip(rate, 1e-9, 1 - 1e-9)
    return float((curve.solved * np.log(p) + (curve.tried - curve.solved) * np.log1p(-p)).sum())


def crossings(curve: Counts) -> tuple[float | None, float | None]:
    """Where the up-then-down fit rises through 0.5 and where it falls through it, interpolated between
    positions; None where it does not do so within them.
    """
    rate = up_then_down(curve)
    return _rise(curve.position, rate), _rise(curve.position[::-1], rate[::-1])


def _rise(position: Array, rate: Array) -> float | None:
    i = int((rate >= 0.5).argmax())
    if rate[i] < 0.5 or i == 0:
        return None
    share = (0.5 - rate[i - 1]) / (rate[i] - rate[i - 1])
    return float(position[i - 1] + share * (position[i] - position[i - 1]))


def violation(counts: Counts) -> tuple[int, int, int]:
    """Start, split and end of the stretch in which a fall explains most: one that the isotonic fit pools."""
    rate = isotonic(counts.solved, counts.tried)
    starts = np.flatnonzero(np.diff(rate, prepend=-1.0))
    first = np.repeat(starts, np.diff(starts, append=len(rate)))  # [X], of the stretch of each position
    last = np.repeat(np.append(starts[1:], len(rate)), np.diff(starts, append=len(rate)))
    solved, tried = (np.concatenate([[0.0], np.cumsum(n)]) for n in (counts.solved, counts.tried))
    split = np.arange(len(rate))

    def loglik(a: Integers, b: Integers) -> Array:
        return _best_loglik(solved[b] - solved[a], np.maximum(tried[b] - tried[a], 1e-9))

    gain = loglik(first, split) + loglik(split, last) - loglik(first, last)
    at = int(np.where(split > first, gain, -np.inf).argmax())
    return int(first[at]), at, int(last[at])
