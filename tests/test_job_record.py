"""What cluster jobs say about themselves on disk, and how such files are written and read."""

from __future__ import annotations

import json
import logging
import os
import socket
import stat
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cluster.errors import ClusterError
from cluster.files import read_json, write_atomically
from cluster.job_record import JobRecord, Record, job_order, log_paths, logged_jobs, read_records

SINGLE = {"SLURM_JOB_ID": "12", "SLURMD_NODENAME": "n1", "SLURM_CPUS_ON_NODE": "1"}
TASK = SINGLE | {"SLURM_JOB_ID": "18", "SLURM_ARRAY_JOB_ID": "15", "SLURM_ARRAY_TASK_ID": "3"}


# -- records --------------------------------------------------------------------------------------------------


def test_a_job_says_who_and_where_it_is(tmp_path: Path) -> None:
    """The record of a task of an array, as it begins."""
    before = datetime.now(UTC) - timedelta(seconds=1)
    JobRecord.begin(tmp_path, "worker", 2, TASK)
    (record,) = read_records(tmp_path)
    expected = Record(
        job_id="15_3",
        role="worker",
        launch=2,
        restarts=0,
        host=socket.gethostname(),
        node="n1",
        pid=os.getpid(),
        state="waiting",
        reason=None,
        epoch=None,
        started_at=record.started_at,
        changed_at=record.started_at,
    )
    assert expected == record
    assert before <= datetime.fromisoformat(record.started_at) <= datetime.now(UTC)
    assert [tmp_path / "15_3.json"] == list(tmp_path.iterdir())


def test_the_environment_is_that_of_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without being given one; nothing is read at import."""
    for name, value in SINGLE.items():
        monkeypatch.setenv(name, value)
    assert "12" == JobRecord.begin(tmp_path, "driver", 1).record.job_id


def test_a_change_keeps_what_it_does_not_name(tmp_path: Path) -> None:
    """The epoch stays until another is given; a reason belongs to one change only."""
    job = JobRecord.begin(tmp_path, "worker", 1, SINGLE)
    told = []
    for state, reason, epoch in (
        ("joined", None, 4),
        ("waiting", "the head is gone", None),
        ("joined", None, 5),
        ("left", "told to leave", None),
    ):
        job.change(state, reason, epoch)  # type: ignore[arg-type]
        (record,) = read_records(tmp_path)
        assert job.record == record
        told.append((record.state, record.reason, record.epoch))
    assert [
        ("joined", None, 4),
        ("waiting", "the head is gone", 4),
        ("joined", None, 5),
        ("left", "told to leave", 5),
    ] == told


def test_a_requeued_job_begins_its_record_anew(tmp_path: Path) -> None:
    """It has the same id, so one file, which says how often it was requeued."""
    JobRecord.begin(tmp_path, "worker", 1, SINGLE).change("left", "told to leave", epoch=3)
    JobRecord.begin(tmp_path, "worker", 1, SINGLE | {"SLURM_RESTART_COUNT": "2"})
    (record,) = read_records(tmp_path)
    assert ("waiting", None, None, 2) == (record.state, record.reason, record.epoch, record.restarts)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ClusterError("Ray can't be joined"), "ClusterError: Ray can't be joined"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
)
def test_a_job_that_fails_says_why(tmp_path: Path, error: BaseException, reason: str) -> None:
    """What is raised within the record's context is the reason why the job left."""
    with pytest.raises(type(error)), JobRecord.begin(tmp_path, "worker", 1, SINGLE):
        raise error
    (record,) = read_records(tmp_path)
    assert ("left", reason) == (record.state, record.reason)


def test_a_job_that_ends_has_left(tmp_path: Path) -> None:
    """With the reason that it gave, or with none."""
    with JobRecord.begin(tmp_path, "worker", 1, SINGLE) as job:
        job.change("left", "told to leave")
    with JobRecord.begin(tmp_path, "worker", 1, TASK) as job:
        job.change("joined")
    assert [("left", "told to leave"), ("left", None)] == [
        (r.state, r.reason) for r in read_records(tmp_path)
    ]


def test_a_record_that_cannot_be_written_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said in the job's log."""
    folder = tmp_path / "gone"
    JobRecord.begin(folder, "worker", 1, SINGLE)
    assert [
        f"{folder}/12.json: cannot be written: No such file or directory. Put that right, then do the same again."
    ] == caplog.messages


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1]",
        b"\xff\0",
        b"{}",
        b'{"job_id": "12", "role": "cook", "state": "left"}',
        b'{"job_id": "../x", "role": "driver", "state": "left"}',
        b'{"job_id": 12, "role": "driver", "state": "left"}',
    ],
)
def test_odd_files_are_left_out(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """They are named in the log, at once, and hide no other record."""
    JobRecord.begin(tmp_path, "worker", 1, TASK)
    (tmp_path / "12.json").write_bytes(content)
    (tmp_path / "13.json.tmp.host.1.1").write_bytes(b"{")
    started = time.monotonic()
    assert ["15_3"] == [record.job_id for record in read_records(tmp_path)]
    assert time.monotonic() - started < 0.5
    assert [True] == [message.startswith(f"{tmp_path}/12.json: ") for message in caplog.messages]


def test_a_folder_that_is_not_there_has_no_records(tmp_path: Path) -> None:
    """Before the first launch on a cluster."""
    assert [] == read_records(tmp_path / "jobs")
    assert [] == logged_jobs(tmp_path / "jobs")


def test_records_and_job_ids_are_in_order_of_their_numbers(tmp_path: Path) -> None:
    """Not of their letters."""
    ids = ("15_10", "100", "9", "15_3", "12")
    assert ["9", "12", "15_3", "15_10", "100"] == sorted(ids, key=job_order)
    for task in ("10", "9"):
        JobRecord.begin(tmp_path, "worker", 1, TASK | {"SLURM_ARRAY_TASK_ID": task})
    JobRecord.begin(tmp_path, "driver", 1, SINGLE)
    assert ["12", "15_9", "15_10"] == [record.job_id for record in read_records(tmp_path)]


# -- logs -----------------------------------------------------------------------------------------------------


def test_logs_are_named_as_submitit_names_them(tmp_path: Path) -> None:
    """submitit's own paths, for a job and for a task of an array."""
    from submitit.core.utils import JobPaths

    for job_id in ("12", "15_3"):
        paths = JobPaths(tmp_path, job_id)
        assert (paths.stdout, paths.stderr) == log_paths(tmp_path, job_id)


def test_jobs_with_logs_are_found_without_records(tmp_path: Path) -> None:
    """A job that failed in its setup lines has a log and no record; other files of jobs are no logs."""
    for name in (
        *("12_0_log.out", "12_0_log.err", "15_3_0_log.err", "15_0_0_log.out", "9_0_log.out"),
        *("12.json", "12_submission.sh", "12_submitted.pkl", "12_0_result.pkl", "notes_0_log.out"),
    ):
        (tmp_path / name).touch()
    assert ["9", "12", "15_0", "15_3"] == logged_jobs(tmp_path)


# -- files on shared disks ------------------------------------------------------------------------------------


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """The last one stays, with the permissions asked for, and nothing beside it."""
    path = tmp_path / "a.json"
    write_atomically(path, b'{"a": 1}')
    write_atomically(path, b'{"a": 2}', mode=0o600)
    assert {"a": 2} == read_json(path)
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert [path] == list(tmp_path.iterdir())


def test_threads_that_write_one_file_at_once_leave_it_whole(tmp_path: Path) -> None:
    """A reader finds a whole file at any moment."""
    path = tmp_path / "a.json"
    write_atomically(path, b"{}")
    contents = [json.dumps({"thread": n, "padding": "x" * 3000 * n}).encode() for n in range(4)]
    threads = [
        threading.Thread(target=lambda c=content: [write_atomically(path, c) for _ in range(25)])
        for content in contents
    ]
    for thread in threads:
        thread.start()
    read = []
    while any(thread.is_alive() for thread in threads):
        read.append(read_json(path, patience_s=0.0))
    assert all(values is not None and set(values) in ({"thread", "padding"}, set()) for values in read)
    assert path.read_bytes() in contents
    assert [path] == list(tmp_path.iterdir())


def test_a_leftover_of_a_dead_process_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its permissions do not become those of the new file."""
    monkeypatch.setattr(socket, "gethostname", lambda: "host")
    left = tmp_path / f"a.json.tmp.host.{os.getpid()}.{threading.get_native_id()}"
    left.write_bytes(b"half a fi")
    left.chmod(0o666)
    write_atomically(tmp_path / "a.json", b"{}", mode=0o600)
    assert 0o600 == stat.S_IMODE((tmp_path / "a.json").stat().st_mode)
    assert not left.exists()


def test_what_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    """Here a folder has the name already."""
    path = tmp_path / "a.json"
    path.mkdir()
    with pytest.raises(ClusterError) as error:
        write_atomically(path, b"{}")
    assert f"{path}: cannot be written: Is a directory. Put that right, then do the same again." == str(
        error.value
    )
    assert [path] == list(tmp_path.iterdir())


def test_a_file_that_is_not_there_is_none_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """That is no damage, so nothing is said."""
    started = time.monotonic()
    assert None is read_json(tmp_path / "a.json")
    assert time.monotonic() - started < 0.5
    assert [] == caplog.messages


def test_a_half_visible_file_is_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """NFS shows a file empty, or not at all whole, for a moment."""
    path = tmp_path / "a.json"
    path.write_bytes(b'{"a"')
    timer = threading.Timer(0.3, path.write_bytes, (b'{"a": 1}',))
    timer.start()
    assert {"a": 1} == read_json(path, patience_s=10.0)
    timer.join()
    assert [] == caplog.messages


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value: line 1 column 1 (char 0)"),
        (b"[1]", "it holds no mapping"),
    ],
)
def test_a_file_that_stays_damaged_is_none_and_named(
    tmp_path: Path, content: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No job ends because of it."""
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert None is read_json(path, patience_s=0.2)
    assert [
        f"{path}: cannot be read ({reason}), and is taken for missing. Delete it if that stays."
    ] == caplog.messages
