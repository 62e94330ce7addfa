"""The layers of a map, from the bottom up: cells with data, cells without, numbers of trials, theory,
thresholds.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from orchestrator.layout import Layout, Panels
from orchestrator.overlay import MARKS

if TYPE_CHECKING:
    import altair as alt

Row = dict[str, object]
BLANKS = {
    "empty": ("no trials (·)", "#f1f1f1", "·"),
    "failed": ("all failed (!)", "#f3c9bd", "!"),
    "impossible": ("cannot exist (×)", "#b9b9b9", "×"),
}
"""Status of a cell without data: its name in the legend, its colour, its sign."""
LIGHT = 0.55
"""Share of the colour scale from which ink is black."""


def cell_rows(cells: pl.DataFrame, layout: Layout, panels: Panels, colours: tuple[float, float]) -> list[Row]:
    """One row per cell, in coordinates of the map."""
    low, high = colours
    rows: list[Row] = []
    for cell in cells.iter_rows(named=True):
        mean = cell["cell_mean"]
        is_light = mean is None or (mean - low) / (high - low) > LIGHT
        rows.append(
            placed_cell(cell, layout, panels) | {"mean": mean, "ink": "black" if is_light else "white"}
        )
    return rows


def placed_cell(cell: Mapping[str, Any], layout: Layout, panels: Panels) -> Row:
    """A cell in coordinates of the map, with what is known of it whatever its colour says."""
    across, up, status = cell[layout.x.axis.name], cell[layout.y.axis.name], cell["cell_status"]
    px, py = layout.x.cell(across), layout.y.cell(up)
    assert px is not None
    assert py is not None
    return (
        {"layer": status, "px": px, "py": py, "left": px - 0.5, "right": px + 0.5}
        | {"bottom": py - 0.5, "top": py + 0.5, "blank": BLANKS[status][0] if status in BLANKS else None}
        | {"trials": cell["cell_trials"], "failed": cell["cell_failed"]}
        | {"x": layout.x.label(across), "y": layout.y.label(up), **panels.labels(cell)}
    )


def colour_of(colours: tuple[float, float], title: str) -> alt.Color:
    """Of the field `mean`."""
    import altair as alt

    scale = alt.Scale(scheme="viridis", domain=colours, clamp=True)
    return alt.Color("mean:Q", title=textwrap.wrap(title, 18), scale=scale)


def cell_layers(layout: Layout, rows: list[Row], colour: alt.Color, title: str) -> list[alt.Chart]:
    """Cells with data, in colour."""
    import altair as alt

    mean = alt.Tooltip("mean:Q", title=title, format=".3~g")
    data = boxes(layout, mean).transform_filter("datum.layer == 'data'")
    layers = [data.encode(color=colour)]
    layers += blank_layers(layout, rows)
    if layout.has_counts:
        layers.append(_counts(layout, rows))
    return layers


def boxes(layout: Layout, *measured: alt.Tooltip) -> alt.Chart:
    """Cells with their tooltips, which say what was measured too."""
    import altair as alt

    tooltip = [
        alt.Tooltip("x:N", title=layout.x.axis.name),
        alt.Tooltip("y:N", title=layout.y.axis.name),
        *measured,
        alt.Tooltip("trials:Q", title="trials"),
        alt.Tooltip("failed:Q", title="failed"),
    ]
    seam = min(0.6, 0.04 * min(layout.cell_width, layout.cell_height))
    ends = {"x": layout.encode_x("left"), "y": layout.encode_y("bottom"), "x2": "right", "y2": "top"}
    rect: alt.Chart = alt.Chart().mark_rect(stroke="white", strokeWidth=seam).encode(**ends, tooltip=tooltip)
    return rect


def blank_layers(layout: Layout, rows: Sequence[Row]) -> list[alt.Chart]:
    """Cells without data, in grey with a sign; none if there are no such cells."""
    import altair as alt

    statuses = [status for status in BLANKS if any(row["layer"] == status for row in rows)]
    if not statuses:
        return []
    names, colours, _ = zip(*(BLANKS[status] for status in statuses), strict=True)
    legend = alt.Legend(
        title="cells without data", symbolType="square", symbolStrokeColor="#888", symbolStrokeWidth=0.5
    )
    fill = alt.Fill("blank:N", scale=alt.Scale(domain=names, range=colours), legend=legend)
    layers = [boxes(layout).transform_filter("isValid(datum.blank)").encode(fill=fill)]
    for status in statuses:
        sign = alt.Chart().mark_text(fontSize=layout.small + 2, color="#444", text=BLANKS[status][2])
        here = sign.transform_filter(f"datum.layer == '{status}'")
        layers.append(here.encode(x=layout.encode_x(), y=layout.encode_y()))
    return layers


def _counts(layout: Layout, rows: list[Row]) -> alt.Chart:
    """Numbers of trials: in the middle of cells, or where no interval or curve runs through it."""
    import altair as alt

    has_theory = any(row["layer"] == "theory" for row in rows)
    runs_up = any(row["layer"] == "interval" and row["px"] == row["right"] for row in rows) or has_theory
    runs_across = any(row["layer"] == "interval" and row["py"] == row["top"] for row in rows) or has_theory
    side: dict[str, Any] = {"align": "right", "dx": -1.5} if runs_up else {}
    side |= {"baseline": "top", "dy": 1.5} if runs_across else {}
    font = 0.85 * layout.small if side else layout.small
    text = alt.Chart().mark_text(fontSize=font, **side).transform_filter("datum.layer == 'data'")
    upper = "top" if layout.y.axis.is_numeric else "bottom"  # categories are read from the top
    x, y = layout.encode_x("right" if runs_up else "px"), layout.encode_y(upper if runs_across else "py")
    counts: alt.Chart = text.encode(x=x, y=y, text="trials:Q", color=alt.Color("ink:N", scale=None))
    return counts


def mark_layers(layout: Layout, rows: list[Row]) -> list[alt.Chart]:
    """Thresholds, in black on a white halo: legible on the darkest cell and on the lightest."""
    import altair as alt

    kinds = [kind for kind in MARKS if any(row.get("mark") == kind for row in rows)]
    if not kinds:
        return []
    x, y = layout.encode_x(), layout.encode_y()
    interval = (
        alt.Chart().transform_filter("datum.layer == 'interval'").encode(x=x, y=y, x2="right", y2="top")
    )
    legend = alt.Legend(
        title="threshold (half solve)", symbolFillColor="black", symbolStrokeWidth=0, symbolSize=30
    )
    shape = alt.Shape("mark:N", scale=alt.Scale(domain=kinds, range=[MARKS[k] for k in kinds]), legend=legend)
    point = alt.Chart().transform_filter("datum.layer == 'mark'").encode(x=x, y=y, shape=shape)
    return [
        interval.mark_rule(color="white", strokeWidth=3.0, strokeCap="round"),
        interval.mark_rule(color="black", strokeWidth=1.2),
        point.mark_point(
            filled=True, opacity=1, size=30, color="black", stroke="white", strokeWidth=1
        ).encode(angle=alt.Angle("angle:Q", scale=None)),
    ]


DASHES = ((3, 2), (1, 1.5), (6, 2), (6, 2, 1, 2))
"""Of curves from theory, in the order in which they are named."""


def theory_layers(layout: Layout, rows: list[Row]) -> list[alt.Chart]:
    """What theory says, as thin dashed lines on a white halo."""
    import altair as alt

    names = list(dict.fromkeys(str(row["theory"]) for row in rows if row["layer"] == "theory"))
    if not names:
        return []
    points = alt.Chart().transform_filter("datum.layer == 'theory'")
    line = points.encode(
        x=layout.encode_x(), y=layout.encode_y(), order="order:Q", detail=["theory:N", "piece:N"]
    )
    legend = alt.Legend(title="theory", symbolStrokeWidth=1, symbolSize=120)
    dashes = [DASHES[i % len(DASHES)] for i in range(len(names))]
    dash = alt.StrokeDash("theory:N", scale=alt.Scale(domain=names, range=dashes), legend=legend)
    return [
        line.mark_line(color="white", strokeWidth=2.4, opacity=0.8),
        line.mark_line(color="black", strokeWidth=0.9).encode(strokeDash=dash),
    ]
