"""Laws of growth as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from orchestrator.scaling import RESULTS

WIDTHS = (13, 25, 11, 9, 16, 10)
"""Of the columns."""
HEAD = ("law", "slope [95 % interval]", "intercept", "scatter", "log-likelihood", "weight")


def scaling_lines(laws: pl.DataFrame) -> Iterator[str]:
    """The rows of `scaling` for eyes: a paragraph for each group, its verdict first."""
    keys = laws.columns[: len(laws.columns) - len(RESULTS)]
    before = None
    for group in laws.iter_slices(3):
        rows = [dict(zip(RESULTS, row[len(keys) :], strict=True)) for row in group.iter_rows()]
        if (heading := _heading(rows[0])) != before:
            yield from heading
            before = heading
        place = ", ".join(f"{name} {_word(group[name][0])}" for name in keys)
        yield f"{place or 'all'}: {rows[0]['verdict']}"
        yield f"    {rows[0]['reason']}"
        yield f"    {_counts(rows[0])}"
        if rows[0]["intercept"] is not None:
            yield _line(HEAD)
            yield from (_line(_cells(row)) for row in rows)


def _heading(row: Mapping[str, Any]) -> list[str]:
    within = "" if row["steps"] is None else f" within {row['steps']:,} steps"
    along, against = row["along"], row["against"]
    if row["law"] == "exponential":
        slope = f"doublings of the threshold per unit of {against}; of a power law, the exponent"
    else:
        slope = f"{along} per unit of {against}; of a logarithmic law, per doubling"
    return [f"thresholds along {along} against {against}{within}", f"slope: {slope}"]


def _counts(row: Mapping[str, Any]) -> str:
    points, against = row["points"], row["against"]
    inside = f"{points} value{'s' * (points != 1)} of {against} with a threshold on the axis"
    return f"{inside}; {row['censored']} censored, {row['left_out']} left out; {row['trials']:,} trials"


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    slope = "-"
    if row["slope"] is not None:
        slope, low, high = (_number(row[name]) for name in ("slope", "slope_low", "slope_high"))
        slope = f"{slope} [{low}, {high}]"
    numbers = [_number(row[name]) for name in ("intercept", "scatter", "log_likelihood")]
    return row["law"], slope, *numbers, f"{row['weight']:.3f}"


def _number(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}"  # never -0.00


def _line(cells: tuple[str, ...]) -> str:
    law, slope, *numbers = (
        cell.ljust(width) if i < 2 else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, WIDTHS, strict=True))
    )
    return f"    {law}{slope}{''.join(numbers)}"


def _word(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
