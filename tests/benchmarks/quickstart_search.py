"""The quickstart as a grid and as a threshold search, for real: do they agree, and what does each cost?

    python tests/benchmarks/quickstart_search.py [--folder FOLDER] [--low 6] [--high 12]

The axis runs from `--low` to `--high` octaves of data, as for a user who does not know where the thresholds lie:
the grid takes every half octave with four seeds. The search is launched twice into one directory: first until its
intervals are as narrow as the grid's, then until they are as narrow as `precision` is by default. With --folder
the runs are kept, and what is there already is not run again (its time is then missing from the table).
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from orchestrator import Run

SWEEP = Path(__file__).resolve().parents[2] / "sweeps" / "quickstart.yaml"
DEFAULT = 0.5
"""Octaves."""


@dataclass(frozen=True)
class Way:
    """One way to find the thresholds, and what it came to."""

    name: str
    trials: int
    steps: int
    seconds: float
    thresholds: pl.DataFrame

    @property
    def widths(self) -> list[float]:
        """Of the intervals, in octaves; infinite where an end is not known."""
        ends = self.thresholds.select("low", "high").rows()
        return [math.log2(high / low) if low and high else math.inf for low, high in ends]


def launched(name: str, folder: Path, settings: Sequence[str], seconds: float = 0.0) -> Way:
    """Launches the quickstart with these settings and reads what it found; `seconds` were spent before."""
    options = [part for setting in settings for part in ("--set", setting)]
    command = [sys.executable, "-m", "orchestrator.cli", "launch", str(SWEEP), "--run-dir", str(folder)]
    start = time.monotonic()
    subprocess.run([*command, "--quiet", *options], check=True)
    seconds += time.monotonic() - start
    run = Run(folder)
    trials = run.wanted_trials().collect()
    return Way(name, len(trials), int(trials["steps"].sum()), seconds, run.thresholds())


def compared(folder: Path, low: float, high: float) -> list[Way]:
    n = round(2 * (high - low)) + 1
    axis = f"axes.data_size={{log2: [{low:g}, {high:g}], points: {n}}}"
    grid = launched("grid", folder / "grid", [axis])
    width = float(np.median(grid.widths))
    searched = [axis, "search.kind=threshold"]
    wide = min(width, high - low)
    same = launched(
        f"search, {wide:.2f} octaves", folder / "search", [*searched, f"search.precision={wide:.3f}"]
    )
    finer = launched(f"search, {DEFAULT:g} octaves", folder / "search", searched, same.seconds)
    return [grid, same, finer]


def table(ways: Sequence[Way]) -> list[str]:
    grid = ways[0]
    heads = f"{'':>22}{'trials':>8}{'fewer':>7}{'trial-steps':>13}{'fewer':>7}{'seconds':>9}{'faster':>8}"
    lines = [f"{heads}{'widths of intervals, octaves':>30}"]
    for way in ways:
        widths = ", ".join(f"{width:.2f}" for width in way.widths)
        lines.append(
            f"{way.name:>22}{way.trials:>8}{grid.trials / way.trials:>7.1f}{way.steps:>13,}"
            f"{grid.steps / way.steps:>7.1f}{way.seconds:>9.0f}{grid.seconds / way.seconds:>8.1f}{widths:>30}"
        )
    return lines


def agreements(ways: Sequence[Way]) -> list[str]:
    """Each threshold both ways: do intervals overlap, and is the difference within both half widths combined?"""
    grid, lines = ways[0], []
    for way in ways:
        for other, own in zip(
            grid.thresholds.iter_rows(named=True), way.thresholds.iter_rows(named=True), strict=True
        ):
            text = f"{way.name:>22}   easy_fraction {own['easy_fraction']:g}: {_shown(own)}"
            lines.append(text if way is grid else f"{text}   {_verdict(own, other)}")
    return lines


def _shown(row: dict[str, float]) -> str:
    ends = ["-" if row[end] is None else f"{row[end]:.0f}" for end in ("threshold", "low", "high")]
    return f"{ends[0]} [{ends[1]}, {ends[2]}] in {row['trials']} trials"


def _verdict(own: dict[str, float], other: dict[str, float]) -> str:
    if any(row[end] is None for row in (own, other) for end in ("threshold", "low", "high")):
        return "an end is not known"
    overlaps = own["low"] <= other["high"] and other["low"] <= own["high"]
    apart = abs(math.log2(own["threshold"] / other["threshold"]))
    allowed = math.hypot(*(math.log2(row["high"] / row["low"]) / 2 for row in (own, other)))
    return (
        f"{'overlaps' if overlaps else 'DOES NOT OVERLAP'}; {apart:.2f} octaves apart, "
        f"{'within' if apart <= allowed else 'OUTSIDE'} the combined {allowed:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--low", type=float, default=6)
    parser.add_argument("--high", type=float, default=12)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        ways = compared(arguments.folder or Path(scratch), arguments.low, arguments.high)
        print("\n".join([*table(ways), "", *agreements(ways)]))


if __name__ == "__main__":
    main()
