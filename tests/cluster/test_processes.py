"""Signals and ends of real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.processes import NOTICES, die_with_parent, kill_marked, notices_blocked

HANDLER = """
import signal, sys, time
for number in (signal.SIGTERM, signal.SIGUSR2):
    signal.signal(number, lambda *_: sys.exit(3))
print("ready", flush=True)
time.sleep(60)
"""


def start(code: str, *args: str, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *args], env=os.environ | variables, stdout=subprocess.PIPE, text=True
    )


def wait_until(condition: Callable[[], bool], patience_s: float = 20.0) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Zombies do not run."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def mask() -> Iterator[set[signal.Signals | int]]:
    """The signals that this process blocks before a test, and afterwards again."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield before
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


# -- notices --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("notice", NOTICES)
def test_processes_that_are_started_blocked_never_hear_of_it(notice: int) -> None:
    """Whatever handlers they install; kill -9 ends them."""
    with notices_blocked():
        process = start(HANDLER)
    assert process.stdout is not None
    assert "ready\n" == process.stdout.readline()
    process.send_signal(notice)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.kill()
    process.communicate()
    assert -signal.SIGKILL == process.returncode


def test_others_take_notices_as_usual() -> None:
    """Blocking ends with the context."""
    with notices_blocked():
        pass
    process = start(HANDLER)
    assert process.stdout is not None
    process.stdout.readline()
    process.terminate()
    process.communicate()
    assert 3 == process.returncode


def test_a_notice_that_comes_meanwhile_is_heard_afterwards(mask: set[signal.Signals | int]) -> None:
    """By the process itself; what it blocked before stays blocked, also after an error."""
    heard = []
    before = signal.signal(signal.SIGUSR2, lambda *_: heard.append("USR2"))
    try:
        with pytest.raises(ZeroDivisionError), notices_blocked():
            # To this thread: others of the process (polars has some) take what is sent to the process.
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)
            assert [] == heard
            raise ZeroDivisionError
        assert ["USR2"] == heard
        assert mask == signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.signal(signal.SIGUSR2, before)


WORKER = """
import hashlib, json, multiprocessing, os, signal, subprocess, sys, time
from cluster.processes import ignore_notices_here

def in_c():
    hashlib.pbkdf2_hmac("sha256", b"", b"", 1_000_000_000)

def ended(process, pause_s=0.0):
    time.sleep(pause_s)
    process.terminate()
    process.join(20)
    code = process.exitcode
    process.kill()
    return code

if __name__ == "__main__":
    ignore_notices_here()
    for number in (signal.SIGTERM, signal.SIGUSR2):
        os.kill(os.getpid(), number)
    forked, spawned = multiprocessing.get_context("fork"), multiprocessing.get_context("spawn")
    codes = {}
    for name, context in (("forked", forked), ("spawned", spawned)):
        process = context.Process(target=in_c)
        process.start()
        codes[name] = ended(process, 1.0)
    codes["at once"] = []
    for _ in range(30):
        process = forked.Process(target=in_c)
        process.start()
        codes["at once"].append(ended(process))
    program = subprocess.Popen(["sleep", "60"])
    program.terminate()
    codes["program"] = program.wait()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))  # of the user's own
    process = forked.Process(target=time.sleep, args=(60,))
    process.start()
    codes["own handler"] = ended(process, 0.5)
    print(json.dumps(codes))
"""


def test_other_peoples_code_ends_its_children_as_usual(tmp_path: Path) -> None:
    """A worker ignores notices, though it was started with them blocked. Its children end at SIGTERM: forked (in a
    long call of C code, or just begun), spawned, programs; and handlers of the user's own are inherited."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    root = str(Path(__file__).parents[2])
    with notices_blocked():
        process = subprocess.Popen(
            [sys.executable, script],
            env=os.environ | {"PYTHONPATH": root},
            stdout=subprocess.PIPE,
            text=True,
        )
    output, _ = process.communicate(timeout=120)
    expected = {"forked": -15, "spawned": -15, "at once": [-15] * 30, "program": -15, "own handler": 7}
    assert expected == json.loads(output)
    assert 0 == process.returncode


# -- ends -----------------------------------------------------------------------------------------------------

MARKED = """
import os, subprocess, sys, time
child = subprocess.Popen(["sleep", "60"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


def test_marked_processes_are_killed_with_what_they_started() -> None:
    """Also in sessions of their own; nobody whose mark has another value."""
    marked = [start(MARKED, MARK="/tmp/a") for _ in range(2)]
    others = [start(MARKED, MARK="/tmp/ab"), start(MARKED, MARKED="/tmp/a")]
    children = {}
    for process in (*marked, *others):
        assert process.stdout is not None
        children[process] = int(process.stdout.readline())
    try:
        kill_marked("MARK", "/tmp/a")
        assert [-9, -9] == [process.wait(5) for process in marked]
        wait_until(lambda: not any(is_running(children[process]) for process in marked))
        assert [None, None] == [process.poll() for process in others]
        assert [True, True] == [is_running(children[process]) for process in others]
    finally:
        for process in others:
            os.kill(children[process], signal.SIGKILL)
            process.kill()
        for process in (*marked, *others):
            process.communicate()


def test_who_kills_is_spared() -> None:
    """Though it bears the mark itself; and where nobody does, it takes no time."""
    code = "import time; from cluster.processes import kill_marked; t = time.monotonic(); kill_marked('M', '1'); "
    process = start(f"{code}print(time.monotonic() - t < 2)", M="1")
    assert ("True\n", None) == process.communicate()
    assert 0 == process.returncode


PARENT = """
import subprocess, sys, time
from cluster.processes import die_with_parent
child = subprocess.Popen(["sleep", "60"], preexec_fn=die_with_parent())
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_process_dies_with_its_parent() -> None:
    """Even if that is killed without a chance to say so."""
    parent = start(PARENT)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert is_running(child)
    parent.kill()
    parent.communicate()
    wait_until(lambda: not is_running(child))


def test_it_lives_as_long_as_its_parent() -> None:
    """Nothing else ends it."""
    child = subprocess.Popen(["sleep", "60"], preexec_fn=die_with_parent())
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.3)
    child.kill()
    child.wait()
