"""Where a run's numbers come from: code, packages, host, command. No environment variables: those hold
secrets."""

from __future__ import annotations

import json
import platform
import shlex
import socket
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from orchestrator.publish import replace

CODE_VERSION = "CODE_VERSION"
"""Name of the file in a snapshot that says what it is a copy of."""
_PACKAGES = ("torch", "ray", "polars", "numpy", "pydantic", "altair")


@cache
def code_version() -> str:
    """The commit of this checkout (`+` if it has changes), or of the one that this snapshot was taken of, else the
    installed version."""
    version = _installed("transformer-orchestrator") or "unknown"
    root = Path(__file__).resolve().parent.parent
    if (root / CODE_VERSION).exists():
        return (root / CODE_VERSION).read_text()
    if not (root / ".git").exists():
        return version
    commit = _git(root, "rev-parse", "--short=12", "HEAD")
    if commit is None:
        return version
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    return f"{version} {commit}{'+' if changed else ''}"


def record_launch(path: Path, cluster: str, **more: Any) -> None:
    """Append this launch to the run's `provenance.json`. `more`: what else there is to know of the cluster."""
    launches: list[dict[str, Any]] = []
    try:
        launches = list(json.loads(path.read_text())["launches"])
    except FileNotFoundError:
        pass
    except (ValueError, LookupError, TypeError):
        path.rename(path.with_name(f"{path.name}.damaged"))
    launches.append(
        {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": shlex.join(sys.argv),
            "cluster": cluster,
            **more,
            "host": socket.gethostname(),
            "platform": platform.platform(),
            "python": platform.python_version(),
            "code_version": code_version(),
            "packages": {name: _installed(name) for name in _PACKAGES},
        }
    )
    replace(path, json.dumps({"launches": launches}, indent=2).encode())


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
