"""What a driver queues, from what the queue shows."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.base import Backlog, Demand
from cluster.order import Order
from cluster.profile import Profile, WorkerJobs
from cluster.slurm import Slurm
from cluster.supply import EVERY_S, PATIENCE_S, Supply, wanted_workers


@pytest.fixture
def supply(order: Order) -> Supply:
    """That of a driver which has been there for long, and may look now."""
    return Supply(Slurm(order), next_look=0.0, changed_at=0.0)


def look_again(supply: Supply, cache: Path) -> None:
    """As if more than a minute had passed."""
    supply.next_look = supply.changed_at = 0.0
    for path in (cache / "orchestrator").glob("queue-*.json"):
        path.unlink()


@pytest.mark.parametrize(
    ("running", "waiting", "expected"),
    [(0, 0, 0), (0, 1, 1), (3, 0, 2), (3, 1, 2), (3, 2, 3), (0, 1000, 5)],
)
def test_workers_that_have_something_to_do(running: int, waiting: int, expected: int) -> None:
    """Enough for the packs that are left, two of which fit on one worker here; never above the profile's most."""
    profile = Profile(worker=WorkerJobs(max=5, time_limit_min=60, cpus=4))
    assert expected == wanted_workers(profile, Demand(2.0, 0.0), Backlog(running, waiting, 0))


def test_what_is_missing_is_queued(programs: Any, supply: Supply, order: Order) -> None:
    """The next driver first, then workers: those wanted minus those that live, of this run only."""
    programs.shows(
        ("1", order.driver_name, "RUNNING"),
        ("2", order.driver_name, "COMPLETED"),
        ("3_0", order.worker_name, "RUNNING"),
        ("3_1", order.worker_name, "PENDING"),
        ("3_2", order.worker_name, "TIMEOUT"),
        ("4_0", "sweep-00000000-worker", "RUNNING"),
    )
    assert "" == supply.keep_up(Backlog(1, 4, 0))
    assert [f"queued {order.driver_name} 1", f"queued {order.worker_name} 3"] == programs.asked


def test_nothing_is_queued_where_all_is_there(programs: Any, supply: Supply, order: Order) -> None:
    """More workers than needed are left alone, too: they leave by themselves."""
    programs.shows(
        ("1", order.driver_name, "RUNNING"),
        ("2", order.driver_name, "PENDING"),
        *((f"3_{task}", order.worker_name, "PENDING") for task in range(6)),
    )
    assert "" == supply.keep_up(Backlog(1, 4, 0))
    assert [] == programs.asked


def test_the_queue_is_looked_at_once_a_minute(programs: Any, supply: Supply) -> None:
    """However often there is something new to say."""
    supply.keep_up(Backlog(0, 2, 0))
    queued = programs.asked
    assert EVERY_S - 5 < supply.next_look - time.monotonic() <= EVERY_S
    supply.keep_up(Backlog(0, 20, 0))
    assert queued == programs.asked


def test_jobs_are_not_queued_twice(programs: Any, supply: Supply, tmp_path: Path) -> None:
    """A look at the queue from before they were queued says nothing of them."""
    supply.keep_up(Backlog(0, 2, 0))
    queued = programs.asked
    supply.next_look = 0.0
    assert "" == supply.keep_up(Backlog(0, 2, 0))
    assert queued == programs.asked
    look_again(supply, tmp_path / "cache")
    supply.keep_up(Backlog(0, 2, 0))
    assert queued * 2 == programs.asked  # the stand-in still shows an empty queue


def test_a_look_while_jobs_are_queued_does_not_count(programs: Any, order: Order) -> None:
    """sbatch takes its time, and somebody else (here: sbatch itself) may ask for the queue meanwhile."""
    look = f"{sys.executable} -c 'from cluster.queue import look; look()'"
    programs.install("sbatch", f'{look}; echo queued >> "$folder/asked"; echo "Submitted batch job 1"\n')
    supply = Supply(Slurm(order), next_look=0.0)
    supply.queue_successor()
    assert "" == supply.keep_up(Backlog(0, 2, 0))
    assert ["queued"] == programs.asked


def test_a_driver_that_begins_queues_its_successor(programs: Any, order: Order) -> None:
    """Without a look at the queue; and the first look that counts is one after that."""
    supply = Supply(Slurm(order))
    before = time.time()
    supply.queue_successor()
    assert ([f"queued {order.driver_name} 1"], "") == (programs.asked, supply.note)
    assert before < supply.changed_at
    supply.keep_up(Backlog(0, 2, 0))
    assert [f"queued {order.driver_name} 1"] == programs.asked


def test_a_successor_that_is_refused_is_said(programs: Any, order: Order) -> None:
    """The driver goes on: launch has queued more than one."""
    programs.allows(0, "Batch job submission failed: Access/permission denied")
    supply = Supply(Slurm(order))
    supply.queue_successor()
    assert (
        f"no successor could be queued from here: SLURM refused {order.driver_name}: Access/permission denied"
        == supply.note
    )
    assert supply.note == supply.keep_up(Backlog(0, 2, 0))


def test_refusals_make_it_patient(programs: Any, supply: Supply, order: Order, tmp_path: Path) -> None:
    """Attempts are twice as far apart each time, up to half an hour; the first success ends that."""
    programs.allows(0, "Batch job submission failed: Access/permission denied")
    pauses_s = []
    for _ in range(6):
        look_again(supply, tmp_path / "cache")
        refused = [
            f"SLURM refused {n}: Access/permission denied" for n in (order.driver_name, order.worker_name)
        ]
        assert "; ".join(refused) == supply.keep_up(Backlog(0, 1, 0))
        pauses_s.append(supply.pause_s)
    assert [120.0, 240.0, 480.0, 960.0, PATIENCE_S, PATIENCE_S] == pauses_s
    programs.allows(100)
    look_again(supply, tmp_path / "cache")
    assert "" == supply.keep_up(Backlog(0, 1, 0))
    assert EVERY_S == supply.pause_s


def test_workers_that_end_as_soon_as_they_begin(
    programs: Any, supply: Supply, order: Order, tmp_path: Path
) -> None:
    """On a node where something is broken, say: they are replaced ever more seldom, which is said, until a trial is
    finished or workers stay."""
    programs.shows(("1", order.driver_name, "RUNNING"), ("2", order.driver_name, "PENDING"))
    told, pauses_s = [], []
    for stored in (0, 0, 0, 1, 1):
        look_again(supply, tmp_path / "cache")
        told.append(supply.keep_up(Backlog(0, 2, stored)))
        pauses_s.append(supply.pause_s)
    why = (
        f"workers end and no trial is finished meanwhile: orchestrator logs {order.run} --failed may say why"
    )
    assert (["", why, why, "", why], [60.0, 120.0, 240.0, 60.0, 120.0]) == (told, pauses_s)
    assert [f"queued {order.worker_name} 2"] * 5 == programs.asked
    alive = [(f"5_{n}", order.worker_name, "RUNNING") for n in range(2)]
    programs.shows(("1", order.driver_name, "RUNNING"), ("2", order.driver_name, "PENDING"), *alive)
    look_again(supply, tmp_path / "cache")
    assert ("", 60.0) == (supply.keep_up(Backlog(0, 2, 1)), supply.pause_s)


def test_workers_that_slurm_holds_are_replaced(programs: Any, supply: Supply, order: Order) -> None:
    """A job whose node was broken waits until an administrator releases it. One that its user holds stays."""
    programs.shows(
        ("1", order.driver_name, "RUNNING"),
        ("2", order.driver_name, "PENDING"),
        ("3_0", order.worker_name, "PENDING", "launch_failed_requeued_held"),
        ("3_1", order.worker_name, "PENDING", "JobHeldUser"),
    )
    assert "" == supply.keep_up(Backlog(0, 2, 0))
    assert [f"queued {order.worker_name} 1"] == programs.asked


def test_workers_are_queued_where_drivers_are_refused(programs: Any, supply: Supply, order: Order) -> None:
    """As with a partition of its own whose limits are used up: both are said, and the work goes on."""
    real = (programs.folder / "sbatch").read_text()
    programs.install("sbatch", f'grep -q job-name=.*-driver "$1" && {{ echo no >&2; exit 1; }}\n{real}')
    programs.shows(("1", order.driver_name, "RUNNING"))
    assert f"SLURM refused {order.driver_name}: no" == supply.keep_up(Backlog(0, 2, 0))
    assert [f"queued {order.worker_name} 2"] == programs.asked


def test_the_successor_comes_before_workers(programs: Any, supply: Supply, order: Order) -> None:
    """Where one more job may be queued, it is the next driver: workers without one have nothing to do."""
    programs.shows(("1", order.driver_name, "RUNNING"))
    programs.allows(1)
    note = supply.keep_up(Backlog(0, 2, 0))
    assert note.startswith(f"SLURM refused {order.worker_name}: AssocMaxSubmitJobLimit; Job violates")
    assert f"queued {order.driver_name} 1" == programs.asked[0]


def test_a_queue_that_cannot_be_seen_is_not_filled(programs: Any, supply: Supply) -> None:
    """An unknown queue is no empty one."""
    programs.install("squeue", "echo 'squeue: error: Unable to contact slurm controller' >&2; exit 1\n")
    note = supply.keep_up(Backlog(0, 2, 0))
    assert (
        "squeue failed with exit code 1: Unable to contact slurm controller. SLURM is asked again after a minute."
        == note
    )
    assert [] == programs.asked


def test_a_full_disk_is_a_note(programs: Any, supply: Supply, order: Order) -> None:
    """Not the end of the thread that keeps jobs queued."""
    order.folder.mkdir(parents=True)
    order.jobs.write_text("")  # a file where the folder should be
    names = (order.driver_name, order.worker_name)
    expected = [f"{name} could not be queued: [Errno 17] File exists: '{order.jobs}'" for name in names]
    assert "; ".join(expected) == supply.keep_up(Backlog(0, 2, 0))


def test_demand_decides_how_many_workers(programs: Any, order: Order) -> None:
    """Two packs of half a GPU share one."""
    profile = Profile(worker=WorkerJobs(max=9, time_limit_min=60, cpus=4, gpus=1))
    halves = replace(order, profile=profile, demand=Demand(1.0, 0.5))
    Supply(Slurm(halves), next_look=0.0, changed_at=0.0).keep_up(Backlog(0, 5, 0))
    assert [f"queued {order.driver_name} 1", f"queued {order.worker_name} 3"] == programs.asked
