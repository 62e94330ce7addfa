"""What analysis and figures need to know about an axis."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Scale = Literal["log2", "log10", "linear", "category"]


@dataclass(frozen=True)
class AxisInfo:
    """An axis: its column in the trials, its scale, and its values in the order of the sweep."""

    name: str
    scale: Scale
    values: tuple[object, ...]
    direction: Literal[1, -1] | None = None
    """Whether solving becomes more likely (1) or rarer (-1) along it, where the sweep says so."""

    @property
    def is_numeric(self) -> bool:
        return self.scale != "category"

    @property
    def finite(self) -> list[float]:
        """The values that have a place on the scale, increasing: neither inf, nor <= 0 on a log axis."""
        numbers = [float(v) for v in self.values if isinstance(v, (int, float))] if self.is_numeric else []
        return sorted(x for x in numbers if math.isfinite(x) and (x > 0 or self.scale == "linear"))

    def to_scale(self, x: Array) -> Array:
        """Positions: octaves (log2), decades (log10) or the axis' units. Not finite where there is none."""
        if self.scale == "category":
            raise ValueError(f"axis {self.name!r} has categories, which have no positions")
        if self.scale == "linear":
            return x
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.log2(x) if self.scale == "log2" else np.log10(x))

    def from_scale(self, position: float) -> float:
        """The value at a position; inverse of `to_scale`."""
        if self.scale == "linear":
            return position
        return float((2.0 if self.scale == "log2" else 10.0) ** position)
