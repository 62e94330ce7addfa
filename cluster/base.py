"""What a launch needs of the machines that it runs on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Demand:
    """What one pack takes while it runs; fractions allowed."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class Backlog:
    """How far a run is."""

    running: int
    """Packs."""
    waiting: int
    """Packs that wait for a machine."""
    stored: int
    """Trials."""
    is_leaving: bool = False
    """The driver was told to go, and begins nothing more."""


class Places(Protocol):
    """What packs find on some machines."""

    @property
    def name(self) -> str:
        """As provenance shows it."""
        ...

    @property
    def has_gpus(self) -> bool:
        """Whether a pack gets a GPU unless the launch says otherwise."""
        ...

    def places(self, demand: Demand) -> int:
        """How many packs run at once, for choosing their size. A restart gets the same number."""
        ...


class Cluster(Places, Protocol):
    """Machines that Ray joins to one."""

    def connected(
        self, demand: Demand, epoch: int, backlog: Callable[[], Backlog]
    ) -> AbstractContextManager[None]:
        """Within it `ray` is connected in this process. `epoch`: number of this driver among the run's drivers.
        `backlog` may be called from another thread.

        Raises ClusterError if there is no cluster, or none with room for one pack: Ray would wait for ever.
        """
        ...
