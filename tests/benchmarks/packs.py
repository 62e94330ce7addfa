"""What fills a pack? A threshold search whose curves have several shapes, on places that work at the same time.

    python tests/benchmarks/packs.py [--sweeps 3] [--places 1 4 16]

48 curves of width 0.3 in 16 shapes (four values of k, four depths, three shares), from 64 to 262,144 examples, to
half an octave. A pack holds trials of one shape only and takes one unit of time, 10 % more or less, whatever its
size. Three ways to fill packs of the size that `reconcile.packing` chooses:

    mixed    ask for one pack's trials, and split them by shape
    batch    ask for as many packs as there are shapes, and split them
    shape    ask for one pack of one shape, whichever has most (what the driver does)
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
import tempfile
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from orchestrator.pack import Pack, make_packs
from orchestrator.search.adaptive import ROUNDS, ThresholdSearch
from orchestrator.sweep import Sweep, load_sweep
from orchestrator.trial import Ending, Trial
from trainers.surface import solving

SWEEP = """\
name: packs
trainer: trainers.surface:train
surface: {threshold: 200, growth: {k: 1.5, depth: -0.5, easy_fraction: 1}, width: 0.3}
axes: {k: [1, 2, 3, 4], depth: [1, 2, 3, 4], easy_fraction: [0, 0.25, 0.5], data_size: {log2: [6, 18], points: 25}}
search: {kind: threshold}
solved: {metric: accuracy, at_least: 1}
"""
N_SHAPES = 16


class Found(NamedTuple):
    trials: float
    packs: int
    time: float
    error: float


def shape_of(trial: Trial) -> str:
    return f"{trial.config['k']} {trial.config['depth']}"


def asked(search: ThresholdSearch, way: str, size: int) -> Sequence[Trial]:
    if way == "shape":
        return search.ask(size, shape_of)
    return search.ask(size * N_SHAPES if way == "batch" else size)


def simulated(sweep: Sweep, way: str, places: int, seed: int) -> Found:
    """One launch: packs begin where a place is free, and tell when they end."""
    search, rng = ThresholdSearch(sweep.space, sweep.search), random.Random(seed)
    size = max(1, search.progress().expected // (ROUNDS * places))
    queue: deque[Pack] = deque()
    running: list[tuple[float, int, Pack]] = []
    time, n_packs, n_trials = 0.0, 0, 0
    while True:
        while len(running) < places and (queue or (new := asked(search, way, size))):
            if not queue:
                queue.extend(make_packs(new, shape_of, size))
            pack, n_packs = queue.popleft(), n_packs + 1
            n_trials += len(pack.trials)
            heapq.heappush(running, (time + rng.uniform(0.9, 1.1), n_packs, pack))
        if not running:
            return Found(n_trials / len(sweep.space.curves), n_packs, time, error_of(search))
        time, _, pack = heapq.heappop(running)
        search.tell({trial.trial_id: ending(trial, seed) for trial in pack.trials})


def ending(trial: Trial, seed: int) -> Ending:
    is_solved = random.Random(f"{seed} {trial.trial_id}").random() < solving(dict(trial.config))
    return Ending("solved" if is_solved else "unsolved")


def error_of(search: ThresholdSearch) -> float:
    """Median over curves, in octaves."""
    errors = []
    for row in search.summary():
        growth = 1.5 * row["k"] - 0.5 * row["depth"] + row["easy_fraction"]
        found = row["threshold"]
        errors.append(math.inf if found is None else abs(math.log2(found / 200) - growth))
    return float(np.median(errors))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sweeps", type=int, default=3)
    parser.add_argument("--places", type=int, nargs="*", default=[1, 4, 16])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "sweep.yaml"
        file.write_text(SWEEP)
        sweep = load_sweep(file)
    print("places    way  trials per curve   packs  trials per pack   time  median error")
    for places in arguments.places:
        for way in ("mixed", "batch", "shape"):
            runs = [simulated(sweep, way, places, seed) for seed in range(arguments.sweeps)]
            trials, packs, time, error = np.mean(runs, axis=0)
            noise = np.std([run.error for run in runs]) / math.sqrt(len(runs))
            per_pack = trials * len(sweep.space.curves) / packs
            cost = f"{trials:16.1f}  {packs:6.0f}  {per_pack:15.1f}  {time:5.1f}"
            print(f"{places:6} {way:>6}  {cost}  {error:12.3f} +- {noise:.3f}", flush=True)


if __name__ == "__main__":
    main()
