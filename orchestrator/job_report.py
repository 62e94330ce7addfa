"""What a run's jobs on SLURM do and print, in lines of text: from disk, and at most one look at the queue."""

from __future__ import annotations

import re
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cluster.job_record import Record, log_paths, logged_jobs, read_records
from cluster.queue import QueuedJob, QueueView, look
from cluster.rendezvous import End, HeadState, Rendezvous
from orchestrator.run import Run
from orchestrator.submission import Submission


@dataclass(frozen=True)
class Jobs:
    """The jobs of a run's newest launch on SLURM."""

    submission: Submission
    end: End | None
    head: HeadState | None
    records: Sequence[Record]
    view: QueueView

    @classmethod
    def of(cls, run: Path) -> Jobs | None:
        """None if the run was never launched on SLURM."""
        submission = Submission.load(run)
        if submission is None:
            return None
        rendezvous = Rendezvous(run / "cluster")
        records = [r for r in read_records(run / "cluster" / "jobs") if r.launch == submission.launch]
        return cls(submission, rendezvous.end(submission.launch), rendezvous.head(), records, look())

    def queued(self, role: str) -> list[QueuedJob]:
        """Live jobs of one role, as far as is known."""
        name = {"driver": self.submission.driver_name, "worker": self.submission.worker_name}[role]
        return [job for job in self.view.named(name) if job.is_alive]

    @property
    def has_view(self) -> bool:
        """The queue was looked at since this launch."""
        return self.view.problem is None and self.submission.is_seen_by(self.view)

    @property
    def is_alive(self) -> bool:
        """Something is queued or running, or may be."""
        if self.end:
            return False
        return bool(not self.has_view or self.queued("driver") or self.queued("worker"))

    def lines(self) -> Iterator[str]:
        """For people."""
        launched = datetime.fromtimestamp(self.submission.submitted_at, UTC)
        yield (
            f"launch   number {self.submission.launch} on {self.submission.profile}, {launched:%Y-%m-%d %H:%M} UTC"
            + (f"; {self.end.state}" if self.end else "")
        )
        if self.end and self.end.message:
            yield f"         {self.end.message}"
        if self.end:
            return
        yield f"driver   {self._driver()}"
        yield f"workers  {self._workers()}"
        yield f"queue    {self._age()}"
        if self.has_view:
            yield f"         drivers: {_states(self.queued('driver'))}"
            yield f"         workers: {_states(self.queued('worker'))}"
        if self.head and self.head.launch == self.submission.launch and self.head.note:
            yield f"note     {self.head.note}"
        if not self.is_alive:
            yield "         no job is left"

    def _driver(self) -> str:
        head = self.head
        if head is None or head.launch != self.submission.launch or head.address is None:
            return "none at the moment"
        return (
            f"job {head.job_id} on {head.host}: {head.running} packs running, {head.waiting} waiting; "
            f"last heard of {_ago(head.changed_at)}"
        )

    def _workers(self) -> str:
        alive = {job.job_id for job in self.queued("worker")}
        states: Counter[str] = Counter(
            r.state
            for r in self.records
            if r.role == "worker" and (r.job_id in alive or (not self.has_view and r.state != "left"))
        )
        said = (f"{states[state]} {words}" for state, words in WORDS.items() if states[state])
        return ", ".join(said) or "none at the moment"

    def _age(self) -> str:
        if self.view.problem:
            return f"unknown: {self.view.problem}"
        if not self.has_view:
            return "not looked at since this launch (once a minute, whoever asks)"
        return f"as of {_ago(self.view.taken_at)}"


_EXCEPTION = re.compile(r"\w+(:|$)")
"""Why a job left, if not in our own words, which begin with two."""
WORDS = {"joined": "joined", "waiting": "waiting for a driver", "left": "leaving"}


def log_lines(run: Run, *, failed_only: bool, n_lines: int) -> Iterator[str]:
    """The ends of the logs of jobs and workers, oldest first."""
    jobs = Jobs.of(run.path)
    folder = run.path / "cluster" / "jobs"
    records = {record.job_id: record for record in read_records(folder)}
    for job_id in logged_jobs(folder) if jobs else ():
        record = records.get(job_id)
        begun_by = _begun_by(record, job_id, folder)
        if failed_only and not (jobs and has_failed(record, job_id, jobs.view, begun_by)):
            continue
        yield _title(job_id, record)
        for path in log_paths(folder, job_id):
            yield from _end_of(path, n_lines)
    died = set(_logs_of_the_dead(run))
    for path in sorted((run.path / "logs").glob("*.log")):
        if not failed_only or path.name in died:
            yield from _end_of(path, n_lines)


def has_failed(record: Record | None, job_id: str, view: QueueView, begun_by: float) -> bool:
    """It ended with an error, or without a word. `begun_by`: it was there at that time, seconds since 1970; what a
    queue shows that is older says nothing of it."""
    if record is not None and record.state == "left":
        return record.reason is not None and _EXCEPTION.match(record.reason) is not None
    if view.problem is not None or not view.has_seen(job_id, begun_by):
        return False
    return not any(job.job_id == job_id and job.is_alive for job in view.jobs)


def _begun_by(record: Record | None, job_id: str, folder: Path) -> float:
    """When a job began, or of one that hasn't said so: when it printed something last."""
    if record is not None:
        return datetime.fromisoformat(record.started_at).timestamp()
    return max((path.stat().st_mtime for path in log_paths(folder, job_id) if path.exists()), default=0.0)


def _logs_of_the_dead(run: Run) -> Iterator[str]:
    """Names of worker logs that the errors of failed trials point to."""
    for error in run.trials().collect().filter(status="failed")["error"]:
        for word in (error or "").split():
            if word.startswith("logs/"):
                yield word.removeprefix("logs/")


def _title(job_id: str, record: Record | None) -> str:
    if record is None:
        return f"job {job_id}: has not said anything"
    reason = f" ({record.reason})" if record.reason else ""
    return f"{record.role} {job_id} on {record.node}: {record.state}{reason}, {record.changed_at}"


def _end_of(path: Path, n_lines: int) -> Iterator[str]:
    if not path.exists() or not path.stat().st_size:
        return
    yield f"  {path}"
    with path.open(errors="replace") as file:
        yield from (f"    {line.rstrip()}" for line in deque(file, n_lines))


def _states(jobs: Sequence[QueuedJob]) -> str:
    counts = Counter(
        f"{job.state.lower()} ({job.reason})" if job.state == "PENDING" else job.state.lower() for job in jobs
    )
    return ", ".join(f"{n} {state}" for state, n in counts.most_common()) or "none"


def _ago(moment: float) -> str:
    return f"{max(0.0, time.time() - moment):.0f} s ago"
