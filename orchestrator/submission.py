"""What was queued for a run, written down where every job and every later launch finds it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.errors import ClusterError
from cluster.files import read_json, write_atomically


@dataclass(frozen=True)
class Submission:
    """What was queued for a run the last time: `RUN/cluster/launch.json`."""

    launch: int
    """Counts the launches of the run."""
    profile: str
    content: str
    """Digest of everything that the jobs would do differently: sweep, code, profile."""
    driver_name: str
    worker_name: str
    submitted_at: float
    """Seconds since 1970."""
    drivers: tuple[str, ...] = ()
    """Job ids."""
    workers: tuple[str, ...] = ()
    n_workers: int = 0
    """How many run at once at most."""

    @classmethod
    def load(cls, run: Path) -> Submission | None:
        """None if the run was never launched on SLURM."""
        values = read_json(_path(run))
        if values is None:
            return None
        try:
            lists = {name: tuple(values[name]) for name in ("drivers", "workers")}
            return cls(**{**values, **lists})
        except (LookupError, TypeError) as error:
            raise ClusterError(
                f"{_path(run)}: damaged ({error}). Delete it once squeue shows no job of this run any more."
            ) from error

    def write(self, run: Path) -> None:
        write_atomically(_path(run), json.dumps(asdict(self), indent=2).encode())


def _path(run: Path) -> Path:
    return run / "cluster" / "launch.json"
