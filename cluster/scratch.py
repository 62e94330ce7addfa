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
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A new folder below `parent`, gone at the end, as are those that killed jobs of this user left there.

    Raises ClusterError if `parent` can't be written.
    """
    try:
        _remove_abandoned(parent)
        unlocked = Path(tempfile.mkdtemp(prefix=f"new-{PREFIX}", dir=parent))
        lock = os.open(unlocked / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Only now others may look for its lock.
        folder = unlocked.rename(unlocked.with_name(unlocked.name.removeprefix("new-")))
    except OSError as error:
        raise ClusterError(f"{parent}: {error.strerror}; name another `scratch` in the profile") from error
    try:
        yield folder
    finally:
        with suppress(OSError), _opened(folder) as descriptor:
            _remove(folder, descriptor)
        os.close(lock)


def _remove_abandoned(parent: Path) -> None:
    """A lock goes with its process, so a folder whose lock is free belongs to nobody. Strangers may write here:
    what isn't a folder of ours is left alone, a link to one as well.
    """
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError), _opened(folder) as descriptor:
            if os.fstat(descriptor).st_uid == os.getuid():
                _remove_if_free(folder, descriptor)


def _remove_if_free(folder: Path, descriptor: int) -> None:
    lock = os.open(_LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(folder, descriptor)
    finally:
        os.close(lock)


def _remove(folder: Path, descriptor: int) -> None:
    """Through the open folder, whatever its name leads to by now. The lock goes last: where a process still
    writes something, the next job finds the folder again.
    """
    for name in set(os.listdir(descriptor)) - {_LOCK}:
        shutil.rmtree(name, ignore_errors=True, dir_fd=descriptor)
    if os.listdir(descriptor) == [_LOCK]:
        os.unlink(_LOCK, dir_fd=descriptor)
        folder.rmdir()


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, _FOLDER)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
