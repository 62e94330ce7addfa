"""When a trial counts as solved."""

from __future__ import annotations

import math

from trainers.scoring import Record

RULE = {"metric": "accuracy", "at_least": 0.9, "consecutive": 2}


def record(scores: list[float], rule: dict[str, object] | None = None) -> Record:
    result = Record()
    for i, score in enumerate(scores):
        result.add(RULE if rule is None else rule, 10 * (i + 1), None, {"accuracy": score})
    return result


def test_solved_needs_two_evaluations_in_a_row() -> None:
    """One hit is not enough, and hits with a miss between them are not either."""
    assert record([0.95, 0.5, 0.95]).solved_at_step is None
    assert record([0.5, 0.9, 0.95, 0.1]).solved_at_step == 30


def test_score_is_the_last_and_best_score_the_best() -> None:
    """`score` is the last value, `best_score` and `best_step` the first best one."""
    expected = {"score": 0.2, "best_score": 0.8, "best_step": 20, "solved_at_step": None}
    assert expected == record([0.1, 0.8, 0.8, 0.2]).values()


def test_at_most_turns_the_rule_around() -> None:
    """With `at_most` small is good."""
    rule = {"metric": "accuracy", "at_most": 0.1, "consecutive": 1}
    result = record([0.5, 0.1, 0.3], rule)
    assert (result.solved_at_step, result.best_score, result.best_step) == (20, 0.1, 20)


def test_missing_values_are_none_and_no_hit() -> None:
    """NaN is stored as None, and interrupts a series of hits."""
    result = record([0.95, math.nan, 0.95])
    assert [point["accuracy"] for point in result.curve] == [0.95, None, 0.95]
    assert result.solved_at_step is None
    assert result.score == 0.95


def test_without_a_rule_nothing_is_scored() -> None:
    """A sweep may want the curves only."""
    result = Record()
    result.add(None, 1, 5, {"accuracy": 1.0})
    assert result.values() == dict.fromkeys(("score", "best_score", "best_step", "solved_at_step"))
    assert result.curve == [{"step": 1, "examples_seen": 5, "accuracy": 1.0}]
