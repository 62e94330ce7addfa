"""Launching on SLURM: everything is written down and queued, and then nothing on this machine matters."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cluster import slurm
from cluster.base import Backlog
from cluster.errors import ClusterError
from cluster.order import Order
from cluster.queue import look
from cluster.rendezvous import End, Rendezvous
from cluster.site import Site
from cluster.supply import wanted_workers
from orchestrator.errors import StoreError
from orchestrator.lock import launch_lock
from orchestrator.provenance import record_launch
from orchestrator.reconcile import packing, reconcile
from orchestrator.run_dir import make_ready, write_sweep
from orchestrator.snapshot import python_path, take_snapshot
from orchestrator.store import Store
from orchestrator.submission import Submission
from orchestrator.sweep import Sweep

ENTRY = "orchestrator.launch:drive"


def submit(sweep: Sweep, run_dir: Path, site: Site, *, retry_failed: bool = False) -> Iterator[str]:
    """Queue the jobs that run what is wanted and not stored; yields lines that say what was done.

    Raises ClusterError if SLURM refuses (nothing stays queued then), or if jobs of an earlier launch are at
    work on something else.
    """
    run = run_dir.absolute()
    _check_path(run)
    store = Store.create(run)
    previous = Submission.load(run)
    if previous is not None and (why := _is_alive(run, previous)):
        yield from _go_on(sweep, store, site, previous, why)
        return
    with launch_lock(store.path):
        make_ready(store, sweep, retry_failed=retry_failed)
        found = reconcile(sweep, run, site)
        if not found.to_run:
            yield "everything is stored: nothing to queue"
            return
        if previous is not None:  # should jobs of it turn up again, after a reboot say, they end
            _end(run, previous, "launched again")
        write_sweep(store, sweep)
        order = _order(sweep, store, site, previous.launch + 1 if previous else 1)
        record_launch(
            store.path / "provenance.json",
            site.name,
            profile=asdict(site.profile),
            snapshot=str(order.code.relative_to(store.path)),
        )
        submission = Submission(
            launch=order.launch,
            profile=site.name,
            content=_content(sweep, site, order.code),
            driver_name=order.driver_name,
            worker_name=order.worker_name,
            submitted_at=time.time(),
        )
        submission.write(run)
    n_workers = wanted_workers(site.profile, order.demand, Backlog(0, found.n_packs, 0))
    submission = _queue(order, submission, n_workers)
    submission.write(run)
    yield f"queued   drivers {', '.join(submission.drivers)}; workers {', '.join(submission.workers)}"
    yield f"         ({submission.n_workers} at once). You may log out now."


def cancel(run: Path) -> Iterator[str]:
    """Take every job of the run away. What they have finished is stored, and launching again goes on from there."""
    submission = Submission.load(run)
    if submission is None:
        raise StoreError(f"{run}: was not launched on SLURM (a local launch is stopped with Ctrl-C)")
    end = _abandon(run, submission, "")
    yield f"{run}: was {end.state} already" if end else f"{run}: cancelled; launch again to go on"


def _order(sweep: Sweep, store: Store, site: Site, launch: int) -> Order:
    """Snapshot and token, and everything that the jobs must know."""
    code = take_snapshot(sweep, store.path / "cluster" / "code")
    order = Order(
        run=store.path,
        name=sweep.name,
        launch=launch,
        profile=site.profile,
        profile_name=site.name,
        demand=packing(sweep, site).demand,
        code=code,
        python_path=python_path(code),
        entry=ENTRY,
    )
    order.token.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    order.token.touch(mode=0o600)
    order.token.write_text(secrets.token_hex(32))
    return order


def _queue(order: Order, submission: Submission, n_workers: int) -> Submission:
    """All of it, or nothing."""
    site, least = slurm.Slurm(order), min(order.profile.worker.min, n_workers)
    try:
        drivers = site.submit_drivers(order.profile.driver.queued)
        workers = site.submit_workers(n_workers, order.profile.rounds, after=drivers[0].job_id)
        accepted = sum(queued.array.at_once for queued in workers)
        if accepted < least:
            raise ClusterError(
                f"the site lets {accepted} workers be queued, and the profile wants at least {least}"
            )
    except ClusterError as error:
        try:
            _abandon(order.run, submission, "it could not be queued")
        except ClusterError as second:
            raise ClusterError(f"{error}; what is queued ends as soon as it begins ({second})") from error
        raise
    return replace(
        submission,
        drivers=_ids(drivers),
        workers=_ids(workers),
        n_workers=accepted,
    )


def _abandon(run: Path, submission: Submission, why: str) -> End | None:
    """Leave nothing of a launch but what is stored; returns how it was over already."""
    end = _end(run, submission, why)
    slurm.cancel(submission.driver_name, submission.worker_name)
    shutil.rmtree(run / "cluster" / "secret", ignore_errors=True)
    return end


def _end(run: Path, submission: Submission, why: str) -> End | None:
    """Say that a launch is over, unless it is; returns how it was over already."""
    rendezvous = Rendezvous(run / "cluster")
    end = rendezvous.end(submission.launch)
    if end is None:
        rendezvous.publish_end(End(submission.launch, "cancelled", why))
    return end


def _ids(queued: Sequence[slurm.Queued]) -> tuple[str, ...]:
    return tuple(item.job_id for item in queued)


def _is_alive(run: Path, submission: Submission) -> str | None:
    """Why an earlier launch must be taken for alive; None if it has ended, or all its jobs are gone."""
    if Rendezvous(run / "cluster").end(submission.launch):
        return None
    view = look()
    if view.problem:
        raise ClusterError(f"whether jobs of this run are queued can't be said: {view.problem}")
    jobs = [
        job
        for name in (submission.driver_name, submission.worker_name)
        for job in view.named(name)
        if job.is_alive
    ]
    if jobs:
        return f"jobs {', '.join(job.job_id for job in jobs[:8])}{', ...' if len(jobs) > 8 else ''}"
    age_s = time.time() - submission.submitted_at
    if submission.submitted_at >= view.taken_at:
        return f"launched {age_s:.0f} s ago"
    return None


def _go_on(sweep: Sweep, store: Store, site: Site, previous: Submission, why: str) -> Iterator[str]:
    """A second launch while the first is at work: nothing to do, if it is the same."""
    code = take_snapshot(sweep, store.path / "cluster" / "code")
    if _content(sweep, site, code) != previous.content:
        raise ClusterError(
            f"{store.path}: an earlier launch is at work ({why}), with another sweep, code or profile. "
            f"Stop it first (orchestrator cancel {store.path}), then launch: nothing that is stored is lost."
        )
    yield f"already at work ({why})"


def _content(sweep: Sweep, site: Site, code: Path) -> str:
    parts: list[Any] = [sweep.to_yaml(), code.name, asdict(site.profile)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _check_path(run: Path) -> None:
    """SLURM reads `%` and backslashes in the paths of logs as its own."""
    for character, name in (("%", "%"), ("\\", "a backslash"), ("\n", "a line break")):
        if character in str(run):
            raise ClusterError(
                f"{str(run)!r} has {name} in it, which SLURM can't write logs to: choose another"
            )
