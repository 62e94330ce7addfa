"""The likelihood of a threshold: a psychometric curve with an upper lapse and a seed effect.

A trial at position u (octaves, or what `unit` makes of other scales) of a seed with effect z ~ N(0, 1)
solves with

    p(u | z) = g + (1 - g - lapse) * sigmoid((u - m - tau * z) / w)

The threshold t is where half of the seeds solve, E_z p(t | z) = 0.5. That is not m where there is a lapse,
and does not exist where lapse >= 0.5. The likelihood multiplies over a seed's trials, integrates z out, and
multiplies over seeds; w, lapse and tau are profiled. Everything is on grids: 25 sizes of 5 seeds take
milliseconds, and no optimizer can fail to converge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from orchestrator.axis import Array, AxisInfo

GUESS = 0.001
"""g: fixed, and also the least probability of not solving, so that one stray trial costs finitely much."""
STEP = 1 / 12
"""Of the grid of t, in units."""
MARGIN = 6.0
"""Units by which that grid extends past the tested range, so that a threshold outside of it can be seen."""
WIDTHS = np.geomspace(0.05, 2.0, 10)
LAPSES = np.array([0.0, 0.03, 0.07, 0.12, 0.2, 0.3, 0.4, 0.45, 0.5, 0.6])
TAUS = (0.0, 0.25, 0.5, 1.0)
Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Outcomes:
    """The trials of one curve, in an order in which solving becomes more likely with position."""

    position: Array  # [N], in units
    solved: NDArray[np.bool_]  # [N]
    seed: Array  # [N], any labels


class Logistic(NamedTuple):
    """A curve, averaged over seeds."""

    middle: float
    """m, in units of position."""
    spread: float
    lapse: float

    def solving(self, positions: Array) -> Array:
        """Probability of solving at positions `[X]`."""
        z = np.clip((positions - self.middle) / self.spread, -500, 500)
        return np.asarray(GUESS + (1 - GUESS - self.lapse) / (1 + np.exp(-z)))


@dataclass(frozen=True)
class Profile:
    """The profile likelihood of a threshold, in units of position."""

    t: Array  # [T], uniform
    loglik: Array  # [T], best over w, lapse < 0.5 and tau
    loglik_without: float
    """Best log-likelihood of a curve that never reaches 0.5 (lapse >= 0.5)."""
    width: float
    """w of the best curve that has a threshold; `lapse` and `tau` likewise."""
    lapse: float
    tau: float
    curve: Logistic
    """That curve, were its threshold at 0."""
    without: Logistic
    """The best curve that never reaches 0.5."""
    n_seeds: int

    @property
    def best(self) -> float:
        """The most likely threshold; the middle, where several are equally likely (a gap in the sizes)."""
        ties = self.t[self.loglik > self.loglik.max() - 1e-3]
        return float((ties[0] + ties[-1]) / 2)

    def interval(self) -> tuple[float, float]:
        """Ends of the 95 % interval, infinite where it leaves the grid; nan if no threshold is likely."""
        best = max(self.loglik.max(), self.loglik_without)
        excess = self.loglik - best + cutoff(self.n_seeds)
        inside = np.flatnonzero(excess >= 0)
        if not len(inside):
            return math.nan, math.nan
        return self._end(excess, inside[0], -1), self._end(excess, inside[-1], +1)

    def _end(self, excess: Array, i: int, outward: int) -> float:
        j = i + outward
        if not 0 <= j < len(excess):
            return outward * math.inf
        return float(self.t[i] + outward * STEP * excess[i] / (excess[i] - excess[j]))


def unit(axis: AxisInfo) -> float:
    """The length on the axis' scale that plays the part of one octave, in which the grids are laid out."""
    positions = axis.to_scale(np.array(axis.finite))
    if len(positions) < 2:
        return 1.0
    length, steps = positions[-1] - positions[0], np.diff(np.unique(positions))
    natural = {"log2": 1.0, "log10": math.log10(2)}.get(axis.scale, 2 * float(np.median(steps)))
    return float(max(natural, length / (24 if axis.scale.startswith("log") else 12)))


def cutoff(n_seeds: int) -> float:
    """Log-likelihood by which a value may be worse than the best one and still be in the 95 % interval.

    1.92 for many seeds. With few, their spread tau is itself uncertain, as a standard deviation is in
    Student's test, whose cutoff this is (tests/benchmarks/coverage.py says how
    often its intervals hold the truth). One seed says nothing of its spread: it counts as two.
    """
    df = max(n_seeds, 2) - 1
    return (df + 1) / 2 * math.log1p(student(df) ** 2 / df)


def student(df: int) -> float:
    """The 97.5 % quantile of Student's t: exact for 1 and 2 degrees of freedom, within 0.4 % from 3."""
    if df == 1:
        return math.tan(0.475 * math.pi)
    if df == 2:
        return 0.95 * math.sqrt(2 / (1 - 0.95**2))
    return (  # the expansion about the normal quantile, which is poor for fewer
        Z
        + (Z**3 + Z) / (4 * df)
        + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * df**2)
        + (3 * Z**7 + 19 * Z**5 + 17 * Z**3 - 15 * Z) / (384 * df**3)
        + (79 * Z**9 + 776 * Z**7 + 1482 * Z**5 - 1920 * Z**3 - 945 * Z) / (92160 * df**4)
    )


def profile(outcomes: Outcomes) -> Profile:
    """The profile likelihood of the threshold given one curve's trials (at least one)."""
    places, column = np.unique(outcomes.position, return_inverse=True)
    tables = _tables(tuple(places.tolist()))
    total = np.zeros((len(TAUS), len(WIDTHS) * len(LAPSES), len(tables.grid)))  # [tau, C, M]
    seeds = np.unique(outcomes.seed)
    for seed in seeds:
        of_seed = outcomes.seed == seed
        solved = np.bincount(column[of_seed & outcomes.solved], minlength=len(places))
        unsolved = np.bincount(column[of_seed & ~outcomes.solved], minlength=len(places))
        total += _integrated(tables.log_p @ solved + tables.log_q @ unsolved, tables.kernels)
    return _profiled(total, tables.grid, len(seeds))


@dataclass(frozen=True)
class _Tables:
    grid: Array  # [M], of m, and of t
    log_p: Array  # [C, M, X]: log probability of solving, C = (w, lapse)
    log_q: Array  # [C, M, X]: of not solving
    kernels: Array  # [tau > 0, M, M]: column j averages over seeds around grid point j


@lru_cache(maxsize=2)
def _tables(places: tuple[float, ...]) -> _Tables:
    """What depends on the tested positions only: the curves of a grid share it."""
    grid = np.arange(places[0] - MARGIN, places[-1] + MARGIN + STEP, STEP)
    z = (np.array(places) - grid[:, None]) / WIDTHS[:, None, None]  # [W, M, X]
    rise = 1 / (1 + np.exp(-np.clip(z, -500, 500)))
    p = GUESS + (1 - GUESS - LAPSES[:, None, None]) * rise[:, None]  # [W, L, M, X]
    p = np.minimum(p, 1 - GUESS).reshape(-1, len(grid), len(places))
    distance = grid[:, None] - grid
    kernels = np.stack([np.exp(-((distance / tau) ** 2) / 2) for tau in TAUS if tau])
    return _Tables(grid, np.log(p), np.log1p(-p), kernels / kernels.sum(1, keepdims=True))


def _integrated(loglik: Array, kernels: Array) -> Array:
    """One seed's log-likelihood [C, M] with its effect integrated out, for every tau: [tau, C, M]."""
    top = loglik.max()
    averages = np.exp(loglik - top) @ kernels  # the effect shifts m, so the integral is a convolution
    return np.concatenate([loglik[None], np.log(np.maximum(averages, 1e-300)) + top])


def _profiled(total: Array, grid: Array, n_seeds: int) -> Profile:
    """From m to t = m + offset(w, lapse, tau), and the best over those three."""
    total = total.reshape(len(TAUS), len(WIDTHS), len(LAPSES), len(grid))
    reaches = LAPSES < 0.5
    # E_z sigmoid((d - tau z) / w) is close to sigmoid(d / spread): MacKay's approximation.
    spread = np.sqrt(WIDTHS**2 + math.pi / 8 * np.square(TAUS)[:, None])  # [tau, W]
    middle = (0.5 - GUESS) / (1 - GUESS - LAPSES[reaches])
    offset = spread[..., None] * np.log(middle / (1 - middle))  # [tau, W, L]
    at_t = shifted(total[:, :, reaches].reshape(-1, len(grid)), offset.ravel() / STEP)
    best = int(at_t.max(1).argmax())
    at_tau, at_width, at_lapse = np.unravel_index(best, offset.shape)
    width, lapse = float(WIDTHS[at_width]), float(LAPSES[reaches][at_lapse])
    tau = float(TAUS[at_tau])
    curve = Logistic(-float(offset[at_tau, at_width, at_lapse]), float(spread[at_tau, at_width]), lapse)
    rest = total[:, :, ~reaches]
    at_tau, at_width, at_lapse, at_m = np.unravel_index(int(rest.argmax()), rest.shape)
    without = Logistic(float(grid[at_m]), float(spread[at_tau, at_width]), float(LAPSES[~reaches][at_lapse]))
    return Profile(grid, at_t.max(0), float(rest.max()), width, lapse, tau, curve, without, n_seeds)


def shifted(rows: Array, by: Array) -> Array:
    """Every row moved to the right by its number of grid steps, interpolated; its ends are repeated."""
    source = np.clip(np.arange(rows.shape[1]) - by[:, None], 0, rows.shape[1] - 1)
    left = np.minimum(source.astype(np.int64), rows.shape[1] - 2)
    low, high = np.take_along_axis(rows, left, 1), np.take_along_axis(rows, left + 1, 1)
    return np.asarray(low + (source - left) * (high - low))
