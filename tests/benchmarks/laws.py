"""Is the growth of thresholds named rightly? Simulated sweeps whose law is known.

    python tests/benchmarks/laws.py [--sweeps 50] [--seed 1] [--surface sharp]

For every law, number of values of k and surface: how often the true law is named, another one is, none is
("inconclusive"); how often the 95 % interval of the true law's slope holds it; and the interval's median width.
Curves have five seeds at 21 sizes, half an octave apart; thresholds grow from 2^7 to 2^13 over the range of k, so
that both laws are equally steep. Surfaces differ in width (octaves), upper lapse, effect of the seed, and in
how far thresholds lie off the law; on the censored one the axis ends at 2^11.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import polars as pl
from coverage import _midpoint, _sigmoid

from orchestrator.axis import Array, AxisInfo
from orchestrator.laws import bent
from orchestrator.scaling import scaling

SEEDS = 5
FIRST, GROWTH = 7.0, 6.0
RANGES = {3: (2, 3, 4), 4: (2, 3, 4, 5), 6: (2, 3, 4, 5, 6, 7)}
LAWS = {"exponential": GROWTH, "power": GROWTH, "constant": 0.0}
"""Octaves by which thresholds grow from the first k to the last."""


@dataclass(frozen=True)
class Surface:
    width: tuple[float, float] = (0.3, 0.3)
    """At the first k and at the last; so are lapses."""
    lapse: tuple[float, float] = (0.0, 0.0)
    seed_effect: float = 0.3
    scatter: float = 0.0
    last_size: float = 15.0


SURFACES = {
    "usual": Surface(),
    "sharp": Surface(width=(0.1, 0.1), seed_effect=0.0),
    "drifting": Surface(width=(0.1, 0.8), lapse=(0.0, 0.35)),
    "scattered 0.25": Surface(scatter=0.25),
    "scattered 0.5": Surface(scatter=0.5),
    "censored": Surface(last_size=11.0),
}


def sweep(rng: np.random.Generator, k: Array, thresholds: Array, surface: Surface) -> list[dict[str, object]]:
    """The rows of `trials`."""
    rows: list[dict[str, object]] = []
    shares = np.linspace(0, 1, len(k))
    for of_k, threshold, share in zip(k, thresholds, shares, strict=True):
        width, lapse = (float(np.interp(share, [0, 1], ends)) for ends in (surface.width, surface.lapse))
        middle = _midpoint(threshold, width, lapse, surface.seed_effect)
        for seed in range(SEEDS):
            effect = surface.seed_effect * rng.normal()
            for at in np.arange(5, surface.last_size + 0.1, 0.5):
                rate = (1 - lapse) * float(_sigmoid(np.array((at - middle - effect) / width)))
                status = "solved" if rng.random() < rate else "unsolved"
                rows.append({"trial_id": f"{of_k}-{seed}-{at}", "k": of_k, "seed": seed, "status": status})
                rows[-1] |= {"data_size": 2.0**at, "solved_at_step": None, "steps": 9, "budget": 9}
    return rows


def tried(rng: np.random.Generator, law: str, n: int, surface: Surface) -> tuple[str, bool, float]:
    """The verdict on one sweep; whether the true law's interval holds its slope, and its width."""
    k = np.array(RANGES[n], dtype=float)
    place = bent(law, k)
    slope = LAWS[law] / (place[-1] - place[0])
    off = surface.scatter * rng.normal(size=n)
    rows = sweep(rng, k, FIRST + slope * (place - place[0]) + off, surface)
    axes = [AxisInfo("k", "linear", RANGES[n]), AxisInfo("data_size", "log2", (32.0, 2.0**surface.last_size))]
    trials = pl.LazyFrame(rows, schema_overrides={"solved_at_step": pl.Int64})
    laws = scaling(trials, axes, "data_size", "k").collect()
    true = laws.row(by_predicate=pl.col("law") == ("exponential" if law == "constant" else law), named=True)
    if true["slope"] is None:
        return true["verdict"], True, np.inf
    low, high = true["slope_low"], true["slope_high"]
    return true["verdict"], low <= slope <= high, high - low


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sweeps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--surface", choices=SURFACES, action="append", help="Only this one (repeat for more)."
    )
    arguments = parser.parse_args()
    print(
        f"{'surface':>15} {'k':>2} {'law':>12}   named  another  inconclusive  interval holds it  its width"
    )
    for row, (name, n, law) in enumerate(product(SURFACES, RANGES, LAWS)):
        if not arguments.surface or name in arguments.surface:
            rng = np.random.default_rng([arguments.seed, row])
            tries = [tried(rng, law, n, SURFACES[name]) for _ in range(arguments.sweeps)]
            print(f"{name:>15} {n:>2} {law:>12} {summary(law, tries)}", flush=True)


def summary(law: str, tries: Sequence[tuple[str, bool, float]]) -> str:
    """One row of the table."""
    verdicts, held, widths = zip(*tries, strict=True)
    named, none = verdicts.count(law), verdicts.count("inconclusive")
    another = len(tries) - named - none
    shares = f"{named / len(tries):7.2f} {another / len(tries):8.2f} {none / len(tries):13.2f}"
    return f"{shares} {np.mean(held):18.2f} {np.median(widths):10.2f}"


if __name__ == "__main__":
    main()
