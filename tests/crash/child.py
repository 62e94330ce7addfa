"""Launches a sweep inline and kills itself, without warning, at one of its changes to the disk.

    python child.py SWEEP.yaml RUN_DIR KILL_AT

KILL_AT counts the calls that give a file its name or take it away: 2n kills before the n-th, 2n+1 after it.
Prints the number of calls if it lives.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orchestrator.launch
from orchestrator.launch import launch
from orchestrator.sweep import load_sweep
from orchestrator.worker import WorkOrder


class Fuse:
    """Counts calls of the wrapped functions, and kills the process at one of them."""

    def __init__(self, kill_at: int) -> None:
        self.calls, self.kill_at = 0, kill_at

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self._die_if(2 * self.calls)
            result = function(*args, **kwargs)
            self._die_if(2 * self.calls + 1)
            self.calls += 1
            return result

        return wrapped

    def _die_if(self, moment: int) -> None:
        if moment == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    sweep, run_dir, kill_at = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    fuse = Fuse(kill_at)
    for name in ("link", "replace", "unlink"):
        setattr(os, name, fuse.wrap(getattr(os, name)))
    # Write as often as can be, so that there are many moments to die at.
    orchestrator.launch.WorkOrder = functools.partial(WorkOrder, publish_every_s=0.0, checkpoint_every_s=0.0)  # type: ignore[misc, assignment]
    launch(load_sweep(sweep), run_dir, cluster="inline", is_quiet=True)
    print(fuse.calls)


main()
