"""Launching on SLURM, once or twice, undisturbed or killed in between; its programs are scripts here."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml

from cluster.errors import ClusterError
from cluster.order import job_prefix
from cluster.profile import Profile, WorkerJobs
from cluster.queue import look
from cluster.rendezvous import End, HeadState, Rendezvous
from cluster.site import Site
from orchestrator.errors import StoreError
from orchestrator.lock import RunIsHeld, launch_lock
from orchestrator.submission import Submission
from orchestrator.submit import cancel, submit
from orchestrator.sweep import load_sweep

PROGRAMS = {
    "sbatch": """\
name=$(sed -n "s/^#SBATCH --job-name=//p" "$1")
. "$folder/before"
n=$(($(cat "$folder/n" 2>/dev/null || echo 100) + 1)); echo $n > "$folder/n"
echo "queued $n ${name##*-}" >> "$folder/asked"
echo "Submitted batch job $n"
""",
    "squeue": """\
for argument; do case $argument in --format=*) mark=${argument#--format=};; esac; done
sed "s/,/${mark%%%i*}/g" "$folder/queue"
""",
    "scancel": 'echo "scancel $*" >> "$folder/asked"; . "$folder/scancels"\n',
    "scontrol": "echo\n",
    "srun": "exit 1\n",
}
HEAD = HeadState(4, 1, "1", "n1", None, 0, 0, 0, 0.0)
SITE = Site("site", Profile(worker=WorkerJobs(max=2, time_limit_min=60)))
LAUNCH = """
import sys
from pathlib import Path
import test_submit
test_submit.Lab(Path(sys.argv[1])).launch()
"""


@dataclass(frozen=True)
class Lab:
    """A user's folder, and what stands in for SLURM."""

    folder: Path

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def bin(self) -> Path:
        return self.folder / "bin"

    @property
    def prefix(self) -> str:
        return job_prefix("s", self.run)

    @property
    def submission(self) -> Submission | None:
        return Submission.load(self.run)

    def launch(self, seeds: int = 4) -> list[str]:
        values = {
            "name": "s",
            "task": {"name": "composition", "n": 6, "k": 2, "data_size": 64},
            "train": {"steps": 50},
            "axes": {"seed": seeds},
        }
        path = self.folder / "s.yaml"
        path.write_text(yaml.safe_dump(values))
        return submit(load_sweep(path), self.run, SITE)

    def launch_and_die(self, role: str) -> None:
        """A launch that is killed when it wants to queue the first job of this role."""
        self.sbatch(f"case $name in *-{role}) kill -9 $PPID; sleep 0.2; exit 1;; esac")
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)])}
        done = subprocess.run([sys.executable, "-c", LAUNCH, self.folder], env=environ, check=False)
        assert -9 == done.returncode
        self.sbatch(":")

    # -- the scheduler ------------------------------------------------------------------------------------------

    def sbatch(self, before: str) -> None:
        """What sbatch does first; the job's name is in `$name`."""
        (self.bin / "before").write_text(before + "\n")

    def shows(self, *jobs: tuple[str, str, str]) -> None:
        """The queue from now on, id, role and state; asked for only as often as it really would."""
        rows = (f",{job_id},{self.prefix}-{role},{state},None,n1,1:00,\n" for job_id, role, state in jobs)
        (self.bin / "queue").write_text("".join(rows))

    def passes(self, seconds: float) -> None:
        """As if everything so far had happened so long ago."""
        for path in (self.folder / "cache").glob("orchestrator/queue-*.json"):
            view = json.loads(path.read_text())
            times = {name: view[name] - seconds for name in ("asked_at", "taken_at")}
            path.write_text(json.dumps({**view, **times}))
        if submission := self.submission:
            replace(submission, submitted_at=submission.submitted_at - seconds).write(self.run)

    def asked(self) -> list[str]:
        """What was queued and cancelled since this was read last."""
        path = self.bin / "asked"
        lines = path.read_text().splitlines() if path.exists() else []
        path.write_text("")
        return [line.replace(f"--user={os.getuid()} --name={self.prefix}-", "") for line in lines]


QUEUED = ["queued 101 driver", "queued 102 driver", "queued 103 driver", "queued 104 worker"]
CANCELLED = [
    "scancel driver --state=PENDING",
    "scancel worker --state=PENDING",
    "scancel driver",
    "scancel worker",
]
AGAIN = [line.replace(" 10", " 11") for line in QUEUED]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A SLURM with an empty queue."""
    lab = Lab(tmp_path)
    lab.bin.mkdir()
    for name, script in PROGRAMS.items():
        (lab.bin / name).write_text(f"#!/bin/sh\nfolder='{lab.bin}'\n{script}")
        (lab.bin / name).chmod(0o755)
    (lab.bin / "scancels").write_text("")
    lab.sbatch(":")
    lab.shows()
    monkeypatch.setenv("PATH", f"{lab.bin}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    return lab


@pytest.fixture
def launched(lab: Lab) -> Lab:
    """A first launch has queued its jobs."""
    assert [
        "queued   drivers 101, 102, 103; workers 104",
        "         (2 at once). You may log out now.",
    ] == lab.launch()
    assert QUEUED == lab.asked()
    (lab.bin / "n").write_text("110")
    return lab


@pytest.fixture
def shared_umask() -> Iterator[None]:
    """In projects where everybody's files are the group's."""
    before = os.umask(0o002)
    yield
    os.umask(before)


# -- what is written down -------------------------------------------------------------------------------------


def test_a_first_launch(launched: Lab) -> None:
    """What was queued is written down, and that the launch has begun."""
    submission = launched.submission
    assert submission is not None
    assert (1, ("101", "102", "103"), ("104",), 2) == (
        submission.launch,
        submission.drivers,
        submission.workers,
        submission.n_workers,
    )
    assert None is Rendezvous(launched.run / "cluster").end(1)
    assert 1 == Rendezvous(launched.run / "cluster").last_launch


def test_jobs_are_queued_before_they_are_named(lab: Lab) -> None:
    """While sbatch is at work `launch.json` names none, and its time is that of the last one: a look at the queue
    between two of them doesn't show all."""
    lab.sbatch(
        f"cp '{lab.run}/cluster/launch.json' '{lab.folder}/during'; sleep 0.1; date +%s.%N > '{lab.folder}/last'"
    )
    lab.launch()
    during = json.loads((lab.folder / "during").read_text())
    assert ([], [], 0) == (during["drivers"], during["workers"], during["n_workers"])
    submission = lab.submission
    assert submission is not None
    assert submission.submitted_at > float((lab.folder / "last").read_text())


def modes(run: Path) -> dict[str, int]:
    names = ("cluster", "cluster/code", "cluster/jobs", "cluster/secret", "cluster/secret/token")
    return {name: stat.S_IMODE((run / name).stat().st_mode) for name in names}


CLOSED = {
    "cluster": 0o755,
    "cluster/code": 0o755,
    "cluster/jobs": 0o700,
    "cluster/secret": 0o700,
    "cluster/secret/token": 0o600,
}


@pytest.mark.usefixtures("shared_umask")
def test_others_can_change_nothing_that_jobs_run(lab: Lab) -> None:
    """Whatever the umask: neither code nor pickles, nor put others in their place; nor can they read the token."""
    lab.launch()
    assert CLOSED == modes(lab.run)


def test_what_was_open_is_closed(launched: Lab) -> None:
    """By the next launch, if it was made so by other means; the token is another one."""
    token = launched.run / "cluster" / "secret" / "token"
    first = token.read_text()
    for name in CLOSED:
        (launched.run / name).chmod(0o777)
    Rendezvous(launched.run / "cluster").publish_end(End(1, "failed"))
    launched.launch()
    assert CLOSED == modes(launched.run)
    assert (64, False) == (len(token.read_text()), first == token.read_text())


# -- launched again -------------------------------------------------------------------------------------------


def test_a_launch_that_is_at_work(launched: Lab) -> None:
    """Its jobs are in the queue: nothing is queued."""
    launched.shows(("101", "driver", "RUNNING"), ("104_0", "worker", "PENDING"), ("9", "worker", "FAILED"))
    assert ["already at work (jobs 101, 104_0)"] == launched.launch()
    assert [] == launched.asked()


def test_a_launch_whose_driver_holds_the_run(launched: Lab) -> None:
    """It's the same launch, and not another one."""
    launched.shows(("101", "driver", "RUNNING"))
    with launch_lock(launched.run):
        assert ["already at work (jobs 101)"] == launched.launch()
        with pytest.raises(
            ClusterError, match=r"an earlier launch is at work .*, with another sweep, code or profile"
        ):
            launched.launch(seeds=5)
    assert [] == launched.asked()


def test_a_launch_whose_jobs_are_gone(launched: Lab) -> None:
    """The next one has the next number, and should jobs of the first turn up again they find that it has begun."""
    launched.passes(300)
    assert "queued   drivers 111, 112, 113; workers 114" == launched.launch()[0]
    assert AGAIN == launched.asked()
    assert End(2, "open") == Rendezvous(launched.run / "cluster").end(1)


@pytest.mark.parametrize("ahead_s", [-30.0, 0.0, 30.0, 55.0])
def test_clocks_of_hosts_differ(lab: Lab, ahead_s: float) -> None:
    """A look at the queue from before the launch is not taken for one that shows its end, though the clock of the
    host that looked be a minute ahead."""
    look()
    lab.passes(-ahead_s)
    lab.launch()
    assert QUEUED == lab.asked()
    assert ["already at work (queued 0 s ago, and SLURM was not asked since)"] == lab.launch()
    assert [] == lab.asked()


@pytest.mark.parametrize(("newest", "expected"), [("end", 4), ("head", 5), ("launch", 2)])
def test_launch_json_is_lost(launched: Lab, newest: str, expected: int) -> None:
    """The next launch has a number of its own all the same: jobs that meet an end of theirs leave at once."""
    rendezvous = Rendezvous(launched.run / "cluster")
    if newest == "end":
        rendezvous.publish_end(End(3, "failed"))
    if newest == "head":
        rendezvous.publish_head(HEAD)
    (launched.run / "cluster" / "launch.json").unlink()
    launched.launch()
    submission = launched.submission
    assert submission is not None
    assert expected == submission.launch
    assert None is rendezvous.end(expected)


def test_launch_json_is_lost_while_jobs_are_there(launched: Lab) -> None:
    """They are not queued a second time: the user is told how to stop them."""
    (launched.run / "cluster" / "launch.json").unlink()
    launched.shows(("101", "driver", "PENDING"))
    with pytest.raises(ClusterError) as error:
        launched.launch()
    name = launched.prefix
    assert (
        f"{launched.run}: an earlier launch is at work (jobs 101), and cluster/launch.json, which says on what, is "
        f"lost. Stop it first (scancel --name={name}-driver; scancel --name={name}-worker), then launch: nothing "
        "that is stored is lost." == str(error.value)
    )
    assert [] == launched.asked()


def test_two_launches_at_once(lab: Lab) -> None:
    """While the first is at queueing the second is told so; jobs are queued once, with one token."""
    lab.sbatch(
        f"touch '{lab.folder}/begun'; for i in $(seq 200); do [ -e '{lab.folder}/go' ] || sleep 0.05; done"
    )
    thread = threading.Thread(target=lab.launch)
    thread.start()
    while not (lab.folder / "begun").exists():
        time.sleep(0.02)
    token = (lab.run / "cluster" / "secret" / "token").read_text()
    try:
        with pytest.raises(RunIsHeld, match="another launch is running here"):
            lab.launch()
    finally:
        (lab.folder / "go").touch()
        thread.join()
    assert token == (lab.run / "cluster" / "secret" / "token").read_text()
    assert QUEUED == lab.asked()
    lab.shows(("101", "driver", "PENDING"))
    lab.passes(300)
    assert ["already at work (jobs 101)"] == lab.launch()


@pytest.mark.parametrize("role", ["driver", "worker"])
def test_a_launch_that_was_killed_while_it_queued(lab: Lab, role: str) -> None:
    """The next one does it all, at once; what may be there already is taken away by name, and has an end to
    meet."""
    look()
    lab.launch_and_die(role)
    assert (QUEUED[:3] if role == "worker" else []) == lab.asked()
    (lab.bin / "n").write_text("110")
    assert "queued   drivers 111, 112, 113; workers 114" == lab.launch()[0]
    assert [*CANCELLED, *AGAIN] == lab.asked()
    submission = lab.submission
    assert submission is not None
    assert 2 == submission.launch
    assert End(2, "open") == Rendezvous(lab.run / "cluster").end(1)


def test_a_launch_that_was_killed_when_its_drivers_were_queued(lab: Lab) -> None:
    """Once the queue shows them it is at work: drivers queue the workers that are missing."""
    lab.launch_and_die("worker")
    lab.shows(("101", "driver", "PENDING"))
    assert ["already at work (jobs 101)"] == lab.launch()


# -- cancelled ------------------------------------------------------------------------------------------------


def test_cancel(launched: Lab) -> None:
    """Everything of the run is taken away, and the secret; a second time there is nothing to do."""
    assert [f"{launched.run}: cancelled; launch again to go on"] == list(cancel(launched.run))
    assert CANCELLED == launched.asked()
    assert not (launched.run / "cluster" / "secret").exists()
    assert End(1, "cancelled") == Rendezvous(launched.run / "cluster").end(1)
    assert [f"{launched.run}: was cancelled already"] == list(cancel(launched.run))


def test_cancel_while_the_scheduler_is_away(launched: Lab) -> None:
    """That's an error, but jobs that begin find that the launch is over, and the secret is gone."""
    (launched.bin / "scancels").write_text(
        'echo "scancel: error: Unable to contact slurm controller" >&2; exit 1\n'
    )
    with pytest.raises(ClusterError, match="Unable to contact slurm controller"):
        list(cancel(launched.run))
    assert not (launched.run / "cluster" / "secret").exists()
    assert End(1, "cancelled") == Rendezvous(launched.run / "cluster").end(1)


def test_cancel_of_a_local_run(tmp_path: Path) -> None:
    """There are no jobs to take away."""
    with pytest.raises(StoreError) as error:
        list(cancel(tmp_path))
    assert f"{tmp_path}: was not launched on SLURM (a local launch is stopped with Ctrl-C)" == str(
        error.value
    )
