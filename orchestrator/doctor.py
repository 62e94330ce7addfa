"""Can this machine run sweeps, and does a profile suit its SLURM? Each finding says what to do if not."""

from __future__ import annotations

import math
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from cluster.profile import KEY_OF, Jobs, Option, Profile, WorkerJobs
from cluster.sbatch import (
    as_arguments,
    clean_environment,
    driver_options,
    scheduler_words,
    worker_options,
)

_PACKAGES = (
    "torch",
    "ray",
    "polars",
    "pyarrow",
    "pydantic",
    "PyYAML",
    "altair",
    "vl-convert-python",
    "numpy",
)
_DISK_GB = 2
_PROGRAMS = ("sbatch", "squeue", "scancel", "scontrol", "srun")
_PATIENCE_S = 60


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    is_good: bool
    text: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.is_good else 'FAIL'} {self.text}"


def examine() -> Iterator[Finding]:
    """Everything a local launch needs, one finding after the other. Starts Ray once to see that it can."""
    yield from _installed(*_PACKAGES)
    cores = len(os.sched_getaffinity(0))
    yield Finding(cores >= 1, f"{cores} CPU cores for this process")
    yield _torch_devices()
    yield _disk()
    yield _ray()


def examine_site(profile: Profile) -> Iterator[Finding]:
    """Everything that a launch on SLURM needs, as far as it shows on this machine. Queues nothing."""
    yield from _installed(*_PACKAGES, "submitit")
    yield _disk()
    yield _interpreter(profile)
    yield _scratch(profile.scratch)
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        yield Finding(
            False, f"SLURM: {', '.join(missing)} not found: run this on a login node, with SLURM on the PATH"
        )
        return
    yield from _ignored_settings()
    yield from _slurm(profile)


def _idle_gpus(worker: WorkerJobs) -> Iterator[Finding]:
    used = worker.places(cpus=1, gpus=1) if worker.gpus else 0
    if used < worker.gpus:
        yield Finding(
            False,
            f"a worker's {worker.cpus} CPUs are enough for {used} of its {worker.gpus} GPUs, since a pack takes "
            f"one of each: set worker.cpus to {worker.gpus} or more",
        )


def _installed(*packages: str) -> Iterator[Finding]:
    yield Finding(
        sys.version_info >= (3, 11), f"Python {platform.python_version()} (3.11 or newer is needed)"
    )
    yield from (_package(name) for name in packages)


def _package(name: str) -> Finding:
    try:
        return Finding(True, f"{name} {metadata.version(name)}")
    except metadata.PackageNotFoundError:
        return Finding(False, f"{name} is not installed: run `make setup`")


def _torch_devices() -> Finding:
    code = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU: CPU only')"
    return _in_new_process("torch", code)


def _disk() -> Finding:
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    try:
        with tempfile.TemporaryFile(dir=Path.cwd()):
            pass
    except OSError as error:
        return Finding(
            False, f"{Path.cwd()} cannot be written: {error.strerror}; launch with --run-dir elsewhere"
        )
    return Finding(free_gb >= _DISK_GB, f"{free_gb:.0f} GB free in {Path.cwd()} ({_DISK_GB} GB are plenty)")


def _ray() -> Finding:
    code = "from cluster.local import local_ray\nwith local_ray():\n    print('Ray starts and stops here')"
    return _in_new_process("ray", code)


def _in_new_process(name: str, code: str, python: str = sys.executable) -> Finding:
    """A process of its own: a library that aborts must not take the doctor along."""
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    lines = (done.stdout if done.returncode == 0 else done.stderr or done.stdout).strip().splitlines()
    return Finding(done.returncode == 0, f"{name}: {lines[-1] if lines else f'exit code {done.returncode}'}")


def _interpreter(profile: Profile) -> Finding:
    python = profile.python
    if python is None:
        return Finding(True, f"python: {sys.executable}; nodes must see it at the same path")
    if profile.setup:
        return Finding(True, f"python: {python}, after the setup lines; neither is tried here")
    if shutil.which(python) is None:
        return Finding(
            False, f"python: {python} is no program on this machine: change `python` in the profile"
        )
    code = (
        "import platform; from importlib.metadata import version\n"
        f"for package in {(*_PACKAGES, 'submitit')}: version(package)\n"
        f"print({python!r}, platform.python_version(), 'has what jobs need; nodes must see it at the same path')"
    )
    return _in_new_process("python", code, python)


def _scratch(scratch: str) -> Finding:
    if not Path(scratch).exists():
        return Finding(True, f"scratch: {scratch} is not on this machine; every node must have it")
    try:
        with tempfile.TemporaryDirectory(dir=scratch):
            return Finding(True, f"scratch: {scratch} can be written here; nodes may differ")
    except OSError as error:
        return Finding(
            False, f"scratch: {scratch} cannot be written here: {error.strerror}; nodes may differ"
        )


def _ask(*command: str) -> subprocess.CompletedProcess[str]:
    """One of SLURM's programs. Where the controller is down they wait for a long time."""
    environment = clean_environment(os.environ)
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, timeout=_PATIENCE_S
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no answer within {_PATIENCE_S} s")


def _slurm(profile: Profile) -> Iterator[Finding]:
    answer = _ask("scontrol", "ping")
    if " UP" not in answer.stdout:
        words = scheduler_words(answer.stderr or answer.stdout.partition("\n")[0])
        yield Finding(False, f"SLURM does not answer: {words}; try again later, or ask the site's support")
        return
    config = _ask("scontrol", "show", "config").stdout
    version, name, size = (_setting(config, key) for key in ("SLURM_VERSION", "ClusterName", "MaxArraySize"))
    yield Finding(
        True, f"SLURM {version} of the cluster {name} answers; job arrays end at {size} (MaxArraySize)"
    )
    yield from _jobs(profile, "driver", profile.driver, driver_options(profile))
    yield from _jobs(profile, "worker", profile.worker, worker_options(profile))
    yield from _idle_gpus(profile.worker)


def _setting(config: str, name: str) -> str:
    found = re.search(rf"^{name}\s*=\s*(.*?)\s*$", config, re.MULTILINE)
    return found[1] if found else "unknown"


def _ignored_settings() -> Iterator[Finding]:
    names = sorted(name for name in os.environ if name.startswith("SBATCH_"))
    if names:
        yield Finding(True, f"{', '.join(names)} in your environment count for nothing: the profile decides")


def _jobs(profile: Profile, kind: str, jobs: Jobs, options: Mapping[str, Option]) -> Iterator[Finding]:
    """Whether SLURM would take such a job, and whether that would ever start."""
    answer = _test(options)
    if answer.returncode == 0:
        _, is_said, when = scheduler_words(answer.stderr).partition(" to start ")
        yield Finding(True, f"{kind} jobs are accepted{f': one would start {when}' if is_said else ''}")
        yield from _too_long(profile, kind, jobs, options)
        return
    words = scheduler_words(answer.stderr or answer.stdout)
    keys = [_key(profile, kind, jobs, option) for option in _to_blame(options, words)]
    hint = f"; look at {' or '.join(keys)} in the profile" if keys else ""
    yield Finding(False, f"{kind} jobs are refused: {words}{hint}")


def _test(options: Mapping[str, Option]) -> subprocess.CompletedProcess[str]:
    return _ask("sbatch", "--test-only", *as_arguments(options), "--wrap=true")


def _to_blame(options: Mapping[str, Option], words: str) -> list[str]:
    """Options without which, each alone, the job is accepted; if there is none (two are wrong, or one lacks),
    those without which SLURM says something else; then those that it speaks of.
    """
    accepted, changed = [], []
    for option in (option for option in options if option not in ("nodes", "ntasks")):
        answer = _test({name: value for name, value in options.items() if name != option})
        if answer.returncode == 0:
            accepted.append(option)
        elif scheduler_words(answer.stderr or answer.stdout) != words:
            changed.append(option)
    spoken_of = [name for name in ("partition", "account", "qos") if name in words.lower()]
    if "node configuration" in words:
        spoken_of = [name for name in ("constraint", "cpus-per-task", "mem", "gres") if name in options]
    return accepted or changed or spoken_of


def _key(profile: Profile, kind: str, jobs: Jobs, option: str) -> str:
    """Where in the profile an option comes from, or belongs."""
    for prefix, extra in ((f"{kind}.", jobs.sbatch), ("", profile.sbatch)):
        if option in extra:
            return f"{prefix}sbatch.{option}"
    if option == "gres" and profile.worker.gpu_type:
        return f"{kind}.gpus or {kind}.gpu_type"
    name = KEY_OF[option]
    is_shared = getattr(jobs, name) is None and getattr(profile, name, None) is not None
    return name if is_shared else f"{kind}.{name}"


def _too_long(profile: Profile, kind: str, jobs: Jobs, options: Mapping[str, Option]) -> Iterator[Finding]:
    """Unless EnforcePartLimits is set, SLURM takes jobs that are longer than a partition allows, and never
    starts them.
    """
    limits = _limits_min(options.get("partition"))
    longest = max(limits.values(), default=jobs.time_limit_min)
    if jobs.time_limit_min > longest:
        yield Finding(
            False,
            f"{kind} jobs ask for {jobs.time_limit_min:,} min and the partition {', '.join(limits)} allows "
            f"{longest:,.0f} (MaxTime), so they may wait for ever; lower {_key(profile, kind, jobs, 'time')}",
        )


def _limits_min(wanted: Option | None) -> dict[str, float]:
    """The longest time of each of these partitions (None: of the default one), where SLURM tells."""
    limits = {}
    for line in _ask("scontrol", "--oneliner", "show", "partition").stdout.splitlines():
        facts = dict(fact.split("=", 1) for fact in line.split() if "=" in fact)
        name, limit = facts.get("PartitionName"), facts.get("MaxTime")
        is_wanted = facts.get("Default") == "YES" if wanted is None else name in str(wanted).split(",")
        if name and limit and is_wanted:
            limits[name] = _minutes(limit)
    return limits


def _minutes(text: str) -> float:
    """`1-06:00:00` -> 1800."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", text)
    if found is None:
        return math.inf  # UNLIMITED
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return (days * 24 + hours) * 60 + minutes + seconds / 60
