"""What every search policy promises, run against every policy."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from orchestrator.search.adaptive import ThresholdSearch
from orchestrator.search.base import Search
from orchestrator.search.grid import Grid
from orchestrator.search.space import Space
from orchestrator.sweep import Sweep, load_sweep
from orchestrator.trial import Ending, Trial
from orchestrator.wanted import search_of

TRIALS = [Trial({"x": x, "data_size": 2**x, "seed": 0}) for x in range(6)]
SWEEP = """\
name: s
trainer: surface:train
axes: {k: [1, 2], data_size: {log2: [6, 12], points: 7}, seed: 2}
search: {kind: threshold, precision: 1, max_trials: 20, control: true}
solved: {metric: accuracy, at_least: 1}
"""
TUNED = "tuned: {lr: {log10: [-4, -2]}, decay: [0, 0.1]}\n"
Ids = dict[str, Trial]


def sweep_of(folder: Path, text: str) -> Sweep:
    (folder / "s.yaml").write_text(text)
    (folder / "surface.py").write_text("def train(config, report): pass")
    return load_sweep(folder / "s.yaml")


def threshold(folder: Path) -> Search:
    sweep = sweep_of(folder, SWEEP)
    return ThresholdSearch(Space(sweep), sweep.search)


def tuned(text: str) -> Callable[[Path], Search]:
    return lambda folder: search_of(sweep_of(folder, text + TUNED))


GRID = SWEEP.replace("{kind: threshold, precision: 1, max_trials: 20, control: true}", "{kind: grid}")
POLICIES: dict[str, Callable[[Path], Search]] = {
    "grid": lambda _: Grid(TRIALS),
    "threshold": threshold,
    "tuned grid": tuned(GRID),
    "tuned threshold": tuned(SWEEP),
}


def ending(trial: Trial) -> Ending:
    """The same whenever it is asked for: most solve above 500 examples."""
    steepness = 2 * (math.log2(trial.config["data_size"]) - 9)
    is_solved = random.Random(trial.trial_id).random() < 1 / (1 + math.exp(-steepness))
    if is_solved:
        return Ending("solved", random.Random(f"{trial.trial_id} step").randrange(100), 1.0)
    return Ending("unsolved", None, random.Random(f"{trial.trial_id} score").random())


def told(trials: Mapping[str, Trial]) -> dict[str, Ending]:
    return {trial_id: ending(trial) for trial_id, trial in trials.items()}


def run(search: Search, batch: int = 4) -> Ids:
    """Ask and tell until the policy is finished; what was asked for, in order."""
    asked: Ids = {}
    while not search.is_finished:
        new = {trial.trial_id: trial for trial in search.ask(batch)}
        assert not asked.keys() & new.keys()
        assert new
        asked |= new
        search.tell(told(new))
    return asked


def know(search: Search, trials: Mapping[str, Trial]) -> None:
    """Tell it what is stored, as a launch does."""
    assert all(search.wants(trial) for trial in trials.values())
    search.tell(told(trials))


@pytest.fixture(params=POLICIES.values(), ids=POLICIES)
def policy(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Search]:
    return lambda: request.param(tmp_path)


class TestSearch:
    """Ask/tell, pure."""

    def test_it_comes_to_an_end(self, policy: Callable[[], Search]) -> None:
        """It has asked for something by then, knows all of that, and wants nothing else."""
        search = policy()
        asked = run(search)
        assert 6 <= len(asked) == search.progress().expected
        assert all(search.knows(trial_id) for trial_id in asked)
        assert search.is_finished
        assert [] == search.ask(10)
        assert not search.wants(Trial({"x": 7, "data_size": 2**7, "seed": 0}))

    def test_telling_twice_equals_telling_once(self, policy: Callable[[], Search]) -> None:
        """Repeated news, news in another order and news of strangers change nothing."""
        first = dict(list(run(policy()).items())[:4])
        once, often = policy(), policy()
        know(once, first)
        for _ in range(2):
            know(often, dict(reversed(first.items())))
            often.tell({"stranger": Ending("failed")})
        assert list(run(once)) == list(run(often))

    def test_a_restart_goes_on(self, policy: Callable[[], Search]) -> None:
        """Told what is stored, a new one asks for the rest."""
        asked = run(policy())
        fresh = policy()
        know(fresh, dict(list(asked.items())[:4]))
        assert list(asked)[4:] == list(run(fresh))

    def test_what_is_pending_is_left_alone(self, policy: Callable[[], Search]) -> None:
        """Trials that an earlier driver began are not asked for; with them unfinished it has no end."""
        search = policy()
        begun = list(policy().ask(4))[:4]
        search.adopt(begun)
        ids = {trial.trial_id for trial in begun}
        assert not ids & {trial.trial_id for trial in search.ask(4)}
        assert all(map(search.knows, ids))

    def test_packs_of_one_shape(self, policy: Callable[[], Search]) -> None:
        """Asked for a pack, it gives trials of one shape, no more than fit, or all that it can know of now."""
        search = policy()

        def ask() -> Sequence[Trial]:
            return search.ask(4, lambda trial: str(trial.config["data_size"] > 2**9))

        asked = ask()
        while asked:
            following = ask()
            shapes = {trial.config["data_size"] > 2**9 for trial in asked}
            assert not following or (1 == len(shapes) and len(asked) <= 4)
            search.tell({trial.trial_id: ending(trial) for trial in asked})
            asked = following or ask()
        assert search.is_finished

    def test_failed_trials_do_not_go_on_for_ever(self, policy: Callable[[], Search]) -> None:
        """Nothing is learned from them, and there is an end all the same."""
        search, n_asked = policy(), 0
        while not search.is_finished:
            batch = search.ask(4)
            n_asked += len(batch)
            search.tell({trial.trial_id: Ending("failed") for trial in batch})
            assert n_asked < 100
