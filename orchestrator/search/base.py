"""The interface of a search policy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from orchestrator.trial import Ending, Trial

ShapeOf = Callable[[Trial], str]
"""Trials of equal shape can be one pack."""


class Progress(NamedTuple):
    """How far a search is."""

    expected: int
    """Trials that it will have wanted when it is finished."""
    note: str = ""
    """How far it is, where that number is a guess."""


class Search(Protocol):
    """Decides which trials are wanted, from what is stored. A pure function of what it was told: telling
    twice, or in another order, changes nothing, so a restart tells it the store and goes on."""

    def wants(self, trial: Trial) -> bool:
        """Whether this trial is one of its own, stored or not."""
        ...

    def tell(self, endings: Mapping[str, Ending]) -> None:
        """Stored trials: how they ended, by id. Ids that the search has never seen are ignored."""
        ...

    def adopt(self, trials: Iterable[Trial]) -> None:
        """Trials that an earlier driver began, and that are not stored yet: they will be, and are not asked for."""
        ...

    def ask(self, n: int, shape_of: ShapeOf | None = None) -> Sequence[Trial]:
        """Wanted trials that were neither told, adopted nor asked for before; empty: none now. About n of them, or
        all, if the search knows them all. With `shape_of` they fill packs of n: at most n of one shape, or all that
        are wanted as long as nothing more is told."""
        ...

    @property
    def is_finished(self) -> bool:
        """Nothing more will ever be asked for, whatever is told."""
        ...

    def progress(self) -> Progress: ...

    def knows(self, trial_id: str) -> bool:
        """Whether it has seen this trial and wants it."""
        ...
