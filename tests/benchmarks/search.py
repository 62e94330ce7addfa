"""How many trials does a threshold cost? The search against a uniform grid, `adaptive` and `aepsych`.

    python tests/benchmarks/search.py [--sweeps 40] [--full] [--no-peers] [--surface NAME ...]

On known surfaces (surfaces.py), all of their parameters unknown, each method's trials go to the same estimator:
the posterior median. The search runs until it stops (precision 0.5 octaves, at most 60 trials per curve). The
grid has five seeds at every size and a step from two octaves to a sixteenth; between steps its error is
interpolated in trials, both on log scales, to the error of the search. So `ratio` is trials of the grid over
trials of the search at equal median error; in brackets, the same with the search's error one Monte Carlo standard
error larger and smaller. Grids of one seed, which show no spread between seeds, are given as well. `limit` is the
best ratio possible for that logistic width when all but the threshold is known: range / (4 width).
--sweeps: per surface; a sweep of six curves counts as six. --full: 400, and an hour for each peer on each surface
instead of two minutes.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
import venv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from surfaces import CANDIDATES, HIGH, LOW, SURFACES, TURNING, Curve, Surface, searched

from orchestrator.axis import Array
from orchestrator.monotone import Counts, turning
from orchestrator.posterior import Outcome, Posterior, Tables
from orchestrator.search.threshold import CurveSpace, Policy, Rules, Tried

TABLES = Tables(LOW, HIGH)
STEPS = (2.0, 1.0, 0.5, 0.25, 0.125, 0.0625)
PEERS = ("adaptive", "aepsych")
PACKAGES = ("torch==2.13.0", "aepsych", "adaptive")
"""torch is pinned, to have its CPU build."""
PEER_SURFACES = ("sharp", "usual", "wide")
FINE = np.linspace(LOW, HIGH, 769)


@dataclass(frozen=True)
class Scored:
    """A method on a surface: trials per curve, and how far off the thresholds are."""

    trials: float
    errors: Array

    @property
    def error(self) -> float:
        return float(np.median(self.errors))

    @property
    def noise(self) -> float:
        """Monte Carlo standard error of `error`, by the bootstrap."""
        draws = np.random.default_rng(0).choice(self.errors, (200, len(self.errors)))
        return float(np.std(np.median(draws, axis=1)))


def estimated(trials: list[Outcome]) -> float:
    """The posterior median, at most at the ends of the range."""
    return min(max(Posterior.of(TABLES, trials).belief().quantile(0.5), LOW), HIGH)


def by_search(surface: Surface, sweeps: int) -> Scored:
    rng, errors, trials = np.random.default_rng(1), [], []
    for _ in range(sweeps):
        curves = surface(rng)
        found = searched(rng, curves, Rules(), batch=len(curves))
        for curve, told in zip(curves, found.told, strict=True):
            outcomes = [Outcome(float(CANDIDATES[c]), solved, seed) for c, seed, solved in told]
            errors.append(abs(estimated(outcomes) - _truth(curve)))
            trials.append(len(told))
    return Scored(float(np.mean(trials)), np.array(errors))


def by_grid(surface: Surface, sweeps: int, step: float, seeds: int) -> Scored:
    """Seeds are shared along a grid; of curves without a seed effect they may as well be fresh ones."""
    rng, errors = np.random.default_rng(1), []
    at = np.arange(LOW, HIGH + step / 2, step)
    for _ in range(sweeps):
        for curve in surface(rng):
            effect = np.repeat(rng.normal(size=(seeds, 1)), len(at), axis=1)
            solved = rng.random(effect.shape) < curve.solving(np.broadcast_to(at, effect.shape), effect)
            label = np.arange(seeds)[:, None] if curve.tau else np.arange(effect.size).reshape(effect.shape)
            rows = zip(
                np.tile(at, seeds), solved.ravel(), np.broadcast_to(label, effect.shape).ravel(), strict=True
            )
            outcomes = [Outcome(float(u), bool(y), int(seed)) for u, y, seed in rows]
            errors.append(abs(estimated(outcomes) - _truth(curve)))
    return Scored(float(len(at) * seeds), np.array(errors))


def _truth(curve: Curve) -> float:
    assert curve.threshold is not None
    return curve.threshold


def needed(scored: list[Scored], error: float) -> float:
    """Trials with which a method reaches an error, interpolated; infinite if it does with none that was run."""
    trials = np.log([s.trials for s in scored])
    errors = np.log(np.minimum.accumulate([s.error for s in scored]) * (1 - 1e-9 * np.arange(len(scored))))
    if math.log(error) < errors[-1]:
        return math.inf
    return math.exp(float(np.interp(-math.log(error), -errors, trials)))


def ratio(scored: list[Scored], search: Scored) -> str:
    low, middle, high = (needed(scored, max(search.error + by * search.noise, 1e-4)) for by in (1, 0, -1))
    if math.isinf(middle):
        return f"> {scored[-1].trials / search.trials:4.1f}"
    if middle <= scored[0].trials:
        return f"< {scored[0].trials / search.trials:4.1f}"
    return f"{middle / search.trials:4.1f} [{low / search.trials:.1f}, {high / search.trials:.1f}]"


def environment() -> tuple[Path | None, str]:
    """An interpreter that has the peers, made on demand; or why there is none."""
    place = Path(tempfile.gettempdir()) / "orchestrator-benchmark-peers"
    python = place / "bin" / "python"
    if not (place / "complete").exists():
        venv.create(place, with_pip=True, clear=True)
        install = [python, "-m", "pip", "install", "--quiet", *PACKAGES]
        done = subprocess.run(install, capture_output=True, text=True, check=False)
        if done.returncode:
            return None, (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        (place / "complete").touch()
    return python, ""


def by_peer(
    python: Path, peer: str, surface: Surface, sweeps: int, trials: int, limit_s: int
) -> list[Scored] | str:
    """Its scores with the first trials of one run, a half and all of them; or why there are none."""
    rng = np.random.default_rng(1)
    curves = [curve for _ in range(sweeps) for curve in surface(rng)]
    asked = {"peer": peer, "low": LOW, "high": HIGH, "trials": trials, "seed": 1, "limit_s": limit_s}
    asked["curves"] = [curve.solving(FINE, 0.0).tolist() for curve in curves]
    command = [python, Path(__file__).with_name("peers.py")]
    with tempfile.TemporaryDirectory() as folder:  # aepsych writes a log where it runs
        done = subprocess.run(
            command, input=json.dumps(asked), capture_output=True, text=True, check=False, cwd=folder
        )
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["failed"])[-1]
    runs = [[Outcome(u, y, i) for i, (u, y) in enumerate(run)] for run in json.loads(done.stdout)]
    if not runs:
        return f"none of {trials} trials done after {limit_s} s"
    curves = curves[: len(runs)]
    return [
        Scored(
            n, np.array([abs(estimated(run[:n]) - _truth(c)) for run, c in zip(runs, curves, strict=True)])
        )
        for n in sorted({int(trials * share) for share in (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)})
    ]


def compare(names: list[str], sweeps: int) -> dict[str, Scored]:
    print(f"{'':>22}  search: trials, median error   grid/search, 5 seeds    1 seed                limit")
    found = {}
    for name in names:
        curve, *others = SURFACES[name](np.random.default_rng(0))
        n_sweeps = max(1, sweeps // (1 + len(others)))
        search = found[name] = by_search(SURFACES[name], n_sweeps)
        grids = {n: [by_grid(SURFACES[name], n_sweeps, step, n) for step in STEPS] for n in (5, 1)}
        spread = math.sqrt(curve.width**2 + math.pi / 8 * curve.tau**2)
        print(
            f"{name:>22}  {search.trials:14.1f}  {search.error:.3f} ± {search.noise:.3f}"
            f"   {ratio(grids[5], search):<22} {ratio(grids[1], search):<22}{(HIGH - LOW) / (4 * spread):5.1f}",
            flush=True,
        )
    return found


def compare_peers(searches: dict[str, Scored], sweeps: int, limit_s: int) -> None:
    python, why = environment()
    print(f"\n{'':>22}  trials for the error of the search, over its trials")
    for name, search in searches.items():
        for peer, most in (("adaptive", 480), ("aepsych", int(1.5 * search.trials))):
            started = time.perf_counter()
            scores = why if python is None else by_peer(python, peer, SURFACES[name], sweeps, most, limit_s)
            said = f"not run: {scores}" if isinstance(scores, str) else _peer_line(scores, search)
            print(f"{name:>22}  {peer:>9}  {said}  ({time.perf_counter() - started:.0f} s)", flush=True)


def _peer_line(scores: list[Scored], search: Scored) -> str:
    errors = ", ".join(f"{s.trials:.0f}: {s.error:.3f}" for s in scores) + f"; {len(scores[0].errors)} curves"
    return f"{ratio(scores, search):<18}  median error with {errors}"


def batches(sweeps: int) -> None:
    print(f"\n{'12 curves, usual':>22}  trials per curve  rounds  median error")
    for batch in (1, 12, 51):
        rng, trials, rounds, errors = np.random.default_rng(1), [], [], []
        for _ in range(sweeps):
            curves = [Curve(float(rng.uniform(8, 16)), 0.3) for _ in range(12)]
            found = searched(rng, curves, Rules(), batch)
            trials.append(np.mean([len(told) for told in found.told]))
            rounds.append(found.rounds)
            errors += [
                abs((v.threshold or math.nan) - _truth(c))
                for v, c in zip(found.verdicts, curves, strict=True)
            ]
        name, cost = f"batches of {batch}", f"{np.mean(trials):16.1f}  {np.mean(rounds):6.1f}"
        print(f"{name:>22}  {cost}  {np.nanmedian(errors):12.3f}", flush=True)


def turns(sweeps: int) -> None:
    rng, found, trials, by_grids = np.random.default_rng(1), 0, [], 0
    at = np.arange(LOW, HIGH + 0.1, 0.5)
    for _ in range(sweeps):
        curves = TURNING(rng)
        result = searched(rng, curves, Rules())
        found += result.verdicts[0].reason == "non-monotone"
        trials.append(len(result.told[0]))
        solved = rng.binomial(5, curves[0].solving(at, 0.0)).astype(float)
        by_grids += turning([Counts(at, solved, np.full(len(at), 5.0))])[0]
    print(
        f"\n{'turns around':>22}  found by the search {found / sweeps:.2f} with {np.mean(trials):.1f} trials"
    )
    print(f"{'':>22}  found by the grid   {by_grids / sweeps:.2f} with {5 * len(at)} trials", flush=True)


def decision_time(curves: int = 500, outcomes: int = 10_000) -> None:
    rng = np.random.default_rng(1)
    policy = Policy([CurveSpace(CANDIDATES, place=(i / curves,)) for i in range(curves)], Rules())
    told = [
        [_drawn(rng, 8 + 8 * i / curves, seed) for seed in range(outcomes // curves)] for i in range(curves)
    ]
    pending: list[list[int]] = [[] for _ in told]
    started = time.process_time()
    asked = policy.ask(told, pending, 51)
    cold = time.process_time() - started
    for i, candidate in asked:
        told[i].append(Tried(candidate, len(told[i]), bool(CANDIDATES[candidate] > 8 + 8 * i / curves)))
    started = time.process_time()
    policy.ask(told, pending, 51)
    warm = time.process_time() - started
    times = f"{cold:.1f} s from nothing, {warm:.2f} s for the next 51"
    print(f"\n{curves} curves, {outcomes} outcomes: {times}, of processor time")


def _drawn(rng: np.random.Generator, threshold: float, seed: int) -> Tried:
    candidate = int(np.clip(np.abs(CANDIDATES - rng.normal(threshold, 0.5)).argmin(), 0, len(CANDIDATES) - 1))
    return Tried(
        candidate, seed, bool(rng.random() < Curve(threshold, 0.3).solving(CANDIDATES[candidate], 0.0))
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sweeps", type=int, default=40)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--surface", nargs="*", default=list(SURFACES))
    arguments = parser.parse_args()
    sweeps = 400 if arguments.full else arguments.sweeps
    decision_time()
    found = compare(arguments.surface, sweeps)
    turns(sweeps)
    batches(max(3, sweeps // 10))
    if not arguments.no_peers:
        names = found if arguments.full else [name for name in PEER_SURFACES if name in found]
        compare_peers({name: found[name] for name in names}, *((40, 3600) if arguments.full else (20, 120)))


if __name__ == "__main__":
    sys.exit(main())
