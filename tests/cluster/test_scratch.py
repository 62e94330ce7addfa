"""A folder for each job on the disk of its node."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster.errors import ClusterError
from cluster.scratch import scratch_folder

JOB = """
import sys, time
from pathlib import Path
from cluster.scratch import scratch_folder
with scratch_folder(Path(sys.argv[1])) as folder:
    (folder / "r").mkdir()
    (folder / "r" / "socket").touch()
    print(folder, flush=True)
    time.sleep(60)
"""


def start_job(parent: Path) -> tuple[subprocess.Popen[str], Path]:
    """A job in a process of its own, and its folder."""
    job = subprocess.Popen([sys.executable, "-c", JOB, parent], stdout=subprocess.PIPE, text=True)
    assert job.stdout is not None
    return job, Path(job.stdout.readline().strip())


def kill(job: subprocess.Popen[str]) -> None:
    job.kill()
    job.communicate()


def test_a_folder_is_closed_to_others_and_goes_with_its_job(tmp_path: Path) -> None:
    """Its mode is 0700, its path as long as profiles reckon with, and nothing of it stays."""
    with scratch_folder(tmp_path) as folder:
        assert 0o700 == stat.S_IMODE(folder.stat().st_mode)
        assert [folder] == list(tmp_path.iterdir())
        assert len("orc-XXXXXXXX") == len(folder.name)
        (folder / "r" / "session").mkdir(parents=True)
    assert [] == list(tmp_path.iterdir())


def test_it_goes_when_the_job_fails(tmp_path: Path) -> None:
    """What is raised within goes on."""
    with pytest.raises(ZeroDivisionError), scratch_folder(tmp_path):
        raise ZeroDivisionError
    assert [] == list(tmp_path.iterdir())


def test_what_a_killed_job_left_is_removed_by_the_next(tmp_path: Path) -> None:
    """While that of a job that lives stays."""
    dead, left = start_job(tmp_path)
    alive, kept = start_job(tmp_path)
    try:
        kill(dead)
        with scratch_folder(tmp_path) as folder:
            assert {folder, kept} == set(tmp_path.iterdir())
            assert (kept / "r" / "socket").exists()
        assert not left.exists()
    finally:
        kill(alive)


def test_what_cannot_be_removed_yet_is_found_again(tmp_path: Path) -> None:
    """A process that still writes keeps a folder from being removed; the next job tries again."""
    with scratch_folder(tmp_path) as first:
        (first / "r").touch()  # no folder, so it isn't removed with the others
        (first / "n").mkdir()
    assert {first / "r", first / "lock"} == set(first.iterdir())
    (first / "r").unlink()
    with scratch_folder(tmp_path) as second:
        assert [second] == list(tmp_path.iterdir())


def test_folders_of_others_stay(tmp_path: Path) -> None:
    """A folder that only is called like ours, and one of another user."""
    mine, theirs = tmp_path / "orc-analysis", tmp_path / "orc-abcdefgh"
    mine.mkdir()
    theirs.mkdir()
    (theirs / "lock").touch()
    if os.getuid() != 0:
        pytest.skip("only root can give a folder away")
    os.chown(theirs, 12345, 12345)
    with scratch_folder(tmp_path) as folder:
        assert {mine, theirs, folder} == set(tmp_path.iterdir())


def test_a_link_to_a_folder_of_ours_is_left_alone(tmp_path: Path) -> None:
    """Whoever may write to the parent could have made it, and lead it to a run directory, which has a lock, too."""
    run, parent = tmp_path / "run", tmp_path / "scratch"
    (run / "trials").mkdir(parents=True)
    (run / "lock").touch()
    parent.mkdir()
    (parent / "orc-abcdefgh").symlink_to(run)
    with scratch_folder(parent):
        pass
    assert {run / "trials", run / "lock"} == set(run.iterdir())


def test_jobs_that_begin_and_end_at_once_keep_their_folders(tmp_path: Path) -> None:
    """None takes the folder of another for one that is left."""

    def job(_: int) -> bool:
        for _ in range(25):
            with scratch_folder(tmp_path) as folder:
                (folder / "r").mkdir()
                time.sleep(0.001)
                if not (folder / "lock").exists() or not (folder / "r").exists():
                    return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert [True] * 8 == list(pool.map(job, range(8)))
    assert [] == list(tmp_path.iterdir())


def test_a_parent_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """With what to change."""
    parent = tmp_path / "none"
    with pytest.raises(ClusterError) as error, scratch_folder(parent):
        pass
    assert f"{parent}: No such file or directory; name another `scratch` in the profile" == str(error.value)
