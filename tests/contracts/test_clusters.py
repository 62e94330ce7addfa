"""What every cluster promises, run against every cluster."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from cluster.base import Cluster, Demand
from cluster.existing import Existing
from cluster.local import Local, count_gpus
from tests.ray_cluster import RayCluster, clean_environment

_PREAMBLE = """
import os, sys
from cluster.base import Backlog, Demand
from cluster.errors import ClusterError
from cluster.existing import Existing
from cluster.local import Local
cluster = {}

def connected(cpus=1.0, gpus=0.0):
    return cluster.connected(Demand(cpus, gpus), 1, lambda: Backlog(0, 0, 0))
"""
MARK = "CLUSTER_CONTRACT"


@dataclass(frozen=True)
class Case:
    """A kind of cluster: how a process makes it, in which environment."""

    expression: str
    environment: dict[str, str]

    def run(self, code: str, **environment: str) -> list[str]:
        """The lines that a process of its own prints: a process knows one Ray."""
        done = subprocess.run(
            [sys.executable, "-c", _PREAMBLE.format(self.expression) + code],
            env=self.environment | {"RAY_ADDRESS": "192.0.2.1:6379"} | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()


@pytest.fixture(scope="module")
def existing() -> Iterator[RayCluster]:
    with RayCluster.running() as cluster:
        yield cluster


@pytest.fixture(params=["local", "existing"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    if request.param == "local":
        environment = clean_environment(tmp_path)
        return Case("Local()", {k: v for k, v in environment.items() if not k.startswith("RAY_")})
    ray = request.getfixturevalue("existing")
    return Case(f"Existing({ray.address!r})", ray.environment)


class TestCluster:
    """Machines for packs, whatever RAY_ADDRESS says."""

    def test_work_runs_within_and_only_within(self, case: Case) -> None:
        """Within it other processes work; afterwards this one is disconnected, and can connect again."""
        code = """
for _ in range(2):
    with connected():
        import ray
        print(ray.get(ray.remote(num_cpus=1)(lambda: os.getpid()).remote()) != os.getpid())
    print(ray.is_initialized())
"""
        assert case.run(code) == ["True", "False"] * 2

    def test_an_error_within_comes_out(self, case: Case) -> None:
        """What is raised within it is not touched, and this process is disconnected."""
        code = """
try:
    with connected():
        raise KeyError("mine")
except KeyError as error:
    import ray
    print(error, ray.is_initialized())
"""
        assert case.run(code) == ["'mine' False"]

    @pytest.mark.parametrize(("cpus", "gpus"), [(1000.0, 0.0), (1.0, 0.5)])
    def test_too_big_a_demand(self, case: Case, cpus: float, gpus: float) -> None:
        """A pack that no machine has room for is refused in words; Ray would wait for ever."""
        code = f"""
try:
    with connected({cpus}, {gpus}):
        print("connected")
except ClusterError as error:
    import ray
    print(str(error).startswith("a pack wants"), "--cpus" in str(error) or "--gpus" in str(error))
    print(ray.is_initialized())
"""
        assert case.run(code) == ["True True", "False"]

    def test_what_a_launch_asks_beforehand(self, case: Case) -> None:
        """Name, GPUs and places are known at once, without Ray, and the same after a restart."""
        code = """
print(cluster.name, cluster.has_gpus, cluster.places(Demand(0.5, 0)), cluster.places(Demand(1, 0)))
print("ray" in sys.modules)
"""
        first = case.run(code)
        assert first == case.run(code)
        assert first[1] == "False"


def marked(mark: str) -> list[str]:
    """Command lines of the processes that descend from a case."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


def test_local_leaves_no_process(tmp_path: Path) -> None:
    """Its Ray goes with it."""
    mark = uuid.uuid4().hex
    environment = {k: v for k, v in clean_environment(tmp_path).items() if not k.startswith("RAY_")}
    code = """
with connected():
    import ray
    ray.get(ray.remote(num_cpus=1)(lambda: os.getpid()).remote())
print("done")
"""
    assert Case("Local()", environment).run(code, **{MARK: mark}) == ["done"]
    assert marked(mark) == []


def test_existing_is_left_alive(existing: RayCluster) -> None:
    """Its processes are those of before."""
    daemons = {process.pid for name in ("gcs_server", "raylet") for process in existing.processes(name)}
    case = Case(f"Existing({existing.address!r})", existing.environment)
    assert case.run("with connected(): print('connected')") == ["connected"]
    assert len(daemons) == 2
    assert {
        process.pid for name in ("gcs_server", "raylet") for process in existing.processes(name)
    } == daemons


def test_places_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many packs as its cores hold, and its GPUs where they take some."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.setattr("cluster.local.count_gpus", lambda: 2)
    local: Cluster = Local()
    expected = {(1, 0): 16, (0.5, 0): 32, (3, 0): 5, (32, 0): 0, (1, 1): 2, (1, 0.25): 8, (12, 0.5): 1}
    assert {demand: local.places(Demand(*demand)) for demand in expected} == expected
    assert local.has_gpus


def test_places_of_an_existing_cluster() -> None:
    """A constant: packs must be the same however many nodes are up."""
    existing: Cluster = Existing("host:6379")
    assert [existing.places(demand) for demand in (Demand(1, 0), Demand(8, 1))] == [16, 16]
    assert (existing.name, existing.has_gpus) == ("host:6379", False)


@pytest.mark.parametrize(
    ("visible", "expected"),
    [(None, 2), ("", 0), ("-1", 0), ("NoDevFiles", 0), ("1", 1), ("0,1", 2), ("MIG-a,MIG-b,MIG-c", 3)],
)
def test_gpus_of_this_process(
    visible: str | None, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The devices of this machine, or what CUDA_VISIBLE_DEVICES leaves of them."""
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert count_gpus(tmp_path) == expected
    assert count_gpus(tmp_path / "none") == 0
