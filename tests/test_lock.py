"""Waiting for a run directory that another launch holds."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from orchestrator import lock
from orchestrator.lock import RunIsHeld, is_locked, launch_lock

HOLDER = """
import sys, time
from pathlib import Path
from orchestrator.lock import launch_lock
with launch_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_driver_waits_until_the_other_launch_is_gone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says for whom, once, and holds the run as soon as that process has ended, however it ended."""
    monkeypatch.setattr(lock, "WAIT_S", 0.05)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert "held\n" == holder.stdout.readline()
    timer = threading.Timer(0.5, holder.kill)
    timer.start()
    with launch_lock(tmp_path, wait=True):
        assert -9 == holder.wait()
        mine = {"host": socket.gethostname(), "pid": os.getpid()}
        assert mine == json.loads((tmp_path / "lock").read_text())
    holder.stdout.close()
    said = f"waiting for another launch (host {socket.gethostname()}, process {holder.pid})\n"
    assert said == capfd.readouterr().out
    assert not is_locked(tmp_path)


def test_a_driver_does_not_wait_for_ever(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock of a host that lost its power may stay until that boots: after a while the driver goes on, and is
    the one that others are told of."""
    monkeypatch.setattr(lock, "WAIT_S", 0.05)
    monkeypatch.setattr(lock, "PATIENCE_S", 0.3)
    mine = {"host": socket.gethostname(), "pid": os.getpid()}
    with launch_lock(tmp_path):
        (tmp_path / "lock").write_text('{"host": "n1", "pid": 7}')
        with launch_lock(tmp_path, wait=True):
            assert mine == json.loads((tmp_path / "lock").read_text())
    said = [
        "waiting for another launch (host n1, process 7)",
        "going on without the lock: for 0 s it hasn't become free",
    ]
    assert said == capfd.readouterr().out.splitlines()


def test_a_launch_that_does_not_wait_says_what_to_do(tmp_path: Path) -> None:
    """Also where the holder is dead and its lock isn't."""
    with launch_lock(tmp_path):
        (tmp_path / "lock").write_text('{"host": "n1", "pid": 7}')
        with pytest.raises(RunIsHeld) as error, launch_lock(tmp_path):
            pass
    assert (
        f"{tmp_path}: another launch is running here (host n1, process 7). Wait for it or stop it; one launch at a "
        f"time fills a run directory. If that host is dead, delete {tmp_path}/lock." == str(error.value)
    )


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_file_systems_without_locks(tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits there, and nobody is taken to be at work: epochs keep launches apart."""

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with launch_lock(tmp_path, wait=True):
        assert not is_locked(tmp_path)
