"""What a threshold search may ask of an Optuna study: its curves, and values of the parameter it goes along."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from optuna.distributions import FloatDistribution, IntDistribution

from orchestrator.axis import Array, AxisInfo
from orchestrator.psychometric import unit
from orchestrator.search.space import STEPS_PER_UNIT

Range = IntDistribution | FloatDistribution
Params = Mapping[str, Any]
Curves = Mapping[str, Sequence[Any]] | Sequence[Params]
POINTS = 25
"""Values by which a linear range is divided into units, where it has no step: `psychometric.unit` is 1/12 of it."""


class Place(NamedTuple):
    """Where a trial stands."""

    curve: int
    candidate: int


class StudySpace:
    """Curves (combinations of parameters), and candidates along each."""

    def __init__(self, along: str, distribution: Range, curves: Curves, columns: Sequence[str]) -> None:
        """`columns`: names that parameters can't have. Raises ValueError."""
        self.along = along
        self.curves = _combinations(curves)
        self.names = tuple(self.curves[0])
        _check_names(self.names, along, columns)
        self._index = {tuple(curve.values()): i for i, curve in enumerate(self.curves)}
        if len(self._index) < len(self.curves):
            raise ValueError("curves: the same combination stands there twice")
        self.axis = _axis(along, distribution)
        self.unit = unit(self.axis)
        self.values = _candidates(self.axis, self.unit, distribution)
        self.positions = self._position(self.values)

    def params(self, place: Place) -> dict[str, Any]:
        return {**self.curves[place.curve], self.along: self.values[place.candidate]}

    def place(self, params: Params) -> Place | None:
        """At the nearest candidate; None: on none of the curves, or beyond their ends."""
        value = params.get(self.along)
        if not isinstance(value, (int, float)) or not all(name in params for name in self.names):
            return None
        curve = self._index.get(tuple(params[name] for name in self.names))
        if curve is None:
            return None
        is_inside = self.values[0] <= value <= self.values[-1]
        return Place(curve, self.nearest(float(self._position([value])[0]))) if is_inside else None

    def nearest(self, position: float) -> int:
        """The candidate there."""
        return int(np.abs(self.positions - position).argmin())

    def value(self, position: float | None) -> float | None:
        """In units of the parameter."""
        return None if position is None else self.axis.from_scale(position * self.unit)

    def coordinates(self, curve: int) -> tuple[float, ...]:
        """Its place among the parameters, each from 0 to 1 in the order in which values were named."""
        found = []
        for name in self.names:
            values = list(dict.fromkeys(other[name] for other in self.curves))
            found.append(values.index(self.curves[curve][name]) / max(1, len(values) - 1))
        return tuple(found)

    def _position(self, values: Sequence[float]) -> Array:
        """In the units of `psychometric`."""
        return np.asarray(self.axis.to_scale(np.array(values, dtype=np.float64)) / self.unit)


def _axis(along: str, distribution: Range) -> AxisInfo:
    """The distribution as an axis, whose scale and unit follow."""
    if not isinstance(distribution, Range):
        raise ValueError(f"{along} needs an IntDistribution or a FloatDistribution, not {distribution!r}")
    if distribution.single():
        raise ValueError(f"{along}: a threshold is sought between at least two values")
    low, high = distribution.low, distribution.high
    if distribution.log:
        return AxisInfo(along, "log2", (low, high))
    points = POINTS if distribution.step is None else round((high - low) / distribution.step) + 1
    return AxisInfo(along, "linear", tuple(np.linspace(low, high, min(points, 10 * POINTS)).tolist()))


def _candidates(axis: AxisInfo, length: float, distribution: Range) -> tuple[Any, ...]:
    """As many values of the distribution as a search may want to tell apart; increasing."""
    ends = distribution.low, distribution.high
    low, high = axis.to_scale(np.array(ends)) / length
    positions = np.linspace(low, high, math.ceil((high - low) * STEPS_PER_UNIT) + 1)[1:-1]
    return tuple(
        sorted({*ends, *(_value(distribution, axis.from_scale(float(u) * length)) for u in positions)})
    )


def _value(distribution: Range, x: float) -> int | float:
    """The nearest that the distribution has."""
    low, high, step = distribution.low, distribution.high, distribution.step
    if step is not None:
        x = low + round((x - low) / step) * step
    x = min(max(x, low), high)
    return int(x) if isinstance(distribution, IntDistribution) else float(x)


def _combinations(curves: Curves) -> list[dict[str, Any]]:
    """Their parameters in the same order."""
    if isinstance(curves, Mapping):
        for name, values in curves.items():
            if isinstance(values, str) or not isinstance(values, Sequence) or not values:
                raise ValueError(f"curves: {name} needs a list of values, not {values!r}")
        combined = [dict(zip(curves, values, strict=True)) for values in product(*curves.values())]
    else:
        combined = [dict(curve) for curve in curves]
    if not combined:
        raise ValueError("curves: none is named")
    names = list(combined[0])
    for curve in combined:
        if set(curve) != set(names):
            raise ValueError(f"curves: all name the same parameters; {names} and {list(curve)} differ")
        _check_values(curve)
    return [{name: curve[name] for name in names} for curve in combined]


def _check_values(params: Params) -> None:
    """Optuna's storages hold these only."""
    for name, value in params.items():
        if value is not None and not isinstance(value, (str, int, float, bool)):
            raise ValueError(f"curves: {name} = {value!r} is neither a number, text, true, false nor None")


def _check_names(names: Sequence[str], along: str, columns: Sequence[str]) -> None:
    for name in names:
        if name == along:
            raise ValueError(f"{along!r} is the parameter to search along; it can't name a curve too")
        if name in columns:
            raise ValueError(
                f"a parameter can't be called {name!r}: the table of thresholds has such a column"
            )
