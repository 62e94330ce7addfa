"""One sweep on a real SLURM of four nodes under random faults: is every trial there once, with the right rows?

    python tests/benchmarks/chaos.py [--minutes 10] [--every 16] [--trials 600] [--seed 0] [--keep FOLDER]

Kills (SIGKILL) drivers, workers, packs' processes, parts of Ray and whole nodes with their slurmd; cancels
drivers and workers; preempts nodes. Only what hits something of the run is counted. Then lets the sweep finish,
runs it again undisturbed in one process, and compares the rows bit for bit; exit code 1 if they differ. Needs
Debian's slurm-wlm, slurmdbd, munge and mariadb-server, and root.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import psutil

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE.parent / "slurm"), str(HERE.parent / "crash")]

from rows import stored  # noqa: E402
from slurm_cluster import Job, SlurmCluster, wait_for  # noqa: E402

from cluster.rendezvous import Rendezvous  # noqa: E402
from orchestrator.store import Store  # noqa: E402
from orchestrator.submission import Submission  # noqa: E402
from orchestrator.sweep import load_sweep  # noqa: E402

SWEEP = """\
name: chaos
task: {{name: composition, n: 4, eval_size: 32}}
model: {{width: 16, heads: 2, depth: 1}}
train: {{steps: {steps}, batch_size: 16, eval_every: 20}}
axes: {{k: [1, 2], data_size: [16, 32, 48], seed: {seeds}}}
search: {{control: false}}
solved: {{metric: test_accuracy, at_least: 2.0}}
pack: {{size: 8, slots: 4}}
"""
PROFILE = """\
partition: low
worker: {cpus: 1, memory_gb: 1, time_limit_min: 60, max: 4}
driver: {cpus: 1, memory_gb: 1, time_limit_min: 60}
"""
PATIENCE_S = 1800.0
"""To finish, once the faults are over."""


@dataclass
class Chaos:
    """Faults for one run, at random."""

    slurm: SlurmCluster
    run: Path
    random: random.Random
    injected: Counter[str] = field(default_factory=Counter)

    @property
    def faults(self) -> dict[str, Callable[[], bool]]:
        """By name; each says whether there was anything to hit."""
        return {
            "kill -9 driver": lambda: self._kill(self._process_of(self._driver_job())),
            "kill -9 worker": lambda: self._kill(self._process_of(self._worker_job())),
            "kill -9 pack": lambda: self._kill(self._one_of(r"^ray::(_Inner|PackTrainable)")),
            "kill -9 raylet": lambda: self._kill(self._one_of(r"raylet/raylet")),
            "kill -9 gcs_server": lambda: self._kill(self._one_of(r"gcs_server")),
            "kill -9 slurmd and its node": self._kill_node,
            "scancel driver": lambda: self._cancel(self._driver_job()),
            "scancel worker": lambda: self._cancel(self._worker_job()),
            "preemption of a node": self._preempt,
        }

    def inject_one(self) -> None:
        name = self.random.choice(list(self.faults))
        if self.faults[name]():
            self.injected[name] += 1
            print(f"  {time.strftime('%X')} {name}; {n_stored(self.run)} trials stored", flush=True)

    def _jobs(self, role: str) -> list[Job]:
        submission = Submission.load(self.run)
        assert submission is not None
        name = submission.driver_name if role == "driver" else submission.worker_name
        return [job for job in self.slurm.queue() if job.name == name and job.state == "RUNNING"]

    def _driver_job(self) -> Job | None:
        return next(iter(self._jobs("driver")), None)

    def _worker_job(self) -> Job | None:
        workers = self._jobs("worker")
        return self.random.choice(workers) if workers else None

    def _node_in_use(self) -> str | None:
        nodes = sorted({job.node for role in ("driver", "worker") for job in self._jobs(role) if job.node})
        return self.random.choice(nodes) if nodes else None

    def _process_of(self, job: Job | None) -> psutil.Process | None:
        """The job's own, which looks after the others."""
        processes = self.slurm.processes_of(job.job_id) if job else []
        return next((p for p in processes if "submitit.core._submit" in command_line(p)), None)

    def _one_of(self, pattern: str) -> psutil.Process | None:
        """A process of any of the run's Rays."""
        token = str(self.run / "cluster" / "secret" / "token")
        ours = self.slurm.processes(RAY_AUTH_TOKEN_PATH=token)
        found = [process for process in ours if re.search(pattern, command_line(process))]
        return self.random.choice(found) if found else None

    def _kill(self, process: psutil.Process | None) -> bool:
        if process is None:
            return False
        try:
            process.kill()
        except psutil.NoSuchProcess:
            return False
        return True

    def _kill_node(self) -> bool:
        node = self._node_in_use()
        if node is None:
            return False
        self.slurm.kill_node(node)
        time.sleep(self.random.uniform(1, 15))  # shorter and longer than slurmctld takes to notice
        self.slurm.revive_node(node)
        return True

    def _cancel(self, job: Job | None) -> bool:
        if job is None:
            return False
        self.slurm.run("scancel", job.job_id)
        return True

    def _preempt(self) -> bool:
        node = self._node_in_use()
        if node is None:
            return False
        options = ("--partition=high", f"--nodelist={node}", "--exclusive", "--output=/dev/null")
        self.slurm.run("sbatch", *options, f"--wrap=sleep {self.random.randrange(1, 15)}")
        return True


def command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def n_stored(run: Path) -> int:
    return len(Store(run).statuses())


def orchestrator(*arguments: str | Path, environ: dict[str, str] | None = None) -> None:
    command = [sys.executable, "-m", "orchestrator.cli", *map(str, arguments)]
    subprocess.run(command, check=True, env=os.environ | (environ or {}))


def disturbed(slurm: SlurmCluster, folder: Path, minutes: float, every_s: float, seed: int) -> Counter[str]:
    """Launch, hurt for so many minutes (or until it is finished), wait until it is finished."""
    run = folder / "run"
    environ = slurm.env() | {"XDG_CACHE_HOME": str(folder / "cache")}
    (folder / "profile.yaml").write_text(PROFILE)
    profile = ("--cluster", folder / "profile.yaml", "--run-dir", run)
    orchestrator("launch", folder / "sweep.yaml", *profile, environ=environ)
    chaos = Chaos(slurm, run, random.Random(seed))
    began = time.monotonic()
    while time.monotonic() - began < 60 * minutes and not is_over(run):
        time.sleep(every_s * chaos.random.uniform(0.5, 1.5))
        chaos.inject_one()
    early = "the sweep is finished" if is_over(run) else "no more faults"
    print(f"  {time.strftime('%X')} {early}; {n_stored(run)} trials stored", flush=True)
    wait_for(lambda: is_over(run), PATIENCE_S, "the end of the run")
    print(f"finished after {(time.monotonic() - began) / 60:.1f} min", flush=True)
    wait_for(lambda: not slurm.queue(), 60, "an empty queue")
    return chaos.injected


def is_over(run: Path) -> bool:
    return Rendezvous(run / "cluster").end(1) is not None


def compare(expected: Path, got: Path) -> dict[str, int]:
    """Wanted, stored, duplicated and differing trials."""
    wanted = {trial.trial_id for trial in load_sweep(expected.parent / "sweep.yaml").plan().trials}
    (trials_a, curves_a), (trials_b, curves_b) = stored(expected), stored(got)
    found = trials_b["trial_id"]
    differing = {
        trial_id
        for trial_id in wanted & set(found)
        if not same(trials_a, trials_b, trial_id) or not same(curves_a, curves_b, trial_id)
    }
    return {
        "wanted": len(wanted),
        "stored": len(wanted & set(found)),
        "duplicated": found.len() - found.n_unique(),
        "differing": len(differing),
    }


def same(a: pl.DataFrame, b: pl.DataFrame, trial_id: str) -> bool:
    one, other = (frame.filter(pl.col("trial_id") == trial_id).unique() for frame in (a, b))
    return one.sort(one.columns).equals(other.sort(other.columns))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--every", type=float, default=16.0, help="seconds between two faults, on average")
    parser.add_argument("--trials", type=int, default=600)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="work here, and leave everything there")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.mkdir(exist_ok=True)
    (folder / "sweep.yaml").write_text(SWEEP.format(steps=options.steps, seeds=options.trials // 6))
    with SlurmCluster.running() as slurm:
        injected = disturbed(slurm, folder, options.minutes, options.every, options.seed)
    orchestrator(
        "launch", folder / "sweep.yaml", "-q", "--cluster", "inline", "--run-dir", folder / "undisturbed"
    )
    print("\nfaults injected")
    print("\n".join(f"{n:>6}  {name}" for name, n in injected.most_common()))
    print("\ntrials")
    found = compare(folder / "undisturbed", folder / "run")
    print("\n".join(f"{n:>6}  {name}" for name, n in found.items()))
    if not options.keep:
        shutil.rmtree(folder)
    if found["duplicated"] or found["differing"] or found["stored"] < found["wanted"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
