"""Peers of the threshold search, in an environment of their own: what `adaptive` and `aepsych` would try.

A process of its own: reads a JSON object from stdin, {"peer": name, "low":, "high":, "trials": n, "curves":
[[p at equally spaced positions from low to high], ...], "seed":, "limit_s":}, and writes
[[[position, solved], ...], ...] to stdout, one list per curve; fewer lists than curves if the time limit was over.
tests/benchmarks/search.py makes the environment and calls it; aepsych pins SQLAlchemy 1.4, so it cannot share ours.
"""

from __future__ import annotations

import json
import logging
import random
import sys
import time
import warnings
from collections.abc import Callable

Draw = Callable[[float], bool]

AEPSYCH = """
[common]
parnames = [u]
stimuli_per_trial = 1
outcome_types = [binary]
strategy_names = [init_strat, opt_strat]
target = 0.5

[u]
par_type = continuous
lower_bound = {low}
upper_bound = {high}

[init_strat]
generator = SobolGenerator
min_asks = 6

[opt_strat]
generator = OptimizeAcqfGenerator
model = GPClassificationModel
min_asks = {rest}

[MCLevelSetEstimation]
beta = 3.84
target = 0.5
objective = ProbitObjective

[OptimizeAcqfGenerator]
acqf = MCLevelSetEstimation
restarts = 2
samps = 100

[GPClassificationModel]
inducing_size = 60
"""
"""As its documentation advises for the level set of a yes-or-no response."""


def by_adaptive(
    low: float, high: float, trials: int, draw: Draw, seed: int, over: float
) -> list[tuple[float, bool]]:
    """AverageLearner1D: a learner of noisy functions, which repeats points until their mean is known."""
    import adaptive

    learner = adaptive.AverageLearner1D(
        lambda seed_x: 0.0, (low, high), delta=0.25, min_samples=3, max_samples=40
    )
    tried: list[tuple[float, bool]] = []
    while len(tried) < trials and time.monotonic() < over:
        (point,), _ = learner.ask(1)
        solved = draw(float(point[1]))
        tried.append((float(point[1]), solved))
        learner.tell(point, float(solved))
    return tried


def by_aepsych(
    low: float, high: float, trials: int, draw: Draw, seed: int, over: float
) -> list[tuple[float, bool]]:
    import numpy as np
    import torch
    from aepsych.config import Config
    from aepsych.strategy import SequentialStrategy

    torch.set_num_threads(1)  # more of them are slower for problems this small
    torch.manual_seed(seed)
    np.random.seed(seed)
    config = Config(config_str=AEPSYCH.format(low=low, high=high, rest=max(1, trials - 6)))
    strategy = SequentialStrategy.from_config(config)
    tried: list[tuple[float, bool]] = []
    while len(tried) < trials and time.monotonic() < over:
        point = strategy.gen()
        position = float(np.asarray(point).ravel()[0])
        solved = draw(position)
        tried.append((position, solved))
        strategy.add_data(point, [int(solved)])
    return tried


PEERS = {"adaptive": by_adaptive, "aepsych": by_aepsych}


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable()
    asked = json.load(sys.stdin)
    low, high = asked["low"], asked["high"]
    found = []
    over = time.monotonic() + asked["limit_s"]
    for i, rates in enumerate(asked["curves"]):
        chance = random.Random(f"{asked['seed']} {i}")

        def draw(position: float, rates: list[float] = rates, chance: random.Random = chance) -> bool:
            place = (position - low) / (high - low) * (len(rates) - 1)
            left = max(0, min(int(place), len(rates) - 2))
            p = rates[left] + (place - left) * (rates[left + 1] - rates[left])
            return chance.random() < p

        tried = PEERS[asked["peer"]](low, high, asked["trials"], draw, i, over)
        if len(tried) == asked["trials"]:
            found.append(tried)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
