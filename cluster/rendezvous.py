"""How the jobs of a run find each other: two small files in the run directory.

    head.json    the driver in charge: where its Ray is, and how much is left to do
    end.json     why nothing more is to be done

A driver replaces `head.json` every few seconds; whoever ends a launch writes `end.json`. Both name the
launch (a number that counts them), so that jobs of an earlier one go when they meet them.
"""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from cluster.files import read_json, write_atomically


@dataclass(frozen=True)
class HeadState:
    """What a driver says of itself. `address`: of its Ray, `host:port`; None once it has left."""

    launch: int
    epoch: int
    job_id: str
    host: str
    address: str | None
    running: int
    """Packs under training."""
    waiting: int
    """Packs that wait for a machine."""
    stored: int
    """Trials."""
    changed_at: float
    """Seconds since 1970."""
    note: str = ""
    """What went wrong lately, if anything (jobs could not be queued, ...)."""


@dataclass(frozen=True)
class End:
    """Whether a launch is over, and why."""

    launch: int
    state: Literal["open", "finished", "cancelled", "failed"]
    """`open`: it isn't."""
    message: str = ""

    def why_leave(self, launch: int) -> str:
        """For a job of this launch."""
        return f"the run is {self.state}" if self.launch == launch else "another launch has begun"


class Rendezvous:
    """The two files, in `RUN/cluster`. Readers take a file that is not there or not whole for none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def head(self) -> HeadState | None:
        head: HeadState | None = _read(HeadState, self.folder / "head.json")
        return head

    def publish_head(self, state: HeadState) -> None:
        write_atomically(self.folder / "head.json", json.dumps(asdict(state)).encode())

    def end(self, launch: int) -> End | None:
        """The end of this launch, or of a later one: jobs of this one have nothing to do then."""
        end: End | None = _read(End, self.folder / "end.json")
        if end is None or end.launch < launch or (end.launch == launch and end.state == "open"):
            return None
        return end

    @property
    def last_launch(self) -> int:
        """The newest launch that these files speak of; 0: none."""
        end = _read(End, self.folder / "end.json")
        return max((state.launch for state in (self.head(), end) if state is not None), default=0)

    def begin(self, launch: int) -> None:
        """Say that a launch has begun. On NFS a file that is replaced is seen at once, while one that has not been
        there is missed for up to a minute."""
        self.publish_end(End(launch, "open"))

    def publish_end(self, end: End) -> None:
        write_atomically(self.folder / "end.json", json.dumps(asdict(end)).encode())


def pauses(first_s: float = 0.5, most_s: float = 15.0) -> Iterator[float]:
    """How long to wait before each look: longer every time, and at random, so that a thousand workers don't
    ask the file server all at once."""
    pause_s = first_s
    while True:
        yield random.uniform(pause_s / 2, pause_s)  # noqa: S311 - nothing secret
        pause_s = min(most_s, pause_s * 1.5)


def is_reachable(address: str, timeout_s: float = 5.0) -> bool:
    """Something listens there. (Ray itself takes half a minute to give up on a head that is gone.)"""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=timeout_s):
            return True
    except OSError:
        return False


def _read(kind: Any, path: Path) -> Any:
    values = read_json(path)
    try:
        return None if values is None else kind(**values)
    except TypeError:
        return None
