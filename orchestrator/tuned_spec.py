"""The `tuned:` of a sweep file: nuisance settings, what may be tried of each, and how many trials that takes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import polars as pl

from orchestrator.axes_spec import (
    Axis,
    LinearEnds,
    Log2Ends,
    Log10Ends,
    RangeName,
    range_value,
)
from orchestrator.errors import KeyPath
from orchestrator.sections import reach, with_value
from orchestrator.trial import canonical_json

TRIALS = 8
"""Of each curve, where `tuned.trials` is not set."""
SEEDS = 2**31
"""The first seed of tuning trials."""
SEEDS_END = 2_000_000_000
"""Seeds of a sweep that tunes are smaller, with room for those that a search adds."""
RESOLUTION = 1000
"""Values of a range are rounded to as few digits as tell so many apart."""
TunedSpec = list[Any] | Log2Ends | Log10Ends | LinearEnds | float
"""What may stand below a name; the number is for `trials` and `at`."""


@dataclass(frozen=True)
class TunedField:
    """One nuisance setting: a list of values, or anything between two."""

    name: str
    path: KeyPath
    """The field that it sets in a config."""
    spec: Any
    """What may be tried, as the file gives it."""
    scale: RangeName | None
    """Of a range; None: a list."""
    values: tuple[Any, ...]
    """Those of the list, or both ends of the range, as a config holds them."""
    dtype: pl.DataType
    """The type of its column."""
    is_whole: bool
    key: str = field(compare=False)
    """Its name as the file spells it."""

    @property
    def axis(self) -> Axis:
        """It as an axis of the values that must be valid: the nominal one and all listed ones, all whole numbers of
        a range, or its ends."""
        values = self.values if self.scale is None else (self.nominal, *self.values)
        if self.scale is not None and self.is_whole:
            values = tuple(dict.fromkeys([self.nominal, *range(self.values[0], self.values[1] + 1)]))
        return Axis(self.name, self.path, self.spec, values, "category", self.dtype, self.key, home="tuned")

    @cached_property
    def nominal(self) -> Any:
        """What stands for all of its values: the middle of the range, or the first of the list."""
        return self.values[0] if self.scale is None else self.value(0.5)

    def value(self, unit: float) -> Any:
        """The value at a place from 0 to 1: of a range on its scale, of a list in its order."""
        if self.scale is None:
            return self.values[min(int(unit * len(self.values)), len(self.values) - 1)]
        x = self._at(unit)
        if not self.is_whole:
            step = self._at(unit + 0.5 / RESOLUTION) - self._at(unit - 0.5 / RESOLUTION)
            x = round(x, max(0, math.ceil(-math.log10(step))))
        low, high = self.values
        return min(max(round(x) if self.is_whole else x, low), high)

    def unit(self, value: Any) -> float:
        """The place of a value; in a list its middle. Inverse of `value`."""
        if self.scale is None:
            index = [canonical_json(known) for known in self.values].index(canonical_json(value))
            return (index + 0.5) / len(self.values)
        low, high, x = (_position(self.scale, number) for number in (*self.values, value))
        return min(max((x - low) / (high - low), 0.0), 1.0)

    def holds(self, value: Any) -> bool:
        """Whether it may be tried."""
        if self.scale is None:
            return canonical_json(value) in {canonical_json(known) for known in self.values}
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return is_number and self.values[0] <= value <= self.values[1]

    def _at(self, unit: float) -> float:
        assert self.scale is not None
        low, high = (_position(self.scale, end) for end in self.values)
        return range_value(self.scale, low + (high - low) * unit)


@dataclass(frozen=True)
class Tuning:
    """The nuisance settings of a sweep, and how they are tuned."""

    fields: tuple[TunedField, ...]
    trials: int
    """Of each curve."""
    at: float | None
    """Where on the searched axis they train; None: no axis is searched."""
    is_free: bool
    """A user's function trains, which finds every setting at the top level of its config, too."""

    @cached_property
    def nominal(self) -> dict[str, Any]:
        """Values that stand for those which are not chosen yet."""
        return {field.name: field.nominal for field in self.fields}

    @property
    def spec(self) -> dict[str, Any]:
        """As a sweep file gives it."""
        at = {} if self.at is None else {"at": self.at}
        return {**{field.name: field.spec for field in self.fields}, "trials": self.trials, **at}

    def set(self, config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
        """The config with these values of the settings."""
        changed = dict(config)
        for tuned in self.fields:
            changed = with_value(changed, tuned.path, values[tuned.name])
            if self.is_free:
                changed[tuned.name] = values[tuned.name]
        return changed

    def get(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The values that a config has."""
        return {field.name: reach(config, field.path) for field in self.fields}

    def on_sections(self, sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
        """Sections with the nominal values."""
        changed = dict(sections)
        for tuned in self.fields:
            if len(tuned.path) > 1:
                changed = with_value(changed, tuned.path, tuned.nominal)
        return changed

    def variants(self, config: Mapping[str, Any]) -> Iterator[tuple[TunedField, Any, dict[str, Any]]]:
        """The config with every value of a list and both ends of a range, one setting at a time."""
        for tuned in self.fields:
            for value in tuned.values:
                yield tuned, value, self.set(config, {**self.nominal, tuned.name: value})

    def normalised(self, at: Mapping[str, Sequence[Any]]) -> Tuning:
        """With the values of lists as resolved sections hold them, by the name of the setting."""
        fields = (
            dataclasses.replace(tuned, values=tuple(at[tuned.name])) if tuned.scale is None else tuned
            for tuned in self.fields
        )
        return dataclasses.replace(self, fields=tuple(fields))


def _position(scale: RangeName, value: float) -> float:
    """Inverse of `range_value`."""
    return {"log2": math.log2, "log10": math.log10}[scale](value) if scale != "linear" else float(value)
