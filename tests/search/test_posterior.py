"""Laws of the posterior of one curve's threshold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.posterior import (
    ALONE,
    LAPSES,
    SHARED,
    SPREADS,
    TAUS,
    Belief,
    Outcome,
    Posterior,
    Tables,
    either,
)
from orchestrator.psychometric import GUESS

TABLES = Tables(0.0, 4.0, 0.25)
TRIALS = st.lists(
    st.builds(Outcome, st.integers(0, 8).map(lambda i: i / 2), st.booleans(), st.integers(0, 1000)),
    max_size=12,
    unique_by=lambda trial: trial.seed,
)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-max(-500.0, min(500.0, x))))


def solving(u: float, m: float, spread: float, lapse: float, sign: int) -> float:
    return min(GUESS + (1 - GUESS - lapse) * sigmoid(sign * (u - m) / spread), 1 - GUESS)


def brute_force(trials: list[Outcome], sign: int) -> tuple[np.ndarray, float]:
    """Mass at every t of TABLES, and of never reaching 0.5: loops over every shape, for seeds tried once."""
    mass, never = np.zeros(len(TABLES.t)), 0.0
    for c, (spread, lapse) in enumerate(zip(ALONE.width, ALONE.lapse, strict=True)):
        middle = (0.5 - GUESS) / (1 - GUESS - lapse)
        lead = spread * math.log(middle / (1 - middle)) if lapse < 0.5 else 0.0
        for i, t in enumerate(TABLES.t):
            weight = math.exp(ALONE.log_prior[c])
            for trial in trials:
                p = solving(trial.position, t - sign * lead, spread, lapse, sign)
                weight *= p if trial.solved else 1 - p
            if lapse < 0.5:
                mass[i] += weight
            else:
                never += weight
    total = mass.sum() + never
    return mass / total, never / total


@pytest.mark.parametrize("sign", [1, -1])
def test_equals_the_sum_over_every_curve(sign: int) -> None:
    """Against loops over threshold, width and lapse, for rising and falling curves."""
    trials = [
        Outcome(u, solved, i)
        for i, (u, solved) in enumerate([(0.5, False), (1.5, True), (2.0, False), (3.5, True)])
    ]
    mass, never = brute_force(trials, sign)
    found = Posterior.of(TABLES, trials, 1 if sign > 0 else -1).belief()
    np.testing.assert_allclose(found.mass, mass, atol=1e-5)
    assert found.never == pytest.approx((0.0, never) if sign > 0 else (never, 0.0), abs=1e-5)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_probability_of_solving_is_the_mean_over_every_curve(sign: int) -> None:
    """Weighed by what the trials say of each, those without a threshold included."""
    trials = [Outcome(1.0, False, 0), Outcome(2.5, True, 1), Outcome(2.5, False, 2)]
    total = expected = 0.0
    for c, (spread, lapse) in enumerate(zip(ALONE.width, ALONE.lapse, strict=True)):
        middle = (0.5 - GUESS) / (1 - GUESS - lapse)
        lead = spread * math.log(middle / (1 - middle)) if lapse < 0.5 else 0.0
        for t in TABLES.t:
            weight = math.exp(ALONE.log_prior[c])
            for trial in trials:
                p = solving(trial.position, t - sign * lead, spread, lapse, sign)
                weight *= p if trial.solved else 1 - p
            total += weight
            expected += weight * solving(3.2, t - sign * lead, spread, lapse, sign)
    found = Posterior.of(TABLES, trials, sign).solving(np.array([3.2, 1.0]))  # type: ignore[arg-type]
    assert expected / total == pytest.approx(found[0], abs=1e-5)
    assert (2,) == found.shape


def test_one_trial_per_seed_is_the_seed_effect_averaged_over() -> None:
    """A seed tried once says on four axes what it says on three, with the spread as the width."""
    tables = Tables(0.0, 4.0, 1 / 24)
    alone = Posterior.of(tables, [Outcome(2.0, True, 1)]).belief()
    twice = Posterior.of(tables, [Outcome(2.0, True, 1), Outcome(-100.0, False, 1)]).belief()
    assert alone.quantile(0.5) == pytest.approx(twice.quantile(0.5), abs=0.1)
    assert alone.tau is None
    assert twice.tau is not None


def test_shared_seeds_equal_brute_force() -> None:
    """Two trials of one seed, its effect integrated out, at one shape: against a sum over the effect."""
    tables, at = Tables(0.0, 4.0, 1 / 12), (1.0, 3.0)
    posterior = Posterior.of(tables, [Outcome(at[0], False, 7), Outcome(at[1], True, 7)])
    w, lapse, tau = SPREADS[4], LAPSES[4], TAUS[2]
    shape = int(np.flatnonzero((SHARED.width == w) & (SHARED.lapse == lapse) & (SHARED.tau == tau))[0])
    middle = (0.5 - GUESS) / (1 - GUESS - lapse)
    lead = math.sqrt(w**2 + math.pi / 8 * tau**2) * math.log(middle / (1 - middle))
    z = np.linspace(-5, 5, 2001)
    density = np.exp(-(z**2) / 2) / np.exp(-(z**2) / 2).sum()
    for i in range(len(tables.t) // 3, 2 * len(tables.t) // 3, 7):
        m = tables.t[i] - lead
        joint = [
            (1 - solving(at[0], m + tau * x, w, lapse, 1)) * solving(at[1], m + tau * x, w, lapse, 1)
            for x in z
        ]
        assert posterior.loglik[shape, i] == pytest.approx(math.log(float(density @ joint)), abs=0.02)


@settings(deadline=None, max_examples=30)
@given(TRIALS, st.randoms())
def test_order_does_not_matter(trials: list[Outcome], random: object) -> None:
    """Outcomes added in any order, at once or one by one, give the same bits."""
    shuffled = list(trials)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one_by_one = Posterior(TABLES)
    for trial in shuffled:
        one_by_one.add(trial.position, trial.solved)
    np.testing.assert_array_equal(Posterior.of(TABLES, trials).belief().mass, one_by_one.belief().mass)


@settings(deadline=None, max_examples=20)
@given(TRIALS)
def test_mirrored_trials_give_the_mirrored_posterior(trials: list[Outcome]) -> None:
    """A falling curve is a rising one seen from the other end."""
    mirrored = [Outcome(4.0 - trial.position, trial.solved, trial.seed) for trial in trials]
    rising, falling = Posterior.of(TABLES, trials).belief(), Posterior.of(TABLES, mirrored, -1).belief()
    np.testing.assert_allclose(rising.mass, falling.mass[::-1], atol=1e-9)
    assert rising.never[1] == pytest.approx(falling.never[0])


def test_quantiles_invert_the_distribution() -> None:
    """P(t < quantile(q)) is q; an unlimited threshold is on the side on which more solve."""
    belief = Posterior.of(TABLES, [Outcome(1.0, False, 1), Outcome(3.0, True, 2)]).belief()
    for q in (0.05, 0.5, 0.9):
        assert belief.below(belief.quantile(q)) == pytest.approx(q)
    nothing = Posterior.of(TABLES, []).belief()
    assert (-math.inf, math.inf) == (nothing.quantile(0.0), nothing.quantile(1 - sum(nothing.never) / 2))


def test_either_direction_weighs_both() -> None:
    """Trials that solve at the low end only make a falling curve certain; none leaves both as likely."""
    trials = [Outcome(u, u < 2, i) for i, u in enumerate([0.0, 0.5, 1.0, 3.0, 3.5, 4.0])]
    up, down = (Posterior.of(TABLES, trials, sign).belief() for sign in (1, -1))  # type: ignore[arg-type]
    both = either(up, down)
    assert both.rising < 0.025
    assert both.quantile(0.5) == pytest.approx(down.quantile(0.5), abs=0.05)
    empty = either(*(Posterior.of(TABLES, [], sign).belief() for sign in (1, -1)))  # type: ignore[arg-type]
    assert empty.rising == pytest.approx(0.5)


def test_nothing_known_is_the_prior() -> None:
    """Without trials the threshold is anywhere on the grid, alike."""
    belief: Belief = Posterior.of(TABLES, []).belief()
    np.testing.assert_allclose(belief.mass, np.full(len(TABLES.t), belief.mass[0]))
    assert belief.mass.sum() + sum(belief.never) == pytest.approx(1.0)
