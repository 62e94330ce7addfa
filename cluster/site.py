"""A SLURM site as its profile describes it: what a pack finds there."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.base import Demand
from cluster.errors import ClusterError
from cluster.profile import Profile


@dataclass(frozen=True)
class Site:
    """Places for packs on the workers of a profile."""

    name: str
    """Of the profile, for people."""
    profile: Profile

    @property
    def has_gpus(self) -> bool:
        return self.profile.worker.gpus > 0

    def places(self, demand: Demand) -> int:
        """Packs that run at once when every worker is there. Raises ClusterError if a worker has no room for
        even one."""
        worker = self.profile.worker
        each = worker.places(demand.cpus, demand.gpus)
        if not each:
            raise ClusterError(
                f"a pack wants {demand.cpus:g} CPUs and {demand.gpus:g} GPUs, and a worker of {self.name} has "
                f"{worker.cpus} and {worker.gpus}: launch with --cpus and --gpus, or change the profile"
            )
        return each * worker.max
