"""Do curves rise for good, or do they turn around? A likelihood-ratio test, shared by a sweep's curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.axis import Array

LEVEL = 0.02
"""Nominal. Isotonic fits follow the dips of their own sample, so that a bootstrap from them thinks dips
rarer than they are. tests/benchmarks/coverage.py says how many sweeps are flagged by mistake.
"""
REPLICATES = 999
SEED = 20240731
"""Of the bootstrap: the same trials always get the same verdict."""
SUSPICIOUS = 4.0
"""If no curve has a larger statistic than this, nothing is bootstrapped: it never suffices."""
LEVELS = np.concatenate([[0.001], np.arange(0.025, 1.0, 0.025), [0.999]])
"""Rates that the fits inside the statistic may take."""


@dataclass(frozen=True)
class Counts:
    """A curve: how many of how many trials solved, at increasing positions."""

    position: Array  # [X]
    solved: Array  # [X]
    tried: Array  # [X], > 0


def turning(curves: Sequence[Counts]) -> list[bool]:
    """Which curves turn around. In at most 5 % of sweeps of rising curves is any curve named.

    The statistic is how much better a fit that rises, falls and may rise again is than the isotonic one. A
    curve is named if its statistic is rare as the *largest of the sweep* under a parametric bootstrap of all
    isotonic fits; so sharp curves, which have no room for chance dips, cost the others no power. Trials are
    drawn independently: an effect of the seed makes real curves smoother than that.
    """
    observed = np.array([statistic(c.solved[None], c.tried)[0] for c in curves])
    if not (observed > SUSPICIOUS).any():
        return [False] * len(curves)
    rng = np.random.default_rng(SEED)
    largest = np.zeros(REPLICATES)
    for curve in curves:
        rate = isotonic(curve.solved, curve.tried)
        drawn = rng.binomial(curve.tried.astype(np.int64), rate, (REPLICATES, len(rate)))
        largest = np.maximum(largest, statistic(drawn.astype(np.float64), curve.tried))
    chance = (1 + (largest >= observed[:, None] - 1e-9).sum(1)) / (1 + REPLICATES)
    return [bool(verdict) for verdict in chance <= LEVEL]


def statistic(solved: Array, tried: Array) -> Array:
    """Twice the log-likelihood by which up-down-up beats up alone, for a batch of curves `[B, X]` -> `[B]`.

    Dynamic programming over positions; the state is the phase and the rate, one of LEVELS.
    """
    log_p, log_q = np.log(LEVELS)[:, None], np.log1p(-LEVELS)[:, None]
    up = np.zeros((len(LEVELS), len(solved)))  # [L, B]: best so far that is in this phase, at this rate
    down, again = np.full_like(up, -np.inf), np.full_like(up, -np.inf)
    for hits, n in zip(solved.T, tried, strict=True):
        here = hits * log_p + (n - hits) * log_q
        again = np.maximum.accumulate(np.maximum(down, again), axis=0) + here
        down = np.maximum.accumulate(np.maximum(up, down)[::-1], axis=0)[::-1] + here
        up = np.maximum.accumulate(up, axis=0) + here
    rising = up.max(0)
    return np.asarray(2 * (np.maximum(np.maximum(down, again).max(0), rising) - rising))


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
