"""The likelihood of one curve's threshold, with the curve's other properties integrated out.

The model is that of `psychometric`; width, upper lapse and seed effect are each curve's own, with flat priors
on the grids below. (Tried: one shape for all curves of a group. Where width and lapse drift along k, the
95 % intervals of the exponent held it in 60 % of simulated sweeps; with shapes from a distribution that the
curves share, fitted by EM, in 90 %; with each curve's own in 95 %, at intervals 5 to 20 % wider.)
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from orchestrator.axis import Array
from orchestrator.psychometric import GUESS, Outcomes

WIDTHS = np.geomspace(0.05, 2.0, 8)
LAPSES = np.array([0.0, 0.03, 0.08, 0.15, 0.25, 0.35, 0.44])
"""Below 0.5: a law speaks of curves that have a threshold."""
TAUS = (0.0, 0.25, 0.5, 1.0)
"""Standard deviations of the seed effect."""


def threshold_loglik(outcomes: Outcomes, grid: Array) -> Array:
    """Log-likelihood `[T]` of every threshold of a uniform grid, in units of position."""
    places, column = np.unique(outcomes.position, return_inverse=True)
    counts, is_alone = _counts(outcomes, column, len(places))
    at = (tuple(places.tolist()), tuple(grid.tolist()))
    return _log_average(np.concatenate([_of_tau(at, counts, is_alone, tau) for tau in TAUS]))


def _counts(outcomes: Outcomes, column: NDArray[np.intp], n_places: int) -> tuple[Array, NDArray[np.bool_]]:
    """Per seed how often it solved at every place, then how often it did not, `[S, 2 X]`; and which seeds have
    one trial only.
    """
    _, seed, size = np.unique(outcomes.seed, return_inverse=True, return_counts=True)
    counts = np.zeros((len(size), 2 * n_places))
    np.add.at(counts, (seed, column + n_places * ~outcomes.solved), 1)
    return counts, size == 1


Place = tuple[tuple[float, ...], tuple[float, ...]]
"""Tested positions and the grid of thresholds."""


def _of_tau(at: Place, counts: Array, is_alone: NDArray[np.bool_], tau: float) -> Array:
    """Log-likelihood `[W * L, T]` with a seed effect of one size."""
    if not tau:
        return np.asarray(_logs(at, tau) @ counts.sum(0))
    # The effect of a seed with one trial widens the curve, and that is all.
    total = _logs(at, tau, is_averaged=True) @ counts[is_alone].sum(0)
    if not is_alone.all():
        logs, around = _logs(at, tau), kernel(np.array(at[1]), tau)
        for of_seed in counts[~is_alone]:  # it shifts the curve, so the integral is a convolution
            total += log_mean(logs @ of_seed, around)
    return np.asarray(total)


@lru_cache(maxsize=2 * len(TAUS))
def _logs(at: Place, tau: float, *, is_averaged: bool = False) -> Array:
    """Log probabilities of solving at each place, then of not solving, `[W * L, T, 2 X]`, of the seed whose
    effect is 0, or of the average over seeds; the threshold is the average's. Curves of a grid share them.
    """
    places, grid = np.array(at[0]), np.array(at[1])
    # E_z sigmoid((d - tau z) / w) is close to sigmoid(d / spread): MacKay's approximation.
    spread = np.sqrt(WIDTHS**2 + math.pi / 8 * tau**2)
    middle = (0.5 - GUESS) / (1 - GUESS - LAPSES)
    offset = spread[:, None] * np.log(middle / (1 - middle))  # [W, L], threshold minus the logistic's middle
    away = places - grid[:, None] + offset[:, :, None, None]  # [W, L, T, X]
    away /= (spread if is_averaged else WIDTHS)[:, None, None, None]
    rise = 1 / (1 + np.exp(-np.clip(away, -500, 500)))
    p = np.minimum(GUESS + (1 - GUESS - LAPSES[:, None, None]) * rise, 1 - GUESS)
    p = p.reshape(-1, len(grid), len(places))
    return np.concatenate([np.log(p), np.log1p(-p)], axis=-1)


def kernel(grid: Array, sigma: float) -> Array:
    """Weights `[T, T]`; column j averages over a normal distribution about point j of the grid."""
    weights = np.exp(-(((grid[:, None] - grid) / sigma) ** 2) / 2)
    return np.asarray(weights / weights.sum(0))


def log_mean(loglik: Array, weights: Array) -> Array:
    """Log of likelihoods `[..., T]` averaged with weights `[T, T]`."""
    top = loglik.max(-1, keepdims=True)
    return np.asarray(top + np.log(np.maximum(np.exp(loglik - top) @ weights, 1e-300)))


def _log_average(logs: Array) -> Array:
    """Log of the mean likelihood over the first axis."""
    top = logs.max()
    return np.asarray(top + np.log(np.maximum(np.exp(logs - top).mean(0), 1e-300)))
