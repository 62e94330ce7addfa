"""Can this machine run sweeps? Each finding says what to do if not."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

_PACKAGES = (
    "torch",
    "ray",
    "polars",
    "pyarrow",
    "pydantic",
    "PyYAML",
    "altair",
    "vl-convert-python",
    "numpy",
)
_DISK_GB = 2


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    is_good: bool
    text: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.is_good else 'FAIL'} {self.text}"


def examine() -> Iterator[Finding]:
    """Everything a local launch needs, one finding after the other. Starts Ray once to see that it can."""
    yield Finding(
        sys.version_info >= (3, 11), f"Python {platform.python_version()} (3.11 or newer is needed)"
    )
    yield from (_package(name) for name in _PACKAGES)
    cores = len(os.sched_getaffinity(0))
    yield Finding(cores >= 1, f"{cores} CPU cores for this process")
    yield _torch_devices()
    yield _disk()
    yield _ray()


def _package(name: str) -> Finding:
    try:
        return Finding(True, f"{name} {metadata.version(name)}")
    except metadata.PackageNotFoundError:
        return Finding(False, f"{name} is not installed: run `make setup`")


def _torch_devices() -> Finding:
    code = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU: CPU only')"
    return _in_new_process("torch", code)


def _disk() -> Finding:
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    try:
        with tempfile.TemporaryFile(dir=Path.cwd()):
            pass
    except OSError as error:
        return Finding(
            False, f"{Path.cwd()} cannot be written: {error.strerror}; launch with --run-dir elsewhere"
        )
    return Finding(free_gb >= _DISK_GB, f"{free_gb:.0f} GB free in {Path.cwd()} ({_DISK_GB} GB are plenty)")


def _ray() -> Finding:
    code = "from cluster.local import local_ray\nwith local_ray():\n    print('Ray starts and stops here')"
    return _in_new_process("ray", code)


def _in_new_process(name: str, code: str) -> Finding:
    """A process of its own: a library that aborts must not take the doctor along."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    lines = (done.stdout if done.returncode == 0 else done.stderr or done.stdout).strip().splitlines()
    return Finding(done.returncode == 0, f"{name}: {lines[-1] if lines else f'exit code {done.returncode}'}")
