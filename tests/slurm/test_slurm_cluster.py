"""The cluster that other tests rely on is a real SLURM, and leaves nothing behind."""

from __future__ import annotations

import re
from pathlib import Path

import psutil
import pytest
import slurm_cluster
from slurm_cluster import Job, SlurmCluster, missing_programs, wait_for

pytestmark = pytest.mark.slurm

# Says which signals reach a process that is not the batch script, and ends by none that can be ignored.
STUBBORN = """\
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGCONT):
    signal.signal(number, lambda number, _: print(signal.Signals(number).name, flush=True))
print("started", os.environ.get("SLURM_RESTART_COUNT", "0"), flush=True)
while "SLURM_RESTART_COUNT" not in os.environ:
    time.sleep(0.1)
"""


@pytest.fixture
def stubborn(tmp_path: Path) -> str:
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    return f"python3 {tmp_path}/stubborn.py"


def submit(slurm: SlurmCluster, command: str, output: Path, *options: str) -> str:
    where = ("--parsable", "--open-mode=append", f"--output={output}")
    return slurm.run("sbatch", *where, *options, "--wrap", command).strip()


def wait_for_line(output: Path, line: str, seconds: float = 30) -> None:
    wait_for(
        lambda: output.exists() and line in output.read_text().splitlines(), seconds, f"{line!r} in {output}"
    )


def alive(folder: Path) -> list[str]:
    """Command lines of processes that have to do with a cluster's folder."""
    found = []
    for process in psutil.process_iter():
        try:
            traces = [*process.cmdline(), *process.environ().values(), process.cwd()]
            traces += [file.path for file in process.open_files()]
        except psutil.Error:
            continue
        if any(str(folder) in trace for trace in traces):
            found.append(" ".join(process.cmdline()))
    return found


def test_a_job_runs_on_the_node_it_asked_for(slurm: SlurmCluster, tmp_path: Path) -> None:
    """From `sbatch` to its output; srun works inside."""
    job_id = submit(
        slurm, "srun -n2 printenv SLURMD_NODENAME SLURM_PROCID", tmp_path / "out", "-n2", "-w", "n3"
    )
    slurm.wait_for_state(job_id, "COMPLETED")
    assert ["0", "1", "n3", "n3"] == sorted((tmp_path / "out").read_text().split())


def test_jobs_share_the_gpus_of_a_node(slurm: SlurmCluster, tmp_path: Path) -> None:
    """Of three jobs on a node with two GPUs each of two has one, as SLURM says to it, and the third waits."""
    command = "echo $CUDA_VISIBLE_DEVICES; sleep 60"
    outputs = [tmp_path / name for name in "abc"]
    jobs = [submit(slurm, command, output, "--gres=gpu:1", "--nodelist=n1") for output in outputs]
    wait_for_line(outputs[0], "0")
    wait_for_line(outputs[1], "1")
    assert ["RUNNING", "RUNNING", "PENDING"] == [slurm.state(job_id) for job_id in jobs]
    slurm.run("scancel", jobs[0])
    wait_for_line(outputs[2], "0")


def test_memory_is_counted(slurm: SlurmCluster, tmp_path: Path) -> None:
    """What no node has is refused; what a node has not left waits."""
    said = slurm.run("sbatch", "--mem=7000", "--wrap", "true", check=False)
    assert "Memory specification can not be satisfied" in said
    jobs = [submit(slurm, "sleep 60", tmp_path / "out", "--mem=4000", "--nodelist=n1") for _ in range(2)]
    slurm.wait_for_state(jobs[0], "RUNNING")
    wait_for(lambda: "Resources" in [job.reason for job in slurm.queue()], 10, "a reason")
    assert "PENDING" == slurm.state(jobs[1])


def test_an_array(slurm: SlurmCluster, tmp_path: Path) -> None:
    """Four tasks run as one array, one by one in the queue; MaxArraySize=4 refuses a task with the index 4."""
    array = submit(slurm, "sleep 60", tmp_path / "%a", "--array=0-3", "--job-name=a|b c", "--cpus-per-task=4")
    wait_for(lambda: all(job.state == "RUNNING" for job in slurm.queue()), 30, "the array to run")
    expected = [Job(f"{array}_{i}", "RUNNING", node, "None", "a|b c") for i, node in enumerate(slurm.nodes)]
    assert expected == sorted(slurm.queue(), key=lambda job: job.job_id)
    wait_for(lambda: len(slurm.processes_of(f"{array}_2")) == 2, 10, "script and sleep")
    assert ["n3", "n3"] == [p.environ()["SLURMD_NODENAME"] for p in slurm.processes_of(f"{array}_2")]
    assert "Invalid job array specification" in slurm.run(
        "sbatch", "--array=0-4", "--wrap", "true", check=False
    )


@pytest.mark.parametrize("partition", ["low", "cancel"])
def test_preemption(slurm: SlurmCluster, stubborn: str, tmp_path: Path, partition: str) -> None:
    """A job in `high` takes the node, after SIGCONT, SIGTERM and KillWait. Only `low` requeues."""
    output = tmp_path / "out"
    victim = submit(slurm, f"exec {stubborn}", output, "-p", partition, "-w", "n1", "--exclusive")
    wait_for_line(output, "started 0")
    urgent = submit(slurm, "true", tmp_path / "urgent", "-p", "high", "-w", "n1", "--exclusive")
    wait_for_line(output, "SIGTERM")
    assert "PENDING" == slurm.state(urgent)
    slurm.wait_for_state(urgent, "COMPLETED")
    said = [line for line in output.read_text().splitlines() if not line.startswith("slurmstepd")]
    assert ["started 0", "SIGCONT", "SIGTERM"] == said
    assert slurm.processes_of(victim) == []
    if partition == "cancel":
        assert "PREEMPTED" == slurm.state(victim)
    else:
        assert [("PENDING", "BeginTime")] == [(job.state, job.reason) for job in slurm.queue()]
        slurm.hurry(victim)
        slurm.wait_for_state(victim, "COMPLETED", 5)
        assert "started 1" == output.read_text().splitlines()[-1]


def test_a_node_dies_and_comes_back(slurm: SlurmCluster, stubborn: str, tmp_path: Path) -> None:
    """Nothing of its jobs is left; slurmctld notices within a minute, requeues one and fails the other."""
    requeued = submit(slurm, f"exec {stubborn}", tmp_path / "out")
    wait_for_line(tmp_path / "out", "started 0")
    node = slurm.queue()[0].node
    assert node is not None
    failed = submit(
        slurm, f"setsid -f sleep 1001; {stubborn}", tmp_path / "failed", "--no-requeue", "-w", node
    )
    wait_for_line(tmp_path / "failed", "started 0")
    slurm.kill_node(node)
    assert [] == slurm.processes_on(node)
    assert ["RUNNING", "RUNNING"] == [slurm.state(requeued), slurm.state(failed)], "it has not noticed"
    wait_for(lambda: slurm.node_state(node) == "down*", 60, "slurmctld to notice")
    slurm.wait_for_state(failed, "NODE_FAIL")
    slurm.wait_for_state(requeued, "COMPLETED")
    assert ["started 0", "started 1"] == (tmp_path / "out").read_text().splitlines()
    slurm.revive_node(node)
    assert "idle" == slurm.node_state(node)
    again = submit(slurm, "true", tmp_path / "again", "-w", node)
    slurm.wait_for_state(again, "COMPLETED")


def test_accounting(slurm: SlurmCluster, tmp_path: Path) -> None:
    """`sacct` knows a finished job, its account and its GPU; an account that does not exist is refused."""
    job_id = submit(slurm, "exit 3", tmp_path / "out", "--gres=gpu:1")
    expected = "FAILED|3:0|lab|billing=1,cpu=1,gres/gpu=1,mem=100M,node=1\n"
    query = ("sacct", "-XnPj", job_id, "-o", "State,ExitCode,Account,ReqTRES")
    wait_for(lambda: slurm.run(*query) == expected, 30, "sacct to know")
    said = slurm.run("sbatch", "--account=nobody", "--wrap", "true", check=False)
    assert "Invalid account or account/partition combination specified" in said


def test_a_process_that_left_its_tree_outlives_its_job(slurm: SlurmCluster, tmp_path: Path) -> None:
    """As without cgroups; `cancel_everything` ends it."""
    job_id = submit(slurm, "setsid -f sleep 1001", tmp_path / "out")
    slurm.wait_for_state(job_id, "COMPLETED")
    assert [["sleep", "1001"]] == [process.cmdline() for process in slurm.processes_of(job_id)]
    slurm.cancel_everything()
    wait_for(lambda: slurm.processes_of(job_id) == [], 5, "its end")


def test_nothing_is_left(stubborn: str) -> None:
    """A second cluster beside the first ends while its jobs run, ignore SIGTERM and have left their trees."""
    with SlurmCluster.running() as cluster:
        output = cluster.folder / "out"
        submit(cluster, f"setsid -f sleep 1001; srun {stubborn}", output)
        wait_for_line(output, "started 0")
        assert {"slurmctld -D", "slurmd -D -N n4", "slurmstepd: [1.batch]", "sleep 1001"} <= set(
            alive(cluster.folder)
        )
    assert [] == alive(cluster.folder)
    assert not cluster.folder.exists()


def test_a_start_that_fails_says_why_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error holds the end of every log."""
    broken = slurm_cluster.SLURM_CONF.replace("select/cons_tres", "select/nonsense")
    monkeypatch.setattr(slurm_cluster, "SLURM_CONF", broken)
    reason = r"(?s)SLURM did not start: .* ended\n.*fatal: Can't find plugin for select/nonsense"
    with pytest.raises(RuntimeError, match=reason) as error, SlurmCluster.running():
        pass
    folder = re.search(r"/tmp/slurm-\w+", str(error.value))
    assert folder is not None
    assert [] == alive(Path(folder.group()))
    assert not Path(folder.group()).exists()


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the Debian package that has it."""
    assert [] == missing_programs()
    monkeypatch.setattr(slurm_cluster, "search_path", lambda: "/nowhere")
    assert "munged (Debian package munge)" == missing_programs()[0]
    assert 7 == len(missing_programs())
