"""What a curve's trials say of its threshold: the posterior over (threshold, width, upper lapse, seed effect).

The model is that of `psychometric`: a trial at position u of a seed with effect z ~ N(0, 1) solves with

    p(u | z) = g + (1 - g - lapse) * sigmoid((u - m - tau * z) / w),    rising or falling along u,

and the threshold t is where half of the seeds solve. A seed that was tried once has its effect averaged over:
its curve is a logistic of scale sqrt(w^2 + pi tau^2 / 8) (MacKay), the `spread`. So a curve whose trials all
have seeds of their own has a posterior over (t, spread, lapse), three axes; tau cannot be told from w. Only
curves with seeds that were tried several times (grid runs) need the fourth.

Everything is a table over a grid. Its logarithms are rounded to multiples of 2^-20, so that sums of them are
exact: outcomes added in any order give the same bits, on which every decision of a search rests.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.axis import Array
from orchestrator.psychometric import GUESS, shifted

Sign = Literal[1, -1]
Exact = NDArray[np.float32]

STEP = 1 / 12
"""Largest step of the grid of t, in units of position."""
MARGIN = 6.0
"""Units by which the grid of t extends past the tested range, so that a threshold outside of it can be seen. The
prior is flat along t: nothing is known of where a threshold lies.
"""
SPREADS = np.geomspace(0.05, 2.0, 10)
SPREAD_PRIOR = np.cbrt(SPREADS) / np.cbrt(SPREADS).sum()
"""Nearly flat in log(spread): sharp and wide transitions are both seen in practice, 0.2-0.4 octaves most often. It
leans to wide ones, because a search stops at the moment at which a wide curve's outcomes happen to look sharp:
with a flat prior, intervals of curves of 0.6 octaves on which it did so held the truth in 63 % of cases.
"""
LAPSES = np.array([0.0, 0.03, 0.07, 0.12, 0.2, 0.3, 0.4, 0.45, 0.5, 0.6])
LAPSE_PRIOR = np.array([0.34, 0.14, 0.11, 0.09, 0.09, 0.08, 0.06, 0.04, 0.03, 0.02])
"""Mostly near none; a curve that never reaches 0.5 (the last two) has to be shown by its trials."""
TAUS = np.array([0.0, 0.25, 0.5, 1.0])
TAU_PRIOR = np.array([0.35, 0.33, 0.24, 0.08])
"""About half-normal with scale 0.5."""
EXACT = 2.0**20


@dataclass(frozen=True)
class Outcome:
    """A trial of a curve that has ended."""

    position: float
    """In units of position; likewise all of this file."""
    solved: bool
    seed: int
    """Any label; trials with the same one share a seed effect."""


@dataclass(frozen=True)
class Shapes:
    """The curves' shapes on the grid `[C]`, with their prior."""

    width: Array
    tau: Array
    lapse: Array
    log_prior: Array

    @property
    def spread(self) -> Array:
        return np.sqrt(self.width**2 + math.pi / 8 * self.tau**2)

    @property
    def has_threshold(self) -> NDArray[np.bool_]:
        return self.lapse < 0.5

    @property
    def lead(self) -> Array:
        """(t - m) / spread; 0 for shapes that never reach 0.5, whose "t" is m."""
        middle = (0.5 - GUESS) / (1 - GUESS - np.where(self.has_threshold, self.lapse, GUESS / 2))
        return np.where(self.has_threshold, np.log(middle / (1 - middle)), 0.0)


def _shapes(taus: Array, tau_prior: Array) -> Shapes:
    weights = tau_prior[:, None, None] * SPREAD_PRIOR[:, None] * LAPSE_PRIOR
    tau, width, lapse = (x.ravel() for x in np.meshgrid(taus, SPREADS, LAPSES, indexing="ij"))
    return Shapes(width, tau, lapse, np.log(weights.ravel() / weights.sum()))


ALONE = _shapes(np.zeros(1), np.ones(1))
"""Of curves on which no seed was tried twice: width is the spread."""
SHARED = _shapes(TAUS, TAU_PRIOR)


@dataclass(frozen=True)
class Belief:
    """The posterior of one curve, reduced to what is asked of it."""

    t: Array  # [T], uniform
    mass: Array  # [T], of a threshold in the cell around each t
    never: tuple[float, float]
    """Probability that p never reaches 0.5, of curves that fall and of curves that rise along positions. In
    quantiles such a curve has its threshold infinitely far on the side on which solving is more likely.
    """
    rising: float
    """Probability that solving becomes more likely along positions."""
    width: float
    """Median, of the spread where no seed was tried twice; `lapse` likewise."""
    lapse: float
    tau: float | None
    """Median; None where no seed was tried twice, so that nothing is known of it."""
    log_evidence: float

    @cached_property
    def _edges(self) -> tuple[Array, Array]:
        """Ends of the cells `[T + 1]` and P(t < each)."""
        step = self.t[1] - self.t[0]
        places = np.append(self.t - step / 2, self.t[-1] + step / 2)
        return places, self.never[0] + np.concatenate([[0.0], np.cumsum(self.mass)])

    def below(self, position: float) -> float:
        """P(t < position), curves that never reach 0.5 included."""
        return float(np.interp(position, *self._edges))

    def quantile(self, q: float) -> float:
        """The t with P(t < it) = q; infinite where that lies outside of the grid."""
        places, rising = self._edges
        if q <= rising[0] or q >= rising[-1]:
            return -math.inf if q <= rising[0] else math.inf
        return float(np.interp(q, rising, places))

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Equal-tailed."""
        return self.quantile((1 - level) / 2), self.quantile((1 + level) / 2)


def either(a: Belief, b: Belief) -> Belief:
    """Of a curve of which it is not known whether it rises or falls; both are as likely beforehand."""
    share = 1 / (1 + math.exp(min(b.log_evidence - a.log_evidence, 700.0)))
    likelier = a if share >= 0.5 else b

    def mixed(x: float, y: float) -> float:
        return share * x + (1 - share) * y

    return replace(
        likelier,
        mass=share * a.mass + (1 - share) * b.mass,
        never=(mixed(a.never[0], b.never[0]), mixed(a.never[1], b.never[1])),
        rising=mixed(a.rising, b.rising),
        log_evidence=float(np.logaddexp(a.log_evidence, b.log_evidence)) - math.log(2),
    )


class Tables:
    """Log-probabilities of outcomes on the grid, per tested position; the curves of a sweep share them."""

    def __init__(self, low: float, high: float, step: float = STEP) -> None:
        """`low` and `high`: the range in which a sweep tests."""
        n = math.ceil((high - low + 2 * MARGIN) / step) + 1
        self.step = step
        self.t: Array = np.asarray((low + high) / 2 + step * (np.arange(n) - (n - 1) / 2), np.float64)
        self._columns: dict[tuple[float, int], tuple[Exact, Exact]] = {}

    @cached_property
    def kernels(self) -> Array:
        """`[tau, T, T]`: column j averages over seeds around t[j]."""
        away = (self.t[:, None] - self.t) / np.maximum(TAUS, self.step / 100)[:, None, None]
        kernels = np.exp(-(away**2) / 2)
        return np.asarray(kernels / kernels.sum(1, keepdims=True))

    def alone(self, position: float, sign: Sign) -> tuple[Exact, Exact]:
        """Log-probability of not solving and of solving, `[C, T]` each, for a seed tried once (ALONE)."""
        key = (position, sign)
        if key not in self._columns:
            self._columns[key] = _log_probability(ALONE, position, self.t, sign)
        return self._columns[key]


@lru_cache(maxsize=2)
def tables(low: float, high: float, step: float = STEP) -> Tables:
    """The same ones for searches in the same range."""
    return Tables(low, high, step)


def _solving(shapes: Shapes, position: float, t: Array, sign: Sign) -> Array:
    """Probability of solving `[C, T]`, for a seed tried once."""
    away = sign * (position - t) / shapes.spread[:, None] + shapes.lead[:, None]
    p = GUESS + (1 - GUESS - shapes.lapse[:, None]) / (1 + np.exp(-np.clip(away, -500, 500)))
    return np.asarray(np.minimum(p, 1 - GUESS))


def _log_probability(shapes: Shapes, position: float, t: Array, sign: Sign) -> tuple[Exact, Exact]:
    """Of not solving and of solving `[C, T]`. Above -7, so that 23 bits hold the multiples of 2^-20."""
    p = _solving(shapes, position, t, sign)
    return _exact(np.log1p(-p)).astype(np.float32), _exact(np.log(p)).astype(np.float32)


def _exact(x: Array) -> Array:
    return np.asarray(np.rint(x * EXACT) / EXACT)


class Posterior:
    """Of one curve, in one direction; grows outcome by outcome, in any order."""

    def __init__(self, tables: Tables, sign: Sign = 1) -> None:
        self._tables, self._sign = tables, sign
        self.loglik = np.zeros((len(ALONE.width), len(tables.t)))
        self._shapes = ALONE

    @classmethod
    def of(cls, tables: Tables, outcomes: Iterable[Outcome], sign: Sign = 1) -> Posterior:
        """From all of a curve's trials; if a seed was tried several times, over the four axes of SHARED."""
        posterior, by_seed = cls(tables, sign), _by_seed(outcomes)
        if all(len(trials) == 1 for trials in by_seed):
            for ((position, solved),) in by_seed:
                posterior.add(position, solved)
            return posterior
        posterior._shapes = SHARED
        posterior.loglik = np.zeros((len(SHARED.width), len(tables.t)))
        for trials in by_seed:
            posterior.loglik += _of_seed(tables, trials, sign)
        return posterior

    def add(self, position: float, solved: bool) -> None:
        """A trial of a seed that this curve has not tried otherwise."""
        if self._shapes is SHARED:
            self.loglik += _of_seed(self._tables, [(position, solved)], self._sign)
        else:
            self.loglik += self._tables.alone(position, self._sign)[int(solved)]

    def profile(self) -> tuple[Array, Array, float]:
        """Thresholds `[T]`, the likelihood's logarithm at the best shape of each, without any prior, and that of
        the best curve that never reaches 0.5.
        """
        has = self._shapes.has_threshold
        return self._tables.t, self.loglik[has].max(0), float(self.loglik[~has].max())

    def belief(self) -> Belief:
        return _reduced(self.loglik, self._shapes, self._tables.t, self._sign)

    def solving(self, positions: Array) -> Array:
        """Posterior mean of the probability of solving at positions `[X]`, for a seed that was not tried yet."""
        t, weight = self._tables.t, _weights(self.loglik, self._shapes)[0]
        return np.array(
            [(weight * _solving(self._shapes, at, t, self._sign)).sum() for at in positions.tolist()]
        )


def _by_seed(outcomes: Iterable[Outcome]) -> list[list[tuple[float, bool]]]:
    seeds: dict[int, list[tuple[float, bool]]] = {}
    for outcome in outcomes:
        seeds.setdefault(outcome.seed, []).append((outcome.position, outcome.solved))
    return list(seeds.values())


def _of_seed(tables: Tables, trials: list[tuple[float, bool]], sign: Sign) -> Array:
    """Log-likelihood `[C, T]` on SHARED of one seed's trials, its effect integrated out.

    The effect moves the whole curve, so the integral is a convolution along t. Then t is moved to where half
    of all seeds solve: away from m by lead * spread, which grows with tau.
    """
    columns = [tables.alone(position, sign)[int(solved)] for position, solved in sorted(trials)]
    known = np.sum(columns, axis=0, dtype=np.float64)
    top = known.max()
    averages = np.stack([np.exp(known - top) @ kernel for kernel in tables.kernels])  # [tau, C, T]
    loglik = np.log(np.maximum(averages, 1e-300)).reshape(-1, len(tables.t)) + top
    by = sign * SHARED.lead * (SHARED.spread - SHARED.width) / (tables.t[1] - tables.t[0])
    return _exact(shifted(loglik, by))


def _weights(loglik: Array, shapes: Shapes) -> tuple[Array, float]:
    """The posterior `[C, T]`, and the log-evidence."""
    joint = loglik + shapes.log_prior[:, None] - math.log(loglik.shape[1])
    top = float(joint.max())
    weight = np.exp(joint - top)
    total = float(weight.sum())
    weight /= total
    return weight, top + math.log(total)


def _reduced(loglik: Array, shapes: Shapes, t: Array, sign: Sign) -> Belief:
    weight, log_evidence = _weights(loglik, shapes)
    of_shape = weight.sum(1)
    never = float(of_shape[~shapes.has_threshold].sum())
    return Belief(
        t=t,
        mass=weight[shapes.has_threshold].sum(0),
        never=(0.0, never) if sign > 0 else (never, 0.0),
        rising=float(sign > 0),
        width=_median(shapes.width, of_shape),
        lapse=_median(shapes.lapse, of_shape),
        tau=_median(shapes.tau, of_shape) if shapes is SHARED else None,
        log_evidence=log_evidence,
    )


def _median(values: Array, weights: Array) -> float:
    """Interpolated between the values of a grid, as the distribution's steps would be smoothed."""
    places, index = np.unique(values, return_inverse=True)
    share = np.bincount(index, weights=weights)
    return float(np.interp(0.5, np.cumsum(share) - share / 2, places))
