"""Where the values of an axis stand in a map, and what is written there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from orchestrator.axis import AxisInfo

GAP = 0.5
"""Cells between the last finite value and inf, which has no place on a scale."""
NEXT_TO = 0.55
"""Share of the room for a label that one needs beside the short one of inf."""
POWERS_FROM = 10_000
"""Axes that reach this are labelled with powers: 2^6, 2^7, ... (Few fonts have all superscripts.)"""


@dataclass(frozen=True)
class Ruler:
    """Cells are one long and centred on `places`; numbers stand in increasing order, categories as they
    come.
    """

    axis: AxisInfo
    values: tuple[object, ...]
    places: tuple[float, ...]

    @staticmethod
    def of(axis: AxisInfo) -> Ruler:
        finite = axis.finite
        rest = [v for v in axis.values if v not in finite]
        if not axis.is_numeric or not finite:
            return Ruler(axis, axis.values, tuple(float(i) for i in range(len(axis.values))))
        before = [v for v in rest if isinstance(v, (int, float)) and v <= 0]  # 0 on a log axis
        after = [v for v in rest if v not in before]
        values = (*before, *finite, *after)
        starts = [len(before), len(before) + len(finite)]
        places = [i + GAP * sum(0 < s <= i for s in starts) for i in range(len(values))]
        return Ruler(axis, values, tuple(places))

    @cached_property
    def _place_of(self) -> dict[str, float]:
        return {_key(value): place for value, place in zip(self.values, self.places, strict=True)}

    def cell(self, value: object) -> float | None:
        """The place of one of the values; None for anything else."""
        return self._place_of.get(_key(value))

    @property
    def domain(self) -> tuple[float, float]:
        return -0.5, self.places[-1] + 0.5

    @property
    def length(self) -> float:
        """In cells."""
        return self.places[-1] + 1

    @property
    def scale_ends(self) -> tuple[float, float]:
        """The outer edges of the cells that are on the scale."""
        finite = self.axis.finite
        return self._place_of[_key(finite[0])] - 0.5, self._place_of[_key(finite[-1])] + 0.5

    def place(self, number: float) -> float:
        """The place of any number within the axis, between the cells at its true position on the scale."""
        finite = self.axis.finite
        places = [self._place_of[_key(value)] for value in finite]
        known, sought = self.axis.to_scale(np.array(finite)), self.axis.to_scale(np.array([number]))
        return float(np.interp(sought, known, places)[0])

    def number(self, place: float) -> float:
        """The number at a place: inverse of `place`, and the nearest value's beyond those."""
        finite = self.axis.finite
        places = [self._place_of[_key(value)] for value in finite]
        return self.axis.from_scale(float(np.interp(place, places, self.axis.to_scale(np.array(finite)))))

    def labels(self, least_gap: float) -> dict[float, str]:
        """Place -> text, for as many values as have room when labels need `least_gap` cells each."""
        every = {place: self.label(value) for value, place in zip(self.values, self.places, strict=True)}
        finite = [i for i, value in enumerate(self.values) if value in self.axis.finite]
        whole = [i for i in finite if self._is_whole_power(self.values[i])]
        if not self.axis.is_numeric or (least_gap <= 1 and not (self._has_powers and len(whole) > 1)):
            return every
        candidates = whole if len(whole) > 1 else finite
        stride = candidates[1] - candidates[0] if len(candidates) > 1 else 1
        apart = set(range(len(every))) - set(finite)
        spaced = candidates[:: math.ceil(least_gap / stride)]
        free = {i for i in spaced if all(abs(i - j) + GAP >= NEXT_TO * least_gap for j in apart)}
        kept = free | apart
        return {place: text for i, (place, text) in enumerate(every.items()) if i in kept}

    def label(self, value: object) -> str:
        """A value as a reader writes it: ∞, 362, 0.001, 2^16; other things as they are."""
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return "none" if value is None else str(value)
        if math.isinf(value):
            return "∞" if value > 0 else "-∞"
        if self._has_powers and self._is_whole_power(value):
            base = 2 if self.axis.scale == "log2" else 10
            return f"{base}^{round(math.log(value, base))}"
        return _digits(value, self._n_digits)

    @cached_property
    def _n_digits(self) -> int:
        """Four, or as many more as tell all values apart (17 tell any two)."""
        numbers = {float(v) for v in self.values if isinstance(v, (int, float)) and math.isfinite(v)}
        enough = (n for n in range(4, 17) if len({_digits(x, n) for x in numbers}) == len(numbers))
        return next(enough, 17)

    @property
    def _has_powers(self) -> bool:
        return bool(self.axis.finite) and max(self.axis.finite) >= POWERS_FROM

    def _is_whole_power(self, value: object) -> bool:
        if self.axis.scale not in ("log2", "log10") or not isinstance(value, (int, float)):
            return False
        if not 0 < value < math.inf:
            return False
        exponent = math.log2(value) if self.axis.scale == "log2" else math.log10(value)
        return math.isclose(exponent, round(exponent), abs_tol=1e-9)


def _digits(value: float, n: int) -> str:
    """A number with n significant digits; digits before the point are never rounded away."""
    if value == int(value):
        return f"{value:.0f}"
    whole = len(str(int(abs(value))))
    return f"{value:.{max(n, whole) if whole <= 6 else n}g}"


def facet_label(facets: Sequence[AxisInfo], values: Sequence[object]) -> str:
    """`depth = 2`, several of them with commas."""
    named = zip(facets, values, strict=True)
    return ", ".join(f"{axis.name} = {Ruler.of(axis).label(value)}" for axis, value in named)


def _key(value: object) -> str:
    """Values as keys: lists are not hashable, and 1 is 1.0 but not True."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return repr(float(value)) if is_number else repr(value)  # type: ignore[arg-type]
