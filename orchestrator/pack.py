"""Packs: trials of one shape that flow through the slots of one device, as one Ray Tune trial."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from orchestrator.trial import Trial


def pack_id(trial_ids: Sequence[str]) -> str:
    """16 hex digits: the hash of the ordered trial ids."""
    return hashlib.sha256("\n".join(trial_ids).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Pack:
    """A fixed queue of trials of one shape."""

    trials: tuple[Trial, ...]

    @cached_property
    def pack_id(self) -> str:
        return pack_id([trial.trial_id for trial in self.trials])


def make_packs(trials: Iterable[Trial], shape_of: Callable[[Trial], str], size: int) -> list[Pack]:
    """Packs of at most `size` trials of equal shape, shapes and trials in the order of first appearance."""
    if size < 1:
        raise ValueError(f"a pack holds at least one trial, not {size}")
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(shape_of(trial), []).append(trial)
    return [
        Pack(tuple(group[start : start + size]))
        for group in groups.values()
        for start in range(0, len(group), size)
    ]
