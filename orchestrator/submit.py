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
from cluster.files import make_private, write_atomically
from cluster.order import Order, job_prefix
from cluster.queue import look
from cluster.rendezvous import End, Rendezvous
from cluster.site import Site
from cluster.supply import wanted_workers
from orchestrator.errors import StoreError
from orchestrator.lock import RunIsHeld, launch_lock
from orchestrator.provenance import record_launch
from orchestrator.publish import store_errors
from orchestrator.reconcile import packing, reconcile
from orchestrator.run_dir import make_ready, write_sweep
from orchestrator.snapshot import python_path, take_snapshot
from orchestrator.store import Store
from orchestrator.submission import Submission
from orchestrator.sweep import Sweep

ENTRY = "orchestrator.launch:drive"


def submit(sweep: Sweep, run_dir: Path, site: Site, *, retry_failed: bool = False) -> list[str]:
    """Queue the jobs that run what is wanted and not stored; returns lines that say what was done.

    Raises ClusterError if SLURM refuses (nothing stays queued then), or if jobs of an earlier launch are at
    work on something else; StoreError if another launch is being queued, or runs here without SLURM.
    """
    run = run_dir.absolute()
    _check_path(run)
    store = Store.create(run)
    try:
        with launch_lock(run):  # until everything is queued: drivers wait for it
            earlier = Submission.load(run)
            if why := _why_at_work(sweep, run, earlier):
                return [_go_on(sweep, run, site, earlier, why)]
            return _launch_anew(sweep, store, site, earlier, retry_failed=retry_failed)
    except RunIsHeld:  # perhaps by a driver of the same launch
        earlier = Submission.load(run)
        if earlier is None or not (why := _why_at_work(sweep, run, earlier)):
            raise
        return [_go_on(sweep, run, site, earlier, why)]


def cancel(run: Path) -> Iterator[str]:
    """Take every job of the run away. What they have finished is stored, and launching again goes on from there."""
    submission = Submission.load(run)
    if submission is None:
        raise StoreError(f"{run}: was not launched on SLURM (a local launch is stopped with Ctrl-C)")
    end = Rendezvous(run / "cluster").end(submission.launch)
    _abandon(run, submission, "")
    yield f"{run}: " + (f"was {end.state} already" if end else "cancelled; launch again to go on")


# -- a launch of its own --------------------------------------------------------------------------------------


def _launch_anew(
    sweep: Sweep, store: Store, site: Site, earlier: Submission | None, *, retry_failed: bool
) -> list[str]:
    """In a run directory that is held, and where no earlier launch is at work."""
    make_ready(store, sweep, retry_failed=retry_failed)
    found = reconcile(sweep, store.path, site)
    if not found.n_to_run:
        write_sweep(store, sweep)  # what is no part of a trial, such as phases, may have changed
        return ["everything is stored: nothing to queue"]
    if earlier is not None and not earlier.is_queued:  # it died over that, and some of its jobs may be there
        _abandon(store.path, earlier, "launched again")
    write_sweep(store, sweep)
    order = _order(sweep, store, site, 1 + _last_launch(store.path, earlier))
    _write_token(order)
    code = str(order.code.relative_to(store.path))
    record_launch(store.path / "provenance.json", site.name, profile=asdict(site.profile), snapshot=code)
    submission = _begin(order, _content(sweep, site, order.code))
    submission = _queue(
        order, submission, wanted_workers(site.profile, order.demand, Backlog(0, found.n_packs, 0))
    )
    submission.write(store.path)
    return [
        f"queued   drivers {', '.join(submission.drivers)}; workers {', '.join(submission.workers)}",
        f"         ({submission.n_workers} at once). You may log out now.",
    ]


def _last_launch(run: Path, earlier: Submission | None) -> int:
    """Its number, 0 if there was none. `launch.json` may be lost, and jobs that meet the end of a launch with their
    number, or a later one, have nothing to do."""
    return max(earlier.launch if earlier else 0, Rendezvous(run / "cluster").last_launch)


def _order(sweep: Sweep, store: Store, site: Site, launch: int) -> Order:
    """The snapshot, and everything that the jobs must know."""
    code = take_snapshot(sweep, store.path / "cluster" / "code")
    return Order(
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


def _write_token(order: Order) -> None:
    """And close what others must not see, let alone change: whoever writes pickles runs what he likes as us."""
    for folder in (order.token.parent, order.jobs):
        with store_errors(folder):
            make_private(folder)
    write_atomically(order.token, secrets.token_hex(32).encode(), mode=0o600)


def _begin(order: Order, content: str) -> Submission:
    """Say that this launch is the run's newest; jobs of earlier ones go when they meet it."""
    submission = Submission(
        launch=order.launch,
        profile=order.profile_name,
        content=content,
        driver_name=order.driver_name,
        worker_name=order.worker_name,
        submitted_at=time.time(),
    )
    submission.write(order.run)
    Rendezvous(order.folder).begin(order.launch)
    return submission


def _queue(order: Order, submission: Submission, n_workers: int) -> Submission:
    """All of it, or nothing."""
    jobs, least = slurm.Slurm(order), min(order.profile.worker.min, n_workers)
    try:
        drivers = jobs.submit_drivers(order.profile.driver.queued)
        workers = jobs.submit_workers(n_workers, order.profile.rounds, after=drivers[0].job_id)
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
        submitted_at=time.time(),  # an older look at the queue doesn't show them
        drivers=_ids(drivers),
        workers=_ids(workers),
        n_workers=accepted,
    )


def _abandon(run: Path, submission: Submission, why: str) -> None:
    """Leave nothing of a launch but what is stored."""
    rendezvous = Rendezvous(run / "cluster")
    if rendezvous.end(submission.launch) is None:
        rendezvous.publish_end(End(submission.launch, "cancelled", why))
    try:
        slurm.cancel(submission.driver_name, submission.worker_name)
    finally:
        shutil.rmtree(run / "cluster" / "secret", ignore_errors=True)


def _ids(queued: Sequence[slurm.Queued]) -> tuple[str, ...]:
    return tuple(item.job_id for item in queued)


# -- the launch before ----------------------------------------------------------------------------------------


def _why_at_work(sweep: Sweep, run: Path, earlier: Submission | None) -> str | None:
    """Why an earlier launch must be taken to be at work; None if there is none, it has ended, or all its jobs are
    gone."""
    if not _may_be_at_work(run, earlier):
        return None
    view = look()
    if view.problem:
        raise ClusterError(f"whether jobs of this run are queued can't be said: {view.problem}")
    prefix = f"{job_prefix(sweep.name, run)}-"
    jobs = [job.job_id for job in view.jobs if job.name.startswith(prefix) and job.is_alive]
    if jobs:
        return f"jobs {', '.join(jobs[:8])}{', ...' if len(jobs) > 8 else ''}"
    if earlier is None or not earlier.is_queued or earlier.is_seen_by(view):
        return None
    age_s = max(0.0, time.time() - earlier.submitted_at)
    return f"queued {age_s:.0f} s ago, and SLURM was not asked since"


def _may_be_at_work(run: Path, earlier: Submission | None) -> bool:
    if earlier is None:  # `launch.json` may be lost
        return (run / "cluster" / "jobs").exists()
    return Rendezvous(run / "cluster").end(earlier.launch) is None


def _go_on(sweep: Sweep, run: Path, site: Site, earlier: Submission | None, why: str) -> str:
    """A second launch while the first is at work: nothing to do, if it is the same."""
    if earlier is None:
        name = job_prefix(sweep.name, run)
        raise ClusterError(
            f"{run}: an earlier launch is at work ({why}), and cluster/launch.json, which says on what, is lost. "
            f"Stop it first (scancel --name={name}-driver; scancel --name={name}-worker), then launch: "
            "nothing that is stored is lost."
        )
    code = take_snapshot(sweep, run / "cluster" / "code")
    if _content(sweep, site, code) != earlier.content:
        raise ClusterError(
            f"{run}: an earlier launch is at work ({why}), with another sweep, code or profile. "
            f"Stop it first (orchestrator cancel {run}), then launch: nothing that is stored is lost."
        )
    return f"already at work ({why})"


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
