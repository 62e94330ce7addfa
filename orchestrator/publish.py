"""Files that other processes, perhaps on other machines, read at any moment: whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.files import sync_directory, written
from orchestrator.errors import StoreError


def publish_once(path: Path, content: bytes) -> bool:
    """Give `content` its name, unless the name is taken: the first one stays. True if ours was the first.

    Atomic and durable: written beside its place, synced, then linked, which unlike a rename never replaces.
    Raises StoreError (disk full, no permission, ...); nothing is left behind then.
    """
    with store_errors(path):
        with written(path, content) as temporary:
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
        sync_directory(path.parent)
    return True


def replace(path: Path, content: bytes) -> None:
    """Give `content` its name, whatever bore it before. Atomic and durable. Raises StoreError."""
    with store_errors(path):
        with written(path, content) as temporary:
            temporary.replace(path)
        sync_directory(path.parent)


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
