"""How near tuning comes to the best setting: `python tests/benchmarks/tuning.py [--studies 200]`.

A made-up curve. The best place in each range is drawn anew; a trial solves at a number of steps that grows with the
distance from it (its logarithm has noise), and does not solve if it would need over five times the steps of the
best. Printed: the mean distance, in widths of a range, of the setting that is frozen; of what
`orchestrator.search.study` asks for, and of as many trials that learn nothing from each other.
"""

from __future__ import annotations

import argparse
import math
import random

import polars as pl

from orchestrator.search.study import Study
from orchestrator.search.suggest import Values
from orchestrator.trial import Ending
from orchestrator.tuned_spec import TunedField, Tuning

STEEPNESS = 6.0
"""Of the logarithm of the steps, per width of a range."""
BUDGET = 5.0
"""In steps of the best setting."""
NOISE = 0.1


def settings(n: int) -> tuple[TunedField, ...]:
    """Ranges from 0 to 1."""
    return tuple(
        TunedField(
            f"x{i}", (f"x{i}",), {"linear": [0, 1]}, "linear", (0.0, 1.0), pl.Float64(), False, f"x{i}"
        )
        for i in range(n)
    )


def trial(values: Values, best: Values, luck: random.Random) -> Ending:
    """How a trial with these settings ends."""
    away = distance(values, best)
    steps = math.exp(STEEPNESS * away + luck.gauss(0, NOISE))
    return (
        Ending("solved", round(1000 * steps), 1.0) if steps < BUDGET else Ending("unsolved", None, 1 / steps)
    )


def distance(values: Values, best: Values) -> float:
    return math.sqrt(math.fsum((values[name] - best[name]) ** 2 for name in best) / len(best))


def studied(n_fields: int, n_trials: int, seed: int) -> float:
    """The distance in the end, of one study."""
    luck = random.Random(f"{n_fields} {seed}")
    tuning = Tuning(settings(n_fields), n_trials, None, is_free=True)
    best = {field.name: luck.random() for field in tuning.fields}
    study = Study(tuning, f"{seed}", is_less_better=False)
    while study.best is None:
        for number, values in study.due():
            study.know(str(number), number, values)
            study.end(str(number), trial(values, best, luck))
    return distance(study.best.values, best)


def unlearned(n_fields: int, n_trials: int, seed: int, *, is_spread: bool) -> float:
    """The same of trials anywhere, or of a Latin hypercube."""
    luck = random.Random(f"{n_fields} {seed}")
    best = {field.name: luck.random() for field in settings(n_fields)}
    strata = {name: luck.sample(range(n_trials), n_trials) for name in best}
    tried = [
        {name: (strata[name][i] + 0.5) / n_trials if is_spread else luck.random() for name in best}
        for i in range(n_trials)
    ]
    ends = [(trial(values, best, luck), values) for values in tried]
    _, chosen = min(ends, key=lambda end: (end[0].solved_at_step or math.inf, -(end[0].score or 0)))
    return distance(chosen, best)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--studies", type=int, default=200)
    n = parser.parse_args().studies
    print(f"mean distance from the best setting, in widths of a range; {n} studies each (standard error)")
    print("settings  trials            tuned       even spread          anywhere")
    for n_fields in (1, 2, 3):
        for n_trials in (4, 8, 16, 32):
            ways = (
                [studied(n_fields, n_trials, seed) for seed in range(n)],
                [unlearned(n_fields, n_trials, seed, is_spread=True) for seed in range(n)],
                [unlearned(n_fields, n_trials, seed, is_spread=False) for seed in range(n)],
            )
            print(f"{n_fields:8}  {n_trials:6}  " + "  ".join(map(mean, ways)), flush=True)


def mean(values: list[float]) -> str:
    average = math.fsum(values) / len(values)
    variance = math.fsum((value - average) ** 2 for value in values) / (len(values) - 1)
    return f"{average:6.3f} ({math.sqrt(variance / len(values)):.3f})".rjust(16)


if __name__ == "__main__":
    main()
