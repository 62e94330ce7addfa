"""Thresholds as marks on a map."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import polars as pl

from orchestrator.layout import Lane
from orchestrator.ruler import Ruler

THRESHOLD, BEYOND, CROSSING = "with 95 % interval", "beyond the tested sizes", "p crosses 0.5, turns around"
MARKS = {THRESHOLD: "circle", BEYOND: "triangle-up", CROSSING: "diamond"}
"""Kind of mark, as the legend names it, and its shape."""

Row = dict[str, object]
Labels = Callable[[Mapping[str, object]], dict[str, str]]


@dataclass(frozen=True)
class _Mark:
    """Something at a place along the ruler: an interval if it has an end `to`, else a mark of some kind."""

    at: float
    to: float | None = None
    kind: str | None = None
    outward: int = 0
    """Which way an arrow points: 1 towards larger places, -1 towards smaller ones."""


def marks(thresholds: pl.DataFrame, x: Ruler, y: Ruler, panel: Labels, lane: Lane | None = None) -> list[Row]:
    """Rows of the layers `interval` and `mark`, in coordinates of the map; none if the thresholds were
    sought along an axis that is neither x nor y, or are not told apart by the other one. They stand in the
    middle of cells, or of the strips in their `lane`.
    """
    along = thresholds["along"][0] if len(thresholds) else None
    ruler, other = (x, y) if along == x.axis.name else (y, x)
    is_told = other.axis.name in thresholds.columns or len(other.values) == 1
    if along != ruler.axis.name or not is_told or not ruler.axis.finite:
        return []
    rows: list[Row] = []
    for curve in thresholds.iter_rows(named=True):
        place = other.cell(curve.get(other.axis.name, other.values[0]))
        if place is not None:
            middle = place if lane is None else sum(lane.ends(place)) / 2
            rows += [
                _placed(mark, middle, is_on_x=ruler is x) | panel(curve) for mark in _marks_of(curve, ruler)
            ]
    return rows


def _marks_of(curve: Mapping[str, object], ruler: Ruler) -> list[_Mark]:
    """Bars reach as far as the cells in which the curve was tested, and arrows stand at their outer edge."""
    first, last = tested_ends(curve["tested_low"], curve["tested_high"], ruler)
    low, high = (_place(ruler, curve[name]) for name in ("low", "high"))
    threshold = _place(ruler, curve["threshold"])
    if threshold is not None:
        start, stop = first if low is None else low, last if high is None else high
        return [_Mark(start, stop), _Mark(threshold, kind=THRESHOLD)]
    if curve["censored"] == "above":
        bar = [] if low is None else [_Mark(low, last)]
        return [*bar, _Mark(last, kind=BEYOND, outward=1)]
    if curve["censored"] == "below":
        bar = [] if high is None else [_Mark(first, high)]
        return [*bar, _Mark(first, kind=BEYOND, outward=-1)]
    crossings = [_place(ruler, curve[name]) for name in ("lower_crossing", "upper_crossing")]
    return [_Mark(at, kind=CROSSING) for at in crossings if at is not None]


def tested_ends(lowest: object, highest: object, ruler: Ruler) -> tuple[float, float]:
    """The outer edges of the cells of the smallest and the largest tested value."""
    low, high = _place(ruler, lowest), _place(ruler, highest)
    first, last = ruler.scale_ends
    start = first if low is None else first + math.floor(low - first)
    return start, last if high is None else min(last, first + math.ceil(high - first))


def _place(ruler: Ruler, number: object) -> float | None:
    return ruler.place(number) if isinstance(number, (int, float)) else None


def _placed(mark: _Mark, across: float, *, is_on_x: bool) -> Row:
    """A mark of a curve that stands at `across` on the other axis."""
    px, py = (mark.at, across) if is_on_x else (across, mark.at)
    if mark.to is not None:
        right, top = (mark.to, across) if is_on_x else (across, mark.to)
        return {"layer": "interval", "px": px, "py": py, "right": right, "top": top}
    # Triangles point upwards, and angles go clockwise.
    angle = {1: 90 if is_on_x else 0, -1: 270 if is_on_x else 180, 0: 0}[mark.outward]
    return {"layer": "mark", "px": px, "py": py, "mark": mark.kind, "angle": angle}
