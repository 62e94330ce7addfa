"""How thresholds grow with another axis: two laws and a constant, compared by the trials of all curves at once.

On the searched axis' scale (octaves, or units of a linear axis) the threshold of a curve at k is

    exponential   a + b * k          on a linear axis: `linear`
    power         a + b * log2(k)    on a linear axis: `logarithmic`
    constant      a

plus a scatter N(0, sigma) of the curve's own, since no law holds exactly. The likelihood of (a, b, sigma) is
the product over curves of the trials' likelihood, the scatter integrated out; thresholds are never estimated
on the way, and a censored curve counts with what its trials say. Everything is sums on grids.

Priors. A law is fixed by its thresholds at two values of k, the anchors: the same prior for both laws there
(flat in the first, a Cauchy in the difference) makes their Bayes factor depend only on how they bend, and
puts no price on units of k. Sigma has a half-t prior of three degrees of freedom: few curves say little of it,
and both an estimate of zero and a flat prior are wrong then (Gelman 2006, Bayesian Analysis 1:515). A half-normal
prior of the same scale does not believe a scatter of twice that even where six curves show it.

Laws are compared by Bayes factors, because a false law gets CLEAR or more in at most one of CLEAR sweeps that
the true law's prior holds, whatever the number of trials and however a search chose them (Markov's and Ville's
inequalities; Royall 2000, JASA 95:760). An AIC weight, here a ratio of likelihoods, has no such bound at four
points. CLEAR = 20 begins what Kass and Raftery (1995, JASA 90:773) call strong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from orchestrator.axis import Array
from orchestrator.curve_likelihood import kernel, log_mean

CLEAR = 20.0
"""Bayes factor from which one law is named."""
CHANGE = 4.0
"""Scale of the Cauchy prior of the difference between the thresholds at the anchors, in octaves or units."""
SCATTER = 0.3
"""Scale of the half-t prior of sigma."""
SIGMAS = np.array([0.0, 0.05, 0.1, 0.2, 0.35, 0.6, 1.0, 1.6])
STEP = 1 / 12
"""Of the grid of thresholds."""


@dataclass(frozen=True)
class Points:
    """The curves of a group: their values on the other axis and the likelihoods of their thresholds."""

    k: Array  # [N], > 0
    loglik: Array  # [N, T]
    grid: Array  # [T], uniform, steps of STEP
    anchors: tuple[float, float]
    """Two values of k, the smaller one first, between which thresholds are known best."""


@dataclass(frozen=True)
class Law:
    """A fitted law; numbers are posterior means, `low` and `high` the central 95 % of the slope."""

    name: str
    intercept: float
    slope: float | None
    low: float | None
    high: float | None
    scatter: float
    loglik: float
    """Of the best parameters."""
    evidence: float
    """Logarithm of the likelihood's mean over the prior: differences are log Bayes factors."""

    def times(self, factor: float) -> Law:
        """The same in smaller units."""
        slope, low, high = (None if x is None else x * factor for x in (self.slope, self.low, self.high))
        return replace(
            self,
            intercept=self.intercept * factor,
            slope=slope,
            low=low,
            high=high,
            scatter=self.scatter * factor,
        )

    def at(self, k: Array) -> Array:
        """Thresholds on the axis' scale."""
        return self.intercept + (self.slope or 0.0) * bent(self.name, k)


def bent(law: str, k: Array) -> Array:
    """What a law is linear in."""
    return np.log2(k) if law in ("power", "logarithmic") else k


def fit(names: Sequence[str], points: Points) -> list[Law]:
    """Every law of `names`: two that grow, and the last one constant."""
    scattered = _scattered(points)
    *growing, constant = names
    return [*(_growing(name, points, scattered) for name in growing), _constant(constant, points, scattered)]


def _scattered(points: Points) -> Array:
    """Likelihoods of where the law is, `[sigma, N, T]`."""
    averages = [log_mean(points.loglik, kernel(points.grid, sigma)) for sigma in SIGMAS if sigma]
    return np.stack([points.loglik, *averages])


def _growing(name: str, points: Points, scattered: Array) -> Law:
    x, (first, last) = bent(name, points.k), bent(name, np.array(points.anchors))
    index = np.arange(len(points.grid))
    loglik = np.zeros((len(SIGMAS), len(index), len(index)))  # [sigma, at the first anchor, at the last]
    for curve, share in enumerate((x - first) / (last - first)):
        loglik += _read(scattered[:, curve], index[:, None] * (1 - share) + index * share)
    change = (index - index[:, None]) * STEP
    prior = np.log(STEP / (math.pi * CHANGE * (1 + (change / CHANGE) ** 2))) - math.log(len(index))
    evidence, weight = _posterior(loglik + prior)
    start, change_mean = float(weight.sum((0, 2)) @ points.grid), float((weight.sum(0) * change).sum())
    slope = change_mean / (last - first)
    low, high = _central(weight.sum(0)) / (last - first)
    return Law(
        name,
        intercept=start - slope * float(first),
        slope=slope,
        low=float(low),
        high=float(high),
        scatter=float(weight.sum((1, 2)) @ SIGMAS),
        loglik=float(loglik.max()),
        evidence=evidence,
    )


def _constant(name: str, points: Points, scattered: Array) -> Law:
    loglik = scattered.sum(1)  # [sigma, T]
    evidence, weight = _posterior(loglik - math.log(len(points.grid)))
    at, scatter = float(weight.sum(0) @ points.grid), float(weight.sum(1) @ SIGMAS)
    return Law(name, at, None, None, None, scatter, float(loglik.max()), evidence)


def _read(rows: Array, at: Array) -> Array:
    """Rows `[sigma, T]` at places between their points, `[sigma, ...]`; beyond their ends they are level."""
    at = np.clip(at, 0, rows.shape[1] - 1)
    left = np.minimum(at.astype(np.int64), rows.shape[1] - 2)
    below, above = rows[:, left], rows[:, left + 1]
    return np.asarray(below + (at - left) * (above - below))


def _posterior(logs: Array) -> tuple[float, Array]:
    """Log of the evidence, and the posterior, from likelihood times prior without sigma's, `[sigma, ...]`."""
    logs = logs + np.log(_sigma_prior()).reshape(-1, *[1] * (logs.ndim - 1))
    top = logs.max()
    weight = np.exp(logs - top)
    total = weight.sum()
    return float(top + math.log(total)), np.asarray(weight / total)


def _sigma_prior() -> Array:
    """Of the interval about each of SIGMAS."""
    edges = np.array([0.0, *(SIGMAS[1:] + SIGMAS[:-1]) / 2, math.inf])
    z = edges / SCATTER / math.sqrt(3)
    part = np.divide(z, 1 + z**2, out=np.zeros_like(z), where=np.isfinite(z))
    return np.diff(2 / math.pi * (np.arctan(z) + part))  # of Student's distribution


def _central(weight: Array) -> Array:
    """The central 95 % of the difference between the anchors, from `[at the first, at the last]`."""
    n = len(weight)
    index = np.arange(n)
    chance = np.bincount((index - index[:, None] + n - 1).ravel(), weights=weight.ravel())
    edges = (np.arange(2 * n) - n + 0.5) * STEP
    return np.asarray(np.interp([0.025, 0.975], np.concatenate([[0], np.cumsum(chance)]), edges))
