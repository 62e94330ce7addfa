"""Curves from theory: what is wrong with those of a sweep, which ones it has, and where they run on a map."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from orchestrator.axes_spec import SEED
from orchestrator.expression import column_list, expression_faults, names_in
from orchestrator.layout import Layout, Panels
from orchestrator.ruler import Ruler
from orchestrator.section import Fault, nearest
from trainers.base import Overlay

if TYPE_CHECKING:
    from orchestrator.sweep import Sweep

Row = dict[str, object]
Point = tuple[float, float]
POINTS = 200
"""Between the ends of an axis, beside its own values."""


def overlay_faults(sweep: Sweep) -> list[Fault]:
    """What is wrong with the sweep's own overlays."""
    numeric = [axis.name for axis in sweep.axes if axis.is_numeric and axis.name != SEED]
    faults = []
    for name, expression in (sweep.overlay or {}).items():
        if name not in numeric:
            message = f"{name!r} is no axis of numbers"
            allowed = column_list(numeric) or "none here"
            faults.append(Fault(("overlay", name), message, allowed, nearest(name, numeric)))
        others = {other: pl.Float64() for other in numeric if other != name}
        unknown = "no other axis of numbers is called {name}"
        faults += expression_faults(("overlay", name), expression, "number", others, unknown)
    return faults


def overlays_of(sweep: Sweep) -> list[Overlay]:
    """The sweep's own overlays, or those that the task declares. One that the task declares for some trials as a
    reference only is one, whoever writes it down."""
    declared: dict[tuple[str, str], Overlay] = {}
    for trial in sweep.plan().trials:
        for overlay in sweep.trainer.overlays(trial.config):
            key = _key(overlay)
            if key not in declared or overlay.is_reference:
                declared[key] = overlay
    if sweep.overlay is None:
        return list(declared.values())
    own = [Overlay(axis, expression) for axis, expression in sweep.overlay.items()]
    return [
        Overlay(o.axis, o.expression, _key(o) in declared and declared[_key(o)].is_reference) for o in own
    ]


def _key(overlay: Overlay) -> tuple[str, str]:
    return overlay.axis, "".join(overlay.expression.split()).lower()


def label(overlay: Overlay) -> str:
    """As the legend has it: `depth = log2(k) + 1`."""
    return f"{overlay.axis} = {overlay.expression}" + (" (reference)" if overlay.is_reference else "")


def lacking(overlay: Overlay, known: Collection[str]) -> list[str]:
    """Names of the axes that the curve depends on and that are not among these."""
    return [name for name in names_in(overlay.expression) if name not in known]


@dataclass(frozen=True)
class Theory:
    """Overlays, and the values of axes that have only one."""

    overlays: Sequence[Overlay] = ()
    fixed: Mapping[str, object] = field(default_factory=dict)


NO_THEORY = Theory()


def theory_rows(theory: Theory, layout: Layout, panels: Panels) -> list[Row]:
    """Rows of the layer `theory`, in coordinates of the map, for every panel: each overlay of x or y that depends
    on nothing but the other one, the facets and what is fixed.

    A curve ends where it leaves the values of its axis, and has a piece for each stay within.
    """
    facets = [*panels.across, *panels.down]
    names = [axis.name for axis in facets]
    combinations = list(itertools.product(*(axis.values for axis in facets)))
    rows: list[Row] = []
    for overlay in theory.overlays:
        ruler, other = (layout.x, layout.y) if overlay.axis == layout.x.axis.name else (layout.y, layout.x)
        if overlay.axis != ruler.axis.name or lacking(overlay, [other.axis.name, *names, *theory.fixed]):
            continue
        for combination in combinations:
            values = dict(zip(names, combination, strict=True))
            placed = _placed(overlay.expression, ruler, other, {**theory.fixed, **values})
            points = [row if ruler is layout.y else _swapped(row) for row in placed]
            rows += [
                row | {"layer": "theory", "theory": label(overlay)} | panels.labels(values) for row in points
            ]
    return rows


def _swapped(row: Row) -> Row:
    return row | {"px": row["py"], "py": row["px"]}


def _placed(expression: str, ruler: Ruler, other: Ruler, values: Mapping[str, object]) -> list[Row]:
    """Points of the curve in places, if `ruler` goes up and `other` across."""
    finite, used = ruler.axis.finite, names_in(expression)
    across, numbers = _samples(other)
    if len(finite) < 2 or (numbers is None and other.axis.name in used):
        return []
    known = {name: [float(str(values[name]))] * len(across) for name in used if name != other.axis.name}
    frame = pl.DataFrame({**known, other.axis.name: numbers or [0.0] * len(across)})
    curve = frame.select("*", _value=pl.sql_expr(expression).cast(pl.Float64))["_value"]
    up = ruler.axis.to_scale(curve.fill_null(math.nan).to_numpy())
    low, high = (float(end) for end in ruler.axis.to_scale(np.array([finite[0], finite[-1]])))
    return [
        {"piece": n, "order": i, "px": px, "py": ruler.place(ruler.axis.from_scale(position))}
        for n, piece in enumerate(_pieces(list(zip(across, up.tolist(), strict=True)), low, high))
        for i, (px, position) in enumerate(piece)
    ]


def _samples(ruler: Ruler) -> tuple[list[float], list[float] | None]:
    """Places along a ruler and the numbers there: all over a scale, the two edges of a lone value's cell, or the
    two ends of categories, which are no numbers.
    """
    finite = ruler.axis.finite
    if not finite:
        return list(ruler.domain), None
    if len(finite) == 1:
        return list(ruler.scale_ends), finite * 2
    first, last = (float(end) for end in ruler.axis.to_scale(np.array([finite[0], finite[-1]])))
    between = [ruler.axis.from_scale(float(at)) for at in np.linspace(first, last, POINTS)[1:-1]]
    numbers = sorted({*finite, *between})
    return [ruler.place(number) for number in numbers], numbers


def _pieces(points: Sequence[Point], low: float, high: float) -> list[list[Point]]:
    """A chain of points, cut to where its second coordinate is from low to high; gaps where that is not finite."""
    pieces: list[list[Point]] = []
    is_open = False
    for (u, v), (u_next, v_next) in itertools.pairwise(points):
        start, end = _stay(v, v_next, low, high)
        if start > end:
            is_open = False
            continue
        if not (is_open and start == 0):
            pieces.append([(u + start * (u_next - u), v + start * (v_next - v))])
        pieces[-1].append((u + end * (u_next - u), v + end * (v_next - v)))
        is_open = end == 1
    return pieces


def _stay(v: float, v_next: float, low: float, high: float) -> tuple[float, float]:
    """From which to which part of the way from v to v_next it is from low to high; the first is larger if never."""
    if not (math.isfinite(v) and math.isfinite(v_next)):
        return 1.0, 0.0
    if v == v_next:
        return (0.0, 1.0) if low <= v <= high else (1.0, 0.0)
    ends = sorted(((low - v) / (v_next - v), (high - v) / (v_next - v)))
    return max(0.0, ends[0]), min(1.0, ends[1])
