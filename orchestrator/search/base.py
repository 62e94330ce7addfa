"""The interface of a search policy."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from orchestrator.trial import Trial


class Search(Protocol):
    """Decides which trials are wanted, from what is stored. A pure function of what it was told: telling
    twice, or in another order, changes nothing, so a restart tells it the store and goes on."""

    def tell(self, statuses: Mapping[str, str]) -> None:
        """Stored trials: their status by id. Ids that the search never asked for are ignored."""
        ...

    def ask(self, pending: Collection[str]) -> Sequence[Trial]:
        """Wanted trials that were neither told nor asked for before, nor are `pending` (begun by an earlier
        driver, not stored yet); empty: none now."""
        ...

    @property
    def is_finished(self) -> bool:
        """Nothing more will ever be asked for, whatever is told."""
        ...
