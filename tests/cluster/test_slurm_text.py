"""What sbatch is given: the text that submitit writes, and how many jobs of it."""

from __future__ import annotations

import os
import pickle
import shlex
import subprocess
import sys
import threading
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import ClusterError
from cluster.order import Order
from cluster.profile import DriverJobs, Profile, WorkerJobs
from cluster.queue import QueuedJob, QueueView
from cluster.slurm import Array, Queued, Slurm, arrays, cancel

# -- arrays ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("workers", "rounds", "limit", "expected"),
    [
        (0, 1, 1001, []),
        (4, 1, 1001, [Array(4, 4)]),
        (4, 3, 1001, [Array(12, 4)]),
        (10, 1, 4, [Array(4, 4), Array(3, 3), Array(3, 3)]),
        (5, 3, 7, [Array(6, 2), Array(6, 2), Array(3, 1)]),
        (2, 9, 4, [Array(4, 1), Array(4, 1)]),
        (3, 2, 1, [Array(1, 1)] * 3),
    ],
)
def test_arrays_by_hand(workers: int, rounds: int, limit: int, expected: list[Array]) -> None:
    """As few arrays as the site allows, of about one size."""
    assert expected == arrays(workers, rounds, limit)


@given(workers=st.integers(0, 3000), rounds=st.integers(1, 50), limit=st.integers(1, 1500))
def test_arrays(workers: int, rounds: int, limit: int) -> None:
    """All workers run at once; no array is above the limit; each worker is followed by as many others as were asked
    for, or as fit into an array; and there are no more arrays than needed, none empty."""
    found = arrays(workers, rounds, limit)
    each = min(rounds, limit)
    assert workers == sum(array.at_once for array in found)
    assert all(1 <= array.tasks <= limit for array in found)
    assert all(array.tasks == array.at_once * each for array in found)
    assert ceil(workers / (limit // each)) == len(found)
    assert not found or max(array.at_once for array in found) - min(array.at_once for array in found) <= 1


# -- text -----------------------------------------------------------------------------------------------------

WORKERS = """\
#!/bin/bash

# Parameters
#SBATCH --account=lab
#SBATCH --array=0-3%4
#SBATCH --cpus-per-task=2
#SBATCH --dependency=after:7
#SBATCH --error=JOBS/%A_%a_0_log.err
#SBATCH --exclusive
#SBATCH --gres=gpu:a100:1
#SBATCH --job-name=WORKER
#SBATCH --mem=8192M
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --open-mode=append
#SBATCH --output=JOBS/%A_%a_0_log.out
#SBATCH --partition=gpu
#SBATCH --signal=USR2@30
#SBATCH --time=60

# setup
module load cuda
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"
export SLURM_EXPORT_ENV=ALL
export PYTHONPATH=CODE"${PYTHONPATH:+:$PYTHONPATH}"

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output JOBS/%A_%a_%t_log.out --error JOBS/%A_%a_%t_log.err PYTHON -P -u -m MODULE JOBS
"""
DRIVER = """\
#!/bin/bash

# Parameters
#SBATCH --account=lab
#SBATCH --cpus-per-task=1
#SBATCH --dependency=singleton
#SBATCH --error=JOBS/%j_0_log.err
#SBATCH --job-name=DRIVER
#SBATCH --mem=4096M
#SBATCH --no-requeue
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --open-mode=append
#SBATCH --output=JOBS/%j_0_log.out
#SBATCH --partition=long
#SBATCH --signal=USR2@30
#SBATCH --time=600

# setup
module load cuda
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"
export SLURM_EXPORT_ENV=ALL
export PYTHONPATH=CODE"${PYTHONPATH:+:$PYTHONPATH}"

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output JOBS/%j_%t_log.out --error JOBS/%j_%t_log.err PYTHON -P -u -m MODULE JOBS
"""


@pytest.fixture
def gpu_order(order: Order) -> Order:
    profile = Profile(
        partition="gpu",
        account="lab",
        setup=("module load cuda",),
        notice_s=30,
        worker=WorkerJobs(
            max=4,
            time_limit_min=60,
            cpus=2,
            memory_gb=8,
            gpus=1,
            gpu_type="a100",
            sbatch={"exclusive": True},
        ),
        driver=DriverJobs(time_limit_min=600, partition="long"),
    )
    return replace(order, profile=profile)


def expected(text: str, order: Order) -> str:
    for word, value in (
        ("JOBS", order.jobs),
        ("CODE", order.python_path),
        ("MODULE", "submitit.core._submit"),
        ("PYTHON ", f"{sys.executable} "),
        ("WORKER", order.worker_name),
        ("DRIVER", order.driver_name),
    ):
        text = text.replace(word, str(value))
    return text.rstrip("\n")


def test_workers(programs: Any, gpu_order: Order) -> None:
    """An array that waits until the driver has begun."""
    assert [Queued("101", Array(4, 4))] == Slurm(gpu_order).submit_workers(4, after="7")
    assert expected(WORKERS, gpu_order) == programs.text(1).rstrip("\n")


def test_drivers(programs: Any, gpu_order: Order) -> None:
    """One after the other by their name; SLURM is not to requeue them."""
    assert [Queued("101", Array(1, 1)), Queued("102", Array(1, 1))] == Slurm(gpu_order).submit_drivers(2)
    assert [expected(DRIVER, gpu_order)] * 2 == [programs.text(n).rstrip("\n") for n in (1, 2)]


def test_one_worker_is_no_array(programs: Any, order: Order) -> None:
    """submitit queues it as a job."""
    assert [Queued("101", Array(1, 1))] == Slurm(order).submit_workers(1)
    assert "--array" not in programs.text(1)


def test_what_a_job_calls(programs: Any, order: Order) -> None:
    """Every task of an array, and every driver, is told the same order; nobody else may read it."""
    Slurm(order).submit_workers(2)
    Slurm(order).submit_drivers(1)
    assert 0o700 == order.jobs.stat().st_mode & 0o777
    found = {
        path.name: pickle.loads(path.read_bytes()) for path in sorted(order.jobs.glob("*_submitted.pkl"))
    }
    assert ["101_0_submitted.pkl", "101_1_submitted.pkl", "102_submitted.pkl"] == list(found)
    assert ["run_worker", "run_worker", "run_driver"] == [job.function.__name__ for job in found.values()]
    assert [(order,)] * 3 == [job.args for job in found.values()]


HOSTILE = 'it\'s "a" $(touch hacked) `touch hacked`; touch hacked & #é'


def test_hostile_paths_reach_the_job(programs: Any, tmp_path: Path, order: Order) -> None:
    """A run directory with everything that a shell acts on in its name: the file that sbatch gets, run by bash,
    calls python with the folder and the import path as they are."""
    run = tmp_path / HOSTILE
    python = tmp_path / "my python's"
    python.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" "$PYTHONPATH" > "{tmp_path}/called"\n')
    python.chmod(0o755)
    profile = replace(order.profile, python=str(python), setup=("export PYTHONPATH='/mine'", "false || true"))
    hostile = replace(order, run=run, profile=profile, code=run / "c", python_path=f"{run}/c")
    Slurm(hostile).submit_drivers(1)
    programs.install(
        "srun", 'while [ "$1" != "${1#--}" ]; do case $1 in --*put|--error) shift;; esac; shift; done; "$@"\n'
    )
    subprocess.run(["bash", programs.folder / "sbatch.1"], check=True, cwd=tmp_path)
    called = (tmp_path / "called").read_text().splitlines()
    assert ["-P", "-u", "-m", "submitit.core._submit", str(hostile.jobs), f"{run}/c:/mine"] == called
    assert not (tmp_path / "hacked").exists()
    options = [
        shlex.split(line) for line in programs.text(1).splitlines() if line.startswith("#SBATCH --out")
    ]
    assert [["#SBATCH", f"--output={hostile.jobs}/%j_0_log.out"]] == options


def test_an_import_path_is_exported_where_unset_variables_are_errors(
    programs: Any, tmp_path: Path, order: Order
) -> None:
    """`set -u` in the setup does no harm."""
    strict = replace(order, profile=replace(order.profile, setup=("set -eu",)))
    Slurm(strict).submit_drivers(1)
    programs.install("srun", 'echo "$PYTHONPATH" > "$folder/called"\n')
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(["bash", programs.folder / "sbatch.1"], check=True, env=environment)
    assert f"{order.python_path}\n" == (programs.folder / "called").read_text()


# -- surroundings ---------------------------------------------------------------------------------------------


def test_settings_around_us_do_not_reach_sbatch(
    programs: Any, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are those of another job, or the user's; how to reach SLURM stays. Afterwards all are there again."""
    settings = {"SLURM_JOB_ID": "1", "SBATCH_PARTITION": "other", "SLURM_CPUS_PER_TASK": "9"}
    for name, value in {**settings, "SLURM_CONF": "/conf", "MINE": "1"}.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    Slurm(order).submit_drivers(1)
    assert before == dict(os.environ)
    environment = programs.environment
    assert {"SLURM_CONF": "/conf", "MINE": "1"} == {
        name: environment[name] for name in (*settings, "SLURM_CONF", "MINE") if name in environment
    }


def test_what_other_threads_set_meanwhile_stays(
    programs: Any, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what they print of errors: a driver queues jobs from a thread."""
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SET_MEANWHILE", "no")
    programs.install("sbatch", 'touch "$folder/begun"; sleep 0.5; echo "Submitted batch job 1"\n')
    thread = threading.Thread(target=Slurm(order).submit_drivers, args=(1,))
    stderr = sys.stderr
    thread.start()
    while not (programs.folder / "begun").exists():
        thread.join(0.01)
    monkeypatch.setenv("SET_MEANWHILE", "yes")
    assert stderr is sys.stderr
    thread.join()
    assert ("1", "yes") == (os.environ["SLURM_JOB_ID"], os.environ["SET_MEANWHILE"])


# -- refusals and limits --------------------------------------------------------------------------------------


def test_a_refusal_in_slurms_words(programs: Any, order: Order, capfd: pytest.CaptureFixture[str]) -> None:
    """Once, in the error."""
    programs.allows(0, "invalid partition specified: nope")
    with pytest.raises(ClusterError) as error:
        Slurm(order).submit_drivers(1)
    assert f"SLURM refused {order.driver_name}: invalid partition specified: nope" == str(error.value)
    assert ("", "") == capfd.readouterr()


def test_an_answer_in_other_words_is_quoted(programs: Any, order: Order) -> None:
    """Of a program that a site has put in place of sbatch."""
    programs.install("sbatch", "echo 'Thank you, your job is number one'\n")
    with pytest.raises(ClusterError) as error:
        Slurm(order).submit_drivers(1)
    assert str(error.value).startswith(f"SLURM refused {order.driver_name}: ")
    assert "Thank you, your job is number one" in str(error.value)


def test_fewer_drivers_where_the_site_limits_them(programs: Any, order: Order) -> None:
    """One is enough to begin with."""
    programs.allows(2)
    assert ["101", "102"] == [item.job_id for item in Slurm(order).submit_drivers(3)]


@pytest.mark.parametrize(
    ("limit", "accepted", "asked"),
    [
        (100, [9, 8, 8], ["queued 9", "queued 8", "queued 8"]),
        (9, [9], ["queued 9", "refused 8", "refused 4", "refused 2", "refused 1"]),
        (14, [9, 4], ["queued 9", "refused 8", "queued 4"]),
        (3, [2], ["refused 9", "refused 4", "queued 2"]),
    ],
)
def test_as_many_workers_as_the_site_lets_be_queued(
    programs: Any, order: Order, limit: int, accepted: list[int], asked: list[str]
) -> None:
    """An array that is above the limit is halved; what was halved, or refused whole, is the last one."""
    programs.allows(limit)
    queued = Slurm(order).submit_workers(25)
    assert asked == [line.replace(f" {order.worker_name}", "") for line in programs.asked]
    assert [Array(n, n) for n in accepted] == [item.array for item in queued]


def test_rounds_are_what_a_limit_takes_first(programs: Any, order: Order) -> None:
    """Workers that follow others go before those that run at once."""
    programs.allows(8)
    assert [Queued("102", Array(4, 3))] == Slurm(order).submit_workers(3, rounds=3)


def test_a_limit_that_leaves_no_worker_is_a_refusal(programs: Any, order: Order) -> None:
    """In SLURM's words."""
    programs.allows(0)
    with pytest.raises(ClusterError) as error:
        Slurm(order).submit_workers(3)
    words = (
        "AssocMaxSubmitJobLimit; Job violates accounting/QOS policy "
        "(job submit limit, user's size and/or time limits)"
    )
    assert f"SLURM refused {order.worker_name}: {words}" == str(error.value)


def test_other_refusals_are_no_limits(programs: Any, order: Order) -> None:
    """They are not tried again with less, also not after an array that was accepted."""
    programs.allows(10, "invalid account")
    with pytest.raises(ClusterError, match="invalid account"):
        Slurm(order).submit_workers(25)
    assert ["queued", "refused"] == [line.split()[0] for line in programs.asked]


@pytest.mark.parametrize(
    ("printed", "size"),
    [
        ("Configuration data\nMaxArraySize            = 2001\nMaxX = 1", 2001),
        ("MaxArraySize            = 0", 1),
        ("nothing of it", 1001),
        ("MaxArraySize = 100001\nSchedulerParameters = defer,max_array_tasks=500,bf_continue", 500),
        ("MaxArraySize = 200\nSchedulerParameters = max_array_tasks=500", 200),
    ],
)
def test_the_largest_array(programs: Any, order: Order, printed: str, size: int) -> None:
    """As the site says, of indices or of tasks; 0 there means no arrays, so jobs one by one; SLURM's default if it
    says nothing."""
    programs.install("scontrol", f"echo '{printed}'\n")
    assert size == Slurm(order).max_array_size


@pytest.mark.parametrize("program", ["sbatch", "srun", "scontrol"])
def test_a_machine_without_slurm_is_said(
    programs: Any, order: Order, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of the programs is missing."""
    (programs.folder / program).unlink()
    monkeypatch.setenv("PATH", str(programs.folder))
    with pytest.raises(ClusterError) as error:
        Slurm(order).submit_workers(1)
    assert f"{program} is not on this machine: launch from a login node of the cluster" == str(error.value)


# -- counting and cancelling ----------------------------------------------------------------------------------


def test_jobs_of_the_run_are_counted_by_name(order: Order) -> None:
    """Those that live; unknown states count as alive."""
    states = ("RUNNING", "PENDING", "COMPLETED", "NEW_STATE")
    jobs = tuple(
        QueuedJob(str(n), name, state, None, None, "1:00")
        for n, (name, state) in enumerate(
            (name, state) for name in (order.driver_name, order.worker_name, "other") for state in states
        )
    )
    view = QueueView(1.0, 1.0, (*jobs, jobs[4]), None)
    assert (3, 4) == (Slurm(order).drivers(view), Slurm(order).workers(view))


def test_waiting_jobs_are_cancelled_before_running_ones(programs: Any, order: Order) -> None:
    """Or a driver that waits would begin in place of the one that ends."""
    cancel("a-driver", "a-worker")
    user = f"scancel --user={os.getuid()}"
    assert [
        f"{user} --name=a-driver --state=PENDING",
        f"{user} --name=a-worker --state=PENDING",
        f"{user} --name=a-driver",
        f"{user} --name=a-worker",
    ] == programs.asked


def test_words_in_any_encoding_are_shown(programs: Any, order: Order) -> None:
    """What isn't UTF-8 is replaced, not an error of its own."""
    programs.install("scancel", "printf 'scancel: error: nicht m\\366glich\\n' >&2; exit 1\n")
    with pytest.raises(ClusterError) as error:
        Slurm(order).cancel_pending()
    command = f"scancel --user={os.getuid()} --name={order.driver_name} --state=PENDING"
    assert f"{command}: nicht m\ufffdglich" == str(error.value)
