"""Trials -> thresholds: on each curve, the value of an axis at which half of the seeds solve.

A curve is judged by its own trials alone, and `inf` (the control) is in no fit. `psychometric` has the
likelihood, `monotone` the test for curves that turn around.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl

from orchestrator.axis import Array, AxisInfo
from orchestrator.monotone import Counts, crossings, turning
from orchestrator.psychometric import Outcomes, Profile, profile, unit

Censored = Literal["above", "below"]
COUNTS = {"n_hard": "hard", "n_total": "total"}
"""Columns in which thresholds are given as well, and the suffix that says so."""
FLAG_FAILED_FRACTION = 0.05
CLEARLY_BETTER = 1.92
"""Gain in log-likelihood, a likelihood-ratio test at 5 %."""
CLEAR_TREND = 2.5
"""Standard errors at which a curve's own trend decides its direction."""
BOUNDS = ("threshold", "low", "high")


def thresholds(
    trials: pl.LazyFrame, axes: Sequence[AxisInfo], along: str, *, at_steps: int | None = None
) -> pl.LazyFrame:
    """One row per curve (every axis but `along` and `seed`), sorted by its axes.

    - `threshold, low, high`: in units of the axis, with the 95 % interval; `..._hard`, `..._total`: the same
      in n_hard and n_total, if trials have those. An end of the interval outside the tested values is null.
    - `censored`: `above` or `below` where the threshold lies outside the tested values. Then `threshold` is
      null, and `low` (or `high`) the bound that trials give, at most the largest (at least the smallest)
      tested value.
    - `reason`, why there is no threshold though solving is not too easy: `data` (too little of it: the
      control at inf solves), `steps` (the control does not solve either), `unknown: no control`; `lapse`
      (the best curve never reaches 0.5, however far one goes), `non-monotone` (it turns around), `no trials`
      (none usable).
    - `width`: logistic scale in octaves (log2), decades (log10) or units; `lapse`: 1 - p far beyond the
      threshold.
    - `trials`: in the fit; `failed`: left out; `flagged`: more than 5 % of the curve's trials failed.
    - `monotone`; if false, `lower_crossing` and `upper_crossing`: where p rises and falls through 0.5.
    - `steps`: the step budget to which all this applies; `control`: fraction solved at inf.
    - A column whose name an axis has already gets an underscore: `width_`.

    Diverged trials count as unsolved. Stopped ones are right-censored: left out, unless they had solved. With
    `at_steps` a trial counts as solved if it was by that step, and as unsolved only if it was trained that
    far (or diverged); the learning rate schedule must be constant, which the caller checks. More data is
    taken to help; along other axes solving may also become rarer, as the trend of the trials says. Raises
    ValueError if `along` is no numeric axis.
    """
    axis = _numeric(axes, along)
    keys = [a.name for a in axes if a.name not in (along, "seed")]
    table = trials.pipe(with_outcomes, at_steps).sort([*keys, along, "trial_id"]).collect()
    groups = table.partition_by(keys, maintain_order=True) if keys else [table] if len(table) else []
    curves = _oriented([_read(group, axis, at_steps) for group in groups], along)
    tested = [curve for curve in curves if len(curve.solved)]
    turned = iter(turning([curve.counts() for curve in tested]))
    rows = [_row(curve, axis, len(curve.solved) > 0 and next(turned)) for curve in curves]
    results = pl.DataFrame(rows, schema=_schema(table))
    heads = [group.select(keys).head(1) for group in groups]
    keyed = pl.concat(heads) if heads else table.select(keys)
    named = results.rename({name: f"{name}_" for name in results.columns if name in keys})
    return pl.concat([keyed, named], how="horizontal").lazy()


def _numeric(axes: Sequence[AxisInfo], along: str) -> AxisInfo:
    numeric = {axis.name: axis for axis in axes if axis.is_numeric and axis.name != "seed"}
    if along not in numeric:
        names = ", ".join(numeric) or "none"
        raise ValueError(f"no threshold along {along!r}: the numeric axes are {names}")
    return numeric[along]


def with_outcomes(trials: pl.LazyFrame, at_steps: int | None = None) -> pl.LazyFrame:
    """Adds `_outcome`: solved or not, null where that is not known."""
    status, at = pl.col("status"), pl.col("solved_at_step")
    if at_steps is None:
        solved = (status == "solved") | ((status == "stopped") & at.is_not_null())
        unsolved = status.is_in(["unsolved", "diverged"])
    else:
        solved = (at <= at_steps).fill_null(False)
        unsolved = (status == "diverged") | (pl.col("steps") >= at_steps)
    known = pl.when(solved).then(True).when(unsolved).then(False)
    return trials.with_columns(_outcome=pl.when(status != "failed").then(known))


@dataclass(frozen=True)
class Curve:
    """The usable trials of one curve. Positions are in units of `psychometric`, times `sign`: along them
    solving becomes more likely.
    """

    position: Array  # [N]
    solved: Array  # [N], 0 or 1
    seed: Array  # [N]
    sizes: dict[str, Array]  # [N] each: n_hard, n_total
    sign: int
    failed: int
    finished: int
    steps: int | None
    control: float | None

    def counts(self) -> Counts:
        position, column = np.unique(self.position, return_inverse=True)
        solved = np.bincount(column, weights=self.solved)
        tried: Array = np.bincount(column).astype(np.float64)
        return Counts(position, solved.astype(np.float64), tried)


def _read(rows: pl.DataFrame, axis: AxisInfo, at_steps: int | None) -> Curve:
    position = axis.to_scale(_numbers(rows[axis.name])) / unit(axis)
    known = rows["_outcome"].is_not_null().to_numpy()
    at_inf = rows.filter(known & np.isposinf(position))["_outcome"]
    used = rows.filter(known & np.isfinite(position))
    seed = used["seed"] if "seed" in used.columns else pl.zeros(len(used), eager=True)
    budget = rows["budget"].max() if at_steps is None else at_steps
    return Curve(
        position=position[known & np.isfinite(position)],
        solved=_numbers(used["_outcome"]),
        seed=_numbers(seed),
        sizes={name: _numbers(used[name]) for name in COUNTS if name in used.columns},
        sign=1,
        failed=int((rows["status"] == "failed").sum()),
        finished=len(rows),
        steps=int(budget) if isinstance(budget, int) else None,
        control=float(at_inf.mean()) if len(at_inf) else None,  # type: ignore[arg-type]
    )


def _numbers(column: pl.Series) -> Array:
    return column.cast(pl.Float64).fill_null(math.nan).to_numpy()


def _oriented(curves: list[Curve], along: str) -> list[Curve]:
    """Curves turned so that solving becomes more likely. Each follows its own trend if that is clear, and the
    trend of all curves otherwise; more data is always the better side.
    """
    if along == "data_size":
        return curves
    trends = [_trend(curve) for curve in curves]
    common = sum(trend for trend, _ in trends)
    signs = [trend if abs(trend) > CLEAR_TREND * error else common for trend, error in trends]
    return [
        replace(curve, position=-curve.position, sign=-1) if sign < 0 else curve
        for curve, sign in zip(curves, signs, strict=True)
    ]


def _trend(curve: Curve) -> tuple[float, float]:
    """The score of a linear trend of solving with position, and its standard error (Cochran and Armitage)."""
    if not len(curve.solved):
        return 0.0, 0.0
    away, rate = curve.position - curve.position.mean(), curve.solved.mean()
    return float(away @ curve.solved), math.sqrt(float(away @ away) * rate * (1 - rate))


@dataclass(frozen=True)
class Estimate:
    """Where the threshold lies, in the positions of its curve; None where unknown."""

    at: tuple[float | None, float | None, float | None] = (None, None, None)
    """Threshold, low, high."""
    censored: Censored | None = None
    reason: str | None = None
    width: float | None = None
    lapse: float | None = None
    crossings: tuple[float | None, float | None] = (None, None)

    def mirrored(self) -> Estimate:
        """The same in positions of the opposite sign."""
        threshold, low, high = (None if x is None else -x for x in self.at)
        lower, upper = (None if x is None else -x for x in self.crossings)
        other: dict[Censored | None, Censored | None] = {"above": "below", "below": "above", None: None}
        return replace(
            self, at=(threshold, high, low), crossings=(upper, lower), censored=other[self.censored]
        )


def _estimate(curve: Curve, turns: bool) -> Estimate:
    if not len(curve.solved):
        return Estimate(reason="no trials")
    if turns:
        return Estimate(reason="non-monotone", crossings=crossings(curve.counts()))
    fit = profile(Outcomes(curve.position, curve.solved > 0, curve.seed))
    first, last = float(curve.position.min()), float(curve.position.max())
    low, high = fit.interval()
    low_inside = low if first <= low <= last else None
    high_inside = high if first <= high <= last else None
    if _never_half(fit, last):
        return Estimate((None, low_inside, None), reason="lapse")
    if fit.best > last:
        bound = last if low > last else low_inside
        return Estimate((None, bound, None), "above", _why_unsolved(curve.control))
    if fit.best < first:
        return Estimate((None, None, first if high < first else high_inside), "below")
    return Estimate((fit.best, low_inside, high_inside), width=fit.width, lapse=fit.lapse)


def _never_half(fit: Profile, last: float) -> bool:
    """Whether a curve that never reaches 0.5 is the best one, and clearly better than all that reach it
    beyond the tested values, which few trials can't tell from it.
    """
    inside, beyond = fit.loglik[fit.t <= last], fit.loglik[fit.t > last]
    return bool(fit.loglik_without > max(inside.max(), beyond.max() + CLEARLY_BETTER))


def _why_unsolved(control: float | None) -> str:
    if control is None:
        return "unknown: no control"
    return "data" if control >= 0.5 else "steps"


def _row(curve: Curve, axis: AxisInfo, turns: bool) -> dict[str, object]:
    found = _estimate(curve, turns)
    found, position = (found.mirrored(), -curve.position) if curve.sign < 0 else (found, curve.position)
    scale = unit(axis)

    def value(at: float | None) -> float | None:
        return None if at is None else axis.from_scale(at * scale)

    row: dict[str, object] = {"along": axis.name} | dict(zip(BOUNDS, map(value, found.at), strict=True))
    for column, sizes in curve.sizes.items():
        ends = [_size(at, position, sizes, is_log=axis.scale != "linear") for at in found.at]
        row |= {f"{bound}_{COUNTS[column]}": end for bound, end in zip(BOUNDS, ends, strict=True)}
    return row | {
        "censored": found.censored,
        "reason": found.reason,
        "width": None if found.width is None else found.width * scale,
        "lapse": found.lapse,
        "trials": len(curve.solved),
        "failed": curve.failed,
        "flagged": curve.failed > FLAG_FAILED_FRACTION * curve.finished,
        "monotone": not turns if len(curve.solved) else None,
        "lower_crossing": value(found.crossings[0]),
        "upper_crossing": value(found.crossings[1]),
        "steps": curve.steps,
        "control": curve.control,
    }


def _size(at: float | None, position: Array, sizes: Array, *, is_log: bool) -> float | None:
    """The number of examples at a position between trials, interpolated (on a log axis, its logarithm)."""
    usable = np.isfinite(sizes) & ((sizes > 0) | (not is_log))
    if at is None or not usable.any():
        return None
    places, column = np.unique(position[usable], return_inverse=True)
    heights = np.log(sizes[usable]) if is_log else sizes[usable]
    mean = np.bincount(column, weights=heights) / np.bincount(column)
    height = float(np.interp(at, places, mean))
    return math.exp(height) if is_log else height


def _schema(trials: pl.DataFrame) -> dict[str, pl.DataType]:
    number, count, flag, text = pl.Float64(), pl.Int64(), pl.Boolean(), pl.String()
    sizes = [f"{bound}_{suffix}" for n, suffix in COUNTS.items() if n in trials.columns for bound in BOUNDS]
    return {
        "along": text,
        **dict.fromkeys(BOUNDS, number),
        **dict.fromkeys(("censored", "reason"), text),
        **dict.fromkeys((*sizes, "width", "lapse"), number),
        **dict.fromkeys(("trials", "failed"), count),
        **dict.fromkeys(("flagged", "monotone"), flag),
        **dict.fromkeys(("lower_crossing", "upper_crossing"), number),
        "steps": count,
        "control": number,
    }
