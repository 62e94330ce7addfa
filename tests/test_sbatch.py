"""What sbatch is told for a profile, and what it answers."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from submitit.slurm.slurm import _make_sbatch_string

from cluster.profile import DriverJobs, Profile, WorkerJobs
from cluster.sbatch import as_arguments, clean_environment, driver_options, scheduler_words, worker_options

SMALL = WorkerJobs(max=4, time_limit_min=60)


def test_options_of_both_kinds_of_jobs() -> None:
    """What jobs leave open is as at the top; one task on one node in any case."""
    profile = Profile(
        partition="gpu",
        account="lab",
        sbatch={"wckey": "mine", "nice": 5},
        worker=WorkerJobs(
            max=2, time_limit_min=60, cpus=4, memory_gb=1.5, gpus=2, gpu_type="a100", qos="fast"
        ),
        driver=DriverJobs(partition="cpu", time_limit_min=600, sbatch={"nice": False, "exclusive": True}),
    )
    assert {
        "partition": "gpu",
        "account": "lab",
        "qos": "fast",
        "time": 60,
        "nodes": 1,
        "ntasks": 1,
        "cpus-per-task": 4,
        "mem": "1536M",
        "gres": "gpu:a100:2",
        "wckey": "mine",
        "nice": 5,
    } == worker_options(profile)
    assert {
        "partition": "cpu",
        "account": "lab",
        "time": 600,
        "nodes": 1,
        "ntasks": 1,
        "cpus-per-task": 1,
        "mem": "4096M",
        "wckey": "mine",
        "exclusive": True,
        "no-requeue": True,
    } == driver_options(profile)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, None),
        ({"gpus": 2}, "gpu:2"),
        ({"gpus": 2, "sbatch": {"gres": "gpu:v100:2,nvme:100"}}, "gpu:v100:2,nvme:100"),
        ({"gpus": 2, "sbatch": {"gres": False}}, None),
    ],
)
def test_gpus_are_asked_for_as_the_site_wants(values: dict[str, Any], expected: str | None) -> None:
    """As GRES; the whole of it can be replaced, or taken away."""
    worker = WorkerJobs(max=1, time_limit_min=60, **values)
    assert expected == worker_options(Profile(worker=worker)).get("gres")


def test_no_memory_is_asked_for() -> None:
    """Where a site refuses --mem, `null` leaves it out; otherwise megabytes are rounded up."""
    assert "mem" not in driver_options(Profile(worker=SMALL, driver=DriverJobs(memory_gb=None)))
    assert driver_options(Profile(worker=SMALL, driver=DriverJobs(memory_gb=0.0001)))["mem"] == "1M"


def test_arguments() -> None:
    """For a command line."""
    assert ["--mem=4096M", "--exclusive", "--nodes=1", "--comment=a 'b'"] == as_arguments(
        {"mem": "4096M", "exclusive": True, "nodes": 1, "comment": "a 'b'"}
    )


def test_the_job_file_that_submitit_writes() -> None:
    """Every option stands in it once, with our value."""
    profile = Profile(worker=SMALL, sbatch={"exclusive": True, "mail-type": "FAIL", "comment": "it's"})
    text = _make_sbatch_string(
        "true", "/jobs", job_name="n", wckey=None, additional_parameters=worker_options(profile)
    )
    assert [
        "--comment='it'\"'\"'s'",
        "--cpus-per-task=1",
        "--error=/jobs/%j_0_log.err",
        "--exclusive",
        "--job-name=n",
        "--mail-type=FAIL",
        "--nodes=1",
        "--ntasks=1",
        "--open-mode=append",
        "--output=/jobs/%j_0_log.out",
        "--signal=USR2@90",
        "--time=60",
    ] == [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")]


HOSTILE = st.text(st.sampled_from("ab'\"`$(){};&|<>#%*?~!= -,\\\n\t\0é\u2028\U0001f600")) | st.text()


@given(text=HOSTILE)
def test_hostile_text_is_refused_or_arrives(text: str) -> None:
    """A value either is refused, or is one argument and one line of a job file, as it was written."""
    try:
        profile = Profile(worker=SMALL, partition=text, sbatch={"comment": text})
    except ValueError:
        assert not text or not text.isprintable() or "\\" in text
        return
    assert text.isprintable()
    options = worker_options(profile)
    assert {f"--partition={text}", f"--comment={text}"} <= set(as_arguments(options))
    file = _make_sbatch_string("true", "/jobs", wckey=None, additional_parameters=options)
    lines = [
        line for line in file.splitlines() if line.startswith(("#SBATCH --comment", "#SBATCH --partition"))
    ]
    assert [["#SBATCH", f"--comment={text}"], ["#SBATCH", f"--partition={text}"]] == [
        shlex.split(line) for line in lines
    ]


def is_closed(line: str) -> bool:
    """Bash takes the next line for another command."""
    try:
        shlex.split(line, comments=True)
    except ValueError:
        return False
    return True


@given(line=HOSTILE)
def test_a_setup_line_stays_one_line_and_no_option(line: str) -> None:
    """It is shell by intention, but it cannot become another line or an option of the job."""
    try:
        setup = Profile(worker=SMALL, setup=(line,)).setup
    except ValueError:
        assert not line.isprintable() or not is_closed(line)
        return
    file = _make_sbatch_string("true", "/jobs", setup=list(setup))
    options = [text for text in file.splitlines() if text.startswith("#SBATCH")]
    assert line in file.split("\n")
    assert len(options) == len(
        [text for text in _make_sbatch_string("true", "/jobs").splitlines() if text.startswith("#SBATCH")]
    )


def test_the_environment_for_slurms_programs() -> None:
    """Settings of an allocation around us and of the user go; how to reach SLURM, and all else, stays."""
    kept = {
        "PATH": "/bin",
        "HOME": "/root",
        "SLURM_CONF": "/etc/slurm.conf",
        "SLURM_CONF_SERVER": "ctl",
        "SLURM_JWT": "token",
        "MY_SLURM_NOTE": "x",
    }
    gone = dict.fromkeys(
        ("SLURM_JOB_ID", "SLURM_CPUS_PER_TASK", "SLURMD_NODENAME", "SBATCH_PARTITION", "SQUEUE_STATES"), "x"
    )
    assert kept == clean_environment({**gone, **kept})


@pytest.mark.parametrize(
    ("stderr", "expected"),
    [
        (
            (
                "sbatch: error: Batch job submission failed: Invalid account or account/partition combination "
                "specified\n"
            ),
            "Invalid account or account/partition combination specified",
        ),
        (
            (
                "sbatch: error: invalid partition specified: nope\nallocation failure: Invalid partition name "
                "specified\n"
            ),
            "invalid partition specified: nope; Invalid partition name specified",
        ),
        ("sbatch: fatal: Unable to open file x\n", "Unable to open file x"),
        (
            "sbatch: unrecognized option '--frob=1'\nTry \"sbatch --help\" for more information\n",
            "unrecognized option '--frob=1'",
        ),
        (
            (
                "sbatch: lua: welcome to the cluster\n"
                "sbatch: error: -----------\n"
                "sbatch: error: No account given.\n"
                "sbatch: error: See https://site/accounts\n"
                "sbatch: error: -----------\n"
                "sbatch: error: Batch job submission failed: Unspecified error\n"
            ),
            "No account given.; See https://site/accounts",
        ),
        ("sbatch: error: Batch job submission failed: Unspecified error\n", "Unspecified error"),
        ("\x1b[31msbatch: error: red\x1b[0m\n", "[31msbatch: error: red [0m"),
        ("sbatch: Job 5 to start at 2026-01-01T00:00:00\n", "Job 5 to start at 2026-01-01T00:00:00"),
        ("sbatch: error: a\nsbatch: error: a\n", "a"),
        ("", "no reason given"),
        ("\n---\n", "no reason given"),
        (f"sbatch: error: {'x' * 1000}", f"{'x' * 397}..."),
    ],
)
def test_the_schedulers_words(stderr: str, expected: str) -> None:
    """What it complains of, without ornaments, in one line."""
    assert expected == scheduler_words(stderr)
