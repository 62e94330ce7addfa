"""Phase maps: each cell in the colour of the phase that most of its trials have."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from orchestrator.axis import AxisInfo
from orchestrator.figures import faceted, finished
from orchestrator.layers import Row, blank_layers, boxes, placed_cell, theory_layers
from orchestrator.layout import Layout, Panels
from orchestrator.phase_rules import OTHER
from orchestrator.ruler import Ruler
from orchestrator.theory import NO_THEORY, Theory, theory_rows

if TYPE_CHECKING:
    import altair as alt

COLOURS = (
    *("#0077bb", "#ee7733", "#009988", "#cc3311", "#aa4499", "#ddcc77"),
    *("#33bbee", "#ee3377", "#117733", "#332288", "#999933", "#882255"),
)
"""Of the phases, in the order of the rules (P. Tol's vibrant and muted schemes, made for colour-blind eyes too)."""
OTHER_COLOUR = "#555555"
FAINTEST = 0.3
"""Opacity of a phase that no trial had; 1 is one that all have."""
DARK = 0.55
"""Luminance below which ink is white."""
SMALLEST = 3.5
"""Font size, in points, below which counts are in the tooltip only."""


def phase_map(
    cells: pl.DataFrame,
    phases: Sequence[str],
    *,
    x: AxisInfo,
    y: AxisInfo,
    facets: Sequence[AxisInfo],
    title: str,
    subtitle: str,
    theory: Theory = NO_THEORY,
) -> alt.TopLevelMixin:
    """A map of `cells` (see `cells.phase_cells`), with a panel for each combination of the facets.

    A cell has the colour of its most frequent phase, paler where fewer of its trials have it, and says how many of
    them do. Where phases tie it is split between them, in the order of `phases`, the rules' names.
    """
    import altair as alt

    panels = Panels.of(facets)
    layout = Layout.of(Ruler.of(x), Ruler.of(y), panels)
    colours = dict(zip(phases, COLOURS, strict=False)) | {OTHER: OTHER_COLOUR}
    rows = map_rows(cells, layout, panels, colours)
    rows += theory_rows(theory, layout, panels)
    seen = {row.get("phase") for row in rows}
    legend = {phase: colour for phase, colour in colours.items() if phase != OTHER or phase in seen}
    layers = [*_phase_layers(layout, rows, legend), *blank_layers(layout, rows), *_counts(layout, rows)]
    layers += theory_layers(layout, rows)
    chart = alt.layer(*layers).properties(width=layout.width, height=layout.height)
    return finished(faceted(chart, rows, panels), layout.total, title, subtitle)


def map_rows(cells: pl.DataFrame, layout: Layout, panels: Panels, colours: Mapping[str, str]) -> list[Row]:
    """One row per cell, or one for each of the phases that tie in it, in coordinates of the map."""
    rows: list[Row] = []
    for cell in cells.iter_rows(named=True):
        place = placed_cell(cell, layout, panels)
        n, tied = most_frequent(cell["cell_phases"] or (), list(colours))
        rows += _stripes(place, n, tied, colours) if tied else [place]
    return rows


def most_frequent(phases: Iterable[str], order: Sequence[str]) -> tuple[int, list[str]]:
    """How often the most frequent phase occurs, and which it is; several if they tie, in their order."""
    counts = Counter(phases)
    most = max(counts.values(), default=0)
    return most, [phase for phase in order if most and counts[phase] == most]


def _stripes(place: Row, n: int, tied: Sequence[str], colours: Mapping[str, str]) -> list[Row]:
    """A row for each tied phase, side by side. The first carries the cell's number."""
    trials: Any = place["trials"]
    left: Any = place["left"]
    share = n / trials
    inks = {"white" if _luminance(colours[phase], share) < DARK else "black" for phase in tied}
    number = {"number": f"{n}/{trials}", "ink": inks.pop() if len(inks) == 1 else "black"}
    return [
        place
        | {"left": left + i / len(tied), "right": left + (i + 1) / len(tied)}
        | {"phase": phase, "share": share, "tie": " = ".join(tied) if len(tied) > 1 else "no"}
        | (number if i == 0 else {})
        for i, phase in enumerate(tied)
    ]


def _luminance(colour: str, share: float) -> float:
    """Of a colour, 0 to 1, as pale as the share makes it on white."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    pure = sum(weight * part for weight, part in zip((0.299, 0.587, 0.114), parts, strict=True))
    opacity = FAINTEST + (1 - FAINTEST) * share
    return 1 - opacity * (1 - pure)


def _phase_layers(layout: Layout, rows: Sequence[Row], colours: Mapping[str, str]) -> list[alt.Chart]:
    import altair as alt

    tooltips = [alt.Tooltip("phase:N"), alt.Tooltip("share:Q", format=".0%"), alt.Tooltip("tie:N")]
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    data = boxes(layout, *tooltips).transform_filter("datum.layer == 'data'")
    names = alt.Legend(title="phase", symbolType="square", symbolStrokeWidth=0)
    encoded = data.encode(color=alt.Color("phase:N", scale=scale, legend=names))
    if all(row.get("share", 1) == 1 for row in rows):
        return [encoded]
    legend = alt.Legend(
        title=textwrap.wrap("share of a cell's trials", 18),
        values=[0.5, 1],
        format=".0%",
        symbolType="square",
    )
    opacity = alt.Scale(domain=[0, 1], range=[FAINTEST, 1])
    return [encoded.encode(opacity=alt.Opacity("share:Q", scale=opacity, legend=legend))]


def _counts(layout: Layout, rows: Sequence[Row]) -> list[alt.Chart]:
    """How many trials have the phase, of how many: in the middle of cells, or in their corner if a curve may run
    through the middle; left out where it does not fit."""
    import altair as alt

    longest = max((len(str(row["number"])) for row in rows if "number" in row), default=0)
    size = min(layout.small, layout.cell_width / (0.6 * longest)) if longest else 0
    if not layout.has_counts or size < SMALLEST:
        return []
    side: dict[str, Any] = {}
    if any(row["layer"] == "theory" for row in rows):
        size *= 0.85
        side = {"align": "right", "baseline": "bottom", "dx": layout.cell_width / 2 - 1.5}
        side |= {"dy": layout.cell_height / 2 - 1.0}
    text = alt.Chart().mark_text(fontSize=size, **side).transform_filter("isValid(datum.number)")
    x, y = layout.encode_x(), layout.encode_y()
    return [text.encode(x=x, y=y, text="number:N", color=alt.Color("ink:N", scale=None))]
