"""One launch at a time on one run directory."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import StoreError
from orchestrator.publish import store_errors

WAIT_S = 1.0
PATIENCE_S = 120.0
"""An NFSv4 server takes the locks of a host away that has been silent for 90 s; one of NFSv3 keeps them until that
host has booted again."""


class RunIsHeld(StoreError):
    """Another launch is at work on the run directory."""


@contextmanager
def launch_lock(run: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the run directory. If another launch does: RunIsHeld, naming the holder.

    `wait`: until the holder is gone, at most PATIENCE_S. Then it's taken for dead: only jobs wait, and SLURM and
    the epoch let one of a run's drivers work at a time.

    A flock goes with its process, however that ends, unless the whole host dies. The host and process id in the
    file are for people.
    """
    path = run / "lock"
    with store_errors(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if not _is_taken(descriptor):
            if not wait:
                raise RunIsHeld(
                    f"{run}: another launch is running here ({_holder(path)}). Wait for it or stop it; one launch "
                    f"at a time fills a run directory. If that host is dead, delete {path}."
                )
            _wait(descriptor, _holder(path))
        with store_errors(path):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode())
        yield
    finally:
        os.close(descriptor)


def _wait(descriptor: int, holder: str) -> None:
    print(f"waiting for another launch ({holder})", flush=True)
    deadline = time.monotonic() + PATIENCE_S
    while not _is_taken(descriptor):
        if time.monotonic() >= deadline:
            print(f"going on without the lock: for {PATIENCE_S:.0f} s it hasn't become free", flush=True)
            return
        time.sleep(WAIT_S)


def _is_taken(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Whether the lock is ours now. Where the file system has no locks (Lustre without `flock`) it always is:
    workers of an older launch are refused by its epoch in any case."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
            raise
    return True


def is_locked(run: Path) -> bool:
    """A launch is at work on this run directory now."""
    path = run / "lock"
    if not path.exists():
        return False
    with open(path) as file:
        return not _is_taken(file.fileno(), fcntl.LOCK_SH)


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text())
        return f"host {holder['host']}, process {holder['pid']}"
    except (OSError, ValueError, KeyError):
        return "its host and process are not readable"
