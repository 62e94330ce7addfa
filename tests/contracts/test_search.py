"""What every search policy promises, run against every policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from orchestrator.search.base import Search
from orchestrator.search.grid import Grid
from orchestrator.trial import Trial

TRIALS = [Trial({"x": x}) for x in range(6)]
POLICIES: dict[str, Callable[[Sequence[Trial]], Search]] = {"grid": Grid}


def run(search: Search, pending: Sequence[str] = ()) -> list[str]:
    """Ask and tell until the policy is finished; the ids asked for, in order."""
    asked: list[str] = []
    while not search.is_finished:
        batch = [trial.trial_id for trial in search.ask(pending)]
        asked += batch
        search.tell(dict.fromkeys(batch, "solved"))
    return asked


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
class TestSearch:
    """Ask/tell, pure."""

    def test_asks_for_each_trial_once(self, policy: Callable[[Sequence[Trial]], Search]) -> None:
        """No trial is asked for twice, and it comes to an end."""
        asked = run(policy(TRIALS))
        assert len(asked) == len(set(asked)) > 0

    def test_telling_twice_equals_telling_once(self, policy: Callable[[Sequence[Trial]], Search]) -> None:
        """Repeated news, news in another order and news of strangers change nothing."""
        told = {trial.trial_id: "solved" for trial in TRIALS[:3]}
        once, often = policy(TRIALS), policy(TRIALS)
        once.tell(told)
        for _ in range(2):
            often.tell(dict(reversed(told.items())) | {"stranger": "failed"})
        assert run(once) == run(often)

    def test_a_restart_goes_on(self, policy: Callable[[Sequence[Trial]], Search]) -> None:
        """Told what is stored, a new one asks for the rest."""
        asked = run(policy(TRIALS))
        fresh = policy(TRIALS)
        fresh.tell(dict.fromkeys(asked[:2], "unsolved"))
        assert run(fresh) == asked[2:]

    def test_what_is_pending_is_left_alone(self, policy: Callable[[Sequence[Trial]], Search]) -> None:
        """Trials under way are not asked for."""
        assert TRIALS[0].trial_id not in run(policy(TRIALS), [TRIALS[0].trial_id])
