"""How often drivers ended without a word."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cluster.crashes import Crashes
from cluster.errors import ClusterError


def fail(folder: Path, launch: int = 1) -> int:
    """A driver that raises; what it was told."""
    told = []
    with pytest.raises(ZeroDivisionError), Crashes(folder).counted(launch) as count:
        told.append(count)
        raise ZeroDivisionError
    return told[0]


def succeed(folder: Path, launch: int = 1) -> int:
    with Crashes(folder).counted(launch) as told:
        pass
    return told


def test_drivers_that_fail_in_a_row_are_counted(tmp_path: Path) -> None:
    """One that leaves in good order ends the row."""
    assert [0, 1, 2] == [fail(tmp_path) for _ in range(3)]
    assert [3, 0] == [succeed(tmp_path), succeed(tmp_path)]
    assert [0, 1] == [fail(tmp_path), fail(tmp_path)]


def test_a_driver_that_is_killed_counts(tmp_path: Path) -> None:
    """It counts itself before it begins."""
    code = (
        "import os, sys; from pathlib import Path; from cluster.crashes import Crashes\n"
        "with Crashes(Path(sys.argv[1])).counted(1): os.kill(os.getpid(), 9)"
    )
    assert -9 == subprocess.run([sys.executable, "-c", code, tmp_path], check=False).returncode
    assert 1 == succeed(tmp_path)


def test_progress_ends_the_row(tmp_path: Path) -> None:
    """A driver that was killed after trials had been finished is forgiven, as are those before it."""
    fail(tmp_path)
    crashes = Crashes(tmp_path)
    with pytest.raises(ZeroDivisionError), crashes.counted(1):
        crashes.clear(1)
        raise ZeroDivisionError
    assert 0 == succeed(tmp_path)


def test_a_driver_waits_after_crashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer each time, until it is told to leave, or the one before turns out to be no crash."""
    monkeypatch.setattr("cluster.crashes.LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(Crashes, "PAUSES_S", (0.0, 0.2, 3600.0, 3600.0))
    crashes, leaving = Crashes(tmp_path), threading.Event()
    crashes.pause(1, fail(tmp_path), leaving)
    began = time.monotonic()
    crashes.pause(1, fail(tmp_path), leaving)
    assert time.monotonic() - began >= 0.2
    threading.Timer(0.1, crashes.clear, [1]).start()
    crashes.pause(1, fail(tmp_path), leaving)
    fail(tmp_path)
    leaving.set()
    crashes.pause(1, 3, leaving)


def test_another_launch_begins_anew(tmp_path: Path) -> None:
    """Whoever launches again has changed something."""
    assert [0, 1, 0] == [fail(tmp_path), fail(tmp_path), fail(tmp_path, launch=2)]


def test_a_damaged_count_is_none(tmp_path: Path) -> None:
    """It is written anew."""
    (tmp_path / "crashes.json").write_text("{")
    assert 0 == fail(tmp_path)
    assert 1 == fail(tmp_path)


def test_a_count_that_cannot_be_cleared_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said in the job's log, and the driver's work counts."""
    (tmp_path / "crashes.json").mkdir()
    Crashes(tmp_path).clear(1)
    path = tmp_path / "crashes.json"
    assert [
        f"{path}: cannot be written: Is a directory. Put that right, then do the same again."
    ] == caplog.messages


def test_a_driver_that_cannot_be_counted_does_not_begin(tmp_path: Path) -> None:
    """Else it might fail without end."""
    with pytest.raises(ClusterError), Crashes(tmp_path / "gone").counted(1):
        raise AssertionError
