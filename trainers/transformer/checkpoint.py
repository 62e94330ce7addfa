"""A pack's state as the content of a file, and back."""

from __future__ import annotations

import io
import pickle
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from trainers.base import UnusableCheckpoint

_UNREADABLE = (zipfile.BadZipFile, pickle.UnpicklingError, zlib.error, NotImplementedError)
"""What a damaged archive raises, beside what any file does."""


def to_bytes(trial_ids: Sequence[str], state: Mapping[str, Any]) -> bytes:
    """Readable with `weights_only=True`."""
    buffer = io.BytesIO()
    torch.save({"trial_ids": list(trial_ids), **state}, buffer)
    return buffer.getvalue()


def load(path: Path, trial_ids: Sequence[str]) -> dict[str, Any]:
    """What `to_bytes` was given for these trials. Raises UnusableCheckpoint."""
    try:
        with zipfile.ZipFile(path) as archive:  # torch writes checksums, but does not read them
            damaged = archive.testzip()
        saved = torch.load(path, weights_only=True, map_location="cpu") if damaged is None else {}
        saved_ids = saved.get("trial_ids")
    except (OSError, RuntimeError, EOFError, LookupError, ValueError, AttributeError, *_UNREADABLE) as error:
        raise UnusableCheckpoint(f"{path}: {error}") from error
    if saved_ids != list(trial_ids):
        raise UnusableCheckpoint(f"{path}: {'damaged' if damaged else 'belongs to another pack'}")
    return dict(saved)
