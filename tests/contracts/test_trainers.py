"""What every trainer promises, run against every trainer."""

from __future__ import annotations

import json

import pytest
from configs import config

from orchestrator.schema import RESULT
from trainers.base import Outcome, Resources, Trainer, TrialSpec
from trainers.function import FunctionTrainer
from trainers.transformer import Transformer

TRAINERS: dict[str, Trainer] = {
    "transformer": Transformer(),
    "function": FunctionTrainer.load("configs:learns"),
}
SPECS = [TrialSpec(f"t{seed}", config(seed=seed, train={"steps": 20})) for seed in range(3)]


def outcomes(trainer: Trainer) -> list[Outcome]:
    training = trainer.start(SPECS, Resources(slots=2), None, lambda ids: None)
    found: list[Outcome] = []
    while not training.is_finished:
        found += training.advance()
    return found


@pytest.mark.parametrize("trainer", TRAINERS.values(), ids=TRAINERS)
class TestTrainer:
    """Declarations without torch, packs that come to an end."""

    def test_declares_itself(self, trainer: Trainer) -> None:
        """Its declarations are plain values that a store and a sweep can use."""
        trial = SPECS[0].config
        assert isinstance(trainer.version({"task": trial["task"]}), str)
        assert trainer.problems(trial) == []
        assert trainer.impossible(trial) is None
        assert trainer.shape(trial) == trainer.shape(json.loads(json.dumps(trial)))
        assert set(trainer.columns(trial).values()) <= {int, float}

    def test_every_trial_ends_once(self, trainer: Trainer) -> None:
        """Each trial of a pack has exactly one outcome, with times in order."""
        found = outcomes(trainer)
        assert sorted(outcome.trial_id for outcome in found) == ["t0", "t1", "t2"]
        assert all(outcome.started_at <= outcome.ended_at for outcome in found)

    def test_rows_hold_declared_columns_only(self, trainer: Trainer) -> None:
        """What an outcome says fits the columns of the store; curves hold the declared metrics."""
        trial = SPECS[0].config
        columns = {*RESULT, "train_s", *trainer.columns(trial)}
        for outcome in outcomes(trainer):
            assert set(outcome.values) <= columns
            assert [point["step"] for point in outcome.curve] == sorted(
                {point["step"] for point in outcome.curve}
            )
            metrics = set(outcome.curve[0]) - {"step", "examples_seen"}
            assert metrics == set(trainer.metrics(trial) or ("test_accuracy", "test_loss"))

    def test_who_is_active_is_said_before(self, trainer: Trainer) -> None:
        """The trials that end in an advance were announced before it."""
        heard: list[str] = []
        training = trainer.start(SPECS, Resources(slots=2), None, heard.extend)
        while not training.is_finished:
            assert {outcome.trial_id for outcome in training.advance()} <= set(heard)
