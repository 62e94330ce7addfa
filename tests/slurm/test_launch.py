"""Sweeps on a real SLURM where nothing goes wrong but what users do."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from runs import HELD, Lab, Launched, command, without_numbers
from slurm_cluster import wait_for

from cluster.rendezvous import Rendezvous
from orchestrator.run import Run

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(900)]

HOSTILE = """it's "$(touch x)" `touch y`; ünï #1/a  run"""
STRANGER = """\
import sys
import ray
ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
print("connected")
"""


@pytest.fixture(scope="class")
def at_work(shared_lab: Lab) -> Launched:
    """A run whose every worker is in the middle of its packs. Its shell was killed as soon as the launch had
    returned, and then its function was edited."""
    launched = Launched(shared_lab, shared_lab.folder / HOSTILE, shared_lab.profile())
    launched.run.parent.mkdir()
    launched.hold()
    launch_and_kill_the_shell(launched)
    (shared_lab.folder / "held.py").write_text("raise SystemExit('edited')\n")
    launched.wait_until_held(4)
    (shared_lab.folder / "held.py").write_text(HELD)
    return launched


@pytest.fixture(scope="class")
def finished(at_work: Launched, held_run: Path) -> Launched:
    """The same, after its end."""
    at_work.release()
    at_work.end(held_run)
    return at_work


def launch_and_kill_the_shell(launched: Launched) -> None:
    """As if the connection to the login node broke right after the launch."""
    where = ("--run-dir", launched.run, "--cluster", launched.profile)
    shell = subprocess.Popen(
        ["sh", "-c", '"$@"; echo "exit code $?"; sleep 600', "sh", *command("launch", "held.yaml", *where)],
        cwd=launched.lab.folder,
        env=launched.lab.environment(launched.run),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert shell.stdout is not None
    with shell.stdout:
        lines = list(iter(shell.stdout.readline, "exit code 0\n"))
        os.killpg(shell.pid, signal.SIGHUP)
        os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
    assert re.fullmatch(r"queued   drivers \d+, \d+, \d+; workers \d+\n", lines[-2])
    assert "         (2 at once). You may log out now.\n" == lines[-1]


class TestAtWork:
    """One run, from its launch to its end and beyond; the tests share it, in this order."""

    def test_it_goes_on_without_the_shell(self, at_work: Launched) -> None:
        """Launch has returned while the sweep has not ended, and nothing on the login node is left of it."""
        assert None is Rendezvous(at_work.run / "cluster").end(1)
        assert [] == [p for p in at_work.lab.processes() if "orchestrator.cli" in p.cmdline()]
        assert 1 == len(at_work.jobs("driver", "RUNNING"))
        assert 2 == len(at_work.jobs("worker", "RUNNING"))

    def test_the_same_launch_again_queues_nothing(self, at_work: Launched) -> None:
        """Whoever launches twice is told that it is at work."""
        before = at_work.lab.slurm.queue()
        code, output, complaints = at_work.again()
        assert (0, "") == (code, complaints)
        assert re.fullmatch(r"already at work \(jobs [\d_, .]+\)", output.splitlines()[-1])
        assert before == at_work.lab.slurm.queue()

    def test_another_sweep_is_refused_meanwhile(self, at_work: Launched) -> None:
        """A launch that would do something else says what to do first, and changes nothing."""
        before = at_work.lab.slurm.queue()
        code, _, complaints = at_work.again("--set", "axes.seed=[0, 1]")
        assert 2 == code
        assert re.fullmatch(
            re.escape(f"error: {at_work.run}: an earlier launch is at work (jobs ")
            + r"[\d_, .]+\), "
            + re.escape(
                "with another sweep, code or profile. "
                f"Stop it first (orchestrator cancel {at_work.run}), then launch: nothing that is stored is lost.\n"
            ),
            complaints,
        )
        assert before == at_work.lab.slurm.queue()

    def test_status_says_what_is_going_on(self, at_work: Launched) -> None:
        """Trials, packs, the driver, the workers, and how old what is known of the queue is."""
        expected = f"""\
run      {at_work.run}
wanted   24 trials
stored   8 (4 solved, 4 unsolved)
to run   16
open     5 packs; a launch is at work
launch   number 1 on site, TIME UTC
driver   job N on {socket.gethostname()}: 5 packs running, 1 waiting; last heard of N s ago
workers  2 joined
queue    as of N s ago
         drivers: 3 pending (Dependency), 1 running
         workers: 2 running
"""
        assert expected == without_numbers(at_work.say("status"))

    def test_logs_are_those_of_its_jobs(self, at_work: Launched) -> None:
        """Every job with what it does and where; none of them has failed."""
        titles = [line for line in at_work.say("logs").splitlines() if not line.startswith(" ")]
        (driver,), workers = at_work.jobs("driver", "RUNNING"), at_work.jobs("worker", "RUNNING")
        expected = [f"driver {driver.job_id} on {driver.node}: driving, TIME"]
        expected += sorted(f"worker {job.job_id} on {job.node}: joined, TIME" for job in workers)
        assert expected == [without_numbers(line, only_times=True) for line in titles]
        assert "" == at_work.say("logs", "--failed")

    def test_strangers_are_refused(self, at_work: Launched) -> None:
        """Whoever lacks the run's token can't reach its Ray, and the run doesn't mind."""
        head = at_work.head()
        assert head is not None and head.address is not None
        token = at_work.run / "cluster" / "secret" / "token"
        assert (0o700, 0o600) == (token.parent.stat().st_mode & 0o777, token.stat().st_mode & 0o777)
        other = at_work.lab.folder / "token"
        other.write_text("0" * 64)
        with_other = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(other)}
        own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        strangers = [stranger(head.address, variables) for variables in (with_other, {}, own)]
        outputs = [process.communicate(timeout=120)[0] for process in strangers]
        assert [False, False, True] == ["connected" in output for output in outputs], outputs
        assert [False, False, True] == [process.returncode == 0 for process in strangers]
        assert head == replace(at_work.head(), changed_at=head.changed_at)

    def test_it_ends_well(self, finished: Launched) -> None:
        """The rows of an undisturbed run, each trial called once, from the code as it was launched."""
        assert 24 == len(finished.calls())
        assert Counter() == finished.called_again()
        expected = "24 of 24 wanted trials are stored\neverything is there exactly once\n"
        assert expected == finished.say("verify")

    def test_hostile_names_are_only_names(self, finished: Launched) -> None:
        """Nothing in the run directory's path was taken for a command."""
        folders = (finished.lab.folder, finished.run, finished.run / "cluster" / "jobs", Path.home())
        assert [] == [path for folder in folders for path in (folder / "x", folder / "y") if path.exists()]

    def test_the_jobs_leave_nothing_on_their_nodes(self, finished: Launched) -> None:
        """Their folders on the node's disk are gone with them."""
        assert [] == list(finished.lab.scratch.iterdir())

    def test_status_and_logs_afterwards(self, finished: Launched) -> None:
        """That it is finished, and that nothing went wrong."""
        lines = without_numbers(finished.say("status")).splitlines()
        expected = ["to run   0", "open     0 packs", "launch   number 1 on site, TIME UTC; finished"]
        assert expected == lines[3:]
        titles = [line for line in finished.say("logs").splitlines() if not line.startswith(" ")]
        assert 3 == len(titles)
        assert {"left (the run is finished), TIME"} == {
            without_numbers(line, only_times=True).partition(": ")[2] for line in titles
        }
        assert "" == finished.say("logs", "--failed")

    def test_a_finished_sweep_queues_nothing(self, finished: Launched) -> None:
        """Launched again it says that everything is there."""
        code, output, complaints = finished.again()
        assert (0, "") == (code, complaints)
        assert "everything is stored: nothing to queue" == output.splitlines()[-1]
        assert [] == finished.lab.slurm.queue()

    def test_an_extended_axis_runs_only_what_is_new(self, finished: Launched) -> None:
        """Two more trials on the axis are two more calls, under the launch number 2."""
        code, output, complaints = finished.again("--set", "axes.x=[1, 2, 3, 4]", "--set", "axes.seed=[0, 1]")
        assert (0, "") == (code, complaints), output
        finished.wait_for_end()
        assert 2 == finished.submission.launch
        assert ["4-0", "4-1"] == sorted(call.trial for call in finished.calls()[24:])
        verdict = Run(finished.run).verify()
        assert (8, True) == (verdict.wanted, verdict.is_whole)


def stranger(address: str, variables: dict[str, str]) -> subprocess.Popen[str]:
    """A process of somebody who has found the address."""
    return subprocess.Popen(
        [sys.executable, "-c", STRANGER, address],
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_percent_sign_is_refused(lab: Lab) -> None:
    """SLURM could not write logs there; nothing is queued."""
    run = lab.folder / "100%"
    words = ("launch", "held.yaml", "--run-dir", run, "--cluster", lab.profile())
    code, _, complaints = lab.type(*words, run=run)
    message = f"error: {str(run)!r} has % in it, which SLURM can't write logs to: choose another\n"
    assert (2, message) == (code, complaints)
    assert [] == lab.slurm.queue()


def test_what_the_scheduler_refuses_is_quoted(lab: Lab, held_run: Path) -> None:
    """A partition that does not exist, an account that is refused: SLURM's own words, nothing queued, no secret
    left; and a later launch with a good profile works."""
    words = {
        "partition": "invalid partition specified: nope; Invalid partition name specified",
        "account": "Invalid account or account/partition combination specified",
    }
    run = lab.folder / "run"
    for key, why in words.items():
        # The driver's jobs are accepted first, and must be taken away again.
        for changes in ({key: "nope"}, {"worker": {key: "nope"}}):
            bad = lab.profile("bad", **changes)
            code, _, complaints = lab.type("launch", "held.yaml", "--run-dir", run, "--cluster", bad, run=run)
            kind = "worker" if "worker" in changes else "driver"
            assert 2 == code
            assert re.fullmatch(
                rf"error: SLURM refused held-[0-9a-f]{{8}}-{kind}: {re.escape(why)}\n", complaints
            )
            # A driver may have begun before it was taken away.
            wait_for(lambda: not lab.slurm.queue(), 30, "the queue to be empty")
            assert not (run / "cluster" / "secret").exists()
    launched = Launched(lab, run, lab.profile())
    launched.launch()
    launched.end(held_run)


def test_cancelled_and_launched_again(lab: Lab, held_run: Path) -> None:
    """`cancel` takes all jobs and processes away; the next launch goes on with what was running."""
    launched = Launched(lab, lab.folder / "run", lab.profile())
    launched.hold()
    launched.launch()
    launched.wait_until_held(4)
    running = launched.unfinished()
    assert f"{launched.run}: cancelled; launch again to go on\n" == launched.say("cancel")
    launched.wait_for(lambda: not lab.slurm.queue(), "the queue to empty", 40)
    launched.wait_for(lambda: not lab.processes(), "processes to end", 15)
    assert not (launched.run / "cluster" / "secret").exists()
    assert "; cancelled" in launched.say("status")
    assert f"{launched.run}: was cancelled already\n" == launched.say("cancel")

    launched.release()
    launched.launch()
    launched.end(held_run)
    assert 2 == launched.submission.launch
    assert Counter(running) == launched.called_again()


def test_more_workers_than_an_array_holds(lab: Lab, held_run: Path) -> None:
    """Six workers where MaxArraySize is 4 come in several arrays; those for which no pack is left give their
    nodes back while the last one still trains."""
    profile = lab.profile(worker={"max": 6, "cpus": 1})
    launched = Launched(lab, lab.folder / "run", profile)
    launched.launch(SLOW="3-7")
    assert 6 == launched.submission.n_workers
    assert 2 == len(launched.submission.workers)
    launched.wait_for(lambda: len(launched.jobs("worker", "RUNNING")) == 6, "six workers")
    launched.wait_for(lambda: launched.stored() == 23, "all trials but one")
    launched.wait_for(lambda: len(launched.jobs("worker")) == 1, "idle workers to leave", 180)
    assert 23 == launched.stored()
    reasons = Counter(record.reason for record in launched.records("worker"))
    assert Counter({"nothing was left for it to do": 5, None: 1}) == reasons
    launched.release_slow()
    launched.end(held_run)
    assert Counter() == launched.called_again()


def test_two_sweeps_at_once(lab: Lab, held_run: Path) -> None:
    """Two runs of one sweep by one user, on one node: each gets its own jobs, Ray and GPU, and both end well."""
    profile = lab.profile(
        partition="low",
        worker={"max": 1, "cpus": 1, "gpus": 1, "sbatch": {"nodelist": "n1"}},
        driver={"sbatch": {"nodelist": "n1"}},
    )
    runs = [Launched(lab, lab.folder / name, profile) for name in ("one", "two")]
    for launched in runs:
        launched.hold()
        launched.launch()
    for launched in runs:
        launched.wait_until_held(1)
    assert {"0", "1"} == {call.gpus for launched in runs for call in launched.calls()}
    assert {"n1"} == {call.node for launched in runs for call in launched.calls()}
    for launched in runs:
        launched.release()
    for launched in runs:
        launched.wait_for_end()
    for launched in runs:
        launched.end(held_run)
        assert Counter() == launched.called_again()


def test_each_pack_gets_a_gpu_of_its_own(lab: Lab, held_run: Path) -> None:
    """Two GPUs on each of two workers: a pack sees exactly one, and no two share one."""
    profile = lab.profile(worker={"cpus": 2, "gpus": 2})
    launched = Launched(lab, lab.folder / "run", profile)
    launched.hold()
    launched.launch()
    launched.wait_until_held(4)
    held = [(call.node, call.gpus) for call in launched.calls() if not call.has_ended]
    nodes = sorted(job.node for job in launched.jobs("worker") if job.node)
    assert 2 == len(set(nodes))
    assert sorted((node, gpu) for node in nodes for gpu in ("0", "1")) == sorted(held)
    launched.release()
    launched.end(held_run)
    assert {"0", "1"} == {call.gpus for call in launched.calls()}
