"""How large the parts of a map are, and its two axes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.axis import AxisInfo
from orchestrator.ruler import Ruler, facet_label

if TYPE_CHECKING:
    import altair as alt

COLUMN, PAGE = 245, 505
"""Widths in points that a figure aims at: one column of a journal, and both."""
COUNTS_UP_TO = 150
"""Cells per panel, beyond which their numbers of trials are in the tooltip only."""
FEW = 14
"""Cells across that fit into one column."""
STRIP, ASIDE = 6.0, 1.2
"""Most width of a strip, and of the white on both sides of it, in points."""
STRIP_FROM = 6
"""Points across a cell, from which it has room for a strip."""
LETTER = 4.2
"""Mean width of a letter of a label."""


@dataclass(frozen=True)
class Panels:
    """Which facets run across and which down; one facet alone is wrapped to rows of `columns` panels."""

    across: Sequence[AxisInfo]
    down: Sequence[AxisInfo]
    columns: int

    @staticmethod
    def of(facets: Sequence[AxisInfo]) -> Panels:
        n = len(facets[0].values) if facets else 1
        is_wrapped = len(facets) == 1 and n > 5
        return Panels(facets[:1], facets[1:], math.ceil(n / math.ceil(n / 4)) if is_wrapped else n)

    def labels(self, row: Mapping[str, object]) -> dict[str, str]:
        """Where a row belongs: `across` and `down`, as the headers of panels say it."""
        return {
            "across": facet_label(self.across, [row[axis.name] for axis in self.across]),
            "down": facet_label(self.down, [row[axis.name] for axis in self.down]),
        }


class Lane(NamedTuple):
    """A strip beside what a cell shows, in cells from one side of it."""

    start: float
    end: float
    width: float
    """With the white on both sides."""
    is_far: bool
    """Whether that side is the one of larger places."""

    def ends(self, cell: float) -> tuple[float, float]:
        """Of the strip of a cell, in places."""
        side = cell + 0.5 if self.is_far else cell - 0.5
        return (side - self.end, side - self.start) if self.is_far else (side + self.start, side + self.end)

    def rest(self, cell: float) -> tuple[float, float]:
        """What is left of a cell, in places."""
        return (cell - 0.5, cell + 0.5 - self.width) if self.is_far else (cell - 0.5 + self.width, cell + 0.5)


@dataclass(frozen=True)
class Layout:
    """Rulers and sizes, in points."""

    x: Ruler
    y: Ruler
    cell_width: float
    cell_height: float
    total: float
    """Width that the whole figure aims at."""

    @staticmethod
    def of(x: Ruler, y: Ruler, panels: Panels) -> Layout:
        total = COLUMN if panels.columns == 1 and x.length <= FEW else PAGE
        beside = 165 if panels.down else 130  # labels on the left, legends on the right
        cell_width = min(max(((total - beside) / panels.columns - 8) / x.length, 2.0), 34.0)
        cell_height = min(max(190 / y.length, 2.0), 22.0)
        return Layout(x, y, cell_width, cell_height, total)

    @property
    def width(self) -> float:
        return self.cell_width * self.x.length

    @property
    def height(self) -> float:
        return self.cell_height * self.y.length

    @property
    def small(self) -> float:
        """Font size inside cells."""
        return min(7.0, 0.75 * self.cell_height, 0.6 * self.cell_width)

    @property
    def has_counts(self) -> bool:
        """Whether the number of trials fits into a cell."""
        n_cells = len(self.x.values) * len(self.y.values)
        return n_cells < COUNTS_UP_TO and self.cell_width >= 8 and self.cell_height >= 6.5

    def strip(self, *, is_on_x: bool) -> Lane | None:
        """Where a strip along x (or y) runs: at the lower side of cells (or at their left one). None if there is no
        room."""
        size = self.cell_height if is_on_x else self.cell_width
        if size < STRIP_FROM:
            return None
        width, aside = min(STRIP / size, 1 / 4), min(ASIDE / size, 1 / 12)
        is_far = is_on_x and not self.y.axis.is_numeric  # categories are read from the top
        return Lane(aside, aside + width, 2 * aside + width, is_far=is_far)

    def encode_x(self, field: str = "px") -> alt.X:
        """`field`: of the rows, in places of the ruler."""
        import altair as alt

        needed = LETTER * max(len(self.x.label(value)) for value in self.x.values) + 4
        is_slanted = needed > self.cell_width and not self.x.axis.is_numeric
        axis = _axis(self.x, needed / self.cell_width, is_slanted=is_slanted)
        scale = alt.Scale(domain=self.x.domain, nice=False, zero=False)
        return alt.X(f"{field}:Q", scale=scale, title=self.x.axis.name, axis=axis)

    def encode_y(self, field: str = "py") -> alt.Y:
        """Numbers grow upwards; categories are read from the top."""
        import altair as alt

        scale = alt.Scale(domain=self.y.domain, nice=False, zero=False, reverse=not self.y.axis.is_numeric)
        axis = _axis(self.y, 9 / self.cell_height, is_slanted=False)
        return alt.Y(f"{field}:Q", scale=scale, title=self.y.axis.name, axis=axis)


def _axis(ruler: Ruler, label_cells: float, *, is_slanted: bool) -> alt.Axis:
    """Labels are looked up by place: the axis itself is one of numbers."""
    import altair as alt

    labels = ruler.labels(label_cells)
    texts, places = json.dumps(list(labels.values())), json.dumps(list(labels))
    return alt.Axis(
        values=list(labels),
        labelExpr=f"{texts}[indexof({places}, datum.value)]",
        labelAngle=-45 if is_slanted else 0,
        labelAlign="right" if is_slanted else alt.Undefined,
        labelBaseline="top" if is_slanted else alt.Undefined,
        labelLimit=90,
        labelOverlap=False,
        grid=False,
        domain=False,
        tickSize=3,
    )
