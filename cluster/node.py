"""What the jobs of a run execute on their nodes: a driver, or a worker.

submitit ignores SIGTERM in its jobs and takes SIGUSR2 to requeue them; both are taken back here, since a job
that is told to go stores what it has and leaves, and the run directory says what is left.
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from cluster.allocation import Allocation
from cluster.crashes import Crashes
from cluster.errors import ClusterError
from cluster.head import Head
from cluster.job_record import JobRecord
from cluster.network import address_of
from cluster.node_folder import VARIABLE, NodeFolder
from cluster.order import Order
from cluster.processes import NOTICES, die_with_parent, kill_marked, notices_blocked
from cluster.ray_settings import OBJECT_STORE_BYTES, set_job_environment
from cluster.rendezvous import End, HeadState, Rendezvous, is_reachable, pauses
from cluster.sbatch import clean_environment
from cluster.scratch import scratch_folder
from cluster.slurm import Slurm
from cluster.supply import Supply

LOOK_EVERY_S = 3.0
"""How often a worker that has joined looks at the run directory."""
IDLE_S = 30.0
"""A worker without work leaves after so long, if no pack waits for a machine."""
HEADLESS_S = 15 * 60.0
"""A worker that finds no head for so long gives its node back."""
SHORT_S = 5 * 60.0
"""Ray refuses a wrong token after 22 s; other trouble takes it longer."""
MAX_SHORT_STAYS = 5
"""A worker that left the same head so often in a row after less than SHORT_S cannot join, and says so."""


# -- driver ---------------------------------------------------------------------------------------------------


def run_driver(order: Order) -> None:
    """A driver job: go on with the run until it is finished or SLURM wants the machine back."""
    allocation = Allocation.from_environment()
    with JobRecord.begin(order.jobs, "driver", order.launch) as record, _told_to_leave() as leaving:
        _take_over_environment(order)
        if end := Rendezvous(order.folder).end(order.launch):
            record.change("left", end.why_leave(order.launch))
            return
        crashes = Crashes(order.folder)
        with crashes.counted(order.launch) as n_before:
            if n_before >= crashes.MOST:
                _give_up(order, n_before)
            crashes.pause(order.launch, n_before, leaving)
            record.change("driving")
            supply = Supply(Slurm(order))
            if not record.record.restarts:  # one that was requeued has its successor
                supply.queue_successor()
            conclude = None if leaving.is_set() else _drive(order, allocation, supply, crashes)
        if conclude is None:
            record.change("left", "told to leave")
            return
        _end(order, End(order.launch, "finished"))
        record.change("left", "the run is finished")
        conclude()


def _drive(
    order: Order, allocation: Allocation, supply: Supply, crashes: Crashes
) -> Callable[[], None] | None:
    """Go on with the run, as its head. Returns what the run's entry does."""
    head = Head(
        order.profile_name,
        order.profile,
        order,
        allocation,
        supply,
        on_settled=lambda: crashes.clear(order.launch),
    )
    conclude: Callable[[], None] | None = _entry(order.entry)(
        order.code, order.run, head, order.profile.notice_s
    )
    return conclude


def _give_up(order: Order, n_crashes: int) -> NoReturn:
    message = (
        f"{n_crashes} drivers in a row ended soon after they had begun; "
        f"orchestrator logs {order.run} --failed says more"
    )
    _end(order, End(order.launch, "failed", message))
    raise ClusterError(message)


def _entry(name: str):  # type: ignore[no-untyped-def]
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def _end(order: Order, end: End) -> None:
    """Nothing more is to be done: take away the jobs that are queued for nothing, and say so. In this order: once
    it is said, a new launch may come, whose jobs have the same names.
    """
    shutil.rmtree(order.token.parent, ignore_errors=True)
    try:
        Slurm(order).cancel_pending()
    except ClusterError as error:
        print(f"jobs stay queued, and end as soon as they begin: {error}", file=sys.stderr, flush=True)
    Rendezvous(order.folder).publish_end(end)


# -- worker ---------------------------------------------------------------------------------------------------


def run_worker(order: Order) -> None:
    """A worker job: lend this machine to the run's driver, whichever that is, until told to leave."""
    allocation = Allocation.from_environment()
    with (
        JobRecord.begin(order.jobs, "worker", order.launch) as record,
        _told_to_leave() as leaving,
        scratch_folder(Path(order.profile.scratch)) as scratch,
    ):
        _take_over_environment(order)
        _require_room(order, allocation)
        record.change("left", _serve(order, allocation, leaving, scratch, record))


def _require_room(order: Order, allocation: Allocation) -> None:
    """Raises ClusterError if SLURM gave so little that no pack would ever come here."""
    demand = order.demand
    given = replace(order.profile.worker, cpus=allocation.cpus, gpus=allocation.gpus, gpu_type=None)
    if not given.places(demand.cpus, demand.gpus):
        raise ClusterError(
            f"SLURM gave this job {allocation.cpus} CPUs and {allocation.gpus} GPUs, and a pack wants "
            f"{demand.cpus:g} and {demand.gpus:g}: see what the site makes of `worker` in the profile"
        )


def _serve(
    order: Order, allocation: Allocation, leaving: threading.Event, scratch: Path, record: JobRecord
) -> str:
    """Join one head after the other. Returns why this worker leaves."""
    rendezvous = Rendezvous(order.folder)
    last, short_stays, headless_since, waits = 0, 0, time.monotonic(), pauses()
    while not leaving.is_set():
        if end := rendezvous.end(order.launch):
            return end.why_leave(order.launch)
        head = rendezvous.head()
        if head is not None and head.address is not None and is_reachable(head.address):
            joined_at = time.monotonic()
            record.change("joined", epoch=head.epoch)
            if reason := _stay(order, head, allocation, leaving, scratch):
                return reason
            record.change("waiting")
            headless_since, waits = time.monotonic(), pauses()
            is_short = headless_since - joined_at < SHORT_S
            last, short_stays = head.epoch, (short_stays if head.epoch == last else 0) + 1 if is_short else 0
            if short_stays == MAX_SHORT_STAYS:
                raise ClusterError(f"Ray at {head.address} can't be joined from here; see above")
        elif time.monotonic() - headless_since > HEADLESS_S:
            return _why_headless(head)
        leaving.wait(next(waits))
    return "told to leave"


def _why_headless(head: HeadState | None) -> str:
    minutes = f"{HEADLESS_S / 60:.0f} minutes"
    if head is None or head.address is None or time.time() - head.changed_at > HEADLESS_S:
        return f"no driver came for {minutes}"
    raise ClusterError(
        f"the driver's Ray at {head.address} could not be reached from here for {minutes}: nodes must reach each "
        "other on any port; `interface` in the profile says by which network"
    )


def _stay(
    order: Order, head: HeadState, allocation: Allocation, leaving: threading.Event, scratch: Path
) -> str | None:
    """Work for this head. Returns why this worker leaves, None if only the head is gone."""
    rendezvous, idle_since = Rendezvous(order.folder), time.monotonic()
    with _joined(order, head, allocation, scratch) as (ray, node):
        while ray.poll() is None:
            if leaving.wait(LOOK_EVERY_S):
                _let_workers_store(node, ray)
                return "told to leave"
            if end := rendezvous.end(order.launch):
                return end.why_leave(order.launch)
            now = rendezvous.head()
            if now is not None and (now.epoch, now.address) != (head.epoch, head.address):
                return None
            if node.busy_processes() or now is None or now.waiting:
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since > IDLE_S:
                return "nothing was left for it to do"
    return None


@contextmanager
def _joined(
    order: Order, head: HeadState, allocation: Allocation, scratch: Path
) -> Iterator[tuple[subprocess.Popen[bytes], NodeFolder]]:
    """Ray's processes of this node; none of them outlives the context, or this process."""
    node = NodeFolder(scratch / "n")
    node.path.mkdir(exist_ok=True)
    with notices_blocked():
        ray = subprocess.Popen(
            _ray_start(order, head, allocation, scratch / "r"),
            env=os.environ | node.environment(),
            preexec_fn=die_with_parent(),
        )
    try:
        yield ray, node
    finally:
        ray.kill()
        ray.wait()
        kill_marked(VARIABLE, str(node.path))
        for folder in (node.path, scratch / "r"):
            shutil.rmtree(folder, ignore_errors=True)


def _ray_start(order: Order, head: HeadState, allocation: Allocation, temp_dir: Path) -> list[str]:
    assert head.address is not None
    interface = order.profile.interface
    return [
        *(sys.executable, "-P", "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"),
        f"--address={head.address}",
        *([] if interface is None else [f"--node-ip-address={address_of(interface)}"]),
        f"--num-cpus={allocation.cpus}",
        f"--num-gpus={allocation.gpus}",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
        f"--temp-dir={temp_dir}",
        # Fixed ports by default, which the next Ray on this node would want too.
        *("--dashboard-agent-listen-port=0", "--dashboard-agent-grpc-port=0", "--metrics-export-port=0"),
    ]


def _let_workers_store(node: NodeFolder, ray: subprocess.Popen[bytes]) -> None:
    """Until everything on this node is stored; SLURM ends the patience."""
    node.ask_to_leave()
    while node.busy_processes() and ray.poll() is None:
        time.sleep(0.1)


# -- both -----------------------------------------------------------------------------------------------------


def _take_over_environment(order: Order) -> None:
    """What SLURM has set is read by now, and must not reach the jobs that this one queues."""
    wanted: Mapping[str, str] = clean_environment(os.environ)
    for name in set(os.environ) - set(wanted):
        del os.environ[name]
    set_job_environment(order.token)


@contextmanager
def _told_to_leave() -> Iterator[threading.Event]:
    """Set once SLURM wants the machine back."""
    leaving = threading.Event()

    def tell(_number: int, _frame: object) -> None:
        leaving.set()

    before = {number: signal.signal(number, tell) for number in NOTICES}
    try:
        yield leaving
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
