"""Keeps as many jobs queued as a run needs: what is wanted minus what the scheduler has.

Only a driver does this, at most once a minute, from the one look at the queue that all processes share.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil

from cluster.base import Backlog, Demand
from cluster.errors import ClusterError
from cluster.profile import Profile
from cluster.queue import look
from cluster.slurm import Queued, Slurm

EVERY_S = 60.0
PATIENCE_S = 30 * 60.0
"""Longest pause between attempts where the scheduler refuses jobs from nodes, or jobs end as soon as they begin."""


def wanted_workers(profile: Profile, demand: Demand, backlog: Backlog) -> int:
    """Worker jobs that have something to do, or soon will."""
    packs = backlog.running + backlog.waiting
    return min(profile.worker.max, ceil(packs / max(1, profile.worker.places(demand.cpus, demand.gpus))))


@dataclass
class Supply:
    """The driver's side of the queue."""

    slurm: Slurm
    pause_s: float = EVERY_S
    next_look: float = field(default_factory=lambda: time.monotonic() + EVERY_S)
    changed_at: float = field(default_factory=time.time)
    """When jobs were queued last, seconds since 1970: an older look at the queue doesn't show them."""
    newest: str = ""
    """The last of those jobs, if SLURM has told its id."""
    note: str = ""
    stored: int | None = None
    """Trials that were stored when workers were queued after the last look; None: none were."""

    def keep_up(self, backlog: Backlog) -> str:
        """Queue what is missing, if it's time to look. Returns what went wrong the last time, if anything."""
        if time.monotonic() >= self.next_look:
            try:
                self.note = self._queue_missing(backlog)
            except ClusterError as error:
                self.note = str(error)
            self.pause_s = min(2 * self.pause_s, PATIENCE_S) if self.note else EVERY_S
            self.next_look = time.monotonic() + self.pause_s
        return self.note

    def queue_successor(self) -> None:
        """One driver more, in place of the one that has begun."""
        if problem := self._submit(self.slurm.submit_drivers, 1):
            self.note = f"no successor could be queued from here: {problem}"

    def _queue_missing(self, backlog: Backlog) -> str:
        """Returns what seems to be wrong with workers, if anything."""
        order = self.slurm.order
        view = look(EVERY_S)
        if view.problem:
            raise ClusterError(view.problem)
        if not view.has_seen(self.newest, self.changed_at):
            return self.note
        # The successor first: workers may take all that the site's submit limits leave.
        missing_drivers = 2 - self.slurm.drivers(view)
        problems = [self._submit(self.slurm.submit_drivers, 1)] if missing_drivers > 0 else []
        missing = wanted_workers(order.profile, order.demand, backlog) - self.slurm.workers(view)
        if missing <= 0:
            self.stored = None
        else:
            problems.append(self._queue_workers(missing, backlog.stored))
        return "; ".join(filter(None, problems))

    def _queue_workers(self, n: int, stored: int) -> str:
        was_in_vain = self.stored == stored
        refused = self._submit(self.slurm.submit_workers, n)
        self.stored = None if refused else stored
        if refused or not was_in_vain:
            return refused
        run = self.slurm.order.run
        return f"workers end and no trial is finished meanwhile: orchestrator logs {run} --failed may say why"

    def _submit(self, submit: Callable[[int], Sequence[Queued]], n: int) -> str:
        """Returns why it was refused, if it was."""
        try:
            self.newest = submit(n)[-1].job_id
        except ClusterError as error:
            return str(error)
        finally:
            # Not before: sbatch takes its time, and somebody may look meanwhile.
            self.changed_at = time.time()
        return ""
