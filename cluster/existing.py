"""A Ray cluster that somebody else has started (KubeRay, a cloud, `ray start --head`), and that goes on without us.

This process joins it through a Ray node on its own machine, and sees the run directory, as every node does.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from cluster.base import Backlog, Demand
from cluster.errors import ClusterError

PLACES = 16
"""For pack sizes only, which must not depend on how many nodes happen to be up."""
TCP_S = 5
TRIAL_S = 30
_TRIAL_ENVIRONMENT = {
    # Ray tries so often, a second apart; 20 times unless told otherwise.
    "RAY_NUM_REDIS_GET_RETRIES": "3",
    # So long it looks for a Ray node on this machine; 60 s unless told otherwise.
    "RAY_gcs_server_request_timeout_seconds": "10",
}
_HOST_PORT = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^\s:/@\[\]]+):(?P<port>[0-9]{1,5})")


class Existing:
    """The Ray cluster whose head listens at `host:port`, whatever RAY_ADDRESS says."""

    has_gpus = False
    """Nobody knows before it is asked, and nodes come and go: `--gpus` says what a pack takes."""

    def __init__(self, address: str, code_path: Path | str | None = None) -> None:
        """`code_path`: a folder that workers import from before all others, or several as PYTHONPATH has them;
        every node sees it. Raises ClusterError if this can be no address of a cluster."""
        self.host, self.port = _host_and_port(address)
        self.name = self.address = address
        self.code_path = None if code_path is None else str(code_path)
        if self.code_path and "$" in self.code_path:
            raise ClusterError(
                f"{self.code_path}: Ray would expand the $ in this path; launch with another --run-dir"
            )

    def places(self, demand: Demand) -> int:
        return PLACES

    @contextmanager
    def connected(self, demand: Demand, epoch: int, backlog: Callable[[], Backlog]) -> Iterator[None]:
        self._require_listener()
        self._try_in_new_process()
        import ray

        try:
            self._connect()
            self._require_room(demand, [node["Resources"] for node in ray.nodes() if node["Alive"]])
            yield
        finally:
            ray.shutdown()  # disconnects

    def _require_listener(self) -> None:
        """Ray itself would try for a long time."""
        try:
            socket.create_connection((self.host, self.port), timeout=TCP_S).close()
        except OSError as error:
            raise ClusterError(
                f"{self.address}: {error.strerror or error}. Does the cluster's head run, and can this machine "
                "reach it? `ray start --head` prints its address; the port is 6379 unless chosen"
            ) from error

    def _try_in_new_process(self) -> None:
        """A Ray that cannot connect may try without end, or end its process: not this one."""
        code = "import sys; from cluster.existing import _connect_to; _connect_to(sys.argv[1])"
        paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-c", code, self.address],
                env=os.environ | _TRIAL_ENVIRONMENT | {"PYTHONPATH": ":".join(filter(None, paths))},
                capture_output=True,
                text=True,
                timeout=TRIAL_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ClusterError(
                f"{self.address} does not answer as a Ray cluster does within {TRIAL_S} s. Is this the port of the "
                "cluster's head (6379 unless chosen), and not its dashboard's or that of Ray's client mode?"
            ) from error
        if done.returncode != 0:
            raise ClusterError(f"{self.address}: {_in_words(done.stderr, self.address)}")

    def _connect(self) -> None:
        """Workers import from the driver's working directory before anything that PYTHONPATH says (Ray's
        `_py_driver_sys_path`), so that is the code's folder while Ray takes it down."""
        first = self.code_path and self.code_path.partition(":")[0]
        with chdir(first) if first else nullcontext():
            _connect_to(self.address, {"PYTHONPATH": self.code_path} if self.code_path else {})

    def _require_room(self, demand: Demand, nodes: list[Mapping[str, float]]) -> None:
        """On one node: a pack is never spread."""
        rooms = sorted({(node.get("GPU", 0.0), node.get("CPU", 0.0)) for node in nodes}, reverse=True)
        if not any(demand.gpus <= gpus and demand.cpus <= cpus for gpus, cpus in rooms):
            has = "; ".join(f"{cpus:g} CPUs, {gpus:g} GPUs" for gpus, cpus in rooms[:3])
            raise ClusterError(
                f"a pack wants {demand.cpus:g} CPUs and {demand.gpus:g} GPUs, and no node of the Ray cluster "
                f"{self.address} has them (the largest: {has}). Launch with --cpus and --gpus that fit, or add "
                "such a node; a cluster that scales itself needs one to begin with"
            )


def _host_and_port(address: str) -> tuple[str, int]:
    if "://" in address:
        _, _, rest = address.partition("://")
        host = rest.partition("/")[0].rpartition(":")[0] or rest or "host"
        raise ClusterError(
            f"{address}: Ray's client mode cannot run a sweep. Run the launch on a node of the cluster, with "
            f"--cluster {host}:6379, and a run directory that all nodes see"
        )
    match = _HOST_PORT.fullmatch(address)
    if match is None or not 0 < int(match["port"]) < 65536:
        raise ClusterError(
            f"{address!r} is no address of a Ray cluster: --cluster host:port, such as 10.0.0.5:6379, as "
            "`ray start --head` prints it"
        )
    return match["host"].strip("[]"), int(match["port"])


def _connect_to(address: str, env_vars: Mapping[str, str] | None = None) -> None:
    import ray

    runtime_env: dict[str, Any] | None = {"env_vars": dict(env_vars)} if env_vars else None
    ray.init(address=address, runtime_env=runtime_env, logging_level=logging.ERROR, log_to_driver=False)


def _in_words(output: str, address: str) -> str:
    """What Ray's complaint means, and what to do."""
    if "Unauthenticated" in output or "AuthenticationError" in output:
        return (
            "the cluster wants its token, which this process does not have. `export RAY_AUTH_MODE=token`, and "
            "RAY_AUTH_TOKEN_PATH to the file with that token (~/.ray/auth_token unless set), then launch again"
        )
    if "Version mismatch" in output:
        versions = [" ".join(found) for found in re.findall(r"(Ray|Python): (\S+)", output)]
        there, here = ", ".join(versions[:2]), ", ".join(versions[2:4])
        return f"the cluster runs {there}, and this process {here}: install here what the cluster has"
    if "No node info found" in output:
        return (
            f"no Ray node of this cluster runs on this machine ({socket.gethostname()}). Launch on a node of the "
            f"cluster, or let this machine join it: `ray start --address={address} --num-cpus=0`"
        )
    lines = [line for line in output.splitlines() if line.strip()]
    return f"Ray cannot connect: {lines[-1].strip() if lines else 'it ended without a word'}"
