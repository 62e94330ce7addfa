"""Thresholds as marks on a map."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import polars as pl

from orchestrator.ruler import Ruler

THRESHOLD, BEYOND, CROSSING = "with 95 % interval", "outside the axis", "p crosses 0.5, turns around"
MARKS = {THRESHOLD: "circle", BEYOND: "triangle-up", CROSSING: "diamond"}
"""Kind of mark, as the legend names it, and its shape."""

Row = dict[str, object]
Labels = Callable[[Mapping[str, object]], dict[str, str]]


def marks(thresholds: pl.DataFrame, x: Ruler, y: Ruler, panel: Labels) -> list[Row]:
    """Rows of the layers `interval` and `mark`, in coordinates of the map; none if the thresholds were sought along
    an axis that is neither x nor y, or do not differ along the other one.
    """
    along = thresholds["along"][0] if len(thresholds) else None
    ruler, other = (x, y) if along == x.axis.name else (y, x)
    if along != ruler.axis.name or other.axis.name not in thresholds.columns or not ruler.axis.finite:
        return []
    rows: list[Row] = []
    for curve in thresholds.iter_rows(named=True):
        place = other.cell(curve[other.axis.name])
        if place is not None:
            rows += [_placed(mark, place, ruler is x) | panel(curve) for mark in _marks_of(curve, ruler)]
    return rows


def _marks_of(curve: Mapping[str, object], ruler: Ruler) -> list[Row]:
    """Along the ruler: `from` and `to` for an interval, `at` for a mark; `outward` is -1 or 1 for arrows."""
    low_end, high_end = ruler.scale_ends
    low, high = (_place(ruler, curve[name]) for name in ("low", "high"))
    threshold = _place(ruler, curve["threshold"])
    if threshold is not None:
        ends = {"from": low_end if low is None else low, "to": high_end if high is None else high}
        return [ends, {"at": threshold, "mark": THRESHOLD}]
    if curve["censored"] == "above":
        start = high_end - 0.5 if low is None else low
        return [{"from": start, "to": high_end}, {"at": high_end, "mark": BEYOND, "outward": 1}]
    if curve["censored"] == "below":
        start = low_end + 0.5 if high is None else high
        return [{"from": low_end, "to": start}, {"at": low_end, "mark": BEYOND, "outward": -1}]
    crossings = [_place(ruler, curve[name]) for name in ("lower_crossing", "upper_crossing")]
    return [{"at": at, "mark": CROSSING} for at in crossings if at is not None]


def _place(ruler: Ruler, number: object) -> float | None:
    return ruler.place(number) if isinstance(number, (int, float)) else None


def _placed(mark: Row, across: float, is_on_x: bool) -> Row:
    """A mark of a curve that stands at `across` on the other axis."""
    if "from" in mark:
        (start, stop), at = (mark["from"], mark["to"]), across
        ends = (start, stop, at, at) if is_on_x else (at, at, start, stop)
        return dict(zip(("px", "right", "py", "top"), ends, strict=True)) | {"layer": "interval"}
    px, py = (mark["at"], across) if is_on_x else (across, mark["at"])
    outward = mark.get("outward")
    angle = (
        0
        if outward is None
        else {(1, False): 0, (-1, False): 180, (1, True): 90, (-1, True): 270}[outward, is_on_x]
    )
    return {"layer": "mark", "px": px, "py": py, "mark": mark["mark"], "angle": angle}
