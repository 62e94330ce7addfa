"""How a run's thresholds grow: which axes the figure shows, and what its words say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.axis import AxisInfo
from orchestrator.errors import QueryError
from orchestrator.law_figure import law_figure

if TYPE_CHECKING:
    import altair as alt
    import polars as pl

    from orchestrator.run import Run


SLOPES = {
    "exponential": "slope of an exponential: doublings per unit",
    "power": "slope of a power: its exponent",
    "linear": "slope of a linear law: per unit",
    "logarithmic": "slope of a logarithmic law: per doubling",
}
"""What the number beside a verdict is."""


def law_diagram(run: Run, x: str | None, y: str | None, facets: Sequence[str] | None) -> alt.TopLevelMixin:
    """Thresholds along y against x, a panel for each value of the facets, with the laws fitted there.

    Left to themselves, y is the sweep's searched axis, x the first other numeric axis with several values, and the
    facets all others with several values. Raises QueryError if there is no such axis.
    """
    curves = run.thresholds(y)
    if not len(curves):
        raise QueryError("no trials yet: there are no thresholds to draw")
    up = run.axis(curves["along"][0])
    across = run.axis(x) if x is not None else _first_other(run, up)
    laws = run.scaling(across.name, up.name, by=facets).collect()
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
    )


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
