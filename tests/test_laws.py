"""Laws of growth on likelihoods that are known exactly."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.axis import Array
from orchestrator.curve_likelihood import TAUS, kernel, log_mean, threshold_loglik
from orchestrator.laws import CHANGE, SCATTER, STEP, Law, Points, bent, fit
from orchestrator.psychometric import Outcomes

NAMES = ("exponential", "power", "constant")
GRID = np.arange(0.0, 20.0, STEP)


def points(k: list[float], at: list[float], error: float = 0.2) -> Points:
    """Curves whose thresholds are measured with a normal error."""
    loglik = np.stack([-(((GRID - y) / error) ** 2) / 2 for y in at])
    return Points(np.array(k), loglik, GRID, (k[0], k[-1]))


def fitted(k: list[float], at: list[float], error: float = 0.2) -> dict[str, Law]:
    return dict(zip(NAMES, fit(NAMES, points(k, at, error)), strict=True))


@pytest.mark.parametrize("law", ["exponential", "power"])
def test_evidence_and_slope_are_those_of_a_sum_over_everything(law: str) -> None:
    """The same as writing out likelihood times prior of threshold, change and scatter, and adding up."""
    k, at, error = np.array([2.0, 3.0, 5.0, 8.0]), np.array([6.0, 7.7, 9.4, 12.6]), 0.3
    sigma = np.linspace(0.005, 1.6, 160)
    start, change = np.arange(4.0, 8.0, 0.05), np.arange(3.0, 11.0, 0.05)
    share = (bent(law, k) - bent(law, k[:1])) / np.diff(bent(law, k[[0, -1]]))
    away = at - (start[:, None, None, None] + change[:, None, None] * share)  # [start, change, sigma, curve]
    spread = np.hypot(error, sigma)[:, None]
    loglik = (-((away / spread) ** 2) / 2 - np.log(spread / error)).sum(-1)
    prior = (1 + (sigma / SCATTER) ** 2 / 3) ** -2 / (math.pi * CHANGE * (1 + (change / CHANGE) ** 2))[
        :, None
    ]
    cell = 0.05**2 * 0.01 * 4 / (math.sqrt(3) * math.pi) / SCATTER / (len(GRID) * STEP)
    weight = np.exp(loglik) * prior * cell
    found = fitted(k.tolist(), at.tolist(), error)[law]
    slopes = change / np.diff(bent(law, k[[0, -1]]))
    assert math.log(weight.sum()) == pytest.approx(found.evidence, abs=0.15)
    assert (weight.sum((0, 2)) @ slopes) / weight.sum() == pytest.approx(found.slope, abs=0.01)
    chance = np.cumsum(weight.sum((0, 2))) / weight.sum()
    ends = np.interp([0.025, 0.975], chance, slopes)
    assert list(ends) == pytest.approx([found.low, found.high], abs=0.04)


@settings(max_examples=10, deadline=None)
@given(st.floats(0.05, 50.0), st.floats(-2.0, 2.0))
def test_units_of_k_and_of_thresholds_change_no_comparison(factor: float, shift: float) -> None:
    """In other units of k slopes change with them, in others of the threshold intercepts; evidence never."""
    k, at = [2.0, 3.0, 4.0, 6.0], [6.0, 7.0, 8.5, 11.0]
    shift = round(shift / STEP) * STEP
    before, after = fitted(k, at), fitted([factor * x for x in k], [y + shift for y in at])
    for name, law in before.items():
        assert law.evidence == pytest.approx(after[name].evidence, abs=0.01)
    assert before["exponential"].slope == pytest.approx(after["exponential"].slope * factor, abs=0.01)
    assert before["power"].slope == pytest.approx(after["power"].slope, abs=0.01)
    assert before["exponential"].intercept + shift == pytest.approx(after["exponential"].intercept, abs=0.02)


@settings(max_examples=5, deadline=None)
@given(st.permutations(range(5)))
def test_order_of_curves_means_nothing(order: list[int]) -> None:
    """A group is a set of curves."""
    given_points = points([2, 3, 4, 5, 6], [6, 7, 8.5, 9, 11])
    shuffled = replace(given_points, k=given_points.k[order], loglik=given_points.loglik[order])
    for one, other in zip(fit(NAMES, given_points), fit(NAMES, shuffled), strict=True):
        assert one.evidence == pytest.approx(other.evidence)
        assert one.slope == pytest.approx(other.slope)


def test_curve_that_says_nothing_changes_nothing() -> None:
    """A flat likelihood is no evidence, wherever its k."""
    known = points([2, 3, 4, 5], [6, 8, 10, 12])
    more = replace(known, k=np.append(known.k, 9.0), loglik=np.vstack([known.loglik, np.zeros(len(GRID))]))
    for one, other in zip(fit(NAMES, known), fit(NAMES, more), strict=True):
        assert one.evidence == pytest.approx(other.evidence)


def test_bound_beyond_the_others_tells_laws_apart() -> None:
    """A last curve that is only known to be high speaks against the law that bends down."""
    known = points([2, 3, 4, 5], [6, 8, 10, 12])
    high = 40 * np.minimum(GRID - 15, 0)  # k = 7: at least 15; the power law says 14.4, the exponential 16
    more = replace(known, k=np.append(known.k, 7.0), loglik=np.vstack([known.loglik, high]))
    before, after = fit(NAMES, known), fit(NAMES, more)
    assert (before[0].evidence - before[1].evidence) + 1 < after[0].evidence - after[1].evidence


def test_points_on_a_line_give_that_line() -> None:
    """An exponential has a straight line's slope and intercept, and little scatter."""
    law = fitted([2, 3, 4, 5, 6, 7], [6.0, 7.5, 9.0, 10.5, 12.0, 13.5], 0.05)["exponential"]
    assert law.slope == pytest.approx(1.5, abs=0.01)
    assert law.intercept == pytest.approx(3.0, abs=0.05)
    assert law.scatter < 0.1
    assert list(law.at(np.array([2.0, 7.0]))) == pytest.approx([6.0, 13.5], abs=0.03)
    assert law.low is not None
    assert law.high is not None
    assert law.low < 1.5 < law.high


def some(rng: np.random.Generator, seed: Array) -> Outcomes:
    position = np.tile(np.arange(6, 12.1, 0.5), len(seed) // 13 + 1)[: len(seed)]
    return Outcomes(position, rng.random(len(seed)) < 1 / (1 + np.exp(-(position - 9) / 0.4)), seed)


def test_seed_with_one_trial_widens_the_curve_and_no_more() -> None:
    """The short cut for seeds of one trial is the integral over their effect, to a few percent."""
    position, solved = np.array([8.0]), np.array([True])
    alone = threshold_loglik(Outcomes(position, solved, np.zeros(1)), GRID)
    slow = [_integrated(position[0], GRID, tau) for tau in TAUS]
    assert np.exp(alone) == pytest.approx(np.mean(slow, axis=0), abs=0.02)


def _integrated(position: float, grid: Array, tau: float) -> Array:
    """Probability of solving, averaged over shapes and, by quadrature, over the effect of the seed."""
    from orchestrator.curve_likelihood import LAPSES, WIDTHS
    from orchestrator.psychometric import GUESS

    z, weight = np.polynomial.hermite_e.hermegauss(60)
    weight = weight / weight.sum()
    rates = []
    for width in WIDTHS:
        for lapse in LAPSES:
            middle = (0.5 - GUESS) / (1 - GUESS - lapse)
            offset = math.sqrt(width**2 + math.pi / 8 * tau**2) * math.log(middle / (1 - middle))
            away = (position - grid[:, None] + offset - tau * z) / width
            rise = 1 / (1 + np.exp(-np.clip(away, -500, 500)))
            rates.append(np.minimum(GUESS + (1 - GUESS - lapse) * rise, 1 - GUESS) @ weight)
    return np.mean(rates, axis=0)


def test_trials_in_any_order_of_any_seed_names_say_the_same() -> None:
    """A curve is a set of trials, and a seed's name is only a name."""
    rng = np.random.default_rng(4)
    outcomes = some(rng, np.repeat(np.arange(5.0), 13))
    order = rng.permutation(65)
    shuffled = Outcomes(outcomes.position[order], outcomes.solved[order], 7 - outcomes.seed[order])
    assert list(threshold_loglik(outcomes, GRID)) == pytest.approx(list(threshold_loglik(shuffled, GRID)))


def test_outcomes_shared_by_a_seed_say_less() -> None:
    """Five seeds of 13 trials each leave the threshold less certain than 65 seeds of one."""
    outcomes = some(np.random.default_rng(5), np.repeat(np.arange(5.0), 13))
    apart = replace(outcomes, seed=np.arange(65.0))
    spreads = []
    for given_outcomes in (outcomes, apart):
        weight = np.exp(threshold_loglik(given_outcomes, GRID))
        weight /= weight.sum()
        spreads.append(math.sqrt(weight @ (GRID - weight @ GRID) ** 2))
    assert spreads[1] < spreads[0]


def test_averages_keep_likelihoods_between_their_extremes() -> None:
    """An average over the scatter is one: its weights add up to 1, at the ends of the grid too."""
    assert list(kernel(GRID, 0.5).sum(0)) == pytest.approx([1.0] * len(GRID))
    loglik = -((GRID - 3) ** 2)
    averaged = log_mean(loglik, kernel(GRID, 0.5))
    assert loglik.min() <= averaged.min()
    assert averaged.max() <= loglik.max()
