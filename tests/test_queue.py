"""What is known of the scheduler's queue, and that it is asked at most once a minute.

No SLURM is needed here: a shell script named squeue prints what a real one (22.05) once printed. The same with
a real SLURM: tests/slurm/test_queue_real.py.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from cluster import queue
from cluster.queue import QueuedJob, QueueView, look

RECORDED = """\
¦3¦fails¦FAILED¦NonZeroExitCode¦n2¦365-00:00:00¦
¦6_0¦arr¦PENDING¦Priority¦¦UNLIMITED¦
¦6_1¦arr¦PENDING¦Priority¦¦UNLIMITED¦
¦1_0¦a|b "q" ' %j $HOME é¦RUNNING¦None¦n1¦364-23:59:56¦
¦2¦new
line¦COMPLETING¦None¦n1¦364-23:59:56¦
"""
"""¦ stands for what squeue was asked to print around every field."""
JOBS = (
    QueuedJob("3", "fails", "FAILED", "NonZeroExitCode", "n2", "365-00:00:00"),
    QueuedJob("6_0", "arr", "PENDING", "Priority", None, "UNLIMITED"),
    QueuedJob("6_1", "arr", "PENDING", "Priority", None, "UNLIMITED"),
    QueuedJob("1_0", 'a|b "q" \' %j $HOME é', "RUNNING", None, "n1", "364-23:59:56"),
    QueuedJob("2", "new\nline", "COMPLETING", None, "n1", "364-23:59:56"),
)


@dataclass
class Scheduler:
    """The stand-in: what it is told to do, and how often it was asked."""

    folder: Path
    cache: Path

    def does(self, script: str) -> None:
        (self.folder / "does").write_text(script)

    def prints(self, recorded: str) -> None:
        (self.folder / "recorded").write_text(recorded)
        self.does(
            "for argument; do case $argument in --format=*) mark=${argument#--format=};; esac; done\n"
            'sed "s/¦/${mark%%%i*}/g" "$folder/recorded"'
        )

    @property
    def queries(self) -> list[str]:
        """Arguments of every query so far."""
        asked = self.folder / "asked"
        return asked.read_text().splitlines() if asked.exists() else []

    @property
    def file(self) -> Path:
        (file,) = self.cache.glob("orchestrator/queue-*.json")
        return file

    def age(self, seconds: float) -> None:
        """Make the last query older than it is."""
        values = json.loads(self.file.read_text())
        self.file.write_text(
            json.dumps({**values, **{k: values[k] - seconds for k in ("asked_at", "taken_at")}})
        )


@pytest.fixture
def scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scheduler:
    folder, conf = tmp_path / "bin", tmp_path / "slurm.conf"
    folder.mkdir()
    conf.write_text("ClusterName=here\n")
    script = f'#!/bin/sh\nfolder=\'{folder}\'\necho "$*" >> "$folder/asked"\n. "$folder/does"\n'
    (folder / "squeue").write_text(script)
    (folder / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_CONF", str(conf))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    scheduler = Scheduler(folder, tmp_path / "cache")
    scheduler.prints(RECORDED)
    return scheduler


def start_looking() -> subprocess.Popen[str]:
    """Another process that asks, and prints what it was told."""
    code = "import json, dataclasses, cluster.queue as q; print(json.dumps(dataclasses.asdict(q.look())))"
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# -- what is read ---------------------------------------------------------------------------------------------


def test_every_job_is_read_whatever_its_name_holds(scheduler: Scheduler) -> None:
    """Names with separators, quotes and line breaks come back whole; a field without a value is None."""
    view = look()
    assert QueueView(view.asked_at, view.asked_at, JOBS, problem=None, failures=0) == view
    assert abs(time.time() - view.taken_at) < 10


def test_one_query_asks_for_everything(scheduler: Scheduler) -> None:
    """All jobs of the user, also in hidden partitions and just ended, tasks of arrays one by one."""
    look()
    (query,) = scheduler.queries
    options, _, form = query.partition("--format=")
    assert "--me --all --array --states=all --noheader" == options.strip()
    mark = form[:16]
    assert mark + mark.join(["%i", "%j", "%T", "%r", "%N", "%L"]) + mark == form


def test_jobs_are_found_by_name(scheduler: Scheduler) -> None:
    """`named` compares whole names."""
    view = look()
    assert JOBS[1:3] == view.named("arr")
    assert () == view.named("ar")


@pytest.mark.parametrize(
    ("state", "is_alive"),
    [
        *((state, True) for state in ("PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "REQUEUED")),
        *((state, True) for state in ("STOPPED", "SPECIAL_EXIT", "A_STATE_OF_NEXT_YEAR")),
        *((state, False) for state in ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL")),
        *((state, False) for state in ("PREEMPTED", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE", "REVOKED")),
    ],
)
def test_only_final_states_are_dead(state: str, is_alive: bool) -> None:
    """A state that isn't known to be final counts as alive."""
    assert is_alive == QueuedJob("1", "name", state, None, None, "1:00").is_alive


@pytest.mark.parametrize(
    ("job_id", "since", "expected"),
    [
        ("12", 1000.0, False),  # taken before it, or by a clock that is a minute ahead
        ("12", 939.0, True),
        ("15", 1000.0, True),  # among them, so whatever the clocks say
        ("15_3", 1000.0, True),
        ("15_4", 1000.0, False),
        ("1", 1000.0, False),
    ],
)
def test_a_view_is_younger_than_what_it_shows(job_id: str, since: float, expected: bool) -> None:
    """Else only if it was taken a good while later, since every host has a clock of its own."""
    jobs = (QueuedJob("15_3", "name", "COMPLETED", None, None, "1:00"),)
    assert expected == QueueView(1000.0, 1000.0, jobs, None).has_seen(job_id, since)


def test_an_empty_queue_is_known_to_be_empty(scheduler: Scheduler) -> None:
    """No output and exit code 0: no jobs, no problem."""
    scheduler.prints("")
    view = look()
    assert ((), None) == (view.jobs, view.problem)


@pytest.mark.parametrize(
    "printed",
    [
        "JOBID NAME\\n12 mine\\n",  # a site's wrapper that ignores our format
        "Welcome to the cluster!\\n",
        "${mark}1${mark}cut",
    ],
)
def test_other_output_is_no_empty_queue(scheduler: Scheduler, printed: str) -> None:
    """What is not the queue that was asked for is a problem: an empty queue would be filled again and again."""
    scheduler.does(f'for mark; do :; done; mark=${{mark#--format=}}; mark=${{mark%%%i*}}; printf "{printed}"')
    view = look()
    assert ((), -math.inf) == (view.jobs, view.taken_at)
    assert (view.problem or "").startswith("squeue printed something else than the queue: ")


def test_settings_of_the_surroundings_do_not_change_the_question(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Variables that squeue takes for options are not passed on; where the cluster is stays."""
    for name in ("SQUEUE_PARTITION", "SQUEUE_NAMES", "SLURM_CLUSTERS", "SLURM_TIME_FORMAT", "SBATCH_QOS"):
        monkeypatch.setenv(name, "other")
    scheduler.does('env > "$folder/environment"')
    look()
    environment = (scheduler.folder / "environment").read_text().splitlines()
    found = {line for line in environment if line.startswith(("SQUEUE_", "SLURM_", "SBATCH_"))}
    assert {f"SLURM_CONF={os.environ['SLURM_CONF']}"} == found


# -- once a minute --------------------------------------------------------------------------------------------


def test_processes_that_ask_at_once_make_one_query(scheduler: Scheduler) -> None:
    """Eight processes, one query, and all are told the same."""
    scheduler.does("sleep 1")
    processes = [start_looking() for _ in range(8)]
    told = {process.communicate()[0] for process in processes}
    assert 1 == len(scheduler.queries)
    assert [asdict(look()) | {"jobs": []}] == [json.loads(text) for text in told]


def test_threads_that_ask_at_once_make_one_query(scheduler: Scheduler) -> None:
    """A driver may look from a thread of its own."""
    views: list[QueueView] = []
    threads = [threading.Thread(target=lambda: views.append(look())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 == len(scheduler.queries)
    assert [look()] * 8 == views


@pytest.mark.parametrize("max_age_s", [0.0, 60.0])
def test_nobody_asks_again_within_the_minute(scheduler: Scheduler, max_age_s: float) -> None:
    """However fresh a view somebody wants."""
    first = look()
    scheduler.age(50)
    assert first.jobs == look(max_age_s).jobs
    assert 1 == len(scheduler.queries)
    scheduler.age(11)
    assert first.asked_at < look(max_age_s).asked_at
    assert 2 == len(scheduler.queries)


def test_who_needs_less_gets_an_older_view(scheduler: Scheduler) -> None:
    """`max_age_s` above a minute saves queries."""
    look()
    scheduler.age(100)
    look(300)
    assert 1 == len(scheduler.queries)


@pytest.mark.parametrize(("ahead_s", "n_queries"), [(5, 1), (3600, 2)])
def test_a_view_from_the_future_is_stale(scheduler: Scheduler, ahead_s: float, n_queries: int) -> None:
    """A clock was set back; but clocks of two nodes may differ by seconds."""
    look()
    scheduler.age(-ahead_s)
    look()
    assert n_queries == len(scheduler.queries)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"jobs": [{}]}', b'{"jobs": 3}', b"\xff\0"])
def test_a_damaged_file_is_replaced(scheduler: Scheduler, content: bytes) -> None:
    """Whatever lies in the file, the queue is asked for and the file is whole again."""
    look()
    scheduler.file.write_bytes(content)
    assert JOBS == look().jobs
    assert 2 == len(scheduler.queries)
    assert look() == look()
    assert 2 == len(scheduler.queries)


# -- failures -------------------------------------------------------------------------------------------------


def test_a_failing_scheduler_is_remembered_and_not_asked_more_often(scheduler: Scheduler) -> None:
    """A failed query counts for the minute; the older view stays, together with the scheduler's words."""
    before = look()
    scheduler.age(61)
    scheduler.does("echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    words = "slurm_load_jobs error: Unable to contact slurm controller"
    problem = f"squeue failed with exit code 1: {words}. SLURM is asked again after a minute."
    view = look()
    assert QueueView(view.asked_at, before.taken_at - 61, JOBS, problem, failures=1) == view
    assert view == look()
    assert 2 == len(scheduler.queries)

    scheduler.age(61)
    assert 2 == look().failures
    scheduler.age(61)
    scheduler.prints(RECORDED)
    view = look()
    assert QueueView(view.asked_at, view.asked_at, JOBS, None, failures=0) == view


def test_a_failure_before_the_first_answer(scheduler: Scheduler) -> None:
    """Nothing is known then but the failure."""
    scheduler.does("exit 3")
    view = look()
    problem = "squeue failed with exit code 3: no reason given. SLURM is asked again after a minute."
    assert QueueView(view.asked_at, -math.inf, (), problem, failures=1) == view
    assert view == look()


def test_a_squeue_that_hangs_is_ended_with_all_that_it_started(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where squeue is a site's script around the real one."""
    monkeypatch.setattr(queue, "QUERY_TIMEOUT_S", 1.0)
    scheduler.does('sleep 60 & echo $! > "$folder/pid"; wait')
    started = time.monotonic()
    assert "squeue gave no answer within 1 s. SLURM is asked again after a minute." == look().problem
    assert time.monotonic() - started < 10
    pid = int((scheduler.folder / "pid").read_text())
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or "Z" in _state(pid))


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


def test_a_query_counts_though_its_process_was_killed(scheduler: Scheduler) -> None:
    """kill -9 of the process that asks: nobody asks again within the minute, and everybody is told why."""
    scheduler.does('echo $$ > "$folder/pid"; exec sleep 60')
    process = start_looking()
    pid = scheduler.folder / "pid"
    wait_until(lambda: pid.exists() and pid.read_text().endswith("\n"))
    process.kill()
    process.communicate()
    os.kill(int(pid.read_text()), signal.SIGKILL)
    view = look()
    assert ("the process that asked SLURM ended before the answer came", 1) == (view.problem, view.failures)
    assert 1 == len(scheduler.queries)


def test_nobody_waits_for_ever_for_somebody_elses_query(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The older view is given, and that it is old."""
    before = look()
    scheduler.age(61)
    monkeypatch.setattr(queue, "LOCK_PATIENCE_S", 1.0)
    with open(scheduler.file.with_suffix(".lock")) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        view = look()
    assert (before.jobs, "another process asks SLURM, for 1 s already") == (view.jobs, view.problem)
    assert 1 == len(scheduler.queries)


def test_a_machine_without_squeue_is_told_so(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    """And that does not count: processes with another PATH are not kept from asking."""
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(scheduler.cache))
        problem = "squeue is not on this machine's PATH: ask from a login node"
        assert QueueView(-math.inf, -math.inf, (), problem) == look()
    assert None is look().problem


# -- where the view is shared ---------------------------------------------------------------------------------


def test_only_the_user_can_read_the_view(scheduler: Scheduler) -> None:
    """Job names are nobody else's business: 0700 for the folder, 0600 for the files."""
    (scheduler.cache / "orchestrator").mkdir(parents=True, mode=0o755)
    look()
    folder = scheduler.file.parent
    modes = {path.suffix: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir())}
    assert {"": 0o700, ".json": 0o600, ".lock": 0o600} == modes


def test_a_cluster_is_known_by_its_settings_not_by_their_path(
    scheduler: Scheduler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs find a copy of slurm.conf elsewhere and share the view; another cluster has its own."""
    look()
    copy = tmp_path / "conf-cache.conf"
    copy.write_text("# for nodes\nClusterName = here\nDebugFlags=None\n")
    monkeypatch.setenv("SLURM_CONF", str(copy))
    look()
    assert 1 == len(scheduler.queries)
    copy.write_text("ClusterName=there\n")
    look()
    assert 2 == len(scheduler.queries)


@pytest.mark.parametrize("value", ["", "relative/cache"])
def test_the_view_lies_in_the_home_folder_unless_said_otherwise(
    scheduler: Scheduler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """`~/.cache`, also where XDG_CACHE_HOME is not absolute: it would depend on where a process runs."""
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    look()
    assert 1 == len(list((tmp_path / "home" / ".cache" / "orchestrator").glob("queue-*.json")))


def test_without_a_writable_home_the_view_lies_in_the_temporary_folder(
    scheduler: Scheduler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A home that is full or read-only still means one query a minute."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert look() == look()
    assert 1 == len(scheduler.queries)
    assert 1 == len(list((tmp_path / f"orchestrator-{os.getuid()}").glob("queue-*.json")))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_not_used(scheduler: Scheduler, tmp_path: Path) -> None:
    """Anybody can make a folder under the temporary one, and would choose what we believe of the queue."""
    folder = tmp_path / "cache" / "orchestrator"
    folder.mkdir(parents=True)
    os.chown(folder, 12345, -1)
    look()
    assert [] == list(folder.iterdir())
    assert 1 == len(scheduler.queries)


def test_where_nothing_can_be_shared_nothing_is_asked(
    scheduler: Scheduler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else every process would ask as often as it likes."""
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))
    monkeypatch.setattr(tempfile, "tempdir", str(file))
    assert (
        "SLURM is not asked, since when that was done can't be kept anywhere; "
        "set XDG_CACHE_HOME to a folder that can be written. "
        f"{file}/orchestrator: [Errno 20] Not a directory: '{file}/orchestrator'; "
        f"{file}/orchestrator-{os.getuid()}: [Errno 20] Not a directory: '{file}/orchestrator-{os.getuid()}'"
    ) == look().problem
    assert [] == scheduler.queries
