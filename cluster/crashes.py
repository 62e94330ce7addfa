"""How many drivers in a row ended without saying so: a successor that can only die again must not be queued
for ever."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from cluster.errors import ClusterError
from cluster.files import read_json, write_atomically

LOOK_EVERY_S = 1.0
_log = logging.getLogger(__name__)


class Crashes:
    """A count in the run directory. A driver counts itself when it begins; leaving in good order, or having been at
    work for a while, clears it."""

    PAUSES_S: ClassVar[tuple[float, ...]] = (0.0, 10.0, 120.0, 600.0, 1800.0)
    """How long a driver waits after so many crashes: a disk may be full, or this node the one at fault."""
    MOST: ClassVar[int] = len(PAUSES_S)

    def __init__(self, folder: Path) -> None:
        self.path = folder / "crashes.json"

    @contextmanager
    def counted(self, launch: int) -> Iterator[int]:
        """Yields the crashes so far. An exception, or no end at all, leaves one more."""
        count = self._count(launch)
        self._write(launch, count + 1)
        yield count
        self.clear(launch)

    def pause(self, launch: int, n_before: int, leaving: threading.Event) -> None:
        """Wait before the next attempt, unless the driver before clears the count meanwhile: one that is cancelled
        is followed within a second, and says a moment later that it was told to leave.
        """
        deadline = time.monotonic() + self.PAUSES_S[n_before]
        while time.monotonic() < deadline and self._count(launch) and not leaving.wait(LOOK_EVERY_S):
            pass

    def clear(self, launch: int) -> None:
        """A disk that is full now stops nothing here: the count stays, and the store complains."""
        try:
            self._write(launch, 0)
        except ClusterError as error:
            _log.warning("%s", error)

    def _count(self, launch: int) -> int:
        values = read_json(self.path) or {}
        return int(values["n"]) if values.get("launch") == launch else 0

    def _write(self, launch: int, n: int) -> None:
        write_atomically(self.path, json.dumps({"launch": launch, "n": n}).encode())
