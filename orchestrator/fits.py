"""The threshold of one curve, by the profile likelihood or by the posterior.

A grid's trials are placed beforehand, and the profile's interval is right for them. A search stops on what it has
seen, and places nearly all trials by the threshold, where the profile's interval is too narrow: it takes one width
and lapse for granted at every threshold. So the posterior is taken there, and a profile interval with a larger
cutoff is its check, which rests on no prior (tests/benchmarks/coverage.py prints how often both hold the truth).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

import numpy as np

from orchestrator.axis import Array
from orchestrator.posterior import STEP, Outcome, Posterior, tables
from orchestrator.psychometric import Outcomes, Profile, profile

CLEARLY_BETTER = 1.92
"""Gain in log-likelihood, a likelihood-ratio test at 5 %."""
SEARCHED = 3.2
"""Log-likelihood by which a threshold may be worse than the best one and still be in the profile's 95 % interval
of a searched curve; 1.92 for trials that were placed beforehand. Chosen so that intervals of simulated searches
hold the truth in about 95 % of cases: curves of several widths and lapses needed 1.5 to 3.6.
"""


@dataclass(frozen=True)
class Fit:
    """Along positions on which solving becomes more likely. Ends are infinite, or nan, where they are not known."""

    best: float
    low: float
    high: float
    is_never_half: bool
    """p most likely never reaches 0.5."""
    width: float
    lapse: float
    solving: Callable[[Array], Array]
    """Probability of solving at positions `[X]`, for a seed that was not tried."""
    profile: tuple[float, float] | None = None
    """Of a posterior: ends of the profile likelihood's interval, as its check."""
    seed_effect: float | None = None
    """Standard deviation, over seeds, of where they begin to solve; None where every trial has a seed of its own,
    and the width holds it."""


Method = Callable[[Array, Array, Array], Fit]
"""From the positions `[N]`, outcomes `[N]` (0 or 1) and seeds `[N]` of a curve's trials."""


def by_profile(position: Array, solved: Array, seed: Array) -> Fit:
    """For trials that were placed beforehand."""
    fit = profile(Outcomes(position, solved > 0, seed))
    low, high = fit.interval()
    is_never_half = _is_never_half(fit, float(position.max()))
    curve = fit.without if is_never_half else fit.curve._replace(middle=fit.best + fit.curve.middle)
    return Fit(
        fit.best, low, high, is_never_half, fit.width, fit.lapse, curve.solving, None, _seed_effect(fit, seed)
    )


def _seed_effect(fit: Profile, seed: Array) -> float | None:
    return fit.tau if len(np.unique(seed)) < len(seed) else None


def _is_never_half(fit: Profile, last: float) -> bool:
    """Whether a curve that never reaches 0.5 is the best one, and clearly better than all that reach it
    beyond the tested values, which few trials can't tell from it.
    """
    inside, beyond = fit.loglik[fit.t <= last], fit.loglik[fit.t > last]
    return bool(fit.loglik_without > max(inside.max(), beyond.max() + CLEARLY_BETTER))


Grid = tuple[float, float, float]
"""Of thresholds: the first and the last position that may be asked, and the step between two."""


@dataclass(frozen=True)
class Placed:
    """What a search knows of the trials that it has placed."""

    proven: Collection[tuple[object, ...]] = ()
    """Curves that it has shown to turn around, by their places on the other axes."""
    grid: Grid | None = None
    """On which it computes intervals; None: from the first tested position to the last."""

    def method(self, sign: int) -> Method:
        """For positions in that direction."""
        if self.grid is None or sign > 0:
            return partial(by_posterior, grid=self.grid)
        low, high, step = self.grid
        return partial(by_posterior, grid=(-high, -low, step))


def by_posterior(position: Array, solved: Array, seed: Array, grid: Grid | None = None) -> Fit:
    """For trials that a search has placed: median and equal-tailed interval."""
    trials = zip(position.tolist(), (solved > 0).tolist(), seed.tolist(), strict=True)
    outcomes = [Outcome(at, is_solved, label) for at, is_solved, label in trials]
    low, high, step = grid or (float(position.min()), float(position.max()), STEP)
    posterior = Posterior.of(tables(low, high, step), outcomes)
    belief = posterior.belief()
    low, high = belief.interval()
    best, never = belief.quantile(0.5), sum(belief.never)
    is_never_half = never > 0.5 and never > 1 - never - belief.below(float(position.max()))
    at, check = math.inf if is_never_half else best, profile_interval(posterior)
    return Fit(at, low, high, is_never_half, belief.width, belief.lapse, posterior.solving, check, belief.tau)


def profile_interval(posterior: Posterior) -> tuple[float, float]:
    """Ends of the 95 % interval by which a posterior is checked, where more solve along positions.

    Infinite where it leaves the grid, or a curve that never reaches 0.5 is as likely; nan where no threshold is.
    """
    t, loglik, without = posterior.profile()
    excess = loglik - max(float(loglik.max()), without) + SEARCHED
    inside = np.flatnonzero(excess >= 0)
    if not len(inside):
        return math.nan, math.nan
    first, last = inside[0], inside[-1]
    low, high = -math.inf, math.inf
    if first > 0:
        low = float(np.interp(0, excess[first - 1 : first + 1], t[first - 1 : first + 1]))
    if last < len(t) - 1 and without < loglik.max() - SEARCHED:
        high = float(np.interp(0, -excess[last : last + 2], t[last : last + 2]))
    return low, high
