"""Laws of fitted curves: the probability of solving between the trials."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest

from orchestrator.axis import AxisInfo
from orchestrator.fits import Placed
from orchestrator.fitted import FEWEST, Fitted, fitted_curves
from orchestrator.thresholds import thresholds

SIZES = tuple(float(round(2**u)) for u in np.arange(6, 12.1, 0.5))
SIZE = AxisInfo("data_size", "log2", (*SIZES, math.inf))
SCHEMA = {"trial_id": pl.String, "data_size": pl.Float64, "seed": pl.Int64, "status": pl.String}
SCHEMA |= {"solved_at_step": pl.Int64, "steps": pl.Int64, "budget": pl.Int64}


def trial(data_size: float, seed: int, solved: bool, **others: Any) -> dict[str, Any]:
    status = "solved" if solved else "unsolved"
    named = {
        "trial_id": f"{data_size}-{seed}-{others}",
        "data_size": data_size,
        "seed": seed,
        "status": status,
    }
    return named | {"solved_at_step": None, "steps": 9, "budget": 9} | others


def counted(
    solved: Callable[[float], float], n: int = 10, sizes: Sequence[float] = SIZES
) -> list[dict[str, Any]]:
    """At every size n trials, this share of which solve, each with a seed of its own."""
    return [
        trial(size, n * i + j, j + 0.5 < n * solved(size)) for i, size in enumerate(sizes) for j in range(n)
    ]


def fits(
    rows: list[dict[str, Any]], *axes: AxisInfo, along: str = "data_size", is_searched: bool = False
) -> list[Fitted]:
    frame = pl.LazyFrame(rows, schema=SCHEMA | {axis.name: pl.Int64 for axis in axes})
    every = [*axes, SIZE, AxisInfo("seed", "linear", (0, 1))]
    placed = Placed() if is_searched else None
    found = thresholds(frame, every, along, placed=placed).collect()
    return fitted_curves(frame, every, along, found, is_searched=is_searched)


def rising(size: float) -> float:
    """Half at 512, on a scale of 0.3 octaves."""
    return 1 / (1 + math.exp(-(math.log2(size) - 9) / 0.3))


@pytest.mark.parametrize("is_searched", [False, True])
@pytest.mark.parametrize("top", [1.0, 0.7])
def test_the_fit_follows_the_trials(is_searched: bool, top: float) -> None:
    """On either side of the threshold and far beyond it, with a lapse and without."""
    (fit,) = fits(counted(lambda size: top * rising(size), n=40), is_searched=is_searched)
    assert (SIZES[0], SIZES[-1]) == fit.tested
    expected = [top * rising(size) for size in (128, 400, 512, 640, 3000)]
    assert expected == pytest.approx(fit.solving(np.array([128.0, 400, 512, 640, 3000])).tolist(), abs=0.08)


def test_the_fit_of_a_grid_crosses_one_half_at_its_threshold() -> None:
    """Mark and strip of a figure agree."""
    rows = counted(lambda size: 0.8 * rising(size))
    (fit,) = fits(rows)
    found = thresholds(
        pl.LazyFrame(rows, schema=SCHEMA), [SIZE, AxisInfo("seed", "linear", (0,))], "data_size"
    )
    at = found.collect()["threshold"].to_numpy()
    assert 0.5 == pytest.approx(fit.solving(at)[0], abs=1e-6)


@pytest.mark.parametrize("is_searched", [False, True])
def test_a_curve_that_never_reaches_one_half_has_a_fit_below_it(is_searched: bool) -> None:
    """There is no threshold, but a fraction that solves."""
    (fit,) = fits(counted(lambda size: 0.4 * (size > 200), n=40), is_searched=is_searched)
    assert 0.4 == pytest.approx(fit.solving(np.array([2000.0]))[0], abs=0.03)


def test_beyond_what_was_tested_nothing_is_extrapolated() -> None:
    """The value at the nearest tested size stands for all further ones."""
    (fit,) = fits(counted(rising, sizes=SIZES[3:8]))
    near = fit.solving(np.array([SIZES[3], SIZES[7]]))
    assert near.tolist() == fit.solving(np.array([1.0, 1e9])).tolist()


def test_along_k_the_fit_falls() -> None:
    """In units of the axis, whatever the direction."""
    rows = [
        trial(64.0, seed, seed + 0.5 < 10 / (1 + math.exp((k - 4.5) / 0.3)), k=k)
        for k in range(1, 9)
        for seed in range(10)
    ]
    (fit,) = fits(rows, AxisInfo("k", "linear", tuple(range(1, 9))), along="k")
    assert {"data_size": 64.0} == fit.place
    assert [1, 0] == pytest.approx(fit.solving(np.array([2.0, 7.0])).tolist(), abs=0.02)


def test_no_fit_without_enough_trials() -> None:
    """Too few of them, all at one size, none, or nothing but the control."""
    many = counted(rising, n=1)[:FEWEST]
    assert [1, 0] == [len(fits(rows)) for rows in (many, many[1:])]
    assert [] == fits(counted(rising, sizes=[512.0]))
    assert [] == fits([])
    assert [] == fits(counted(rising, sizes=[math.inf]))


def test_no_fit_of_a_curve_that_turns_around() -> None:
    """The model rises for good, and would be wrong."""
    assert [] == fits(counted(lambda size: float(128 <= size < 1400)))


def test_no_fit_where_the_direction_is_not_known() -> None:
    """Nothing solved along an axis of which nothing is known."""
    rows = [trial(64.0, seed, False, x=x) for x in range(5) for seed in range(4)]
    assert [] == fits(rows, AxisInfo("x", "linear", tuple(range(5))), along="x")
