"""What `status` and `logs` say of a run's jobs, to the letter."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from cluster.errors import ClusterError
from cluster.files import read_json
from cluster.job_record import JobRecord, JobState, Record, read_records
from cluster.queue import QueuedJob, QueueView
from cluster.rendezvous import End, HeadState, Rendezvous
from orchestrator import job_report, submission
from orchestrator.job_report import Jobs, has_failed, log_lines
from orchestrator.submission import Submission

NOW = 1_700_000_000.0
SUBMITTED = Submission(
    launch=2,
    profile="gpu-site",
    content="c0de",
    driver_name="s-1-driver",
    worker_name="s-1-worker",
    submitted_at=NOW - 600,
    drivers=("10",),
    workers=("11",),
    n_workers=4,
)
HEAD = HeadState(
    launch=2,
    epoch=5,
    job_id="10",
    host="n1",
    address="n1:6379",
    running=3,
    waiting=4,
    stored=100,
    changed_at=NOW - 3,
)
LAUNCH = "launch   number 2 on gpu-site, 2023-11-14 22:03 UTC"


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_report, "time", SimpleNamespace(time=lambda: NOW))


def queued(job_id: str, role: str, state: str, reason: str | None = None) -> QueuedJob:
    return QueuedJob(job_id, f"s-1-{role}", state, reason, None, "1:00")


def view(*jobs: QueuedJob, taken_at: float = NOW - 20, problem: str | None = None) -> QueueView:
    return QueueView(taken_at, taken_at, jobs, problem)


def record(job_id: str, role: Any, state: JobState, reason: str | None = None) -> Record:
    return Record(job_id, role, 2, 0, "h", "n1", 1, state, reason, None, "t0", "t1")


def lines(
    found: QueueView, *, end: End | None = None, head: HeadState | None = None, records: Sequence[Record] = ()
) -> list[str]:
    return list(Jobs(SUBMITTED, end, head, records, found).lines())


# -- status ---------------------------------------------------------------------------------------------------


def test_a_run_at_work() -> None:
    """The driver as it says itself, workers as they say themselves if the queue has them, and the queue with the
    reasons of those that wait."""
    found = view(
        queued("10", "driver", "RUNNING"),
        queued("12", "driver", "PENDING", "Dependency"),
        queued("9", "driver", "COMPLETED"),
        queued("11_0", "worker", "RUNNING"),
        queued("11_1", "worker", "RUNNING"),
        queued("11_2", "worker", "RUNNING"),
        queued("11_3", "worker", "PENDING", "Priority"),
        queued("11_4", "worker", "PENDING", "Priority"),
        QueuedJob("20", "another", "RUNNING", None, "n1", "1:00"),
    )
    records = [
        record("10", "driver", "driving"),
        record("11_0", "worker", "joined"),
        record("11_1", "worker", "joined"),
        record("11_2", "worker", "waiting"),
        record("8_0", "worker", "joined"),  # killed: it could not say so
    ]
    assert [
        LAUNCH,
        "driver   job 10 on n1: 3 packs running, 4 waiting; last heard of 3 s ago",
        "workers  2 joined, 1 waiting for a driver",
        "queue    as of 20 s ago",
        "         drivers: 1 running, 1 pending (Dependency)",
        "         workers: 3 running, 2 pending (Priority)",
    ] == lines(found, head=HEAD, records=records)


@pytest.mark.parametrize(
    "head",
    [
        None,
        HeadState(**{**vars(HEAD), "launch": 1, "note": "of an earlier launch"}),
        HeadState(**{**vars(HEAD), "address": None}),
    ],
)
def test_a_run_without_a_driver(head: HeadState | None) -> None:
    """Before the first has begun, between two of them, or where the file is that of an earlier launch."""
    assert [
        LAUNCH,
        "driver   none at the moment",
        "workers  none at the moment",
        "queue    as of 20 s ago",
        "         drivers: 1 pending (Resources)",
        "         workers: none",
    ] == lines(view(queued("10", "driver", "PENDING", "Resources")), head=head)


def test_what_the_driver_could_not_do_is_said() -> None:
    """In its own words."""
    head = HeadState(**{**vars(HEAD), "note": "SLURM refused s-1-worker: limit"})
    assert (
        "note     SLURM refused s-1-worker: limit"
        == lines(view(queued("10", "driver", "RUNNING")), head=head)[-1]
    )


def test_a_run_whose_jobs_are_all_gone() -> None:
    """It has not ended, and nobody goes on with it: that is said."""
    assert [
        LAUNCH,
        "driver   none at the moment",
        "workers  none at the moment",
        "queue    as of 20 s ago",
        "         drivers: none",
        "         workers: none",
        "         no job is left",
    ] == lines(view(queued("10", "driver", "TIMEOUT")))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (view(taken_at=NOW - 700), "queue    not looked at since this launch (once a minute, whoever asks)"),
        (view(taken_at=-math.inf, problem="no squeue"), "queue    unknown: no squeue"),
    ],
)
def test_a_queue_that_is_not_known_is_not_empty(found: QueueView, said: str) -> None:
    """An old answer, or none, says nothing of jobs; then workers are what they said last themselves."""
    records = [record("11_0", "worker", "joined"), record("11_1", "worker", "left")]
    assert [LAUNCH, "driver   none at the moment", "workers  1 joined", said] == lines(found, records=records)


@pytest.mark.parametrize(
    ("taken_at", "shown_jobs", "expected"),
    [
        (NOW - 590, (), False),  # before the launch, if that host's clock is a minute ahead
        (NOW - 530, (), True),
        (NOW - 650, (queued("11_0", "worker", "PENDING"),), True),  # it shows what was queued last
        (NOW - 590, (queued("10", "driver", "PENDING"),), False),  # workers came after it
    ],
)
def test_clocks_of_hosts_differ(taken_at: float, shown_jobs: Sequence[QueuedJob], expected: bool) -> None:
    """Who looked at the queue, and who launched, may be a minute apart: workers that were just queued are not
    taken for gone."""
    assert expected == Jobs(SUBMITTED, None, None, (), view(*shown_jobs, taken_at=taken_at)).has_view


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (End(2, "finished"), [f"{LAUNCH}; finished"]),
        (End(2, "cancelled"), [f"{LAUNCH}; cancelled"]),
        (End(2, "failed", "5 drivers died"), [f"{LAUNCH}; failed", "         5 drivers died"]),
    ],
)
def test_a_run_that_has_ended(end: End, said: list[str]) -> None:
    """How, and why; jobs that are still about to go are of no interest."""
    assert said == lines(view(queued("10", "driver", "RUNNING")), end=end, head=HEAD)


def test_jobs_are_those_of_the_newest_launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read from disk, and from one look at the queue, which here has no squeue to ask."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert None is Jobs.of(tmp_path)
    (tmp_path / "cluster" / "jobs").mkdir(parents=True)
    SUBMITTED.write(tmp_path)
    rendezvous = Rendezvous(tmp_path / "cluster")
    rendezvous.publish_head(HEAD)
    rendezvous.publish_end(End(1, "finished"))
    for launch, job_id in ((1, "5"), (2, "10")):
        environ = {"SLURM_JOB_ID": job_id, "SLURM_CPUS_ON_NODE": "1"}
        JobRecord.begin(tmp_path / "cluster" / "jobs", "driver", launch, environ)
    jobs = Jobs.of(tmp_path)
    assert jobs is not None
    problem = "squeue is not on this machine's PATH: ask from a login node"
    assert (SUBMITTED, None, HEAD, ["10"], problem) == (
        jobs.submission,
        jobs.end,
        jobs.head,
        [item.job_id for item in jobs.records],
        jobs.view.problem,
    )
    assert jobs.is_alive


def test_a_submission_is_read_as_it_was_written(tmp_path: Path) -> None:
    """By a later launch, or by `status`."""
    (tmp_path / "cluster").mkdir()
    assert None is Submission.load(tmp_path)
    SUBMITTED.write(tmp_path)
    assert SUBMITTED == Submission.load(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "it holds no mapping"),
        ('{"launch": 2', "it holds no mapping"),
        ("{}", "'drivers'"),
    ],
)
def test_a_damaged_submission_is_not_none(
    tmp_path: Path, content: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs may be queued, and the next launch must not be taken for the first one."""
    monkeypatch.setattr(submission, "read_json", partial(read_json, patience_s=0.0))
    path = tmp_path / "cluster" / "launch.json"
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(ClusterError) as error:
        Submission.load(tmp_path)
    assert f"{path}: damaged ({reason}). Delete it once squeue shows no job of this run any more." == str(
        error.value
    )


# -- logs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (None, False),
        ("told to leave", False),
        ("the run is failed", False),
        ("no driver came for 15 minutes", False),
        ("ClusterError: Ray can't be joined", True),
        ("TimeoutExpired: sbatch", True),
        ("KeyboardInterrupt", True),
    ],
)
def test_jobs_that_left_failed_if_something_was_raised(reason: str | None, expected: bool) -> None:
    """Whatever its name; our own reasons are sentences."""
    assert expected == has_failed(record("10", "driver", "left", reason), "10", view(), NOW - 600)


@pytest.mark.parametrize("said", [record("10", "driver", "driving"), None])
@pytest.mark.parametrize(
    ("found", "begun_by", "expected"),
    [
        (view(queued("10", "driver", "RUNNING")), NOW - 600, False),
        (view(queued("10", "driver", "NODE_FAIL")), NOW - 600, True),
        (view(queued("10", "driver", "NODE_FAIL")), NOW - 10, True),
        (view(), NOW - 600, True),
        (view(), NOW - 10, False),  # after the look at the queue
        (view(), NOW - 30, False),  # before it, if the clocks of both hosts agree
        (view(problem="no squeue"), NOW - 600, False),
    ],
)
def test_jobs_that_did_not_say_that_they_left(
    said: Record | None, found: QueueView, begun_by: float, expected: bool
) -> None:
    """They failed if the queue knows that they are gone; where it isn't known, or not yet, nothing is claimed."""
    assert expected == has_failed(said, "10", found, begun_by)


DEATH = "its worker died 3 times; last: killed; logs/worker-n1-7.log may say more"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A driver that raised, a worker that left, one that ended in its setup lines; logs of two workers of Ray's."""
    monkeypatch.setenv("PATH", str(tmp_path))  # no squeue
    folder = tmp_path / "cluster" / "jobs"
    folder.mkdir(parents=True)
    (tmp_path / "logs").mkdir()
    SUBMITTED.write(tmp_path)
    for job_id, role, reason in (("10", "driver", "ClusterError: no"), ("11", "worker", "told to leave")):
        environ = {"SLURM_JOB_ID": job_id, "SLURM_CPUS_ON_NODE": "1", "SLURMD_NODENAME": "n1"}
        JobRecord.begin(folder, role, 2, environ).change("left", reason)  # type: ignore[arg-type]
    (folder / "10_0_log.out").write_text("".join(f"line {n}\n" for n in range(20)))
    (folder / "10_0_log.err").write_bytes(b"\xff trouble\n")
    (folder / "11_0_log.out").write_text("joined\n")
    (folder / "11_0_log.err").touch()
    (folder / "12_0_log.err").write_text("module: not found\n")
    (tmp_path / "logs" / "worker-n1-7.log").write_text("Segmentation fault\n")
    (tmp_path / "logs" / "worker-n1-8.log").write_text("well\n")
    rows = pl.LazyFrame({"status": ["failed", "solved", "failed"], "error": [DEATH, None, None]})
    return SimpleNamespace(path=tmp_path, trials=lambda: rows)


def shown(run: Any, **options: Any) -> list[str]:
    """Without the run's path and times."""
    text = "\n".join(log_lines(run, **{"failed_only": False, "n_lines": 2, **options}))
    return re.sub(r"20\d\d-\S+", "TIME", text.replace(str(run.path), "RUN")).split("\n")


DRIVER = [
    "driver 10 on n1: left (ClusterError: no), TIME",
    "  RUN/cluster/jobs/10_0_log.out",
    "    line 18",
    "    line 19",
    "  RUN/cluster/jobs/10_0_log.err",
    "    \ufffd trouble",
]
WORKER = ["worker 11 on n1: left (told to leave), TIME", "  RUN/cluster/jobs/11_0_log.out", "    joined"]
SETUP = ["job 12: has not said anything", "  RUN/cluster/jobs/12_0_log.err", "    module: not found"]
DEAD = ["  RUN/logs/worker-n1-7.log", "    Segmentation fault"]
WELL = ["  RUN/logs/worker-n1-8.log", "    well"]


def test_the_ends_of_all_logs(run: Any) -> None:
    """Jobs oldest first, with what they said of themselves, then the workers that Ray started; empty ones are left
    out."""
    assert [*DRIVER, *WORKER, *SETUP, *DEAD, *WELL] == shown(run)


def test_the_logs_of_what_failed(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that raised, or were gone before they could say anything, and the workers that failed trials died in. A
    job that printed something after the last look at the queue may have just begun."""
    assert [*DRIVER, *DEAD] == shown(run, failed_only=True)
    monkeypatch.setattr(job_report, "look", view)  # an empty queue
    assert [*DRIVER, *DEAD] == shown(run, failed_only=True)
    os.utime(run.path / "cluster" / "jobs" / "12_0_log.err", (NOW - 600, NOW - 600))
    assert [*DRIVER, *SETUP, *DEAD] == shown(run, failed_only=True)


def test_a_job_that_has_just_begun_has_not_failed(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last look at the queue is older than it; one that was taken a good while later says that it's gone."""
    folder = run.path / "cluster" / "jobs"
    (folder / "13_0_log.out").write_text("joined\n")
    JobRecord.begin(
        folder, "worker", 2, {"SLURM_JOB_ID": "13", "SLURM_CPUS_ON_NODE": "1", "SLURMD_NODENAME": "n1"}
    )
    began = datetime.fromisoformat(read_records(folder)[-1].started_at).timestamp()
    seen = {}
    for later_s in (-30.0, 30.0, 90.0):
        monkeypatch.setattr(job_report, "look", lambda taken_at=began + later_s: view(taken_at=taken_at))
        seen[later_s] = "worker 13 on n1: waiting, TIME" in shown(run, failed_only=True)
    assert {-30.0: False, 30.0: False, 90.0: True} == seen


def test_no_lines_are_asked_for(run: Any) -> None:
    """Then only the files are named."""
    named = [line for line in [*DRIVER, *WORKER, *SETUP, *DEAD, *WELL] if not line.startswith("    ")]
    assert named == shown(run, n_lines=0)


def test_a_local_run_has_logs_of_workers_only(run: Any) -> None:
    """Nothing was queued for it."""
    (run.path / "cluster" / "launch.json").unlink()
    assert [*DEAD, *WELL] == shown(run)
    assert DEAD == shown(run, failed_only=True)


def test_many_jobs_are_read_once(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand workers have a thousand records, not a thousand times a thousand reads."""
    n_reads = []
    monkeypatch.setattr(job_report, "read_records", lambda folder: n_reads.append(1) or read_records(folder))
    shown(run)
    assert 2 == len(n_reads)
