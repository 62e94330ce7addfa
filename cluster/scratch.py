"""A folder of one job on the disk of its node, where Ray keeps its sockets and logs.

Every job has its own: two Rays that share a folder crash each other. Ray makes its socket folder open to
everybody (0777), so the folder around it is closed to others (0700).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cluster.errors import ClusterError

PREFIX = "orc-"
_LOCK = "lock"


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A new folder below `parent`, gone at the end, as are those that killed jobs of this user left there.

    Raises ClusterError if `parent` can't be written.
    """
    try:
        _remove_abandoned(parent)
        unlocked = Path(tempfile.mkdtemp(prefix=f"new-{PREFIX}", dir=parent))
        descriptor = os.open(unlocked / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Only now others may look for its lock.
        folder = unlocked.rename(unlocked.with_name(unlocked.name.removeprefix("new-")))
    except OSError as error:
        raise ClusterError(f"{parent}: {error.strerror}; name another `scratch` in the profile") from error
    try:
        yield folder
    finally:
        _remove(folder)
        os.close(descriptor)


def _remove_abandoned(parent: Path) -> None:
    """A lock goes with its process, so a folder whose lock is free belongs to nobody."""
    for folder in parent.glob(f"{PREFIX}*"):
        try:
            if folder.stat().st_uid != os.getuid():
                continue
            descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(folder)
        except BlockingIOError:
            pass
        finally:
            os.close(descriptor)


def _remove(folder: Path) -> None:
    """The lock goes last: where a process still writes something, the next job finds the folder again."""
    with suppress(FileNotFoundError):
        inside = [path for path in folder.iterdir() if path.name != _LOCK]
        for path in inside:
            shutil.rmtree(path, ignore_errors=True)
        if not any(path.exists() for path in inside):
            shutil.rmtree(folder, ignore_errors=True)
