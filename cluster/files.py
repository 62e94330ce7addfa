"""Small files on shared disks that other processes read at any moment: whole, or not there."""

from __future__ import annotations

import json
import logging
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.errors import ClusterError

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH

_log = logging.getLogger(__name__)


def write_atomically(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Give `content` its name, whatever bore it before; durable. `mode` is cut by the umask.

    Raises ClusterError (disk full, no permission, ...); nothing is left behind then. Threads and processes, on
    any host, may write one file at once: the last one stays.
    """
    try:
        with written(path, content, mode) as temporary:
            temporary.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise ClusterError(
            f"{path}: cannot be written: {error.strerror or error}. Put that right, then do the same again."
        ) from error


def read_json(path: Path, patience_s: float = 1.0) -> dict[str, Any] | None:
    """What a JSON file holds; None if it isn't there, or after `patience_s` still isn't a whole mapping.

    While a file is replaced from another host, NFS may answer ESTALE or show it empty for a moment, so it is
    opened again, which makes NFS ask its server. Something that stays damaged is named in the log and no more:
    whoever wrote it writes it again sooner or later, and nobody should stop working before that.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            values = json.loads(path.read_bytes())
            if isinstance(values, dict):
                return values
            reason = "it holds no mapping"
        except FileNotFoundError:
            return None
        except OSError as error:
            reason = error.strerror or str(error)
        except ValueError as error:
            reason = str(error)
        if time.monotonic() >= deadline:
            _log.warning(
                "%s: cannot be read (%s), and is taken for missing. Delete it if that stays.", path, reason
            )
            return None
        time.sleep(0.1)


# -- what atomic writers are made of --------------------------------------------------------------------------


@contextmanager
def written(path: Path, content: bytes, mode: int = 0o666) -> Iterator[Path]:
    """A file beside `path` that holds `content`, on disk, and is gone afterwards unless it was renamed. Raises
    OSError."""
    temporary = temporary_name(path)
    try:
        temporary.unlink(
            missing_ok=True
        )  # of a dead process that had our number: its permissions are not ours
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def temporary_name(path: Path) -> Path:
    """Where `path` is written before it is whole; matches no reader's glob, and is no other writer's."""
    return path.with_name(f"{path.name}.tmp.{socket.gethostname()}.{os.getpid()}.{threading.get_native_id()}")


def is_left_behind(temporary: Path) -> bool:
    """Whether the process that made this temporary name was one of this host's, and has ended."""
    host, _, numbers = temporary.name.rpartition(".tmp.")[2].partition(f"{socket.gethostname()}.")
    pid = numbers.split(".")[0]
    return not host and pid.isdigit() and not Path(f"/proc/{pid}").exists()


def sync_directory(path: Path) -> None:
    """So that the names in it outlive the machine, too."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# -- permissions ----------------------------------------------------------------------------------------------


def make_private(folder: Path) -> None:
    """Raises OSError unless the folder is there, and is this user's alone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat(follow_symlinks=False).st_uid != os.getuid():
        raise PermissionError("belongs to somebody else")
    deny(folder, stat.S_IRWXG | stat.S_IRWXO)


def deny(path: Path, rights: int) -> None:
    """Take these rights away from a file or folder, and nothing else: shared folders hand their group down by a bit
    that must stay. Raises OSError."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & rights:
        path.chmod(mode & ~rights)
