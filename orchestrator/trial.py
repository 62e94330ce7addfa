"""A trial and its identity."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Trial:
    """One training run.

    `config` is everything that can change its result, `axes` its place on the sweep's axes as the columns of
    its row hold it. Neither is ever modified: trials share parts of them.
    """

    config: Mapping[str, Any]
    axes: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def trial_id(self) -> str:
        """20 hex digits: the hash of the config."""
        return hashlib.sha256(canonical_json(self.config).encode()).hexdigest()[:20]


class Ending(NamedTuple):
    """How a stored trial ended."""

    status: str
    solved_at_step: int | None = None
    """When it reached its target, whatever came later."""
    score: float | None = None
    """The metric of the sweep's rule at the end."""

    @property
    def has_solved(self) -> bool:
        """It reached its target at some step."""
        return self.status == "solved" or self.solved_at_step is not None

    @property
    def outcome(self) -> bool | None:
        """Solved or not; None where that is not known: failed, or stopped before it could."""
        if self.status == "failed":
            return None
        if self.has_solved:
            return True
        return False if self.status in ("unsolved", "diverged") else None


def canonical_json(value: object) -> str:
    """Equal values give equal text and different values different text, in any process.

    Keys are sorted, whole floats are written as integers (1.0 is 1), infinity is the text `Infinity` (and a
    text that looks like it gets an apostrophe in front). Raises ValueError for NaN, TypeError for anything
    that is not JSON.
    """
    return json.dumps(_canonical(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _canonical(value: object) -> object:
    if isinstance(value, str):
        return "'" + value if value.lstrip("'").removeprefix("-") == "Infinity" else value
    if isinstance(value, float):
        return _canonical_float(value)
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, Mapping):
        return {_text_key(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [_canonical(item) for item in value]
    raise TypeError(f"a config holds JSON values only, not {type(value).__name__}")


def from_canonical_json(text: str) -> Any:
    """The value that `canonical_json` has written; whole floats come back as integers."""
    return _from_canonical(json.loads(text))


def _from_canonical(value: Any) -> Any:
    if isinstance(value, str) and value.lstrip("'").removeprefix("-") == "Infinity":
        return value[1:] if value.startswith("'") else float(value.replace("Infinity", "inf"))
    if isinstance(value, dict):
        return {key: _from_canonical(item) for key, item in value.items()}
    return [_from_canonical(item) for item in value] if isinstance(value, list) else value


def _canonical_float(value: float) -> object:
    if math.isnan(value):
        raise ValueError("a config cannot hold NaN: it equals nothing, not even itself")
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return int(value) if value.is_integer() else value


def _text_key(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"the keys of a config are text, not {type(key).__name__}")
    return key
