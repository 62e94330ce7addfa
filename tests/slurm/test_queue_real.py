"""What is known of the queue, with a real scheduler and a real squeue."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from slurm_cluster import SlurmCluster, free_ports, wait_for

from cluster import queue
from cluster.job_record import Record, read_records
from cluster.queue import QueuedJob, QueueView, look

pytestmark = pytest.mark.slurm

ROOT = Path(__file__).resolve().parents[2]
LOOK = "import json, dataclasses, cluster.queue as q; print(json.dumps(dataclasses.asdict(q.look())))"
RECORD = """\
import pathlib, sys
from cluster.job_record import JobRecord
JobRecord.begin(pathlib.Path(sys.argv[1]), "worker", 1).change("joined", epoch=3)
"""
HOSTILE = ('a|b "q" \' %j $HOME `id` é', "new\nline", "¦12¦arr¦RUNNING¦¦n1¦1:00¦\n¦13¦x")


@pytest.fixture
def queries(slurm: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often squeue was run, here and in jobs, since this process and all that it starts count it."""
    folder, count, real = tmp_path / "bin", tmp_path / "count", shutil.which("squeue")
    folder.mkdir()
    count.touch()
    squeue = folder / "squeue"
    squeue.write_text(f'#!/bin/sh\necho "$*" >> {count}\nexec {real} "$@"\n')
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, value in slurm.env().items():
        monkeypatch.setenv(name, value)
    return lambda: len(count.read_text().splitlines())


def submit(slurm: SlurmCluster, name: str, command: str, *options: str, output: str = "/dev/null") -> str:
    where = ("--parsable", f"--output={output}", f"--job-name={name}")
    return slurm.run("sbatch", *where, *options, "--wrap", command).strip()


def test_processes_and_jobs_that_ask_make_one_query(
    slurm: SlurmCluster, tmp_path: Path, queries: Callable[[], int]
) -> None:
    """Eight processes at once on the login node, then three jobs on nodes: one squeue, one answer."""
    command = [sys.executable, "-c", LOOK]
    job_id = submit(slurm, "held", "true", "--hold")
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(8)]
    told = {process.communicate()[0] for process in processes}
    submit(slurm, "asks", shlex.join(command), "--array=0-2", output=f"{tmp_path}/out.%a")
    wait_for(lambda: len(list(tmp_path.glob("out.*"))) == 3, 30, "jobs to ask")
    wait_for(lambda: all(path.read_text() for path in tmp_path.glob("out.*")), 30, "jobs to be told")
    told |= {path.read_text() for path in tmp_path.glob("out.*")}

    assert 1 == queries()
    (view,) = (json.loads(text) for text in told)
    assert [job_id] == [job["job_id"] for job in view["jobs"] if job["name"] == "held"]  # others have ended


def test_jobs_are_seen_whatever_their_names_hold(slurm: SlurmCluster, queries: Callable[[], int]) -> None:
    """Separators, quotes, line breaks and what looks like another line of the queue; tasks one by one."""
    ids = [submit(slurm, name, "sleep 600", "--hold") for name in HOSTILE]
    array = submit(slurm, "arr", "sleep 600", "--array=0-2", "--hold")
    running = submit(slurm, "runs", "sleep 600", "--nodelist=n2", "--time=60")
    failed = submit(slurm, "fails", "exit 3", "--nodelist=n3", "--time=60")
    slurm.wait_for_state(running, "RUNNING")
    slurm.wait_for_state(failed, "FAILED")
    view = look()

    assert None is view.problem
    held = [(job_id, "JobHeldUser", name) for job_id, name in zip(ids, HOSTILE, strict=True)]
    held += [(f"{array}_{task}", "JobHeldUser", "arr") for task in range(3)]
    seen = {job.job_id: job for job in view.jobs}
    for job_id, reason, name in held:
        assert QueuedJob(job_id, name, "PENDING", reason, None, "UNLIMITED") == seen[job_id]
    assert [f"{array}_{task}" for task in range(3)] == sorted(job.job_id for job in view.named("arr"))
    (job,) = view.named("runs")
    assert (running, "RUNNING", None, "n2", True) == (
        job.job_id,
        job.state,
        job.reason,
        job.node,
        job.is_alive,
    )
    (job,) = view.named("fails")
    assert (failed, "FAILED", "NonZeroExitCode", False) == (job.job_id, job.state, job.reason, job.is_alive)


def test_a_scheduler_that_does_not_answer_is_quoted(
    slurm: SlurmCluster, tmp_path: Path, queries: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """squeue's own words, and nobody asks again within the minute."""
    conf = tmp_path / "slurm.conf"
    dead = f"SlurmctldPort={free_ports(1)}"
    conf.write_text(slurm.conf.read_text().replace(f"SlurmctldPort={slurm.port}", dead))
    monkeypatch.setenv("SLURM_CONF", str(conf))
    monkeypatch.setattr(queue, "QUERY_TIMEOUT_S", 60.0)
    view = look()
    words = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
    problem = f"squeue failed with exit code 1: {words}. SLURM is asked again after a minute."
    assert QueueView(view.asked_at, float("-inf"), (), problem, failures=1) == view
    assert view == look()
    assert 1 == queries()


def test_records_and_queue_call_a_job_the_same(
    slurm: SlurmCluster, tmp_path: Path, queries: Callable[[], int]
) -> None:
    """A job, and the tasks of an array: the id in a job's record is the one that squeue shows."""
    command = f"{shlex.join([sys.executable, '-c', RECORD, str(tmp_path)])}; sleep 600"
    job_id = submit(slurm, "job", command, "--nodelist=n1")
    array = submit(slurm, "job", command, "--array=1-2", "--nodelist=n2")
    wait_for(lambda: len(read_records(tmp_path)) == 3, 30, "three records")

    def said(record: Record) -> tuple[object, ...]:
        return record.job_id, record.node, record.state, record.epoch, record.restarts

    expected = [(job_id, "n1"), (f"{array}_1", "n2"), (f"{array}_2", "n2")]
    assert [(*job, "joined", 3, 0) for job in expected] == [said(record) for record in read_records(tmp_path)]
    assert sorted(expected) == sorted((job.job_id, job.node) for job in look().named("job"))
