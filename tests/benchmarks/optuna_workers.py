"""What does it cost a study with the threshold sampler to run several trials at once?

    python tests/benchmarks/optuna_workers.py [--studies 20]

Two curves of width 0.15 (tests/surface_study.py), intervals of half an octave. Trials of a study until it is done,
with so many running at any time; the one that began first ends first.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np
import optuna

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from tests.surface_study import HIGH, LOW, THRESHOLDS, accuracy, sampler, study_of


def n_trials(workers: int, study_seed: int) -> int:
    study, search = study_of(precision=0.5), sampler(precision=0.5)
    running: list[tuple[optuna.Trial, float]] = []
    while not search.is_finished(study):
        while len(running) < workers:
            trial = study.ask()
            running.append((trial, _value(trial, study_seed)))
        trial, value = running.pop(0)
        study.tell(trial, value)
    return len(study.trials)


def _value(trial: optuna.Trial, study_seed: int) -> float:
    return accuracy(
        k=trial.suggest_categorical("k", [*THRESHOLDS]),
        data_size=trial.suggest_int("data_size", LOW, HIGH, log=True),
        seed=1000 * study_seed + trial.suggest_int("seed", 0, 999),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=20)
    studies = parser.parse_args().studies
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for workers in (1, 2, 4, 8):
        found = [n_trials(workers, seed) for seed in range(studies)]
        print(f"{workers} at once: {np.mean(found):5.1f} +- {np.std(found) / math.sqrt(studies):.1f} trials")


if __name__ == "__main__":
    main()
