"""How a run's thresholds grow: which axes the figure shows, and what its words say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from orchestrator.axis import Array, AxisInfo
from orchestrator.errors import QueryError
from orchestrator.law_figure import law_figure
from orchestrator.scaling import Counted
from orchestrator.thresholds import BOUNDS

if TYPE_CHECKING:
    import altair as alt

    from orchestrator.run import Run

PLACES = ("tested_low", "tested_high", "lower_crossing", "upper_crossing")
"""Columns of thresholds that are in units of the axis only."""
SLOPES = {
    "exponential": "slope of an exponential: doublings per unit",
    "power": "slope of a power: its exponent",
    "linear": "slope of a linear law: per unit",
    "logarithmic": "slope of a logarithmic law: per doubling",
}
"""What the number beside a verdict is."""


def law_diagram(
    run: Run, x: str | None, y: str | None, facets: Sequence[str] | None, counted: Counted = "axis"
) -> alt.TopLevelMixin:
    """Thresholds along y against x, a panel for each value of the facets, with the laws fitted there. `counted`: in
    what thresholds are measured (see `scaling`).

    Left to themselves, y is the sweep's searched axis, x the first other numeric axis with several values, and the
    facets all others with several values. Raises QueryError if there is no such axis.
    """
    curves = run.thresholds(y)
    if not len(curves):
        raise QueryError("no trials yet: there are no thresholds to draw")
    up = run.axis(curves["along"][0])
    across = run.axis(x) if x is not None else _first_other(run, up)
    laws = run.scaling(across.name, up.name, by=facets, counted=counted).collect()
    if counted != "axis":
        curves = in_sizes(curves, run.wanted_trials(), up, counted)
    names = facets if facets is not None else [a.name for a in _varied(run) if a.name in laws.columns]
    panels = [run.axis(name) for name in names]
    hidden = [a.name for a in _varied(run) if a.name not in (*names, up.name, across.name)]
    return law_figure(
        curves,
        laws,
        x=across,
        y=up,
        facets=panels,
        title=run.sweep.name,
        subtitle=_subtitle(curves, laws, hidden),
        measured=f"along {up.name}" if counted == "axis" else f"in n_{counted}",
    )


def in_sizes(curves: pl.DataFrame, trials: pl.LazyFrame, axis: AxisInfo, counted: Counted) -> pl.DataFrame:
    """The thresholds with all that is drawn of them in n_total or n_hard; null where that is not known."""
    keys = curves.columns[: curves.columns.index("along")]
    size = f"n_{counted}"
    usable = pl.col(axis.name).is_finite() & pl.col(size).is_not_null()
    known = trials.filter(usable).select(*keys, axis.name, size).unique().sort(axis.name).collect()
    found = {f"{end}_{counted}": end for end in BOUNDS}
    rows = []
    for curve in curves.iter_rows(named=True):
        own = known.filter(pl.all_horizontal(pl.lit(True), *(pl.col(k).eq_missing(curve[k]) for k in keys)))
        places, sizes = axis.to_scale(own[axis.name].to_numpy()), own[size].to_numpy()
        moved = {name: _size(curve[name], axis, places, sizes) for name in PLACES}
        rows.append(curve | moved | {end: curve[name] for name, end in found.items()})
    return pl.DataFrame(rows, schema=curves.schema)


def _size(value: float | None, axis: AxisInfo, places: Array, sizes: Array) -> float | None:
    """Interpolated between trials."""
    if value is None or not len(places):
        return None
    return float(np.exp2(np.interp(axis.to_scale(np.array(value)), places, np.log2(np.maximum(sizes, 1)))))


def _varied(run: Run) -> list[AxisInfo]:
    return [axis for axis in run.sweep.axes if len(axis.values) > 1 and axis.name != "seed"]


def _first_other(run: Run, up: AxisInfo) -> AxisInfo:
    for axis in _varied(run):
        if axis.is_numeric and axis.name != up.name:
            return axis
    raise QueryError(f"thresholds along {up.name} have no other numeric axis to grow with")


def _subtitle(curves: pl.DataFrame, laws: pl.DataFrame, hidden: Sequence[str]) -> str:
    parts = [f"{curves['trials'].sum():,} trials"]
    budgets = curves["steps"].unique()
    if len(budgets) == 1 and budgets[0] is not None:
        parts.append(f"step budget {budgets[0]:,}")
    parts += [SLOPES[name] for name in SLOPES if (laws["verdict"] == name).any()]
    if (laws["left_out"] > 0).any():
        parts.append("grey: in no fit")
    if hidden:
        parts.append(f"one law for all {', '.join(hidden)}")
    return "; ".join(parts)
