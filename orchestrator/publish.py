"""Files that other processes, perhaps on other machines, read at any moment: whole or not there."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestrator.errors import StoreError


def publish_once(path: Path, content: bytes) -> bool:
    """Give `content` its name, unless the name is taken: the first one stays. True if ours was the first.

    Atomic and durable: written beside its place, synced, then linked, which unlike a rename never replaces.
    Raises StoreError (disk full, no permission, ...); nothing is left behind then.
    """
    with _written(path, content) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
    _sync_directory(path.parent)
    return True


def replace(path: Path, content: bytes) -> None:
    """Give `content` its name, whatever bore it before. Atomic and durable. Raises StoreError."""
    with _written(path, content) as temporary:
        temporary.replace(path)
    _sync_directory(path.parent)


def temporary_name(path: Path) -> Path:
    """Where `path` is written before it is whole; matches no reader's glob."""
    return path.with_name(f"{path.name}.tmp.{socket.gethostname()}.{os.getpid()}")


@contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """The file system's complaints about `path`, as StoreError."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be written: {error.strerror or error}. "
            "Nothing that is stored is lost; put that right, then do the same again."
        ) from error


@contextmanager
def _written(path: Path, content: bytes) -> Iterator[Path]:
    temporary = temporary_name(path)
    with store_errors(path):
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
