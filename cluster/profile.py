"""A SLURM site: what jobs ask for there, and what they find on a node. Written once by its users, as YAML."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

Option = str | int | bool
"""Value of an sbatch option. True: it takes none (`--exclusive`); False: it isn't passed."""

KEY_OF: Mapping[str, str] = {
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "constraint": "constraint",
    "time": "time_limit_min",
    "signal": "notice_s",
    "cpus-per-task": "cpus",
    "cpus-per-gpu": "cpus",
    "mem": "memory_gb",
    "mem-per-cpu": "memory_gb",
    "mem-per-gpu": "memory_gb",
    "gres": "gpus",
    "gpus": "gpus",
    "gpus-per-node": "gpus",
    "gpus-per-socket": "gpus",
    "gpus-per-task": "gpus",
}
"""The profile key that decides an sbatch option."""
_OURS = (
    *("array", "dependency", "job-name", "ntasks", "nodes", "output", "error", "open-mode", "parsable"),
    *("wrap", "test-only"),
    # What these change is relied on: where jobs start and with which environment, that sbatch returns and
    # says the job's number, that squeue and scancel look at the same cluster, one process per job.
    *("chdir", "export", "export-file", "input", "wait", "quiet", "clusters"),
    *("ntasks-per-core", "ntasks-per-gpu", "ntasks-per-node", "ntasks-per-socket"),
)
_REFUSED = (*(option for option in KEY_OF if option != "gres"), *_OURS)

MAX_SCRATCH_BYTES = 107 - 64 - len("/orc-XXXXXXXX/r")
"""Linux ends paths of sockets at 107 bytes, and Ray appends up to 64 to its folder, `r` below ours."""
MAX_NOTICE_S = 65535
EARLY_S = 60
"""SLURM may send `--signal` so much earlier than asked (sbatch(1))."""
_RAY_UNIT = 10_000
"""Ray counts resources in ten-thousandths."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where jobs go. None: the site's default."""

    partition: str | None = None
    """One, or several with commas."""
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    """Features of nodes, as for `--constraint`."""
    sbatch: Mapping[str, Option] = field(default_factory=dict)
    """More sbatch options by their long names. `gres` replaces what `gpus` would ask for."""

    def __post_init__(self) -> None:
        if problems := list(self._problems()):
            raise ValueError("; ".join(problems))

    def _problems(self) -> Iterator[str]:
        for name in ("partition", "account", "qos", "constraint"):
            yield from _faults_of_option(name, getattr(self, name))
        if problems := [*_not_ours(self.sbatch), *_faults_of_extra(self.sbatch)]:
            yield f"sbatch {'; '.join(problems)}"


@dataclass(frozen=True, kw_only=True)
class Jobs(Placement):
    """What one kind of jobs asks for; each of its jobs is one task on one node. What it leaves open in its
    placement is as in the profile."""

    time_limit_min: int
    cpus: int = 1
    memory_gb: float | None = None
    """None: the site's default, for sites that refuse `--mem`."""

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        yield from _below_one(self, "time_limit_min", "cpus")
        if self.memory_gb is not None and not 0 < self.memory_gb < math.inf:
            yield f"memory_gb must be above 0 and finite, not {self.memory_gb:g}"


@dataclass(frozen=True, kw_only=True)
class WorkerJobs(Jobs):
    """The jobs that train packs."""

    max: int
    """Most workers at once."""
    min: int = 1
    """A launch fails if the site lets fewer be queued (its submit limits may)."""
    gpus: int = 0
    gpu_type: str | None = None
    """As in `--gres=gpu:a100:1`; None: any."""

    def places(self, cpus: float, gpus: float) -> int:
        """How many packs that take `cpus` and `gpus` run on one worker at once; 0: not even one fits.

        Ray gives a pack a share of one GPU or whole GPUs.
        """
        by_cpus = _fitting(self.cpus, cpus)
        if not gpus:
            return by_cpus
        return min(by_cpus, self.gpus * _fitting(1, gpus) if gpus < 1 else _fitting(self.gpus, gpus))

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        yield from _below_one(self, "min", "max")
        if 1 <= self.max < self.min:
            yield f"min must be at most max, not {self.min} with a max of {self.max}"
        if self.gpus < 0:
            yield f"gpus must not be negative, but is {self.gpus}"
        if self.gpu_type is not None and not re.fullmatch(r"[A-Za-z0-9_.-]+", self.gpu_type):
            yield "gpu_type must be one name, such as a100, of the characters A-Z a-z 0-9 . _ -"
        elif self.gpu_type is not None and not self.gpus:
            yield "gpu_type needs gpus"


@dataclass(frozen=True, kw_only=True)
class DriverJobs(Jobs):
    """The jobs that hand out packs, one after the other."""

    time_limit_min: int = 1440
    memory_gb: float | None = 4.0
    queued: int = 3
    """Drivers that a launch queues, so that there is a next one where jobs may not submit jobs."""

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        yield from _below_one(self, "queued")


@dataclass(frozen=True, kw_only=True)
class Profile(Placement):
    """A site. Raises ValueError with every problem."""

    worker: WorkerJobs
    driver: DriverJobs = field(default_factory=DriverJobs)
    setup: tuple[str, ...] = ()
    """Lines of shell that every job runs first: modules, activation of an environment."""
    python: str | None = None
    """A program's name, looked for after `setup`, or an absolute path; None: the one that launches."""
    scratch: str = "/tmp"  # noqa: S108 - what goes there gets a closed folder of its own
    """A folder on each node's own disk."""
    interface: str | None = None
    """The network interface by which nodes reach each other, such as ib0; None: Ray's choice."""
    notice_s: int = 90
    """How long before their time limit jobs are told to store what they have."""
    rounds: int = 1
    """How many times over a launch queues the workers, for sites where jobs may not submit jobs."""

    def _problems(self) -> Iterator[str]:
        yield from super()._problems()
        yield from _faults_of_setup(self.setup)
        yield from _faults_of_python(self.python)
        yield from _faults_of_scratch(self.scratch)
        if self.interface is not None and not re.fullmatch(r"[A-Za-z0-9_.:-]{1,15}", self.interface):
            yield "interface must be the name of a network interface, such as ib0 (`ip -4 address` lists them)"
        yield from _below_one(self, "rounds")
        if not 1 <= self.notice_s <= MAX_NOTICE_S:
            yield f"notice_s must be from 1 to {MAX_NOTICE_S}, not {self.notice_s}"
            return
        for kind, jobs in (("driver", self.driver), ("worker", self.worker)):
            if jobs.time_limit_min * 60 <= self.notice_s + EARLY_S:
                yield (
                    f"{kind}.time_limit_min must be longer than notice_s ({self.notice_s} s) and the {EARLY_S} s "
                    f"by which SLURM may be early, not {jobs.time_limit_min} min"
                )


def _below_one(holder: object, *names: str) -> Iterator[str]:
    for name in names:
        if (value := getattr(holder, name)) < 1:
            yield f"{name} must be 1 or more, not {value}"


def _faults_of_option(name: str, value: Option | None) -> Iterator[str]:
    """What would not reach SLURM as it was written: options travel as `#SBATCH` lines."""
    if not isinstance(value, str):
        return
    if not value:
        yield f"{name} must not be empty"
    elif not value.isprintable():
        yield f"{name} must be one line without control characters"
    elif "\\" in value:
        # Tried on SLURM 22.05: a backslash acts in single quotes, too, and two are no way out.
        yield f"{name} must not have a backslash, which SLURM does not pass on"


def _not_ours(options: Iterable[str]) -> Iterator[str]:
    refused = [f"{option} ({instead})" for option in options if (instead := _instead(option))]
    if refused:
        yield f"must not set {', '.join(refused)}"


def _instead(option: str) -> str | None:
    """What to do about an option that a profile may not set. sbatch takes the beginning of a name for the whole."""
    found = next((name for name in _REFUSED if name.startswith(option)), None) if option else None
    if found is None:
        return None
    return f"say {KEY_OF[found]}" if found in KEY_OF else "orchestrator's own"


def _faults_of_extra(options: Mapping[str, Option]) -> Iterator[str]:
    wrong = [option for option in options if not re.fullmatch(r"[a-z][a-z0-9-]*", option)]
    if wrong:
        yield f"takes long option names such as mail-type, not {', '.join(map(repr, wrong))}"
    for option in sorted(set(options) - set(wrong)):
        yield from _faults_of_option(f"option {option}", options[option])


def _faults_of_setup(lines: Iterable[str]) -> Iterator[str]:
    problems = []
    for number, line in enumerate(lines, start=1):
        if not line.isprintable():
            problems.append(f"line {number} must be one line without control characters")
        elif re.match(r"\s*#(SBATCH|PBS|BSUB)", line):
            problems.append(f"line {number} is an option, which sbatch would read: put it under sbatch")
        elif not _is_closed(line):
            problems.append(
                f"line {number} ends within quotes or in a backslash, and so would take in the next"
            )
    if problems:
        yield f"setup {'; '.join(problems)}"


def _is_closed(line: str) -> bool:
    try:
        shlex.split(line, comments=True)
    except ValueError:
        return False
    return True


def _faults_of_python(python: str | None) -> Iterator[str]:
    if python is not None and not (python and python.isprintable() and _is_program(python)):
        yield (
            "python must be the name of a program or an absolute path, written out (for a container: a script "
            'that ends in "$@")'
        )


def _is_program(python: str) -> bool:
    return python.startswith("/") or re.fullmatch(r"[\w.+-]+", python) is not None


def _faults_of_scratch(scratch: str) -> Iterator[str]:
    if not scratch.startswith("/") or not scratch.isprintable() or "$" in scratch:
        yield "scratch must be an absolute path, written out without ~ and variables"
    elif len(scratch.encode()) > MAX_SCRATCH_BYTES:
        yield (
            f"scratch must be at most {MAX_SCRATCH_BYTES} bytes long, not {len(scratch.encode())}, since Ray's "
            "sockets lie below it and Linux ends their paths at 107 bytes"
        )


def _fitting(there: float, taken: float) -> int:
    return round(there * _RAY_UNIT) // max(1, round(taken * _RAY_UNIT))
