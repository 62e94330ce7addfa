"""Processes of this user on this machine: how they are signalled, and how none is left behind."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_PR_SET_PDEATHSIG = 1
NOTICES = (signal.SIGTERM, signal.SIGUSR2)
"""What SLURM sends to a job that is to go: SIGTERM at scancel, preemption and time limits; SIGUSR2 by
`--signal`, some time before the time limit."""


@contextmanager
def notices_blocked() -> Iterator[None]:
    """Processes that are started within never receive SLURM's notices.

    Some of SLURM's proctrack plugins (linuxproc, pgid) signal every process of a job, not only its first:
    Ray would stop before its workers could store what they have. A blocked signal stays blocked in children,
    whatever they install.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, NOTICES)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_notices_here() -> None:
    """Undo `notices_blocked` for a process that runs other people's code: it ignores the notices, and
    processes that it starts take them as usual (`multiprocessing` ends its children with SIGTERM).
    """
    for number in NOTICES:
        signal.signal(number, _ignore)
    # Held back while it forks: a notice that came before the child has its own handlers would be lost.
    os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_take_as_usual)
    _release()


def _ignore(_number: int, _frame: object) -> None:
    """Not SIG_IGN, which programs that are started would inherit."""


def _hold() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, NOTICES)


def _release() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, NOTICES)


def _take_as_usual() -> None:
    """In a forked child. (A handler in Python would not do: it waits for long calls of C code to return.)"""
    for number in NOTICES:
        if signal.getsignal(number) is _ignore:
            signal.signal(number, signal.SIG_DFL)
    _release()


def die_with_parent() -> Callable[[], None]:
    """A `preexec_fn`: the kernel kills the new process when this one ends, however that ends."""
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def bind() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the kernel was told
            os.kill(os.getpid(), signal.SIGKILL)

    return bind


def kill_marked(variable: str, value: str, patience_s: float = 10.0) -> None:
    """kill -9 every other process whose environment holds `variable` with this value, until none is left."""
    deadline = time.monotonic() + patience_s
    while (pids := list(_marked(f"{variable}={value}".encode()))) and time.monotonic() < deadline:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)


def _marked(entry: bytes) -> Iterator[int]:
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        if pid == os.getpid():
            continue
        try:
            if entry in (folder / "environ").read_bytes().split(b"\0"):
                yield pid
        except OSError:
            continue  # gone, or somebody else's
