"""Launches a sweep inline over and over, killing itself without warning at one change to the disk after the other.

    python child.py SWEEP.yaml FOLDER STRIDE

Fills FOLDER/undisturbed, then FOLDER/killed-at-<moment> for every STRIDE-th moment: once with a kill -9 there, and
once more without. A moment is just before (even) or just after (odd) one of the calls that give a file its name or
take it away. Every launch is a process of its own, forked from this one so that Python and torch are imported once.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orchestrator.inline
import orchestrator.launch
import trainers.transformer.engine  # noqa: F401
from orchestrator.inline import Inline
from orchestrator.launch import launch
from orchestrator.sweep import load_sweep
from orchestrator.worker import WorkOrder


class Fuse:
    """Counts calls of the wrapped functions, and kills the process at one moment."""

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


def launch_once(sweep: str, run_dir: Path, kill_at: int) -> int:
    """The wait status of one launch in a forked process; FOLDER/calls gets the number of its calls."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    status = 1
    try:
        fuse = Fuse(kill_at)
        for name in ("link", "replace", "unlink"):
            setattr(os, name, fuse.wrap(getattr(os, name)))
        # Write as often as can be, so that there are many moments to die at.
        often = functools.partial(WorkOrder, publish_every_s=0.0, checkpoint_every_s=0.0)
        orchestrator.launch.WorkOrder = often  # type: ignore[misc, assignment]
        launch(load_sweep(sweep), run_dir, cluster=Inline(), is_quiet=True)
        run_dir.with_suffix(".calls").write_text(str(fuse.calls))
        status = 0
    finally:
        os._exit(status)


def main() -> None:
    sweep, folder, stride = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    undisturbed = folder / "undisturbed"
    assert launch_once(sweep, undisturbed, -1) == 0
    n_calls = int(undisturbed.with_suffix(".calls").read_text())
    for moment in range(0, 2 * n_calls, stride):
        run_dir = folder / f"killed-at-{moment}"
        assert launch_once(sweep, run_dir, moment) == signal.SIGKILL, moment
        assert launch_once(sweep, run_dir, -1) == 0, moment
    print(n_calls)


main()
