"""Phase diagrams.

A map is drawn on its own coordinates (`ruler`): cells of equal size, and thresholds between them at their
true place. All rows are in one data set, told apart by `layer`, which is what lets Vega-Lite repeat panels.
Fields have names of our own: an axis may be called anything, and Vega reads dots and brackets in field
names.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from orchestrator.axis import AxisInfo
from orchestrator.cells import cells, phase_cells
from orchestrator.export import save
from orchestrator.fitted import Fitted
from orchestrator.layers import Row, cell_layers, cell_rows, colour_of, mark_layers, theory_layers
from orchestrator.layout import Layout, Panels
from orchestrator.overlay import marks
from orchestrator.ruler import Ruler
from orchestrator.strips import beside, strip_layers, strip_rows
from orchestrator.theory import NO_THEORY, Theory, theory_rows

if TYPE_CHECKING:
    import altair as alt

__all__ = ["cells", "phase_cells", "phase_diagram", "save"]

FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
EMBEDDING = {
    "embedOptions": {
        "renderer": "svg",
        "actions": {"export": True, "source": False, "compiled": False, "editor": False},
    }
}
"""In an HTML file text stays text, and no link leads elsewhere."""


def phase_diagram(
    cells: pl.DataFrame,
    thresholds: pl.DataFrame | None,
    *,
    x: AxisInfo,
    y: AxisInfo,
    facets: Sequence[AxisInfo],
    value: str,
    value_title: str,
    title: str,
    subtitle: str,
    theory: Theory = NO_THEORY,
    fits: Sequence[Fitted] = (),
) -> alt.TopLevelMixin:
    """A heat map of `cells` (see there), a panel for each combination of the facets: the first one across,
    the others down.

    The colour runs from 0 to 1 where all means lie in there, else over their range. `thresholds` (see there)
    are drawn on top if they were sought along x or y, and the `fits` of their curves in strips beside the cells;
    otherwise nothing is.
    `theory` is drawn where its axes are shown (see `theory.theory_rows`).
    """
    import altair as alt

    panels = Panels.of(facets)
    layout = Layout.of(Ruler.of(x), Ruler.of(y), panels)
    along = _searched(thresholds, (x, y), facets)
    strips = [] if along is None else strip_rows(fits, along, layout, panels)
    lane = layout.strip(is_on_x=along is x) if strips else None
    colours = _colour_range(cells, value)
    rows = cell_rows(cells, layout, panels, colours)
    if lane is not None:
        rows = [beside(row, lane, is_on_x=along is x) for row in rows] + strips
    if thresholds is not None and along is not None:
        rows += marks(thresholds, layout.x, layout.y, panels.labels, lane)
    rows += theory_rows(theory, layout, panels)
    colour = colour_of(colours, value_title)
    layers = [*cell_layers(layout, rows, colour, value_title), *strip_layers(layout, rows, along, colour)]
    layers += [*theory_layers(layout, rows), *mark_layers(layout, rows)]
    chart = alt.layer(*layers).properties(width=layout.width, height=layout.height)
    return finished(faceted(chart, rows, panels), layout.total, title, subtitle)


def _searched(
    thresholds: pl.DataFrame | None, shown: Sequence[AxisInfo], facets: Sequence[AxisInfo]
) -> AxisInfo | None:
    """The axis of the map along which the thresholds were sought; None if they have no place on it."""
    if (
        thresholds is None
        or thresholds.is_empty()
        or not {axis.name for axis in facets} <= set(thresholds.columns)
    ):
        return None
    return next((axis for axis in shown if axis.name == thresholds["along"][0]), None)


def _colour_range(cells: pl.DataFrame, value: str) -> tuple[float, float]:
    means = cells["cell_mean"].drop_nulls().to_list()
    low, high = (min(means), max(means)) if means else (0.0, 1.0)
    if value == "solved" or (low >= 0 and high <= 1):
        return 0.0, 1.0
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def faceted(chart: Any, rows: list[Row], panels: Panels) -> Any:
    """The chart with its data, once for each panel."""
    import altair as alt

    data = alt.InlineData(values=rows)
    if not panels.across:
        return chart.properties(data=data)
    seen = {field: list(dict.fromkeys(str(row[field]) for row in rows)) for field in ("across", "down")}
    if panels.down:
        column = alt.Column("across:N", sort=seen["across"], title=None)
        row = alt.Row("down:N", sort=seen["down"], title=None)
        return chart.facet(data=data, column=column, row=row, spacing=8)
    facet = alt.Facet("across:N", sort=seen["across"], title=None)
    return chart.facet(data=data, facet=facet, columns=panels.columns, spacing=8)


def finished(chart: Any, width: float, title: str, subtitle: str) -> alt.TopLevelMixin:
    """The chart with its heading, wrapped to the width in points, and in the style of all figures."""
    import altair as alt

    heading = alt.TitleParams(
        text=textwrap.wrap(title, int(width / 4.8)) or [""],
        subtitle=textwrap.wrap(subtitle, int(width / 3.9)),
        anchor="start",
        frame="bounds",
        fontSize=9,
        subtitleFontSize=7.5,
        subtitleColor="#444",
    )
    legends = {"labelFontSize": 7, "titleFontSize": 7.5, "titleFontWeight": "normal", "labelLimit": 0}
    done: alt.TopLevelMixin = (
        chart.properties(title=heading, padding=4, usermeta=EMBEDDING)
        .resolve_scale(color="shared", fill="shared", opacity="shared", shape="shared", strokeDash="shared")
        .configure(font=FONT)
        .configure_view(stroke=None)
        .configure_axis(labelFontSize=7, titleFontSize=8, titleFontWeight="normal", tickColor="#888")
        .configure_legend(**legends, gradientLength=70, gradientThickness=10)
        .configure_header(labelFontSize=8, labelPadding=3)
    )
    return done
