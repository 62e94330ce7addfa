"""How a job tells the workers of its node to leave, and learns that they have.

Ray starts the workers, so the job can't call them. They meet in a folder on the node's own disk, whose path
Ray's processes inherit:

    leave         workers are to store what they have and to begin nothing else
    busy-<pid>    this process has something that isn't stored
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "ORCHESTRATOR_NODE_FOLDER"


@dataclass(frozen=True)
class NodeFolder:
    """The job's side."""

    path: Path

    def environment(self) -> dict[str, str]:
        """What the processes of this node inherit."""
        # SPT_NOENV: else Ray's agents overwrite what /proc shows of their environment when they name themselves,
        # and `kill_marked` doesn't know them.
        return {VARIABLE: str(self.path), "SPT_NOENV": "1"}

    def ask_to_leave(self) -> None:
        (self.path / "leave").touch()

    def busy_processes(self) -> list[int]:
        """Live processes that have something to store."""
        live = []
        for mark in self.path.glob("busy-*"):
            pid = int(mark.name.removeprefix("busy-"))
            if Path(f"/proc/{pid}").exists():
                live.append(pid)
            else:
                mark.unlink(missing_ok=True)  # before another process gets this number
        return live


@dataclass(frozen=True)
class Presence:
    """A worker's side. Without a folder (on a machine where nobody is told to leave) nothing happens."""

    path: Path | None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Presence:
        path = environ.get(VARIABLE)
        return cls(Path(path) if path else None)

    @property
    def is_asked_to_leave(self) -> bool:
        return self.path is not None and (self.path / "leave").exists()

    def busy(self) -> None:
        """From now on this process has something to store."""
        if self.path is not None:
            self._mark(self.path).touch()

    def free(self) -> None:
        """It's stored."""
        if self.path is not None:
            self._mark(self.path).unlink(missing_ok=True)

    def _mark(self, folder: Path) -> Path:
        return folder / f"busy-{os.getpid()}"
