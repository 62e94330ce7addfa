"""What every job of a launch must know: plain values, pickled when it is submitted."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from cluster.base import Demand
from cluster.profile import Profile


@dataclass(frozen=True)
class Order:
    """One launch of one run on one site."""

    run: Path
    """The run directory, absolute; every node sees it."""
    name: str
    """Of the run, for people who read the queue."""
    launch: int
    """Counts the launches of the run."""
    profile: Profile
    profile_name: str
    demand: Demand
    """What a pack takes."""
    code: Path
    """The snapshot that jobs run."""
    python_path: str
    """Where jobs import from before anything else."""
    entry: str
    """`package.module:function` that a driver job calls with (code, run, cluster, notice_s). It returns what to
    do once the workers have been sent home, or None if it was told to leave before the run was finished."""

    @property
    def folder(self) -> Path:
        return self.run / "cluster"

    @property
    def jobs(self) -> Path:
        """Pickles, sbatch files and logs of jobs, and what jobs say of themselves."""
        return self.folder / "jobs"

    @property
    def token(self) -> Path:
        """Who may talk to this run's Ray."""
        return self.folder / "secret" / "token"

    @property
    def driver_name(self) -> str:
        return f"{job_prefix(self.name, self.run)}-driver"

    @property
    def worker_name(self) -> str:
        return f"{job_prefix(self.name, self.run)}-worker"


def job_prefix(name: str, run: Path) -> str:
    """What this run's jobs are called: SLURM tells two drivers of one run from those of others by name alone,
    and two runs in different places may have one name."""
    return f"{name}-{hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:8]}"
