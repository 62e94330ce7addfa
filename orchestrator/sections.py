"""The sections of a sweep (`task`, `model`, `train`), resolved for each cell."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from orchestrator.axes_spec import SEED, Axis, overlap
from orchestrator.errors import KeyPath
from orchestrator.section import Fault, check, plain, shown

Cell = tuple[int, ...]
"""For each axis but `seed`, the position of its value."""
MAX_SHOWN = 6


class Sections:
    """The sections with defaults filled in and the axes' values set; each distinct content is checked once.

    `kinds` is empty for a user's function, whose sections are taken as they are.
    """

    def __init__(
        self, kinds: Mapping[str, type], base: Mapping[str, Mapping[str, Any]], axes: Sequence[Axis]
    ) -> None:
        self._kinds, self._base = kinds, base
        self._axes = [axis for axis in axes if axis.name != SEED]
        nested = [str(axis.path[0]) for axis in self._axes if len(axis.path) > 1 and axis.path[0] != "seeds"]
        self.names = tuple(dict.fromkeys([*kinds, *base, *nested]))
        self._touching = {
            name: [i for i, axis in enumerate(self._axes) if axis.path[0] == name and len(axis.path) > 1]
            for name in self.names
        }
        self._known: dict[tuple[str, Cell], tuple[dict[str, Any], list[Fault]]] = {}

    def at(self, cell: Cell) -> dict[str, dict[str, Any]]:
        """The sections of one cell; cells share what is equal."""
        return {name: self._section(name, cell)[0] for name in self.names}

    def is_sound(self, cell: Cell) -> bool:
        """Nothing is wrong with any section of the cell."""
        return not any(self._section(name, cell)[1] for name in self.names)

    def defaults(self) -> dict[str, dict[str, Any]]:
        """The sections with all defaults, but without the fields that axes set."""
        sections: Any = self.at((0,) * len(self._axes))
        for axis in self._axes:
            if axis.path[0] in sections and len(axis.path) > 1:
                sections = _without(sections, axis.path)
        return {name: section for name, section in sections.items() if section or name in self._base}

    def faults(self) -> list[Fault]:
        """Every fault of every content, once, saying for which values of the axes."""
        return [fault for name in self.names for fault in self._faults_of(name)]

    def _faults_of(self, name: str) -> list[Fault]:
        touching = self._touching[name]
        sizes = [len(axis.values) if i in touching else 1 for i, axis in enumerate(self._axes)]
        cells = list(itertools.product(*map(range, sizes)))
        found: dict[Fault, list[Cell]] = {}
        first: dict[KeyPath, Fault] = {}
        ranges = [("tuned", axis.key) for axis in self._axes if axis.is_range]
        for cell in cells:
            for fault in self._section(name, cell)[1]:
                located = self._located(fault, cell)
                if located.path in ranges:  # where one whole number doesn't go, many don't
                    located = first.setdefault(located.path, located)
                found.setdefault(located, []).append(cell)
        sound = [cell for cell in cells if not self._section(name, cell)[1]]
        return [self._narrowed(fault, failing, failing + sound) for fault, failing in found.items()]

    def _section(self, name: str, cell: Cell) -> tuple[dict[str, Any], list[Fault]]:
        key = (name, tuple(cell[i] for i in self._touching[name]))
        if key not in self._known:
            self._known[key] = self._resolve(name, cell)
        return self._known[key]

    def _resolve(self, name: str, cell: Cell) -> tuple[dict[str, Any], list[Fault]]:
        section: Any = dict(self._base.get(name, {}))
        for i in self._touching[name]:
            section = with_value(section, self._axes[i].path[1:], self._axes[i].values[cell[i]])
        if not self._kinds:
            return section, []
        instance, faults = check(self._kinds[name], section)
        return ({} if faults else plain(instance)), [fault.below(name) for fault in faults]

    def _located(self, fault: Fault, cell: Cell) -> Fault:
        """A fault in a field that an axis sets is the fault of the axis' value."""
        for axis, i in zip(self._axes, cell, strict=True):
            if fault.path[: len(axis.path)] == axis.path:
                rest = fault.path[len(axis.path) :]
                place = (i, *rest) if isinstance(axis.spec, list) else ()
                return Fault((axis.home, axis.key, *place), fault.message, fault.allowed, fault.nearest)
        return fault

    def _narrowed(self, fault: Fault, failing: list[Cell], cells: list[Cell]) -> Fault:
        """Says where it fails. Cells with other faults tell nothing: one fault may hide another."""
        own = [i for i, axis in enumerate(self._axes) if fault.path[:2] == (axis.home, axis.key)]
        bad = {i: {cell[i] for cell in failing} for i in own}
        domain = [cell for cell in cells if all(cell[i] in bad[i] for i in own)]
        message = fault.message + where_it_fails(self._axes, failing, domain)
        n_others = max((len(bad[i]) - 1 for i in own if self._axes[i].is_range), default=0)
        if not n_others:
            return Fault(fault.path, message, fault.allowed, fault.nearest)
        return Fault(fault.path, f"{message}; and {n_others} more of this range", "a list of those that go")


def where_it_fails(axes: Sequence[Axis], failing: Iterable[Cell], cells: Iterable[Cell]) -> str:
    """` (at k = 3, 4; depth = 1)`: for each axis of which not all values fail, those that do."""
    failing, cells = list(failing), list(cells)
    parts = []
    for i, axis in enumerate(axes):
        bad = sorted({cell[i] for cell in failing})
        if len(bad) < len({cell[i] for cell in cells}):
            values = [shown(axis.values[j]) for j in bad[:MAX_SHOWN]] + ["..."] * (len(bad) > MAX_SHOWN)
            parts.append(f"{axis.name} = {', '.join(values)}")
    return f" (at {'; '.join(parts)})" if parts else ""


def set_twice(axes: Iterable[Axis], data: Mapping[str, Any]) -> list[Fault]:
    """Fields that stand in the file although an axis sets them, or tuning does."""
    found = []
    for axis in axes:
        path = _present(data, axis.path)
        if path is not None:
            setter = "tuned" if axis.home == "tuned" else f"set by the axis {axis.key}"
            found.append(Fault(path, f"{setter}; remove it here or there"))
    return found


def _present(data: Any, path: KeyPath) -> KeyPath | None:
    """The path, or the part of it at which a single value stands in its way; None if the field is not set."""
    for end, part in enumerate(path):
        if not isinstance(data, Mapping):
            return path[:end]
        if part not in data:
            return None
        data = data[part]
    return path


def with_value(data: Mapping[str, Any], path: KeyPath, value: Any) -> dict[str, Any]:
    """The data with one value set, mappings on the way made if need be; the original stays as it is."""
    first, *rest = path
    if rest:
        inner = data.get(str(first))
        value = with_value(inner if isinstance(inner, Mapping) else {}, tuple(rest), value)
    return {**data, str(first): value}


def moved(cell: Cell, at: int, index: int) -> Cell:
    """The cell with another value on one of its axes."""
    return (*cell[:at], index, *cell[at + 1 :])


def reach(data: Any, path: KeyPath) -> Any:
    """The value at a path; None where there is nothing."""
    for key in path:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data


def _without(data: Mapping[str, Any], path: KeyPath) -> dict[str, Any]:
    first, *rest = path
    kept = {key: value for key, value in data.items() if key != first}
    if rest and isinstance(data.get(str(first)), Mapping):
        kept = {key: _without(value, tuple(rest)) if key == first else value for key, value in data.items()}
    return kept


def is_below_any(path: KeyPath, others: Iterable[KeyPath]) -> bool:
    """Whether a path overlaps any of the others."""
    return any(overlap(path, other) for other in others)
