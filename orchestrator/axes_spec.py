"""The `axes:` of a sweep file: which field each axis sets, its values, scale and type of column."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args, get_origin

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, model_validator

from orchestrator.axis import AxisInfo, Scale
from orchestrator.errors import KeyPath
from orchestrator.section import Fault, check, fields_of, members, nearest, shown, type_at
from orchestrator.trial import canonical_json
from trainers.base import STREAMS

MAX_VALUES = 10_000
DATA_SIZE = "data_size"
SEED = "seed"
RangeName = Literal["log2", "log10", "linear"]
RANGES: tuple[RangeName, ...] = ("log2", "log10", "linear")
CONFIG_KEYS = ("trainer", "trainer_version", "solved", "stop")
"""What every config has beside its seeds and sections."""
ROW_COLUMNS = (
    *("trial_id", "pack_id", "status", "score", "best_score", "best_step", "solved_at_step", "stopped_by"),
    *(
        "steps",
        "budget",
        "examples_seen",
        "train_s",
        "error",
        "device",
        "code_version",
        "started_at",
        "ended_at",
    ),
    "config",
)
"""Columns that every trial's row has, so that no axis can have their names."""


class Ends(BaseModel):
    """A range whose values nobody counts: `{log10: [-4, -2]}`, where anything between the ends may be tried."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="after")
    def _has_values(self) -> Ends:
        name = next(name for name in RANGES if name in type(self).model_fields)
        low, high = getattr(self, name)
        if not low < high:
            raise ValueError(f"{name} needs the smaller end first, not {shown([low, high])}")
        try:
            is_finite = math.isfinite(range_value(name, low)) and math.isfinite(range_value(name, high))
        except OverflowError:
            is_finite = False
        if not is_finite:
            raise ValueError(f"{name} has an end that is out of range: {shown([low, high])}")
        return self


class _Points(BaseModel):
    points: int = Field(ge=2, le=MAX_VALUES, description="Number of values, both ends included.")


class Log2Ends(Ends):
    """Any value between two powers of 2: `{log2: [3, 7]}`."""

    log2: tuple[float, float] = Field(description="Exponents of the smallest and the largest value.")


class Log10Ends(Ends):
    """Any value between two powers of 10: `{log10: [-4, -2]}`."""

    log10: tuple[float, float] = Field(description="Exponents of the smallest and the largest value.")


class LinearEnds(Ends):
    """Any value between two: `{linear: [0, 0.5]}`."""

    linear: tuple[float, float] = Field(description="Smallest and largest value.")


class Log2Range(Log2Ends, _Points):
    """Evenly spaced exponents of 2: `{log2: [6, 18], points: 25}`."""


class Log10Range(Log10Ends, _Points):
    """Evenly spaced exponents of 10: `{log10: [-4, -2], points: 9}`."""


class LinearRange(LinearEnds, _Points):
    """Evenly spaced values: `{linear: [0, 0.5], points: 11}`."""


_RANGE_MODELS: Mapping[str, type[Ends]] = {"log2": Log2Range, "log10": Log10Range, "linear": LinearRange}
AxisSpec = list[Any] | Log2Range | Log10Range | LinearRange | int
"""What may stand below an axis name; the whole number is for `seed` only."""


@dataclass(frozen=True)
class Axis:
    """One axis of a sweep, resolved."""

    name: str
    path: KeyPath
    """The field that it sets in a config."""
    spec: Any
    """Its values as the file gives them."""
    values: tuple[Any, ...]
    """Its values as a config holds them."""
    scale: Scale
    dtype: pl.DataType
    """The type of its column."""
    key: str = field(compare=False)
    """Its name as the file spells it."""
    home: str = "axes"
    """Where in the file it stands: `axes` or `tuned`."""

    @cached_property
    def column(self) -> tuple[Any, ...]:
        """Its values as its column holds them."""
        return tuple(column_value(value, self.dtype) for value in self.values)

    @property
    def is_range(self) -> bool:
        """Whether it is tuned, and values stand for what is between them."""
        return self.home == "tuned" and not isinstance(self.spec, list)

    @property
    def is_whole(self) -> bool:
        """Whether only whole numbers make sense between its values."""
        numbers = [value for value in self.values if isinstance(value, (int, float)) and math.isfinite(value)]
        return self.name == DATA_SIZE or all(type(value) is int for value in numbers)

    @property
    def info(self) -> AxisInfo:
        return AxisInfo(self.name, self.scale, self.column)


@dataclass
class AxesRead:
    """What `AxisReader` found. `broken`: fields that faulty axes set, or were probably meant to set."""

    axes: list[Axis] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    broken: list[KeyPath] = field(default_factory=list)


class AxisReader:
    """Reads axes for one trainer. `sections` is empty for a user's function, which takes any axes."""

    def __init__(self, sections: Mapping[str, type], short_names: Mapping[str, str]) -> None:
        self._sections = sections
        paths = {name: tuple(dotted.split(".")) for name, dotted in short_names.items()}
        self._short = {name: path for name, path in paths.items() if self._type(path) is not None}

    def read(self, specs: Mapping[str, Any]) -> AxesRead:
        """The axes in the order of the file, `seed` last (and always there: left out, it is 0 alone)."""
        result = AxesRead()
        spelled: dict[KeyPath, str] = {}
        for key, spec in specs.items():
            found = self.name_and_path(key)
            if isinstance(found, Fault):
                result.faults.append(found)
                meant = self.name_and_path(found.nearest) if found.nearest else found
                result.broken += [] if isinstance(meant, Fault) else [meant[1]]
                continue
            taken = [other for path, other in spelled.items() if overlap(path, found[1])]
            spelled[found[1]] = key
            axis = self._axis(key, *found, spec)
            if taken or not isinstance(axis, Axis):
                result.broken.append(found[1])
                result.faults += [
                    Fault((key,), f"sets the same field as the axis {other}") for other in taken
                ]
                result.faults += [] if isinstance(axis, Axis) else axis
            else:
                result.axes.append(axis)
        if (SEED,) not in spelled:
            result.axes.append(Axis(SEED, (SEED,), 1, (0,), "category", pl.Int64(), SEED))
        result.axes.sort(key=lambda axis: axis.name == SEED)
        return result

    def _axis(self, key: str, name: str, path: KeyPath, spec: Any) -> Axis | list[Fault]:
        values, faults = _spelled_out(name, spec, self.is_whole(name, path))
        dtype = self.dtype_of(path, values)
        faults = faults or [*repeated(values), *self.unsuitable(path, values)]
        if faults:
            return [fault.below(key) for fault in faults]
        return Axis(name, path, spec, tuple(values), _scale(path, name, spec, dtype), dtype, key)

    def is_whole(self, name: str, path: KeyPath) -> bool:
        """Whether the field takes nothing but whole numbers."""
        return name == DATA_SIZE or _bases(self._type(path)) == {int}

    def canonical_name(self, key: str) -> str:
        """The short name of a field that has one; any other name as it is."""
        found = self.name_and_path(key)
        return key if isinstance(found, Fault) else found[0]

    def _type(self, path: KeyPath) -> Any | None:
        if path[0] == "seeds":
            return int if len(path) == 2 and path[1] in STREAMS else None
        return type_at(self._sections.get(str(path[0])), path[1:]) if len(path) > 1 else None

    def name_and_path(self, key: str) -> tuple[str, KeyPath] | Fault:
        """The field that a name in the file stands for."""
        path: KeyPath = tuple(key.split("."))
        if key == SEED:
            return SEED, (SEED,)
        if not self._sections:
            return self._free_name(key, path)
        if key in self._short:
            return key, self._short[key]
        if self._type(path) is not None:
            return next((name for name, known in self._short.items() if known == path), key), path
        return self._unknown(key)

    def _free_name(self, key: str, path: KeyPath) -> tuple[str, KeyPath] | Fault:
        if path[0] == "seeds":
            return self._unknown(key) if self._type(path) is None else (key, path)
        if not all(path) or not key.isprintable():
            return Fault((key,), "is no name for an axis", "printable text, dots between section and field")
        if path[0] in CONFIG_KEYS:
            return Fault((key,), "is no name for an axis: every config has a value of this name")
        if key.lower() in ROW_COLUMNS:  # DuckDB does not tell cases apart
            return Fault((key,), "is no name for an axis: every row has a column of this name")
        return key, path

    def _unknown(self, key: str) -> Fault:
        streams = [f"seeds.{stream}" for stream in STREAMS]
        dotted = [path for name, kind in self._sections.items() for path in _leaves(name, kind)] + streams
        section = key.split(".")[0] + "."
        below = [path for path in dotted if "." in key and path.startswith(section)]
        allowed = ", ".join(below or [*self._short, SEED, "or a dotted field such as seeds.init"])
        return Fault((key,), "unknown axis", allowed, nearest(key, [*self._short, SEED, *dotted]))

    def dtype_of(self, path: KeyPath, values: list[Any]) -> pl.DataType:
        """Of a column: from the field, so that no value ever changes it; for a user's function from the values."""
        if path[0] in (SEED, "seeds"):
            return pl.Int64()
        bases = _bases(self._type(path)) if self._sections else {_base(v) for v in values if v is not None}
        if bases and bases <= {int, float, str} and bases & {int, float}:
            if not self._sections:
                return pl.String() if str in bases else pl.Float64()
            return pl.Float64() if float in bases else pl.Int64()
        return pl.Boolean() if bases == {bool} else pl.String()

    def unsuitable(self, path: KeyPath, values: list[Any]) -> list[Fault]:
        """Values that the axis' column cannot hold. (What the field itself refuses, its section finds.)"""
        if path[0] in (SEED, "seeds"):
            wrong = [i for i, value in enumerate(values) if type(value) is not int or value < 0]
            return [Fault((i,), *not_allowed(values[i], "a whole number, 0 or more")) for i in wrong]
        bases = _bases(self._type(path))
        if str not in bases or not self.dtype_of(path, values).is_numeric():
            return []
        allowed = "numbers only, on an axis; text has its place in the section, in another sweep"
        texts = [i for i, value in enumerate(values) if isinstance(value, str)]
        return [Fault((i,), *not_allowed(values[i], allowed)) for i in texts]


def column_value(value: Any, dtype: pl.DataType) -> Any:
    """A config's value as a column of this type holds it: lists and mappings as JSON, null as it is."""
    if isinstance(value, str) and dtype != pl.String:
        return None  # `easy_fraction: uniform` has no place on an axis of numbers
    if value is None or isinstance(value, str):
        return value
    if dtype == pl.String:
        return canonical_json(value)
    return float(value) if dtype == pl.Float64 else value


def _bases(kind: Any) -> set[type]:
    """The scalar types of a field, `object` for lists and mappings; null does not count."""
    found: set[type] = set()
    for member in members(kind):
        if get_origin(member) is Literal:
            found |= {type(choice) for choice in get_args(member)}
        elif member is not type(None):
            found.add(member if member in (bool, int, float, str) else object)
    return found


def _base(value: object) -> type:
    return type(value) if isinstance(value, (bool, int, float, str)) else object


def _scale(path: KeyPath, name: str, spec: Any, dtype: pl.DataType) -> Scale:
    """A list of numbers is linear, except sizes of data, which only make sense as ratios."""
    if path[0] in (SEED, "seeds") or not dtype.is_numeric():
        return "category"
    if isinstance(spec, dict):
        return range_name(spec) or "category"
    return "log2" if name == DATA_SIZE else "linear"


def _spelled_out(name: str, spec: Any, is_whole: bool) -> tuple[list[Any], list[Fault]]:
    """The values that a spec stands for."""
    if name == SEED and type(spec) is int:
        wrong = not 1 <= spec <= MAX_VALUES
        return list(range(0 if wrong else spec)), [Fault((), *not_allowed(spec, _SEEDS))] if wrong else []
    if isinstance(spec, list):
        return spec, [] if spec else [Fault((), "has no values", "one or more")]
    if not isinstance(spec, dict):
        return [], [Fault((), *not_allowed(spec, _SEEDS if name == SEED else _VALUES))]
    kind = range_name(spec)
    if kind is None:
        near = next((near for key in spec if (near := nearest(key, RANGES))), None)
        return [], [Fault((), *not_allowed(spec, _VALUES), near)]
    chosen, faults = check(_RANGE_MODELS[kind], spec)
    if faults:
        return [], faults
    low, high = getattr(chosen, kind)
    return _spaced(kind, low, high, chosen.points, is_whole), []


_VALUES = "a list, or {log2: [6, 18], points: 25} (or log10, linear)"
_SEEDS = f"a list of whole numbers, or how many seeds (1 to {MAX_VALUES:,})"


def not_allowed(value: object, allowed: str) -> tuple[str, str]:
    """A fault's message and what would be right."""
    return f"{shown(value)} is not allowed", allowed


def range_name(spec: Mapping[str, Any]) -> RangeName | None:
    """The scale of a range; None if it has none, or several."""
    named = [name for name in RANGES if name in spec]
    return named[0] if len(named) == 1 else None


def _spaced(kind: str, low: float, high: float, points: int, is_whole: bool) -> list[Any]:
    """The values of a range, both ends included; whole ones are rounded and given once."""
    values = [range_value(kind, low + (high - low) * i / (points - 1)) for i in range(points)]
    return list(dict.fromkeys(round(value) for value in values)) if is_whole else values


def range_value(kind: str, position: float) -> float:
    """The value at an exponent (or at a value itself, on a linear scale)."""
    return float({"log2": 2.0, "log10": 10.0}[kind] ** position if kind != "linear" else position)


def repeated(values: list[Any]) -> list[Fault]:
    """Values that are there already, each at its place."""
    seen: set[str] = set()
    faults = []
    for index, value in enumerate(values):
        text = canonical_json(value)
        if text in seen:
            faults.append(Fault((index,), f"{shown(value)} is given twice"))
        seen.add(text)
    return faults


def overlap(a: KeyPath, b: KeyPath) -> bool:
    """Whether one field is the other, or part of it."""
    shorter = min(len(a), len(b))
    return a[:shorter] == b[:shorter]


def _leaves(prefix: str, kind: Any) -> Iterable[str]:
    """Dotted names of all fields below a section."""
    for name, field_kind in fields_of(kind).items():
        yield f"{prefix}.{name}"
        for member in members(field_kind):
            yield from _leaves(f"{prefix}.{name}", member)
