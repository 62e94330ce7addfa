"""Small files on shared disks that other processes read at any moment: whole, or not there."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

from cluster.errors import ClusterError

_log = logging.getLogger(__name__)


def write_atomically(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Give `content` its name, whatever bore it before; durable. `mode` is cut by the umask.

    Raises ClusterError (disk full, no permission, ...); nothing is left behind then. Threads and processes, on
    any host, may write one file at once: the last one stays.
    """
    temporary = path.with_name(_temporary_name(path.name))
    try:
        try:
            _write(temporary, content, mode)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_directory(path.parent)
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


def _temporary_name(name: str) -> str:
    """Matches no reader's glob, and is no other writer's."""
    return f"{name}.tmp.{socket.gethostname()}.{os.getpid()}.{threading.get_native_id()}"


def _write(path: Path, content: bytes, mode: int) -> None:
    path.unlink(missing_ok=True)  # of a dead process that had our number: its permissions are not ours
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
