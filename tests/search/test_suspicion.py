"""When a curve is followed up, and where."""

from __future__ import annotations

import numpy as np

from orchestrator.search.suspicion import doubt

CANDIDATES = np.arange(24) / 2
RISING = [(2, False), (4, False), (6, True), (8, True), (10, True)]


def test_a_rising_curve_is_not_doubted() -> None:
    """Nor is one with a single trial, or none."""
    assert [None] * 3 == [doubt(trials, CANDIDATES, 1, 1) for trials in (RISING, RISING[:1], [])]


def test_a_failure_after_three_that_solved_is_followed_up_there() -> None:
    """At the audit first, since fewer were tried there; then, with its answers pending, where they solved."""
    found = doubt([*RISING, (20, False)], CANDIDATES, 1, 1)
    assert found is not None
    assert not found.is_proven
    assert 20 == found.candidate([])
    assert 8 == found.candidate([20, 20, 20])


def test_a_falling_curve_is_the_mirror_image() -> None:
    """With sign -1 a trial that fails before three that solved is the one in doubt."""
    mirrored = [(20 - candidate, solved) for candidate, solved in [*RISING, (20, False)]]
    found = doubt(mirrored, CANDIDATES, -1, 1)
    assert found is not None
    assert 0 == found.candidate([])


def test_proof_needs_more_in_the_company_of_many_curves() -> None:
    """Six of six that solve and six of six that fail after them are proof, but not among 10,000 curves."""
    turned = [*RISING[:2], *[(8, True)] * 6, *[(20, False)] * 6]
    alone, among_many = doubt(turned, CANDIDATES, 1, 1), doubt(turned, CANDIDATES, 1, 10_000)
    assert alone is not None
    assert among_many is not None
    assert (True, False) == (alone.is_proven, among_many.is_proven)


def test_failures_in_a_wide_transition_are_not_followed_up() -> None:
    """Where outcomes are mixed anyway, a fall of that size is likely by chance."""
    mixed = [(c, (c * 7) % 5 < 2 + c // 5) for c in range(15)]
    assert doubt(mixed, CANDIDATES, 1, 1) is None
