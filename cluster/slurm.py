"""Jobs on SLURM. The only file that imports submitit.

submitit writes the sbatch text, pickles what a job calls and loads it there. Its Job objects are not kept:
they would ask sacct, and ask again.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import ceil

from cluster.errors import ClusterError
from cluster.order import Order
from cluster.queue import QueueView
from cluster.sbatch import clean_environment, driver_options, scheduler_words, worker_options

DEFAULT_MAX_ARRAY_SIZE = 1001
_SUBMIT_LIMIT = re.compile(r"MaxSubmitJob|MaxSubmitPA|MaxJobs|job submit limit", re.IGNORECASE)


@dataclass(frozen=True)
class Array:
    """A job array: how many tasks it has, and how many of them run at once."""

    tasks: int
    at_once: int


@dataclass(frozen=True)
class Queued:
    """What SLURM has accepted."""

    job_id: str
    array: Array


class Slurm:
    """The jobs of one launch: queues more, counts them, takes them away. Raises ClusterError."""

    def __init__(self, order: Order) -> None:
        self.order = order

    def submit_drivers(self, n: int) -> list[Queued]:
        """Queue n more driver jobs, of which one runs at a time (`singleton`); fewer, but at least one, where the
        site limits how many jobs one may queue."""
        from cluster.node import run_driver

        options = {**driver_options(self.order.profile), "dependency": "singleton"}
        queued: list[Queued] = []
        for _ in range(n):
            try:
                queued.append(self._submit(self.order.driver_name, options, run_driver, Array(1, 1)))
            except ClusterError as error:
                if not queued or not _SUBMIT_LIMIT.search(str(error)):
                    raise
                break
        return queued

    def submit_workers(self, n: int, rounds: int = 1, after: str | None = None) -> list[Queued]:
        """Queue workers, n of which run at once; fewer where the site limits how many jobs one may queue.
        `after`: they wait until this job has begun."""
        from cluster.node import run_worker

        options = dict(worker_options(self.order.profile))
        if after is not None:
            options["dependency"] = f"after:{after}"
        queued: list[Queued] = []
        for array in arrays(n, rounds, self.max_array_size):
            try:
                queued.append(self._submit_most(options, run_worker, array))
            except ClusterError as error:
                if not queued or not _SUBMIT_LIMIT.search(str(error)):
                    raise
                break
            if queued[-1].array.tasks < array.tasks:
                break
        return queued

    def cancel_pending(self) -> None:
        """Take away the jobs of the run that haven't begun."""
        cancel_pending(self.order.driver_name, self.order.worker_name)

    def drivers(self, view: QueueView) -> int:
        """Driver jobs that are queued or running."""
        return sum(job.is_alive for job in view.named(self.order.driver_name))

    def workers(self, view: QueueView) -> int:
        """Worker jobs that are queued or running, but for those that SLURM itself holds."""
        return sum(job.is_alive and not job.is_stuck for job in view.named(self.order.worker_name))

    @cached_property
    def max_array_size(self) -> int:
        """Array indices of this site end before it."""
        config = scheduler("scontrol", "show", "config")
        limits = (r"^MaxArraySize\s*=\s*(\d+)", r"^SchedulerParameters\s*=.*\bmax_array_tasks=(\d+)")
        found = [int(match[1]) for limit in limits if (match := re.search(limit, config, re.MULTILINE))]
        return max(1, min(found, default=DEFAULT_MAX_ARRAY_SIZE))  # 0: this site has no arrays

    def _submit_most(self, options: Mapping[str, object], job: Callable[..., None], array: Array) -> Queued:
        """As much of an array as the site's submit limits allow."""
        while True:
            try:
                return self._submit(self.order.worker_name, options, job, array)
            except ClusterError as error:
                if array.tasks == 1 or not _SUBMIT_LIMIT.search(str(error)):
                    raise
                array = Array(array.tasks // 2, min(array.at_once, array.tasks // 2))

    def _submit(
        self, name: str, options: Mapping[str, object], job: Callable[..., None], array: Array
    ) -> Queued:
        """Queue a job, or an array of them."""
        from submitit import SlurmExecutor

        profile, folder = self.order.profile, self.order.jobs
        _require("sbatch", "srun")
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _submission_environment(), _quiet():
                # -P: `-m` would put the folder where the launch was typed before the code of the snapshot.
                python = f"{shlex.quote(profile.python or sys.executable)} -P"
                executor = SlurmExecutor(folder=folder, python=python)
                executor.update_parameters(
                    job_name=name,
                    setup=self._setup(),
                    signal_delay_s=profile.notice_s,
                    array_parallelism=array.at_once,
                    wckey=None,  # submitit's own is refused where sites check them
                    additional_parameters=dict(options),
                )
                jobs = executor.map_array(job, [self.order] * array.tasks)
        except (
            RuntimeError
        ) as error:  # submitit's errors are, whether sbatch refuses or answers in other words
            raise ClusterError(f"SLURM refused {name}: {scheduler_words(str(error))}") from error
        except OSError as error:  # of the job's files, or no process can be started
            raise ClusterError(f"{name} could not be queued: {error}") from error
        return Queued(str(jobs[0].job_id).split("_")[0], array)

    def _setup(self) -> list[str]:
        code = shlex.quote(self.order.python_path)
        return [
            *self.order.profile.setup,
            # Since SLURM 22.05 srun gives its task one CPU of the job's, unless it is told this.
            'export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"',
            # Where a site's plugin has jobs begin with a bare environment, srun would drop the next line again.
            "export SLURM_EXPORT_ENV=ALL",
            f'export PYTHONPATH={code}"${{PYTHONPATH:+:$PYTHONPATH}}"',
        ]


def arrays(workers: int, rounds: int, max_array_size: int) -> list[Array]:
    """Arrays whose tasks run `workers` at once and come `rounds` times over, none larger than the site allows
    (fewer rounds, if not even the tasks that follow each other fit into one).
    """
    tasks_each = min(rounds, max_array_size)
    per_array = max(1, max_array_size // tasks_each)
    n_arrays = ceil(workers / per_array)
    shares = [workers // n_arrays + (i < workers % n_arrays) for i in range(n_arrays)]
    return [Array(share * tasks_each, share) for share in shares]


def cancel_pending(*names: str) -> None:
    """Take away this user's jobs of these names that haven't begun."""
    for name in names:
        scheduler("scancel", f"--user={os.getuid()}", f"--name={name}", "--state=PENDING")


def cancel(*names: str) -> None:
    """Take away this user's jobs of these names: those that wait first, or they would begin in place of the
    others. By name, so also what was queued by jobs that could not say so any more."""
    cancel_pending(*names)
    for name in names:
        scheduler("scancel", f"--user={os.getuid()}", f"--name={name}")


def scheduler(*command: str) -> str:
    """What a program of SLURM's prints. Raises ClusterError with its own words."""
    _require(command[0])
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=60,
            check=False,
            env=clean_environment(os.environ),
        )
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"{shlex.join(command)}: no answer from SLURM within a minute") from error
    if done.returncode:
        raise ClusterError(f"{shlex.join(command)}: {scheduler_words(done.stderr)}")
    return done.stdout


def _require(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            raise ClusterError(f"{program} is not on this machine: launch from a login node of the cluster")


@contextlib.contextmanager
def _submission_environment() -> Iterator[None]:
    """sbatch takes the environment for settings and for the job's own, so what an allocation around us has set
    must go. What other threads set meanwhile stays."""
    clean = clean_environment(os.environ)
    removed = {name: os.environ.pop(name) for name in set(os.environ) - set(clean)}
    try:
        yield
    finally:
        os.environ.update(removed)


def _quiet() -> contextlib.AbstractContextManager[object]:
    """submitit prints what sbatch complained of, which the error says as well. In a driver that's another thread,
    and the first one may have something to say meanwhile."""
    is_launch = threading.current_thread() is threading.main_thread()
    return contextlib.redirect_stderr(io.StringIO()) if is_launch else contextlib.nullcontext()
