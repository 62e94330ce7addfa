"""Plain data (what JSON holds) back to the frozen dataclasses that it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cache
from typing import Any, TypeVar, get_args, get_type_hints

T = TypeVar("T")


def from_plain(cls: type[T], values: Mapping[str, Any]) -> T:
    """`cls` from the mapping of its fields: mappings become the dataclass that the field's type names, lists
    become tuples. The inverse of `dataclasses.asdict` for what a resolved config holds."""
    hints = _hints(cls)  # type: ignore[arg-type]  # a class is hashable
    return cls(**{name: _restore(hints[name], value) for name, value in values.items()})


def _restore(hint: Any, value: Any) -> Any:
    if isinstance(value, Mapping):
        (cls,) = [choice for choice in (hint, *get_args(hint)) if is_dataclass(choice)]
        return from_plain(cls, value)  # type: ignore[arg-type]
    return tuple(value) if isinstance(value, list) else value


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)
