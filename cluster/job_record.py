"""What a job of ours says about itself on disk, so that people are told without asking the scheduler.

    RUN/cluster/jobs/
      <job_id>.json                     what the job said last
      <job_id>_0_log.out, ..._log.err   what it printed, named by submitit; a requeued job appends

A job id is `12`, or `15_3` for a task of an array.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args

from cluster.allocation import Allocation
from cluster.errors import ClusterError
from cluster.files import read_json, write_atomically

Role = Literal["driver", "worker"]
JobState = Literal["waiting", "joined", "driving", "left"]

_log = logging.getLogger(__name__)
_LOG_NAME = re.compile(r"(\d+(?:_\d+)?)_0_log\.(?:out|err)")


@dataclass(frozen=True)
class Record:
    """What a job said last. One that was killed could not say so: only the scheduler knows."""

    job_id: str
    role: Role
    launch: int
    restarts: int
    """How often SLURM has requeued it."""
    host: str
    node: str
    """SLURM's name of the host."""
    pid: int
    state: JobState
    """waiting: for a head, or for its turn. joined: as a worker. left: has ended, or is about to."""
    reason: str | None
    """Why it left."""
    epoch: int | None
    """Of the driver that it is, or has joined last."""
    started_at: str
    changed_at: str


class JobRecord:
    """The job's own side of its record. A record that can't be written is said in the job's log and stops
    nothing: a full disk will stop the work that matters by itself."""

    def __init__(self, folder: Path, record: Record) -> None:
        self.path = folder / f"{record.job_id}.json"
        self.record = record
        self._write()

    @classmethod
    def begin(
        cls, folder: Path, role: Role, launch: int, environ: Mapping[str, str] = os.environ
    ) -> JobRecord:
        """The record of the SLURM job that this process is in, in place of the one before a requeue."""
        allocation, now = Allocation.from_environment(environ), _now()
        return cls(
            folder,
            Record(
                job_id=allocation.job_id,
                role=role,
                launch=launch,
                restarts=int(environ.get("SLURM_RESTART_COUNT", "0")),
                host=socket.gethostname(),
                node=allocation.node,
                pid=os.getpid(),
                state="waiting",
                reason=None,
                epoch=None,
                started_at=now,
                changed_at=now,
            ),
        )

    def change(self, state: JobState, reason: str | None = None, epoch: int | None = None) -> None:
        """`epoch` stays what it was unless given."""
        if epoch is None:
            epoch = self.record.epoch
        self.record = replace(self.record, state=state, reason=reason, epoch=epoch, changed_at=_now())
        self._write()

    def __enter__(self) -> JobRecord:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.change("left", f"{type(error).__name__}: {error}".removesuffix(": "))
        elif self.record.state != "left":
            self.change("left")

    def _write(self) -> None:
        try:
            write_atomically(self.path, json.dumps(asdict(self.record)).encode())
        except ClusterError as error:
            _log.warning("%s", error)


def read_records(folder: Path) -> list[Record]:
    """What every job said last, oldest job first. A damaged file is named in the log and left out."""
    records = []
    for path in folder.glob("*.json"):
        values = read_json(path, patience_s=0.0)
        if values is None:
            continue
        try:
            records.append(_record(values))
        except (LookupError, TypeError, ValueError) as error:
            _log.warning("%s: not a job's record (%r), left out", path, error)
    return sorted(records, key=lambda record: job_order(record.job_id))


def log_paths(folder: Path, job_id: str) -> tuple[Path, Path]:
    """What a job prints and what it complains of; they are there once it has begun."""
    return folder / f"{job_id}_0_log.out", folder / f"{job_id}_0_log.err"


def logged_jobs(folder: Path) -> list[str]:
    """Jobs that have begun, oldest first: those too that ended before they could write a record."""
    matches = (_LOG_NAME.fullmatch(path.name) for path in folder.glob("*_log.*"))
    return sorted({match[1] for match in matches if match}, key=job_order)


def job_order(job_id: str) -> tuple[int, ...]:
    """Sorts job ids by number: `9`, `12`, `15_3`, `15_10`."""
    return tuple(int(number) for number in job_id.split("_"))


def _record(values: Mapping[str, Any]) -> Record:
    if values["role"] not in get_args(Role) or values["state"] not in get_args(JobState):
        raise ValueError(f"{values['role']}, {values['state']}")
    job_order(str(values["job_id"]))  # raises ValueError unless it is an id
    return Record(
        job_id=str(values["job_id"]),
        role=values["role"],
        launch=int(values["launch"]),
        restarts=int(values["restarts"]),
        host=str(values["host"]),
        node=str(values["node"]),
        pid=int(values["pid"]),
        state=values["state"],
        reason=None if values["reason"] is None else str(values["reason"]),
        epoch=None if values["epoch"] is None else int(values["epoch"]),
        started_at=str(values["started_at"]),
        changed_at=str(values["changed_at"]),
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
