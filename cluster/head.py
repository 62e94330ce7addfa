"""The Ray head of a driver job: workers find it through the run directory, and join when SLURM starts them."""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cluster.allocation import Allocation
from cluster.base import Backlog, Demand
from cluster.errors import ClusterError
from cluster.order import Order
from cluster.processes import notices_blocked
from cluster.ray_settings import OBJECT_STORE_BYTES
from cluster.rendezvous import HeadState, Rendezvous
from cluster.scratch import scratch_folder
from cluster.site import Site
from cluster.supply import Supply

LOOK_EVERY_S = 2.0
REPEAT_EVERY_S = 30.0
"""So often `head.json` is written even if nothing has changed."""


@dataclass(frozen=True)
class Head(Site):
    """The site as its driver job sees it: a Ray without room for packs, which workers bring."""

    order: Order
    allocation: Allocation
    supply: Supply
    on_progress: Callable[[], None]
    """Called once, when trials have been finished under this head."""

    @contextmanager
    def connected(self, demand: Demand, epoch: int, backlog: Callable[[], Backlog]) -> Iterator[None]:
        """Within it this process is the run's Ray head, and jobs are queued as they are needed."""
        self.places(demand)  # or ClusterError
        with scratch_folder(Path(self.profile.scratch)) as scratch, _ray(scratch, self.order.code) as address:
            state = HeadState(
                launch=self.order.launch,
                epoch=epoch,
                job_id=self.allocation.job_id,
                host=socket.gethostname(),
                address=address,
                running=0,
                waiting=0,
                stored=backlog().stored,
                changed_at=0.0,
            )
            with self._announced(state, backlog):
                yield

    @contextmanager
    def _announced(self, state: HeadState, backlog: Callable[[], Backlog]) -> Iterator[None]:
        """A thread says where the head is and how much is left, and keeps jobs queued; at the end it says that
        the head is gone."""
        stop = threading.Event()
        thread = threading.Thread(target=self._announce, args=(state, backlog, stop), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(timeout=5)  # SLURM may be slow to answer it; then it goes with the process
            now = backlog()
            self._publish(replace(state, address=None, waiting=now.running + now.waiting, stored=now.stored))

    def _announce(self, state: HeadState, backlog: Callable[[], Backlog], stop: threading.Event) -> None:
        said, said_at = state, -REPEAT_EVERY_S
        has_progressed = False
        while True:
            now = backlog()
            if now.stored > state.stored and not has_progressed:
                has_progressed = True
                self.on_progress()
            note = self.supply.keep_up(now)
            new = replace(state, running=now.running, waiting=now.waiting, stored=now.stored, note=note)
            if stop.is_set():
                return
            if new != said or time.monotonic() - said_at >= REPEAT_EVERY_S:
                self._publish(new)
                said, said_at = new, time.monotonic()
            if stop.wait(LOOK_EVERY_S):
                return

    def _publish(self, state: HeadState) -> None:
        """A full disk is the store's to complain of; workers that don't hear of us wait."""
        try:
            Rendezvous(self.order.folder).publish_head(replace(state, changed_at=time.time()))
        except ClusterError as error:
            print(error, file=sys.stderr, flush=True)


@contextmanager
def _ray(scratch: Path, code: Path) -> Iterator[str]:
    """A Ray head in this process; yields its address. Workers import from `code`: Ray has them look first where
    the driver was at this moment."""
    import ray

    with notices_blocked(), contextlib.chdir(code):
        context = ray.init(
            address="local",
            num_cpus=0,
            num_gpus=0,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            logging_level=logging.ERROR,
            log_to_driver=False,
            _temp_dir=str(scratch / "r"),
        )
    try:
        yield context.address_info["gcs_address"]
    finally:
        ray.shutdown()
