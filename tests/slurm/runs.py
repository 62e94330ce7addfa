"""Launches on the test SLURM: how they are made, watched and disturbed, and what each of them must end in."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from rows import assert_same
from slurm_cluster import Job, SlurmCluster, wait_for

from cluster.job_record import Record, read_records
from cluster.rendezvous import End, HeadState, Rendezvous
from orchestrator.packs import Attempt, OpenPack
from orchestrator.store import Store
from orchestrator.submission import Submission

HELD = """\
import os
import time
from pathlib import Path


def note(*words):
    with open(os.environ["CALLS"], "a") as file:
        file.write(" ".join(map(str, words)) + "\\n")


def train(config, report):
    call, trial = time.time_ns(), f"{config['x']}-{config['seed']}"
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "none")
    note("begin", call, trial, os.environ.get("NODE", "none"), gpus)
    try:
        report(1, accuracy=config["x"] / 8)
        while config["seed"] % 4 >= 2 and Path(os.environ["HOLD"]).exists():
            time.sleep(0.05)
        while trial == os.environ.get("SLOW") and not Path(os.environ["CALLS"] + ".enough").exists():
            time.sleep(0.05)
        report(2, accuracy=config["x"] / 4, loss=0.1 * config["seed"])
    finally:
        note("end", call)
"""
"""A user's function that writes down its calls. While the file HOLD is there, the first two trials of a pack end
and the third waits; so whatever is done to the pack meanwhile happens in its middle. A trial named by SLOW takes
until somebody has had enough."""

SWEEPS = {
    "held": """\
name: held
trainer: held:train
axes: {x: [1, 2, 3], seed: [0, 1, 2, 3, 4, 5, 6, 7]}
solved: {metric: accuracy, at_least: 0.5}
pack: {size: 4}
""",
    "trained": """\
name: trained
task: {name: composition, n: 4, eval_size: 32}
model: {width: 16, heads: 2, depth: 1}
train: {steps: 3000, batch_size: 16, eval_every: 20}
axes: {k: [2], data_size: [16, 32], seed: 2}
search: {control: false}
solved: {metric: test_accuracy, at_least: 2.0}
pack: {size: 4, slots: 2}
""",
}
PACKS = 6
"""Of the sweep `held`, four trials each."""

PROFILE: dict[str, Any] = {
    "partition": "low",
    "account": "lab",
    "worker": {"max": 2, "cpus": 2, "memory_gb": 1, "time_limit_min": 30},
    "driver": {"memory_gb": 1, "time_limit_min": 30},
    "notice_s": 20,
    "setup": ['export NODE="$SLURMD_NODENAME"'],
}
APART = {
    "worker": {"memory_gb": 4, "sbatch": {"exclude": "n1,n2"}},
    "driver": {"sbatch": {"exclude": "n3,n4"}},
}
"""Changes of the profile: n3 and n4 have one worker each, the driver is elsewhere."""


@dataclass(frozen=True)
class Call:
    """One call of the function `held.train`."""

    trial: str
    node: str
    gpus: str
    began: int
    """Nanoseconds since 1970."""
    has_ended: bool


@dataclass(frozen=True)
class Lab:
    """What a user has: a folder with sweeps, a shell on the login node. `mark`: in the environment of all that is
    started from here."""

    slurm: SlurmCluster
    folder: Path
    scratch: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    @classmethod
    @contextlib.contextmanager
    def opened(cls, slurm: SlurmCluster, folder: Path) -> Iterator[Lab]:
        """Afterwards no process is left, whatever a test has done to those that should have seen to it."""
        for name, text in SWEEPS.items():
            (folder / f"{name}.yaml").write_text(text)
        (folder / "held.py").write_text(HELD)
        lab = cls(slurm, folder, Path(tempfile.mkdtemp(prefix="lab-", dir="/tmp")))
        try:
            yield lab
        finally:
            slurm.restore()
            wait_for(lambda: not kill(lab.processes()), 10, "the processes of a test to end")
            shutil.rmtree(lab.scratch)

    def profile(self, name: str = "site", **changes: Any) -> Path:
        """A profile of the cluster; mappings change what they name, everything else replaces it."""
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(merged({**PROFILE, "scratch": str(self.scratch)}, changes)))
        return path

    def environment(self, run: Path) -> dict[str, str]:
        own = {"XDG_CACHE_HOME": str(self.folder / "cache"), "MARK": self.mark}
        return {**os.environ, **self.slurm.env(), **own, "CALLS": f"{run}.calls", "HOLD": f"{run}.hold"}

    def type(self, *words: str | Path, run: Path, **variables: str) -> tuple[int, str, str]:
        """Exit code, output and complaints of an orchestrator command."""
        done = subprocess.run(
            command(*words),
            cwd=self.folder,
            env=self.environment(run) | variables,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def processes(self) -> list[psutil.Process]:
        return self.slurm.processes(MARK=self.mark)


@dataclass(frozen=True)
class Launched:
    """A run of a sweep on the cluster, from before its launch to after its end."""

    lab: Lab
    run: Path
    profile: Path
    sweep: str = "held"

    def launch(self, **variables: str) -> None:
        """A launch that must be accepted."""
        code, output, complaints = self.again(**variables)
        assert (0, "") == (code, complaints), output
        assert output.endswith("You may log out now.\n"), output

    def again(self, *more: str, **variables: str) -> tuple[int, str, str]:
        """Type the launch (again): exit code, output, complaints."""
        where = ("--run-dir", self.run, "--cluster", self.profile)
        return self.lab.type("launch", f"{self.sweep}.yaml", *where, *more, run=self.run, **variables)

    def say(self, verb: str, *more: str) -> str:
        """What an orchestrator command prints about the run."""
        code, output, complaints = self.lab.type(verb, self.run, *more, run=self.run)
        assert (0, "") == (code, complaints), output
        return output

    # -- what is seen of it ------------------------------------------------------------------------------------

    @property
    def submission(self) -> Submission:
        submission = Submission.load(self.run)
        assert submission is not None
        return submission

    def jobs(self, role: str, state: str | None = None) -> list[Job]:
        """In the queue, in whichever state unless one is named."""
        name = {"driver": self.submission.driver_name, "worker": self.submission.worker_name}[role]
        return [j for j in self.lab.slurm.queue() if j.name == name and state in (None, j.state)]

    def head(self) -> HeadState | None:
        """The driver in charge, if there is one."""
        head = Rendezvous(self.run / "cluster").head()
        return head if head is not None and head.address is not None else None

    def records(self, role: str) -> list[Record]:
        """What jobs said of themselves last, oldest job first."""
        return [r for r in read_records(self.run / "cluster" / "jobs") if r.role == role]

    def stored(self) -> int:
        return len(Store(self.run).statuses())

    def attempts(self) -> list[Attempt]:
        """Of all packs that are open."""
        ids = (path.stem for path in (self.run / "packs").glob("*.json") if path.name.count(".") == 1)
        return [attempt for pack_id in ids for attempt in OpenPack(Store(self.run), pack_id).attempts()]

    def calls(self) -> list[Call]:
        """Of the user's function, in order."""
        path = Path(f"{self.run}.calls")
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        ended = {int(words[1]) for words in lines if words[0] == "end"}
        begun = (words[1:] for words in lines if words[0] == "begin")
        return [Call(trial, node, gpus, int(n), int(n) in ended) for n, trial, node, gpus in begun]

    def unfinished(self, node: str | None = None, since: int = 0) -> list[str]:
        """Trials whose last call has not ended; only of calls on this node, and begun after this time."""
        last = {call.trial: call for call in self.calls() if call.began > since}
        return sorted(c.trial for c in last.values() if not c.has_ended and node in (None, c.node))

    def called_again(self) -> Counter[str]:
        """Trials that were called more than once, and how often more."""
        return Counter(call.trial for call in self.calls()) - Counter({call.trial for call in self.calls()})

    # -- what is done to it ------------------------------------------------------------------------------------

    def hold(self) -> None:
        Path(f"{self.run}.hold").touch()

    def release(self) -> None:
        Path(f"{self.run}.hold").unlink()

    def release_slow(self) -> None:
        Path(f"{self.run}.calls.enough").touch()

    def wait_for(self, condition: Callable[[], object], what: str, seconds: float = 240) -> None:
        try:
            wait_for(lambda: bool(condition()), seconds, what)
        except TimeoutError as error:
            queue = "\n".join(map(str, self.lab.slurm.queue()))
            pytest.fail(f"{error}\n{queue}\n{self.say('status')}\n{self.say('logs', '-n', '30')}")

    def wait_until_held(self, packs: int, since: int = 0) -> None:
        """Until so many packs are in their middle: two trials stored, the third (called after this time) waiting
        for `release`."""

        def are_held() -> bool:
            waiting = [trial for trial in self.unfinished(since=since) if int(trial[-1]) % 4 == 2]
            return len(waiting) == packs and self.stored() >= 2 * packs

        self.wait_for(are_held, f"{packs} packs in their middle")

    def wait_for_end(self, seconds: float = 300) -> None:
        """Until the newest launch is over, which must have finished."""
        rendezvous, launch = Rendezvous(self.run / "cluster"), self.submission.launch
        self.wait_for(lambda: rendezvous.end(launch), "the end", seconds)
        assert End(launch, "finished") == rendezvous.end(launch)

    def end(self, undisturbed: Path, seconds: float = 300) -> None:
        """Wait for the end, which must be a good one: the rows of an undisturbed run, figures, and no job, no
        process and no secret left."""
        self.wait_for_end(seconds)
        self.wait_for(lambda: not self.jobs("driver") and not self.jobs("worker"), "the queue to empty", 30)
        self.wait_for(lambda: not self.lab.processes(), "processes to end", 15)
        assert not (self.run / "cluster" / "secret").exists()
        figures = sorted(path.name for path in (self.run / "figures").iterdir())
        assert ["phase_diagram.html", "phase_diagram.pdf", "phase_diagram.png"] == figures
        assert_same(undisturbed, self.run)


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "orchestrator.cli", *map(str, words)]


def undisturbed_run(folder: Path, sweep: str) -> Path:
    """A sweep run by one process, without SLURM and Ray."""
    (folder / f"{sweep}.yaml").write_text(SWEEPS[sweep])
    (folder / "held.py").write_text(HELD)
    run = folder / "run"
    words = command("launch", "-q", f"{sweep}.yaml", "--run-dir", run, "--cluster", "inline")
    environment = os.environ | {"CALLS": f"{run}.calls", "HOLD": f"{run}.hold"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return run


def preempt(slurm: SlurmCluster, node: str) -> str:
    """A job of a higher priority that wants the whole node and holds it; returns its id."""
    where = ("--partition=high", "--exclusive", f"--nodelist={node}", "--output=/dev/null", "--time=30")
    return slurm.run("sbatch", "--parsable", *where, "--wrap", "exec sleep 600").strip()


def kill_node(slurm: SlurmCluster, node: str) -> None:
    """As if its power went: also what no longer says in its environment that it runs there."""
    trees = [child for process in slurm.processes_on(node) for child in descendants(process)]
    slurm.kill_node(node)
    wait_for(
        lambda: not kill([p for p in trees if p.is_running() and not is_zombie(p)]), 10, "the node to be dead"
    )


def descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def kill(processes: list[psutil.Process]) -> list[psutil.Process]:
    """SIGKILL them; returns them."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    return processes


def is_zombie(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return True


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    both = {
        key: merged(base.get(key, {}), value) for key, value in changes.items() if isinstance(value, dict)
    }
    return {**base, **changes, **both}


def without_numbers(text: str, *, only_times: bool = False) -> str:
    """Times as TIME; seconds and job ids as N."""
    text = re.sub(r"\d{4}-\d\d-\d\d[T ][\d:+.]+", "TIME", text)
    return text if only_times else re.sub(r"(?<=job )\d+|\d+(?= s ago)", "N", text)
