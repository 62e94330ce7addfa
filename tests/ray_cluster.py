"""A real Ray cluster of raylets on this host, started as people start one by hand."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil

_MARK = "RAY_CLUSTER_OF_TEST"
_START = "import sys, ray; ray.__version__ = sys.argv.pop(1); from ray.scripts.scripts import main; main()"


_PORTS = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port")
"""Fixed unless told otherwise, so that a second raylet on this host would find them taken."""


@dataclass(frozen=True)
class RayCluster:
    """Its head and nodes. All of them, and what they start, carry `mark` in their environment."""

    address: str
    environment: dict[str, str]
    """For processes that connect: the token. Nothing of this host's own."""
    folder: Path
    mark: str

    @staticmethod
    @contextmanager
    def running(cpus: Sequence[int] = (1,), *, version: str | None = None) -> Iterator[RayCluster]:
        """A raylet for each of `cpus`, the first with the head; gone at the end. `version` of Ray, as it says."""
        folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # paths of sockets are short
        (folder / "token").write_text(uuid.uuid4().hex)
        cluster = RayCluster("", clean_environment(folder), folder, uuid.uuid4().hex)
        try:
            head = ["--head", "--port=0", "--include-dashboard=false", f"--num-cpus={cpus[0]}"]
            cluster.start_node(head, version)
            address = (folder / "0" / "ray_current_cluster").read_text()
            for n in cpus[1:]:
                cluster.start_node([f"--address={address}", f"--num-cpus={n}"], version)
            yield RayCluster(address, cluster.environment, folder, cluster.mark)
        finally:
            for process in cluster.processes():
                process.kill()
            shutil.rmtree(folder, ignore_errors=True)

    def start_node(self, options: Sequence[str], version: str | None = None) -> None:
        """`ray start` with ports and a folder of its own."""
        n_started = len(list(self.folder.glob("[0-9]")))
        own = ["--disable-usage-stats", f"--temp-dir={self.folder / str(n_started)}"]
        ports = [f"--{name}=0" for name in _PORTS]
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                _START,
                version or metadata.version("ray"),
                "start",
                *options,
                *own,
                *ports,
            ],
            env=self.environment | {_MARK: self.mark},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout

    def processes(self, name: str = "") -> list[psutil.Process]:
        """Its processes whose command begins with a program of this name."""
        found = []
        for process in psutil.process_iter():
            try:
                is_mine = process.environ().get(_MARK) == self.mark
                if is_mine and Path((process.cmdline() or ["gone"])[0]).name.startswith(name):
                    found.append(process)
            except psutil.Error:
                continue
        return found


def clean_environment(folder: Path) -> dict[str, str]:
    """This process' environment without settings of Ray's but a token, and with a home of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {
        **kept,
        "HOME": str(folder),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
    }
