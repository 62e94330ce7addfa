"""The tuning of one curve: what it asks, and what it takes for best."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import optuna
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.search.study import Study, standing
from orchestrator.search.suggest import Values, rounds, suggest
from orchestrator.trial import Ending
from orchestrator.tuned_spec import TunedField, Tuning

LR = TunedField(
    "lr", ("train", "lr"), {"log10": [-4, -2]}, "log10", (1e-4, 1e-2), pl.Float64(), is_whole=False, key="lr"
)
DECAY = TunedField("decay", ("decay",), [0, 0.1, 1], None, (0, 0.1, 1), pl.Float64(), is_whole=False, key="d")
WIDTH = TunedField("width", ("width",), {"log2": [1, 5]}, "log2", (2, 32), pl.Int64(), is_whole=True, key="w")
Asked = list[tuple[int, Values]]


def study(trials: int = 8, *fields: TunedField) -> Study:
    return Study(Tuning(fields or (LR, DECAY), trials, None, is_free=False), "key", is_less_better=False)


def ending(number: int, values: Values) -> Ending:
    """Small rates are too slow; with large ones the score falls."""
    away = abs(math.log10(values["lr"]) + 3.2)
    if away < 0.5:
        return Ending("solved", round(1000 * away) + number, 1.0)
    return (
        Ending("failed") if values.get("decay") == 1 and number % 3 == 0 else Ending("unsolved", None, -away)
    )


def run(tuning: Study) -> Asked:
    """Everything it asks for, in order."""
    asked: Asked = []
    while due := tuning.due():
        for number, values in due:
            tell(tuning, number, values)
        asked += due
    return asked


def tell(tuning: Study, number: int, values: Values) -> None:
    tuning.know(f"id {number}", number, values)
    tuning.end(f"id {number}", ending(number, values))


def best(tuning: Study) -> Values:
    assert tuning.best is not None
    return tuning.best.values


@pytest.mark.parametrize(
    ("n_fields", "trials", "expected"),
    [
        (1, 4, [range(4)]),
        (1, 8, [range(6), range(6, 8)]),
        (2, 16, [range(6), range(6, 8), range(8, 10), range(10, 13), range(13, 16)]),
        (4, 12, [range(10), range(10, 12)]),
    ],
)
def test_rounds(n_fields: int, trials: int, expected: list[range]) -> None:
    """The first spreads over everything, later ones are small."""
    assert expected == list(rounds(n_fields, trials))


def test_the_first_round_is_an_even_spread() -> None:
    """Of a range every sixth is tried once, in no order; of a list every value."""
    asked = [values for _, values in study().due()]
    assert [0.000147, 0.000316, 0.000681, 0.00147, 0.00316, 0.00681] == sorted(
        float(f"{v['lr']:.3g}") for v in asked
    )
    assert [0, 0, 0.1, 0.1, 1, 1] == sorted(v["decay"] for v in asked)
    assert sorted(v["lr"] for v in asked) != [v["lr"] for v in asked]


def test_values_are_inside_and_short() -> None:
    """Whole numbers where only those make sense, others rounded to what tells a thousand apart."""
    asked = [values for _, values in run(study(32, LR, WIDTH))]
    assert 32 == len(asked)
    assert all(LR.holds(v["lr"]) and len(f"{v['lr']:g}".lstrip("0.")) <= 5 for v in asked)
    assert all(type(v["width"]) is int and WIDTH.holds(v["width"]) for v in asked)


@given(unit=st.floats(0, 1))
def test_places_and_values(unit: float) -> None:
    """A value is where its place was, but for rounding; whatever is suggested may be stored and told again."""
    for field in (LR, DECAY, WIDTH):
        value = field.value(unit)
        assert field.holds(value)
        assert value == field.value(field.unit(value))
    assert math.isclose(unit, LR.unit(LR.value(unit)), abs_tol=2e-3)


@settings(max_examples=30, deadline=None)
@given(order=st.permutations(range(8)), cut=st.integers(0, 8))
def test_restarts_and_orders_change_nothing(order: Sequence[int], cut: int) -> None:
    """Told what is stored at some moment, in any order and twice, it asks for the rest, with the same settings."""
    asked = run(study())
    again = study()
    for number, values in [asked[i] for i in order if i < cut] * 2:
        tell(again, number, values)
    assert asked[cut:] == run(again)
    assert best(again) == best_of(asked)


def best_of(asked: Asked) -> Values:
    whole = study()
    for number, values in asked:
        tell(whole, number, values)
    return best(whole)


def test_a_round_waits_for_the_one_before() -> None:
    """What is under way is not asked for again, and nothing else is until it has ended."""
    tuning = study()
    first = tuning.due()
    for number, values in first:
        tuning.know(f"id {number}", number, values)
    assert [] == tuning.due()
    for number, values in first[:-1]:
        tuning.end(f"id {number}", ending(number, values))
    assert [] == tuning.due()
    tell(tuning, *first[-1])
    assert [6, 7] == [number for number, _ in tuning.due()]


def test_more_trials_go_on_from_those_before() -> None:
    """Whatever their number is raised to, also in the middle of a round."""
    long = run(study(24))
    for trials in (3, 8, 9, 16):
        assert long[:trials] == run(study(trials))


def test_other_curves_are_tuned_otherwise() -> None:
    """Random numbers come from the curve's key, in every round."""
    other = Study(Tuning((LR, DECAY), 8, None, is_free=False), "other", is_less_better=False)
    mine, theirs = run(study()), run(other)
    assert mine[:6] != theirs[:6]
    assert mine[6:] != theirs[6:]


def test_standings() -> None:
    """Solved before unsolved before diverged and failed; few steps before many; a better score before a worse."""
    order = [
        Ending("solved", 50, 0.9),
        Ending("unsolved", 80, 0.1),
        Ending("diverged", 90, None),
        Ending("solved", None, 1.0),
        Ending("unsolved", None, 0.5),
        Ending("stopped", None, 0.4),
        Ending("unsolved", None, None),
        Ending("diverged", None, 0.99),
    ]
    more = [standing(e, is_less_better=False) for e in order]
    assert sorted(more) == more
    assert len(set(more)) == len(more)
    assert standing(Ending("failed"), is_less_better=False) == more[-1]
    assert standing(Ending("failed", 5), is_less_better=False) == more[-1]
    assert standing(Ending("unsolved", None, math.nan), is_less_better=False) == more[-2]
    less = [standing(Ending("unsolved", None, loss), is_less_better=True) for loss in (0.1, 0.2, math.inf)]
    assert sorted(less) == less


def test_the_best_is_frozen_when_all_have_ended() -> None:
    """Of equal ones the first."""
    tuning = study(4)
    due = tuning.due()
    for number, values in due:
        assert tuning.best is None
        tuning.know(f"id {number}", number, values)
        tuning.end(f"id {number}", Ending("solved", 100 if number else 200, 1.0))
        tuning.end(f"id {number}", Ending("solved", 1, 1.0))
    assert due[1][1] == best(tuning)


def test_a_second_trial_of_a_number_counts_as_well() -> None:
    """It may be there because the sweep was another one; the order in which they turn up does not matter."""
    extra = {"lr": 0.00063, "decay": 0.1}
    found = []
    for parts in itertools.permutations([False, True]):
        tuning = study()
        for is_extra in parts:
            if is_extra:
                tell_as(tuning, "extra", 7, extra)
            else:
                run(tuning)
        found.append(best(tuning))
    assert [extra, extra] == found


def tell_as(tuning: Study, trial_id: str, number: int, values: Values) -> None:
    tuning.know(trial_id, number, values)
    tuning.end(trial_id, Ending("solved", 1, 1.0))


def test_it_learns() -> None:
    """Later rounds are nearer to where the best were than the first."""
    asked = run(study(24, LR))
    away = [abs(math.log10(values["lr"]) + 3.2) for _, values in asked]
    assert sum(away[12:]) / 12 < 0.5 * sum(away[:6]) / 6
    assert 0.1 > abs(math.log10(best_of_lr(asked)) + 3.2)


def best_of_lr(asked: Asked) -> float:
    ended = [(standing(ending(i, values), is_less_better=False), i, values["lr"]) for i, values in asked]
    return float(min(ended)[2])


def test_optuna_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    """Its own messages are off while it is asked, and as they were afterwards."""
    before = optuna.logging.get_verbosity()
    suggest((LR,), "key", range(6, 8), [({"lr": 0.001}, 0), ({"lr": 0.002}, 1)])
    assert ("", "") == capfd.readouterr()
    assert before == optuna.logging.get_verbosity()
