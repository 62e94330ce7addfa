"""Thresholds against another axis, with their intervals and the laws fitted to them.

Both axes are drawn on their own scales, so that an exponential is a straight line where k is linear and data
logarithmic. Rows have names of our own, as in `figures`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from orchestrator.axis import AxisInfo
from orchestrator.figures import faceted, finished
from orchestrator.laws import bent
from orchestrator.layout import COLUMN, FEW, LETTER, PAGE, Panels
from orchestrator.overlay import BEYOND, CROSSING, MARKS, THRESHOLD
from orchestrator.ruler import Ruler
from orchestrator.scaling import RESULTS

if TYPE_CHECKING:
    import altair as alt

Row = dict[str, Any]
LINES = {
    **dict.fromkeys(("exponential", "linear"), ("#1b6ca8", [1, 0])),
    **dict.fromkeys(("power", "logarithmic"), ("#c8500a", [4, 2])),
    "constant": ("#4d7c2e", [1, 2]),
}
"""Colour and dashes of each law: told apart in print, and by the colour-blind."""
HEIGHT, WIDEST = 170, 160
HEADROOM = 0.2
"""Of a panel's height, for its verdict."""
POINTS = 41
"""Of a law's line."""
MOST_TICKS = 8


def law_figure(
    thresholds: pl.DataFrame,
    laws: pl.DataFrame,
    *,
    x: AxisInfo,
    y: AxisInfo,
    facets: Sequence[AxisInfo],
    title: str,
    subtitle: str,
    measured: str = "",
) -> alt.TopLevelMixin:
    """A panel for each group of `laws` (see `scaling`; the facets are its groups), `thresholds` (see there) in it.

    `measured` says along or in what thresholds are given. Both laws that grow are drawn where they could be fitted,
    the constant where it is the verdict. Curves in no fit are grey.
    """
    import altair as alt

    panels = Panels.of(facets)
    fitted = [
        dict(zip([*laws.columns[: -len(RESULTS)], *RESULTS], row, strict=True)) for row in laws.iter_rows()
    ]
    rows = [row for curve in thresholds.iter_rows(named=True) for row in _marks(curve, x, y, panels)]
    rows += [row for law in fitted for row in _line(law, x, y, panels)]
    is_crowded = len(x.finite) > FEW
    total = COLUMN if panels.columns == 1 and not is_crowded else PAGE
    room = (total - (165 if panels.down else 130)) / panels.columns - 8
    width = room if is_crowded else min(room, WIDEST)
    frame = _Frame.of(x, y, rows, width, measured)
    rows += [_words(law, frame, panels) for law in _decisive(fitted)]
    layers = [*_line_layers(frame, rows), *_mark_layers(frame, rows), _word_layer(frame)]
    chart = alt.layer(*layers).properties(width=width, height=HEIGHT)
    return finished(faceted(chart, rows, panels), total, title, subtitle)


def _decisive(laws: Sequence[Row]) -> Iterator[Row]:
    """Of each group's laws the one that is the verdict; the first, if none is."""
    for start in range(0, len(laws), 3):
        group = laws[start : start + 3]
        yield next((law for law in group if law["law"] == law["verdict"]), group[0])


def _at(axis: AxisInfo, number: object) -> float | None:
    """A place on the axis' scale; None if there is none."""
    if not isinstance(number, (int, float)):
        return None
    place = float(axis.to_scale(np.array(float(number))))
    return place if math.isfinite(place) else None


def _marks(curve: Mapping[str, Any], x: AxisInfo, y: AxisInfo, panels: Panels) -> list[Row]:
    """The threshold of a curve with its bar, an arrow where it lies outside, or its two crossings."""
    px = _at(x, curve[x.name])
    threshold, low, high, first, last = (
        _at(y, curve[name]) for name in ("threshold", "low", "high", "tested_low", "tested_high")
    )
    if px is None or first is None or last is None:
        return []
    is_fitted = curve["reason"] != "steps" and curve["monotone"] is not False
    common = {"px": px, "ink": "black" if is_fitted else "#9a9a9a", **panels.labels(curve)}
    bottom, top = first if low is None else low, last if high is None else high
    bar = common | {"layer": "interval", "py": bottom, "top": top}
    mark = common | {"layer": "mark", "angle": 0}
    if threshold is not None:
        return [bar, mark | {"mark": THRESHOLD, "py": threshold}]
    if curve["censored"] == "above":
        bars = [] if low is None else [bar | {"top": last}]
        return [*bars, mark | {"mark": BEYOND, "py": last}]
    if curve["censored"] == "below":
        bars = [] if high is None else [bar | {"py": first}]
        return [*bars, mark | {"mark": BEYOND, "py": first, "angle": 180}]
    crossings = (_at(y, curve[name]) for name in ("lower_crossing", "upper_crossing"))
    return [mark | {"mark": CROSSING, "py": at} for at in crossings if at is not None]


def _line(law: Mapping[str, Any], x: AxisInfo, y: AxisInfo, panels: Panels) -> list[Row]:
    """A law over the range in which it was fitted."""
    is_drawn = law["slope"] is not None or (law["law"] == "constant" == law["verdict"])
    if law["intercept"] is None or not is_drawn:
        return []
    ends = x.to_scale(np.array([law["first"], law["last"]]))
    across = np.linspace(ends[0], ends[1], POINTS)
    k = np.array([x.from_scale(float(place)) for place in across])
    up = law["intercept"] + (law["slope"] or 0.0) * bent(law["law"], k)
    up = up * math.log10(2) if y.scale == "log10" else up
    common = {"layer": "law", "law": law["law"], **panels.labels(law)}
    return [common | {"px": float(px), "py": float(py)} for px, py in zip(across, up, strict=True)]


def _words(law: Mapping[str, Any], frame: _Frame, panels: Panels) -> Row:
    """The verdict of a panel, and the slope of its law."""
    words = [law["verdict"]]
    if law["law"] == law["verdict"] and law["slope"] is not None:
        words.append(f"{law['slope']:.3g} [{law['slope_low']:.3g}, {law['slope_high']:.3g}]")
    place = {"px": frame.x_domain[0], "py": frame.y_domain[1]}
    return {"layer": "words", "words": words, **place, **panels.labels(law)}


@dataclass(frozen=True)
class _Frame:
    """The axes of a panel, in places on their scales."""

    x: AxisInfo
    y: AxisInfo
    x_domain: tuple[float, float]
    y_domain: tuple[float, float]
    width: float
    measured: str

    @staticmethod
    def of(x: AxisInfo, y: AxisInfo, rows: Sequence[Row], width: float, measured: str) -> _Frame:
        across = [row["px"] for row in rows] or [0.0]
        up = [row[end] for row in rows if row["layer"] != "law" for end in ("py", "top") if end in row] or [
            0.0
        ]
        # A law may leave the range of what was tested, and is cut off there.
        up += [min(max(row["py"], min(up)), max(up)) for row in rows if row["layer"] == "law"]
        (left, right), (bottom, top) = _padded(across, 0.08), _padded(up, 0.06)
        return _Frame(x, y, (left, right), (bottom, top + HEADROOM * (top - bottom)), width, measured)

    def encode_x(self) -> alt.X:
        import altair as alt

        places = [float(place) for place in self.x.to_scale(np.array(self.x.finite))]
        needed = LETTER * max((len(Ruler.of(self.x).label(value)) for value in self.x.finite), default=1) + 6
        kept = slice(None, None, math.ceil(len(places) / max(1, int(self.width / needed))))
        labels = [Ruler.of(self.x).label(value) for value in self.x.finite]
        axis = _axis(dict(zip(places[kept], labels[kept], strict=True)))
        scale = alt.Scale(domain=self.x_domain, nice=False, zero=False)
        return alt.X("px:Q", scale=scale, title=self.x.name, axis=axis)

    def encode_y(self) -> alt.Y:
        import altair as alt

        axis = alt.Axis(grid=False, tickCount=6)
        if self.y.scale != "linear":
            axis = _axis({place: self._label(place) for place in self._places()})
        scale = alt.Scale(domain=self.y_domain, nice=False, zero=False)
        return alt.Y("py:Q", scale=scale, title=f"threshold {self.measured}", axis=axis)

    def _label(self, place: float) -> str:
        value = self.y.from_scale(place)
        return Ruler.of(self.y).label(float(f"{value:.3g}") if value < 1000 else value)

    def _places(self) -> list[float]:
        """Whole octaves or decades; where there are few, halves of octaves, or 1, 2 and 5 of each decade."""
        low, high = self.y_domain
        is_few = high - low < 3
        step = 1 if is_few else math.ceil((high - low) / MOST_TICKS)
        whole = [float(step * i) for i in range(math.floor(low / step), math.ceil(high / step) + 1)]
        between = (0.0, 0.5) if self.y.scale == "log2" else (0.0, math.log10(2), math.log10(5))
        places = [place + part for place in whole for part in (between if is_few else (0.0,))]
        return [place for place in places if low <= place <= high]


def _padded(values: Sequence[float], share: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    pad = share * (high - low) or 0.5
    return low - pad, high + pad


def _axis(labels: Mapping[float, str]) -> alt.Axis:
    """Labels are looked up by place: the axis itself is one of numbers."""
    import altair as alt

    texts, places = json.dumps(list(labels.values())), json.dumps(list(labels))
    lookup = f"{texts}[indexof({places}, datum.value)]"
    return alt.Axis(values=list(labels), labelExpr=lookup, labelOverlap=False, grid=False)


def _line_layers(frame: _Frame, rows: Sequence[Row]) -> list[alt.Chart]:
    import altair as alt

    names = [name for name in LINES if any(row.get("law") == name for row in rows)]
    if not names:
        return []
    colours, dashes = zip(*(LINES[name] for name in names), strict=True)
    legend = alt.Legend(title="law", symbolStrokeWidth=1.5, symbolSize=200, symbolType="stroke")
    line = alt.Chart().transform_filter("datum.layer == 'law'").mark_line(strokeWidth=1.5, clip=True)
    return [
        line.encode(
            x=frame.encode_x(),
            y=frame.encode_y(),
            stroke=alt.Stroke("law:N", scale=alt.Scale(domain=names, range=colours), legend=legend),
            strokeDash=alt.StrokeDash("law:N", scale=alt.Scale(domain=names, range=dashes), legend=legend),
        )
    ]


def _mark_layers(frame: _Frame, rows: Sequence[Row]) -> list[alt.Chart]:
    import altair as alt

    kinds = [kind for kind in MARKS if any(row.get("mark") == kind for row in rows)]
    x, y, ink = frame.encode_x(), frame.encode_y(), alt.Color("ink:N", scale=None)
    bar = alt.Chart().transform_filter("datum.layer == 'interval'").mark_rule(strokeWidth=1.2)
    legend = alt.Legend(title="threshold", symbolFillColor="black", symbolStrokeWidth=0, symbolSize=30)
    shape = alt.Shape("mark:N", scale=alt.Scale(domain=kinds, range=[MARKS[k] for k in kinds]), legend=legend)
    size = max(8.0, min(30.0, 4 * frame.width / len(frame.x.finite)))
    point = (
        alt.Chart().transform_filter("datum.layer == 'mark'").mark_point(filled=True, opacity=1, size=size)
    )
    angle = alt.Angle("angle:Q", scale=None)
    return [
        bar.encode(x=x, y=y, y2="top", color=ink),
        point.encode(x=x, y=y, shape=shape, color=ink, angle=angle),
    ]


def _word_layer(frame: _Frame) -> alt.Chart:
    import altair as alt

    words = alt.Chart().transform_filter("datum.layer == 'words'")
    text = words.mark_text(align="left", baseline="top", dx=4, dy=3, fontSize=7)
    chart: alt.Chart = text.encode(x=frame.encode_x(), y=frame.encode_y(), text="words:N")
    return chart
