"""A search that tunes: whatever it was told, in whatever order, and whenever it was begun anew."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.search.tuned import TunedSearch
from orchestrator.sweep import Sweep, load_sweep
from orchestrator.trial import Ending, Trial, canonical_json
from orchestrator.tuned_spec import SEEDS
from orchestrator.wanted import search_of

SWEEP = """\
name: s
trainer: trainers.surface:train
surface: {threshold: 300}
axes: {k: [1, 2], data_size: {log2: [6, 10], points: 5}, seed: 2}
search: {along: data_size}
tuned: {lr: {log10: [-4, -2]}, decay: [0, 0.1], trials: 9}
solved: {metric: accuracy, at_least: 1}
"""


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    path = tmp_path_factory.mktemp("sweep") / "s.yaml"
    path.write_text(SWEEP)
    return load_sweep(path)


def new(sweep: Sweep) -> TunedSearch:
    search = search_of(sweep)
    assert isinstance(search, TunedSearch)
    return search


def ending(trial: Trial) -> Ending:
    """The same whenever it is asked for."""
    luck = random.Random(trial.trial_id)
    if luck.random() < 0.5:
        return Ending("solved", luck.randrange(5), 1.0)
    return Ending(luck.choice(["unsolved", "diverged", "failed"]), None, luck.random())


def run(search: TunedSearch) -> list[Trial]:
    """All that it asks for, each batch told at once."""
    asked: list[Trial] = []
    while not search.is_finished:
        batch = search.ask(3)
        assert batch
        asked += batch
        search.tell({trial.trial_id: ending(trial) for trial in batch})
    return asked


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_restarts_orders_and_repetitions_change_nothing(sweep: Sweep, data: st.DataObject) -> None:
    """Any part of what a whole sweep stores, told in any order, bit by bit, with some of the rest under way: in the
    end the same trials are wanted, and the same are scored."""
    whole = new(sweep)
    trials = run(whole)
    cut = data.draw(st.integers(0, len(trials)))
    stored = data.draw(st.permutations(trials[:cut]))
    begun = [trial for trial in trials[cut : cut + 4] if trial.config["seed"] >= SEEDS]
    search = new(sweep)
    for trial in stored:
        search.wants(trial)
    for trial in [*stored, *stored[:3]]:
        search.tell({trial.trial_id: ending(trial)})
    search.adopt(begun)
    search.tell({trial.trial_id: ending(trial) for trial in begun})
    rest = run(search)
    ids = [trial.trial_id for trial in [*stored, *rest]]
    assert {trial.trial_id for trial in trials} == {*ids, *(trial.trial_id for trial in begun)}
    assert whole.frozen() == search.frozen()
    assert {i for i in ids if whole.scores(i)} == {i for i in ids if search.scores(i)}


def test_a_trial_with_other_settings_is_not_wanted(sweep: Sweep) -> None:
    """Neither before nor after the settings are known."""
    search = new(sweep)
    other = search.space.scored(sweep.plan().trials[0], {"lr": 0.005, "decay": 0.1})
    assert not search.wants(other)
    search.tell({other.trial_id: ending(other)})
    trials = run(search)
    assert not search.wants(other)
    assert other.trial_id not in {trial.trial_id for trial in trials}
    assert 2 * (9 + 5 * 2) == len(trials)


def test_settings_that_change_are_passed_on_anew(sweep: Sweep) -> None:
    """A second trial of some number turns up that is better than all: what was scored with the old settings counts
    no more, and everything is asked for again with the new ones."""
    search = new(sweep)
    old = [trial for trial in run(search) if trial.config["seed"] < SEEDS and trial.axes["k"] == 1]
    assert all(search.scores(trial.trial_id) for trial in old)
    best = {"lr": 0.005, "decay": 0}
    better = search.space.tuning_trial(0, 3, best)
    assert search.wants(better)
    search.tell({better.trial_id: Ending("solved", 0, 1.0), "a stranger": Ending("solved")})
    assert best == search.frozen()[0]
    assert not any(search.scores(trial.trial_id) for trial in old)
    again = run(search)
    assert {canonical_json(best)} == {canonical_json(search.space.tuning.get(t.config)) for t in again}
    assert len(old) == len(again)
