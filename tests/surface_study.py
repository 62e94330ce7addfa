"""A study of a surface whose thresholds are known; run as a program, it is one process of several.

python surface_study.py JOURNAL
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from orchestrator.optuna_sampler import ThresholdSampler
from trainers.surface import train

SURFACE = {"threshold": 100, "growth": {"k": 2}, "width": 0.15}
THRESHOLDS = {1: 400.0, 2: 1600.0}
LOW, HIGH = 64, 2**14


def sampler(**settings: Any) -> ThresholdSampler:
    along = IntDistribution(LOW, HIGH, log=True)
    return ThresholdSampler(
        "data_size", along, {"k": [*THRESHOLDS]}, **{"seed_parameter": "seed", "precision": 1.0, **settings}
    )


def accuracy(**config: Any) -> float:
    """1 or 0, the same for the same config."""
    reports: list[float] = []
    train({"surface": SURFACE, **config}, lambda step, accuracy: reports.append(accuracy))
    return reports[0]


def objective(trial: optuna.Trial) -> float:
    return accuracy(
        k=trial.suggest_categorical("k", [*THRESHOLDS]),
        data_size=trial.suggest_int("data_size", LOW, HIGH, log=True),
        seed=trial.suggest_int("seed", 0, 1_000_000),
    )


def journal(path: Path | str) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(path)))


def study_of(storage: Any = None, **settings: Any) -> optuna.Study:
    """The study `s`, made if it isn't there."""
    return optuna.create_study(
        storage=storage,
        study_name="s",
        load_if_exists=True,
        direction="maximize",
        sampler=sampler(**settings),
    )


def slowly(trial: optuna.Trial) -> float:
    """Long enough for other processes to begin trials meanwhile."""
    value = objective(trial)
    time.sleep(0.05)
    return value


if __name__ == "__main__":
    study_of(journal(sys.argv[1]), precision=0.5).optimize(slowly)
