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
    MAX_VALUES,
    RANGES,
    Axis,
    AxisReader,
    Ends,
    LinearEnds,
    Log2Ends,
    Log10Ends,
    RangeName,
    not_allowed,
    overlap,
    range_name,
    range_value,
    repeated,
)
from orchestrator.errors import KeyPath
from orchestrator.section import Fault, check, nearest, shown
from orchestrator.sections import reach, with_value
from orchestrator.trial import canonical_json

TRIALS = 8
"""Of each curve, where `tuned.trials` is not set."""
SEEDS = 2**31
"""The first seed of tuning trials."""
SEEDS_END = 2_000_000_000
"""Seeds of a sweep that tunes are smaller, with room for those that a search adds."""
MAX_CHECKED = 50_000
"""Combinations of values that are looked at before anything starts: some seconds."""
RESOLUTION = 1000
"""Values of a range are rounded to as few digits as tell so many apart."""
TunedSpec = list[Any] | Log2Ends | Log10Ends | LinearEnds | float
"""What may stand below a name; the number is for `trials` and `at`."""
_MODELS: Mapping[RangeName, type[Ends]] = {"log2": Log2Ends, "log10": Log10Ends, "linear": LinearEnds}
_VALUES = "a list, or {log10: [-4, -2]} (or log2, linear)"
_TRIALS = f"a whole number from 1 to {MAX_VALUES:,}"
BUDGET = ("train", "steps")


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


@dataclass
class TunedRead:
    """What `read_tuned` found. `broken`: fields that were meant to be tuned, with mistakes."""

    tuning: Tuning | None = None
    faults: list[Fault] = field(default_factory=list)
    broken: list[KeyPath] = field(default_factory=list)

    @property
    def axes(self) -> list[Axis]:
        return [] if self.tuning is None else [tuned.axis for tuned in self.tuning.fields]


def read_tuned(
    specs: Mapping[str, Any], reader: AxisReader, axes: Sequence[Axis], at: float | None, *, is_free: bool
) -> TunedRead:
    """The settings in the order of the file, with their mistakes. `at`: see `read_at`."""
    result, fields = TunedRead(), []
    spelled = {axis.path: f"the axis {axis.key}" for axis in axes}
    for key, spec in specs.items():
        if key in ("trials", "at"):
            continue
        found = reader.name_and_path(key)
        if isinstance(found, Fault):
            message = "unknown field" if found.message == "unknown axis" else found.message
            result.faults.append(dataclasses.replace(found, message=message.replace("for an axis", "here")))
            meant = reader.name_and_path(found.nearest) if found.nearest else found
            result.broken += [] if isinstance(meant, Fault) else [meant[1]]
            continue
        name, path = found
        taken = [other for known, other in spelled.items() if overlap(known, path)]
        read = _refusal(path) or _field(key, name, path, spec, reader)
        spelled[path] = key
        if isinstance(read, TunedField) and not taken:
            fields.append(read)
        else:
            result.broken.append(path)
            result.faults += [Fault((key,), f"sets the same field as {other}") for other in taken]
            result.faults += [] if isinstance(read, TunedField) else [fault.below(key) for fault in read]
    trials = specs.get("trials", TRIALS)
    if type(trials) is not int or not 1 <= trials <= MAX_VALUES:
        result.faults.append(Fault(("trials",), *not_allowed(trials, _TRIALS)))
        trials = TRIALS
    count = math.prod(len(tuned.axis.values) for tuned in fields)
    if count > MAX_CHECKED:
        message = (
            f"has {count:,} combinations of whole numbers and listed values, each of which must be valid"
        )
        result.faults.append(Fault((), message, f"up to {MAX_CHECKED:,}: narrower ranges, or lists"))
        result.broken += [tuned.path for tuned in fields]
        fields = []
    if not fields and not result.faults:
        result.faults.append(Fault((), "names nothing to tune", "a field with its values: train.lr: [...]"))
    result.tuning = Tuning(tuple(fields), trials, at, is_free) if fields else None
    return result


def _refusal(path: KeyPath) -> list[Fault]:
    """Fields that are no nuisance."""
    if path[0] in ("seed", "seeds"):
        return [Fault((), "is not tuned: the best of several seeds is luck")]
    if path == BUDGET:
        return [Fault((), "is the step budget, which thresholds are conditional on; it is not tuned")]
    return []


def _field(key: str, name: str, path: KeyPath, spec: Any, reader: AxisReader) -> TunedField | list[Fault]:
    is_whole = reader.is_whole(name, path)
    if isinstance(spec, list):
        faults = [*repeated(spec), *reader.unsuitable(path, spec)]
        if len(spec) < 2:
            faults.append(Fault((), "leaves nothing to choose", "two values or more"))
        return faults or TunedField(
            name, path, spec, None, tuple(spec), reader.dtype_of(path, spec), is_whole, key
        )
    if not isinstance(spec, dict):
        return [Fault((), *not_allowed(spec, _VALUES))]
    scale = range_name(spec)
    if scale is None:
        near = next((near for word in spec if (near := nearest(word, RANGES))), None)
        return [Fault((), *not_allowed(spec, _VALUES), near)]
    chosen, faults = check(_MODELS[scale], spec)
    if faults:
        return faults
    ends = tuple(range_value(scale, end) for end in getattr(chosen, scale))
    if is_whole:
        least = -math.inf if scale == "linear" else 1
        ends = tuple(int(max(round(end), least)) for end in ends)
        if ends[1] - ends[0] >= MAX_VALUES:
            return [Fault((), "holds too many whole numbers", f"up to {MAX_VALUES:,}")]
    if not ends[0] < ends[1]:
        return [Fault((), "leaves nothing to choose", "ends that differ, as whole numbers too")]
    return TunedField(name, path, spec, scale, ends, reader.dtype_of(path, list(ends)), is_whole, key)


def _position(scale: RangeName, value: float) -> float:
    """Inverse of `range_value`."""
    return {"log2": math.log2, "log10": math.log10}[scale](value) if scale != "linear" else float(value)


def read_at(specs: Mapping[str, Any], axis: Axis | None, direction: int | None) -> tuple[Any, list[Fault]]:
    """Where on the searched axis tuning trials train: the control; or else the end at which solving is likelier,
    or the last value where that is not known. `direction`: 1 if solving becomes likelier along the axis, or -1.
    """
    if axis is None:
        fault = Fault(("at",), "is a value on the searched axis, and there is none", "search: {along: AXIS}")
        return None, [fault] if "at" in specs else []
    numbers = [x for x in axis.values if isinstance(x, (int, float)) and not isinstance(x, bool)]
    if "at" not in specs:
        ends = {1: max(numbers), -1: min(numbers)}
        return (math.inf if math.inf in numbers else ends.get(direction or 0, numbers[-1])), []
    at, finite = specs["at"], [x for x in numbers if math.isfinite(x)]
    is_number = isinstance(at, (int, float)) and not isinstance(at, bool)
    is_inside = is_number and (at in numbers or (finite and min(finite) <= at <= max(finite)))
    is_whole = axis.is_whole and at != math.inf
    if is_inside and not (is_whole and at % 1):
        return (int(at) if is_whole else at), []
    kind, control = "a whole number" if axis.is_whole else "a number", ", or inf" * (math.inf in numbers)
    allowed = f"{kind} from {shown(min(finite))} to {shown(max(finite))}{control}"
    return None, [Fault(("at",), *not_allowed(at, allowed))]


def condensed(faults: Sequence[Fault], read: TunedRead) -> list[Fault]:
    """Of each range one fault: where some whole numbers don't go, many don't."""
    fields = () if read.tuning is None else read.tuning.fields
    ranges = {("tuned", tuned.key) for tuned in fields if tuned.scale is not None}
    kept: list[Fault] = []
    for fault in faults:
        count = sum(other.path == fault.path for other in faults)
        if fault.path not in ranges or count == 1:
            kept.append(fault)
        elif fault.path not in {other.path for other in kept}:
            more = f"{fault.message}; and {count - 1} more of this range"
            kept.append(dataclasses.replace(fault, message=more, allowed="a list of those that go"))
    return kept


def seed_faults(seeds: Axis) -> list[Fault]:
    """Seeds that could meet those of tuning trials."""
    allowed = f"whole numbers below {SEEDS_END:,} (those from {SEEDS:,} on are for tuning)"
    wrong = [i for i, seed in enumerate(seeds.values) if seed >= SEEDS_END]
    return [Fault((seeds.home, seeds.key, i), *not_allowed(seeds.values[i], allowed)) for i in wrong]
