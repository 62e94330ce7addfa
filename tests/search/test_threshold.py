"""Laws of the threshold search: pure, and done for a reason."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.search.placement import audit, is_audit, is_checked
from orchestrator.search.threshold import CurveSpace, Policy, Rules, Tried, Verdict

OCTAVES = np.arange(6.0, 12.01, 0.25)
Answers = Callable[[int, float], bool]
"""Whether a curve's trial at a position solves."""


def rises_at(*thresholds: float) -> Answers:
    return lambda curve, position: position >= thresholds[curve]


def spaces(n: int = 1, **options: object) -> list[CurveSpace]:
    return [CurveSpace(OCTAVES, place=(i / max(1, n - 1),), **options) for i in range(n)]  # type: ignore[arg-type]


def searched(
    answers: Answers, curves: list[CurveSpace], rules: Rules | None = None, batch: int = 1
) -> tuple[list[list[Tried]], list[Verdict]]:
    """Every curve's trials in order, and the verdicts, once nothing more is asked."""
    policy = Policy(curves, rules or Rules())
    told: list[list[Tried]] = [[] for _ in curves]
    nothing: list[list[int]] = [[] for _ in curves]
    while asked := policy.ask(told, nothing, batch):
        assert len(asked) <= batch
        for curve, candidate in asked:
            solved = answers(curve, float(curves[curve].candidates[candidate]))
            told[curve].append(Tried(candidate, len(told[curve]), solved))
    return told, policy.verdicts(told)


def test_finds_sharp_thresholds() -> None:
    """Each curve's interval holds its threshold and is as narrow as was asked for."""
    _, verdicts = searched(rises_at(8.1, 9.4, 10.3), spaces(3), batch=6)
    assert ["precise"] * 3 == [verdict.reason for verdict in verdicts]
    for verdict, at in zip(verdicts, (8.1, 9.4, 10.3), strict=True):
        assert verdict.low is not None
        assert verdict.high is not None
        assert verdict.low < at < verdict.high
        assert verdict.high - verdict.low <= 0.5


@pytest.mark.parametrize(("direction", "solves"), [(1, "above"), (-1, "below"), (1, "below"), (-1, "above")])
def test_a_curve_without_threshold_is_left_early(direction: int, solves: str) -> None:
    """Where nothing or everything solves, a few trials say on which side the threshold lies."""
    nothing_solves = (direction > 0) == (solves == "above")
    (told,), (verdict,) = searched(lambda *_: not nothing_solves, spaces(direction=direction))
    assert (solves, solves, None) == (verdict.reason, verdict.censored, verdict.threshold)
    assert len(told) < 20
    assert (verdict.low, verdict.high)[solves == "above"] is None


def test_a_direction_that_is_not_known_is_found() -> None:
    """With `direction` None a falling curve gets the threshold of a falling one."""
    _, (verdict,) = searched(lambda _, position: position < 8.3, spaces(direction=None))
    assert "precise" == verdict.reason
    assert verdict.rising < 0.025
    assert verdict.threshold == pytest.approx(8.3, abs=0.2)


def test_nothing_solves_and_no_direction() -> None:
    """Neither end solves: the threshold is outside, on which side is open."""
    (told,), (verdict,) = searched(lambda *_: False, spaces(direction=None))
    assert "outside" == verdict.reason
    assert len(told) < 30


def test_a_plateau_below_half_is_a_lapse() -> None:
    """A curve of which two trials in five solve however far one goes never has a threshold."""
    places = [(c, i) for c in range(len(OCTAVES)) for i in range(20)]
    told = [Tried(c, 20 * c + i, c >= 8 and (c + i) % 5 < 2) for c, i in places]
    (verdict,) = Policy(spaces(), Rules(max_trials=1000)).verdicts([told])
    assert ("lapse", "above") == (verdict.reason, verdict.censored)
    assert verdict.never > 0.9


def test_curves_stop_at_max_trials() -> None:
    """A precision that cannot be had costs `max_trials`, pending ones included."""
    (told,), (verdict,) = searched(rises_at(9.1), spaces(), Rules(precision=0.001, max_trials=17), batch=5)
    assert ("max_trials", 17) == (verdict.reason, len(told))


def test_sweeps_stop_at_their_trials() -> None:
    """`trials` bounds all curves together; those not done say so."""
    told, verdicts = searched(rises_at(8.1, 9.4), spaces(2), Rules(trials=7), batch=4)
    assert 7 == sum(map(len, told))
    assert ["trials", "trials"] == [verdict.reason for verdict in verdicts]


def test_a_curve_that_turns_around_is_proven_to() -> None:
    """It solves in the middle only; follow-ups with fresh seeds prove it, and the search says so."""
    (told,), (verdict,) = searched(lambda _, x: 7.5 <= x < 10, spaces())
    assert "non-monotone" == verdict.reason
    assert sum(trial.solved for trial in told) >= 4
    assert len(told) < 40


def test_one_stray_outcome_is_not_proof() -> None:
    """One failed trial far above the threshold is followed up, and overruled by those that solve there."""
    strays = iter([False])
    _, (verdict,) = searched(lambda _, x: x >= 8.1 and (x < 12 or next(strays, True)), spaces())
    assert "precise" == verdict.reason
    assert verdict.threshold == pytest.approx(8.1, abs=0.3)


def test_costly_trials_are_asked_for_less() -> None:
    """Where the upper end costs a hundred times as much, the search begins lower."""
    cost = np.geomspace(1, 100, len(OCTAVES))
    ((_, cheap),) = Policy(spaces(cost=cost), Rules()).ask([[]], [[]], 1)
    ((_, same),) = Policy(spaces(), Rules()).ask([[]], [[]], 1)
    assert cheap < same


def test_a_cost_per_trial_moves_the_search_between_curves() -> None:
    """Of two curves of which as much is known, the cheaper one is asked first."""
    dear, cheap = (CurveSpace(OCTAVES, cost=np.full(len(OCTAVES), price)) for price in (3.0, 1.0))
    assert [1] == [curve for curve, _ in Policy([dear, cheap], Rules()).ask([[], []], [[], []], 1)]


def test_neighbours_say_where_to_look_first() -> None:
    """Between two known curves, a curve's first trial is between their thresholds."""
    policy = Policy(spaces(3), Rules())
    known = [Tried(c, c, OCTAVES[c] >= 10.5) for c in range(len(OCTAVES))]
    asked = policy.ask([known, [], known], [[], [], []], 3)
    first = next(candidate for curve, candidate in asked if curve == 1)
    assert OCTAVES[first] == pytest.approx(10.5, abs=0.5)


def test_neighbours_say_nothing_of_the_threshold() -> None:
    """A verdict rests on its own curve's trials."""
    known = [Tried(c, c, OCTAVES[c] >= 10.5) for c in range(len(OCTAVES))]
    own = [Tried(3, 0, False), Tried(20, 1, True)]
    beside = Policy(spaces(3), Rules()).verdicts([known, own, known])[1]
    assert Policy(spaces(3), Rules()).verdicts([[], own, []])[1] == beside


def test_one_trial_in_eight_is_an_audit() -> None:
    """Audits are that share of any number of trials."""
    assert 100 == sum(is_audit(number, 0.125) for number in range(800))


def test_audits_look_where_least_was_tried() -> None:
    """The first at the end where all should solve, the others away from all trials and evenly."""
    tried = [10] * 20
    for _ in range(6):
        tried.append(audit(OCTAVES, tried, 0.3, at_end=24))
    assert 24 == tried[20]
    assert all(abs(OCTAVES[10] - OCTAVES[candidate]) > 0.5 for candidate in tried[20:])
    assert is_checked(OCTAVES, np.array(tried), 1)
    assert not is_checked(OCTAVES, np.array(tried[:20]), 1)


@pytest.mark.parametrize("check", [1, 4])
def test_a_curve_is_done_when_all_of_the_axis_was_looked_at(check: int) -> None:
    """No two octaves of a precise curve have fewer trials than `check`."""
    (told,), (verdict,) = searched(rises_at(8.1), spaces(), Rules(check=check), batch=7)
    assert "precise" == verdict.reason
    places = OCTAVES[[trial.candidate for trial in told]]
    assert all(check <= np.sum((places > at) & (places < at + 2.26)) for at in np.arange(5.76, 10, 0.05))


def test_a_curve_that_recovers_is_proven_to_turn() -> None:
    """It falls for two octaves in the middle of where it solves."""
    _, (verdict,) = searched(lambda _, x: x >= 7 and not 9 <= x < 11, spaces())
    assert "non-monotone" == verdict.reason


def test_integer_axes_repeat_candidates() -> None:
    """Where a threshold lies between two of few candidates, both are asked again and again."""
    curve = CurveSpace(np.arange(1.0, 9.0) / 2)
    chance = np.random.default_rng(1)
    (told,), (verdict,) = searched(
        lambda _, u: bool(chance.random() < 1 / (1 + np.exp((2.2 - u) / 0.3))), [curve]
    )
    near = [trial for trial in told if 1.5 <= curve.candidates[trial.candidate] <= 3.0]
    assert len(near) > len(told) / 2
    assert verdict.threshold == pytest.approx(2.2, abs=0.3)


STATES = st.lists(
    st.lists(st.tuples(st.integers(0, len(OCTAVES) - 1), st.booleans()), max_size=12), min_size=3, max_size=3
)


def as_told(state: list[list[tuple[int, bool]]]) -> list[list[Tried]]:
    return [[Tried(c, i, solved) for i, (c, solved) in enumerate(trials)] for trials in state]


@settings(deadline=None, max_examples=25)
@given(STATES, st.integers(1, 9), st.randoms())
def test_order_and_repetition_of_telling_do_not_matter(
    state: list[list[tuple[int, bool]]], n: int, chance: random.Random
) -> None:
    """Told at once, one by one, shuffled or twice: the same questions and verdicts."""
    told, pending = as_told(state), [[3, 3], [], [20]]
    fresh, slow = Policy(spaces(3), Rules()), Policy(spaces(3), Rules())
    growing: list[list[Tried]] = [[], [], []]
    news = [(i, trial) for i, trials in enumerate(told) for trial in trials]
    chance.shuffle(news)
    for i, trial in news:
        growing[i] += [trial, trial]
        slow.verdicts(growing)
    assert fresh.ask(told, pending, n) == slow.ask(growing, pending, n)
    assert fresh.verdicts(told) == slow.verdicts(growing)


@settings(deadline=None, max_examples=10)
@given(STATES, STATES)
def test_trials_may_be_taken_back(
    before: list[list[tuple[int, bool]]], after: list[list[tuple[int, bool]]]
) -> None:
    """What a policy was told earlier leaves no trace."""
    policy = Policy(spaces(3), Rules())
    policy.verdicts(as_told(before))
    assert Policy(spaces(3), Rules()).verdicts(as_told(after)) == policy.verdicts(as_told(after))


def test_a_restart_in_the_middle_asks_the_same() -> None:
    """With a new policy for every question the search runs as with one for all."""
    curves, answers = spaces(2), rises_at(8.1, 9.4)
    told: list[list[Tried]] = [[], []]
    while asked := Policy(curves, Rules()).ask(told, [[], []], 3):
        for curve, candidate in asked:
            told[curve].append(Tried(candidate, len(told[curve]), answers(curve, float(OCTAVES[candidate]))))
    assert searched(answers, curves, batch=3)[0] == told


def test_stored_trials_with_shared_seeds_count() -> None:
    """A stored grid, each seed at every size, is used and says what its seeds have in common."""
    told = [Tried(c, seed, OCTAVES[c] >= 9 + 0.5 * (seed - 2)) for c in range(0, 25, 2) for seed in range(5)]
    (verdict,) = Policy(spaces(), Rules()).verdicts([told])
    assert verdict.threshold == pytest.approx(9.0, abs=0.3)
    assert verdict.tau is not None
    assert verdict.tau > 0.2
    assert verdict.high is not None
    assert verdict.low is not None
    assert verdict.high - verdict.low > 0.5


def test_shared_seeds_are_added_to_like_others() -> None:
    """After a stored grid, fresh trials told one by one leave the verdict of all told at once."""
    grid = [Tried(c, seed, OCTAVES[c] >= 9) for c in range(0, 25, 6) for seed in range(2)]
    fresh = [Tried(11, 100, False), Tried(13, 101, True), Tried(12, 102, True)]
    slow = Policy(spaces(), Rules())
    for n in range(len(fresh) + 1):
        last = slow.verdicts([[*grid, *fresh[:n]]])
    assert Policy(spaces(), Rules()).verdicts([[*fresh[::-1], *grid]]) == last


@settings(deadline=None, max_examples=15)
@given(STATES, st.integers(1, 60))
def test_it_is_done_when_nothing_is_asked(state: list[list[tuple[int, bool]]], trials: int) -> None:
    """With nothing pending, an empty answer means that every curve has a reason, and the reverse."""
    policy = Policy(spaces(3), Rules(max_trials=12, trials=trials))
    asked = policy.ask(as_told(state), [[], [], []], 5)
    done = all(verdict.reason is not None for verdict in policy.verdicts(as_told(state)))
    assert done == (asked == [])
