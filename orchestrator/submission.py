"""What was queued for a run, written down where every job and every later launch finds it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from cluster.errors import ClusterError
from cluster.files import read_json, write_atomically
from cluster.queue import QueueView


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
    """When all was queued, or the launch began; seconds since 1970."""
    drivers: tuple[str, ...] = ()
    """Job ids; none until all is queued."""
    workers: tuple[str, ...] = ()
    n_workers: int = 0
    """How many run at once at most."""

    @classmethod
    def load(cls, run: Path) -> Submission | None:
        """None if the run was never launched on SLURM, or the file is lost. Raises ClusterError if it's damaged."""
        path = _path(run)
        values = read_json(path)
        if values is None and not path.exists():
            return None
        try:
            if values is None:
                raise TypeError("it holds no mapping")
            lists = {name: tuple(values[name]) for name in ("drivers", "workers")}
            return cls(**{**values, **lists})
        except (LookupError, TypeError) as error:
            raise ClusterError(
                f"{path}: damaged ({error}). Delete it once squeue shows no job of this run any more."
            ) from error

    def write(self, run: Path) -> None:
        write_atomically(_path(run), json.dumps(asdict(self), indent=2).encode())

    @property
    def is_queued(self) -> bool:
        """All of it was; else its launch is at that, or has died over it."""
        return bool(self.drivers)

    def is_seen_by(self, view: QueueView) -> bool:
        """The view is younger than the jobs. (Those queued last are looked for.)"""
        last_id = (*self.drivers, *self.workers)[-1] if self.is_queued else ""
        return view.has_seen(last_id, self.submitted_at)


def _path(run: Path) -> Path:
    return run / "cluster" / "launch.json"
