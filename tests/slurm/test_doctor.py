"""`orchestrator doctor --cluster` and hostile texts, against a real SLURM."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from slurm_cluster import SlurmCluster
from submitit.slurm.slurm import _make_sbatch_string

from cluster.profile import Profile, WorkerJobs
from cluster.sbatch import as_arguments, worker_options

pytestmark = pytest.mark.slurm

GOOD = "account: lab\nworker: {max: 4, time_limit_min: 60, cpus: 2, gpus: 2, memory_gb: 1}\n"
NODE = "Requested node configuration is not available"
NO_ACCOUNT = "Invalid account or account/partition combination specified"
NO_PARTITION = "invalid partition specified: nope; Invalid partition name specified"
DRIVER_OK = (
    "ok   driver jobs are accepted: one would start at TIME using 1 processors on nodes n1 in partition low"
)
WORKER_OK = DRIVER_OK.replace("driver", "worker").replace("1 processors", "2 processors")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where injected commands would leave a file."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def doctor(profile: str, environment: Mapping[str, str]) -> tuple[int, list[str]]:
    """Exit code and findings about SLURM, without times."""
    Path("p.yaml").write_text(profile)
    command = [sys.executable, "-m", "orchestrator.cli", "doctor", "--cluster", "p.yaml"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.stderr == ""
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:]+", "TIME", done.stdout)
    findings = re.split(r"^ok   scratch: .*\n", text, flags=re.MULTILINE)[1]
    return done.returncode, findings.splitlines()


def answers(slurm: SlurmCluster) -> str:
    version = slurm.run("sbatch", "--version").split()[1]
    return f"ok   SLURM {version} of the cluster test answers; job arrays end at 4 (MaxArraySize)"


@pytest.mark.usefixtures("folder")
def test_a_good_profile(slurm: SlurmCluster) -> None:
    """Everything is well, and nothing was queued."""
    assert (0, [answers(slurm), DRIVER_OK, WORKER_OK]) == doctor(GOOD, slurm.env())
    assert [] == slurm.queue()


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("profile", "driver", "worker"),
    [
        (
            "partition: nope\nworker: {max: 4, time_limit_min: 60}",
            f"{NO_PARTITION}; look at partition",
            f"{NO_PARTITION}; look at partition",
        ),
        (
            "account: nope\nworker: {max: 4, time_limit_min: 60}",
            f"{NO_ACCOUNT}; look at account",
            f"{NO_ACCOUNT}; look at account",
        ),
        (
            "worker: {max: 4, time_limit_min: 60, qos: nope}",
            None,
            "Invalid qos specification; look at worker.qos",
        ),
        (
            "worker: {max: 4, time_limit_min: 60, constraint: nope}",
            None,
            "Invalid feature specification; look at worker.constraint",
        ),
        (
            "worker: {max: 4, time_limit_min: 60, memory_gb: 100}",
            None,
            f"{NODE}; look at worker.memory_gb",
        ),
        ("worker: {max: 4, time_limit_min: 60, cpus: 5}", None, f"{NODE}; look at worker.cpus"),
        ("worker: {max: 4, time_limit_min: 60, cpus: 3, gpus: 3}", None, f"{NODE}; look at worker.gpus"),
        (
            "worker: {max: 4, time_limit_min: 60, gpus: 1, gpu_type: a100}",
            None,
            f"{NODE}; look at worker.gpus or worker.gpu_type",
        ),
        (
            "worker: {max: 4, time_limit_min: 60, gpus: 1, sbatch: {gres: 'fpga:1'}}",
            None,
            "Invalid generic resource (gres) specification; look at worker.sbatch.gres",
        ),
        (
            "sbatch: {reservation: nope}\nworker: {max: 4, time_limit_min: 60}",
            "Requested reservation is invalid; look at sbatch.reservation",
            "Requested reservation is invalid; look at sbatch.reservation",
        ),
        (
            "worker: {max: 4, time_limit_min: 60, sbatch: {frobnicate: 1}}",
            None,
            "unrecognized option '--frobnicate=1'; look at worker.sbatch.frobnicate",
        ),
        (  # SLURM finds the first alone
            "worker: {max: 4, time_limit_min: 60, partition: nope, memory_gb: 100, cpus: 3, gpus: 3}",
            None,
            f"{NO_PARTITION}; look at worker.partition",
        ),
        (
            "worker: {max: 4, time_limit_min: 60, cpus: 5, gpus: 3}",
            None,
            f"{NODE}; look at worker.cpus or worker.gpus",
        ),
    ],
)
def test_what_slurm_refuses(slurm: SlurmCluster, profile: str, driver: str | None, worker: str) -> None:
    """The scheduler's own words, and the key of the profile that is to blame; exit code 1."""
    expected = [
        f"FAIL driver jobs are refused: {driver} in the profile" if driver else DRIVER_OK,
        f"FAIL worker jobs are refused: {worker} in the profile",
    ]
    assert (1, [answers(slurm), *expected]) == doctor(profile, slurm.env())


@pytest.mark.usefixtures("folder")
def test_gpus_that_no_pack_would_use(slurm: SlurmCluster) -> None:
    """SLURM would give them; they would idle for want of CPUs."""
    code, findings = doctor("partition: high\nworker: {max: 1, time_limit_min: 60, gpus: 2}", slurm.env())
    assert (
        "FAIL a worker's 1 CPUs are enough for 1 of its 2 GPUs, since a pack takes one of each: "
        "set worker.cpus to 2 or more"
    ) == findings[-1]
    assert 1 == code


@pytest.mark.usefixtures("folder")
def test_a_site_without_a_default_partition(slurm: SlurmCluster) -> None:
    """The key that lacks is named."""
    slurm.run("scontrol", "update", "PartitionName=low", "Default=NO")
    try:
        _, findings = doctor("worker: {max: 4, time_limit_min: 60, partition: high}", slurm.env())
    finally:
        slurm.run("scontrol", "update", "PartitionName=low", "Default=YES")
    words = "No partition specified or system default partition"
    assert f"FAIL driver jobs are refused: {words}; look at driver.partition in the profile" == findings[1]
    assert findings[2].startswith("ok   worker jobs are accepted")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("limit", "minutes"), [("00:10:00", "10"), ("1-06:30:00", "1,830")])
def test_a_time_limit_that_slurm_accepts_and_never_starts(
    slurm: SlurmCluster, limit: str, minutes: str
) -> None:
    """The partition's own limit is looked up, since `sbatch --test-only` does not mind."""
    profile = "partition: high\nworker: {max: 4, time_limit_min: 3000}\ndriver: {time_limit_min: 9}"
    slurm.run("scontrol", "update", "PartitionName=high", f"MaxTime={limit}")
    try:
        code, findings = doctor(profile, slurm.env())
    finally:
        slurm.run("scontrol", "update", "PartitionName=high", "MaxTime=UNLIMITED")
    assert (
        f"FAIL worker jobs ask for 3,000 min and the partition high allows {minutes} (MaxTime), so they may wait "
        "for ever; lower worker.time_limit_min"
    ) == findings[-1]
    assert (1, 4) == (code, len(findings))


@pytest.mark.usefixtures("folder")
def test_settings_of_the_user_and_of_an_allocation_do_not_count(slurm: SlurmCluster) -> None:
    """Neither of these reaches sbatch; that the user's are ignored is said."""
    environment = {"SBATCH_PARTITION": "nope", "SBATCH_ACCOUNT": "nope", "SLURM_CLUSTERS": "nope"}
    expected = (
        "ok   SBATCH_ACCOUNT, SBATCH_PARTITION in your environment count for nothing: the profile decides"
    )
    assert (0, [expected, answers(slurm), DRIVER_OK, WORKER_OK]) == doctor(GOOD, slurm.env() | environment)


def test_a_scheduler_that_is_down(slurm: SlurmCluster, folder: Path) -> None:
    """One finding, and no more questions."""
    conf = folder / "slurm.conf"
    conf.write_text(re.sub(r"SlurmctldPort=\d+", "SlurmctldPort=1", slurm.conf.read_text()))
    code, findings = doctor(GOOD, {"SLURM_CONF": str(conf)})
    assert (1, 1) == (code, len(findings))
    assert re.fullmatch(
        r"FAIL SLURM does not answer: Slurmctld\(primary\) at \S+ is DOWN; try again later, or ask the site's "
        "support",
        findings[0],
    )


HOSTILE = (
    "it's",
    'a "b',
    "$(touch injected)",
    "`touch injected`",
    "'; touch injected; '",
    '"; touch injected; #',
    "--wrap=touch injected",
    "%j %x %%",
    "a#b # c",
    "é 漢字 \U0001f600",
    "| & > injected < x",
)
PRINTABLE = st.text(
    st.characters(exclude_categories=["C", "Z"], exclude_characters="\\"), min_size=1, max_size=40
)


def comment(slurm: SlurmCluster, job_id: str) -> str:
    return slurm.run("squeue", "--noheader", f"--jobs={job_id}", "--format=%k").removesuffix("\n")


@given(text=PRINTABLE)
@settings(max_examples=40, deadline=None)
@example("it's")
@example("$(touch injected) `touch injected`")
@example("\"'\"'")
@example("%j #x, =y")
def test_any_text_reaches_slurm_as_it_was_written(slurm: SlurmCluster, text: str) -> None:
    """On the command line and in the file that submitit writes."""
    worker = WorkerJobs(max=1, time_limit_min=60, sbatch={"comment": text, "hold": True})
    options = worker_options(Profile(worker=worker))
    file = _make_sbatch_string("true", "/dev", wckey=None, additional_parameters=options)
    submit = ("sbatch", "--parsable")
    by_arguments = slurm.run(*submit, *as_arguments(options), "--wrap=true").strip()
    Path(slurm.folder, "job.sh").write_text(file)
    by_file = slurm.run(*submit, str(slurm.folder / "job.sh")).strip()
    try:
        assert [text, text] == [comment(slurm, by_arguments), comment(slurm, by_file)]
    finally:
        slurm.run("scancel", by_arguments, by_file)


def test_nothing_in_a_job_is_run_that_was_not_meant_to(slurm: SlurmCluster, folder: Path) -> None:
    """Jobs with hostile names, comments and quoted setup lines end well, and leave no trace."""
    out = folder / "it's $(touch injected) é"
    out.mkdir()
    job_ids = []
    for text in HOSTILE:
        worker = WorkerJobs(max=1, time_limit_min=60, sbatch={"comment": text})
        quoted = text.replace("'", "'\"'\"'")
        profile = Profile(worker=worker, setup=(f"printf '%s\\n' '{quoted}'",))
        file = _make_sbatch_string(
            "true",
            out,
            job_name=text,
            wckey=None,
            stderr_to_stdout=True,
            setup=list(profile.setup),
            use_srun=False,
            additional_parameters=worker_options(profile),
        )
        (folder / "job.sh").write_text(file)
        job_ids.append(slurm.run("sbatch", "--parsable", "job.sh").strip())
    for job_id, text in zip(job_ids, HOSTILE, strict=True):
        slurm.wait_for_state(job_id, "COMPLETED")
        assert f"{text}\n" == (out / f"{job_id}_0_log.out").read_text()
    assert [] == list(folder.rglob("injected"))


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_partition_is_only_a_name(slurm: SlurmCluster, folder: Path, text: str) -> None:
    """SLURM does not know it, and nothing is run."""
    profile = Profile(partition=text, worker=WorkerJobs(max=1, time_limit_min=60))
    arguments = as_arguments(worker_options(profile))
    said = slurm.run("sbatch", "--test-only", *arguments, "--wrap=true", check=False)
    assert "nvalid partition" in said
    assert [] == list(folder.iterdir())
