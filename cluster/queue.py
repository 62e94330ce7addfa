"""What the scheduler has of this user's jobs, asked at most once a minute by all our processes together.

One `squeue` answers for every job of the user, whichever run it belongs to. The answer lies in a file under
`$XDG_CACHE_HOME/orchestrator`, one per SLURM cluster, and whoever asks holds a lock beside it meanwhile. So
processes that want to know at the same time make one query. A query that fails counts like one that doesn't: a
scheduler that is overloaded is not asked more often for it.

`squeue --json` is not used: it needs a plugin that sites may lack, its fields changed with every release, and
it does not list the tasks of an array that wait.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cluster.errors import ClusterError
from cluster.files import make_private, read_json, write_atomically
from cluster.sbatch import clean_environment, scheduler_words

QUERY_INTERVAL_S = 60.0
QUERY_TIMEOUT_S = 30.0
LOCK_PATIENCE_S = QUERY_TIMEOUT_S + 15.0

TERMINAL_STATES = frozenset(
    {
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    }
)
"""In these a job has ended for good. (A job that SLURM requeues goes on to PENDING, with the same id. One that is
REVOKED has begun on another cluster of a federation.)"""

_STUCK = r"launch.failed.requeued.held|JobHoldMaxRequeue"
_FIELDS = ("%i", "%j", "%T", "%r", "%N", "%L")
_CONF_PATHS = ("/etc/slurm/slurm.conf", "/run/slurm/conf/slurm.conf", "/etc/slurm-llnl/slurm.conf")
_IDENTITY = re.compile(
    r"^\s*(?:ClusterName|ControlMachine|SlurmctldHost|SlurmctldPort|StateSaveLocation)\s*=.*$",
    re.MULTILINE | re.IGNORECASE,
)


@dataclass(frozen=True)
class QueuedJob:
    """A job, or a task of an array, as SLURM shows it until about five minutes after its end (MinJobAge)."""

    job_id: str
    """`12`, or `15_3` in an array."""
    name: str
    state: str
    """SLURM's word, such as RUNNING."""
    reason: str | None
    """SLURM's word for why it waits or failed."""
    node: str | None
    left: str
    """Time until its limit, as SLURM writes it: `1-02:03:04`, UNLIMITED, NOT_SET."""

    @property
    def is_alive(self) -> bool:
        """Running, waiting, or in any state that isn't known to be final."""
        return self.state not in TERMINAL_STATES

    @property
    def is_stuck(self) -> bool:
        """It failed to start, and SLURM holds it until somebody releases it."""
        return self.reason is not None and re.search(_STUCK, self.reason) is not None


@dataclass(frozen=True)
class QueueView:
    """What is known of the queue. With a `problem`, `jobs` are those of an older look, and what has become of
    them is unknown."""

    asked_at: float
    """When SLURM was asked last, seconds since 1970; -inf: never."""
    taken_at: float
    """When `jobs` were the queue; -inf: never. A job that was submitted later is not among them."""
    jobs: tuple[QueuedJob, ...]
    problem: str | None
    """Why SLURM's last answer is missing, in words; None: it is there."""
    failures: int = 0
    """Queries in a row that got no answer."""

    def named(self, name: str) -> tuple[QueuedJob, ...]:
        """Jobs of this name, ended ones too."""
        return tuple(job for job in self.jobs if job.name == name)

    def has_seen(self, job_id: str, since: float) -> bool:
        """Whether the view is younger than a job, or array. `since`: when that was there, seconds since 1970 by the
        clock of whichever host; those may differ by as much as QUERY_INTERVAL_S."""
        is_shown = any(job_id in (job.job_id, job.job_id.partition("_")[0]) for job in self.jobs)
        return is_shown or self.taken_at > since + QUERY_INTERVAL_S


_NEVER_ASKED = QueueView(-math.inf, -math.inf, (), "SLURM has not been asked yet")


def look(max_age_s: float = QUERY_INTERVAL_S) -> QueueView:
    """The queue as it was at most `max_age_s` ago, and never asked for within QUERY_INTERVAL_S of the last time.

    Never raises: an answer that can't be had is a `problem`. Blocks while squeue runs, in whichever process, at
    most LOCK_PATIENCE_S.
    """
    if shutil.which("squeue") is None:
        # Nothing to share: to other processes, with another PATH, the scheduler may well answer.
        return replace(_NEVER_ASKED, problem="squeue is not on this machine's PATH: ask from a login node")
    problems = []
    for folder in _cache_folders():
        try:
            return _look(folder, max(max_age_s, QUERY_INTERVAL_S))
        except (OSError, ClusterError) as error:
            problems.append(f"{folder}: {error}")
    return replace(
        _NEVER_ASKED,
        problem="SLURM is not asked, since when that was done can't be kept anywhere; "
        f"set XDG_CACHE_HOME to a folder that can be written. {'; '.join(problems)}",
    )


# -- the shared file ------------------------------------------------------------------------------------------


def _look(folder: Path, max_age_s: float) -> QueueView:
    """Raises OSError or ClusterError if nothing can be shared in this folder, before SLURM was asked."""
    make_private(folder)
    path = folder / f"queue-{_cluster_id()}.json"
    with _locked(path.with_suffix(".lock")) as has_lock:
        view = _load(path)
        if not has_lock:
            return replace(view, problem=f"another process asks SLURM, for {LOCK_PATIENCE_S:.0f} s already")
        now = time.time()
        # Clocks of nodes differ by seconds; more than that ahead, and a clock was set back.
        if -QUERY_INTERVAL_S < now - view.asked_at < max_age_s:
            return view
        unanswered = "the process that asked SLURM ended before the answer came"
        view = replace(view, asked_at=now, problem=unanswered, failures=view.failures + 1)
        _store(path, view)  # first, so that a query counts even if this process is killed during it
        view = _ask(view)
        with suppress(ClusterError):  # who asks gets the answer; others find that it is missing
            _store(path, view)
        return view


def _cache_folders() -> Iterator[Path]:
    """The first that can be written is used: homes may be full, or read-only on nodes."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not cache.is_absolute():  # the XDG specification wants such a value to be ignored
        with suppress(RuntimeError):  # nobody knows this user's home
            cache = Path("~/.cache").expanduser()
    if cache.is_absolute():
        yield cache / "orchestrator"
    yield Path(tempfile.gettempdir()) / f"orchestrator-{os.getuid()}"


def _cluster_id() -> str:
    """The same wherever this cluster's slurm.conf lies: jobs often find a copy of it in another place."""
    paths = (os.environ.get("SLURM_CONF"), *_CONF_PATHS)
    path = next((path for path in paths if path and Path(path).is_file()), "")
    try:
        lines = _IDENTITY.findall(Path(path).read_text(errors="replace"))
    except OSError:  # no file: SLURM's programs find their settings over the network
        lines = []
    words = sorted("".join(line.split()) for line in lines) or [path]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """False if another process has held the lock for LOCK_PATIENCE_S. A flock goes with its process."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield _acquire(descriptor, time.monotonic() + LOCK_PATIENCE_S)
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, deadline: float) -> bool:
    pause_s = 0.02
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(pause_s)
            pause_s = min(0.5, 1.5 * pause_s)
        else:
            return True


def _load(path: Path) -> QueueView:
    values = read_json(path)
    if values is None:
        return _NEVER_ASKED
    try:
        jobs = tuple(QueuedJob(**job) for job in values.pop("jobs"))
        view = QueueView(jobs=jobs, **values)
        # What another version of this file left, or somebody else, is not worth an error.
        return replace(view, asked_at=float(view.asked_at), taken_at=float(view.taken_at))
    except (LookupError, TypeError, ValueError):
        return _NEVER_ASKED


def _store(path: Path, view: QueueView) -> None:
    write_atomically(path, json.dumps(asdict(view)).encode(), mode=0o600)


# -- the scheduler --------------------------------------------------------------------------------------------


def _ask(view: QueueView) -> QueueView:
    """The answer to the query that `view` says was begun."""
    mark = secrets.token_hex(8)
    # --all: else jobs in hidden partitions are left out. --states=all: those that just ended tell why.
    options = ("--me", "--all", "--array", "--states=all", "--noheader")
    try:
        output = _output("squeue", *options, f"--format={mark}{mark.join(_FIELDS)}{mark}")
        return QueueView(view.asked_at, view.asked_at, _parse(output, mark), problem=None)
    except ClusterError as error:
        return replace(view, problem=f"{error}. SLURM is asked again after a minute.")


def _parse(output: str, mark: str) -> tuple[QueuedJob, ...]:
    """The mark stands around every field. Job names hold anything (line breaks too), but not what was drawn
    just now. Raises ClusterError rather than take something else for an empty queue."""
    pieces = output.split(mark)
    width = len(_FIELDS) + 1
    between = "".join(pieces[::width]).strip()
    if len(pieces) % width != 1 or between:
        raise ClusterError(f"squeue printed something else than the queue: {between[:200]!r}")
    rows = (pieces[start : start + len(_FIELDS)] for start in range(1, len(pieces), width))
    return tuple(
        QueuedJob(job_id, name, state, None if reason == "None" else reason or None, node or None, left)
        for job_id, name, state, reason, node, left in rows
    )


def _output(*command: str) -> str:
    """What a program prints. Raises ClusterError if it fails, or takes longer than QUERY_TIMEOUT_S."""
    try:
        # A session of its own: sites wrap squeue in scripts, and a time-out must end what those started too.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=clean_environment(os.environ),
            start_new_session=True,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        raise ClusterError(f"{command[0]} cannot be started: {error}") from error
    with process:
        try:
            output, errors = process.communicate(timeout=QUERY_TIMEOUT_S)
        except BaseException as error:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise ClusterError(f"{command[0]} gave no answer within {QUERY_TIMEOUT_S:.0f} s") from error
            raise
    if process.returncode:
        raise ClusterError(
            f"{command[0]} failed with exit code {process.returncode}: {scheduler_words(errors)}"
        )
    return output
