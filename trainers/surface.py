"""A made-up task whose truth is known, to plan budgets with and to try estimators on.

    trainer: trainers.surface:train
    surface: {threshold: 500, growth: {k: 1.5, easy_fraction: -1}, width: 0.3, lapse: 0.1, seed_effect: 0.2}
    axes: {k: [1, 2, 3], easy_fraction: [0, 0.5], data_size: {log2: [6, 16], points: 21}, seed: 5}
    search: {kind: threshold}
    solved: {metric: accuracy, at_least: 1}

A trial of seed s, with luck z(s) ~ N(0, 1), solves with probability

    (1 - lapse) * sigmoid((log2 data_size - m) / width),
    m = log2 threshold + sum of growth * axis + seed_effect * z(s)

and reports `accuracy`, 1 or 0, once. All lengths are octaves of data. With a lapse (or a seed effect beside one)
half of the seeds solve at more than `threshold`. The numbers depend on the config alone.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

trainer_version = "1"
FIELDS = ("threshold", "growth", "width", "lapse", "seed_effect")


def train(config: dict[str, Any], report: Callable[..., None]) -> None:
    """One report, at step 1."""
    report(1, accuracy=float(random.Random(_words(config)).random() < solving(config)))  # noqa: S311


def solving(config: dict[str, Any]) -> float:
    """The probability that this trial solves, its seed's luck included."""
    surface = config["surface"]
    unknown = [name for name in surface if name not in FIELDS]
    if unknown:
        raise ValueError(f"surface has no {unknown[0]!r}: {', '.join(FIELDS)}")
    growth = math.fsum(rate * float(config[axis]) for axis, rate in surface.get("growth", {}).items())
    luck = surface.get("seed_effect", 0.0) * random.Random(f"luck {config['seed']}").gauss(0, 1)  # noqa: S311
    away = math.log2(config["data_size"]) - math.log2(surface["threshold"]) - growth - luck
    steepness = min(500.0, max(-500.0, away / surface.get("width", 0.3)))
    return float((1 - surface.get("lapse", 0.0)) / (1 + math.exp(-steepness)))


def _words(config: dict[str, Any]) -> str:
    """The same for equal configs, in any process."""
    return repr(sorted((key, repr(value)) for key, value in config.items()))
