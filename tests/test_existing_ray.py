"""Ray clusters that somebody else has started: real ones, and addresses that are none."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from cluster import existing as module
from cluster.base import Backlog, Demand
from cluster.errors import ClusterError
from cluster.existing import Existing
from tests.ray_cluster import RayCluster

CONNECT = """
import os, sys
from cluster.base import Backlog, Demand
from cluster.errors import ClusterError
from cluster.existing import Existing

def connected(cpus, code_path=None):
    return Existing(sys.argv[1], code_path).connected(Demand(cpus, 0), 1, lambda: Backlog(0, 0, 0))
"""


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[RayCluster]:
    """A head with one core, and another node with two."""
    with RayCluster.running((1, 2)) as cluster:
        yield cluster


def refused(address: str) -> str:
    """What a launch on this cluster says, from this process."""
    with (
        pytest.raises(ClusterError) as caught,
        Existing(address).connected(Demand(1, 0), 1, lambda: Backlog(0, 0, 0)),
    ):
        pass
    return str(caught.value)


def run(cluster: RayCluster, code: str, *arguments: str | Path, cwd: Path | None = None) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", CONNECT + code, cluster.address, *arguments],
        env=cluster.environment,
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def use(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("ray://head.org:10001", "head.org"),
        ("ray://10.0.0.5", "10.0.0.5"),
        ("ray://", "host"),
        ("http://a:8265/x", "a"),
    ],
)
def test_rays_client_mode_is_refused(address: str, host: str) -> None:
    """The message says what to do instead."""
    with pytest.raises(ClusterError) as caught:
        Existing(address)
    assert str(caught.value) == (
        f"{address}: Ray's client mode cannot run a sweep. Run the launch on a node of the cluster, with --cluster "
        f"{host}:6379, and a run directory that all nodes see"
    )


@pytest.mark.parametrize(
    "address",
    ["auto", "", "host", "host:", ":6379", "host:http", "host:0", "host:65536", "a b:1", "a:1:2", "a:1\n"],
)
def test_what_is_no_address(address: str) -> None:
    """The message says what one looks like."""
    with pytest.raises(ClusterError) as caught:
        Existing(address)
    assert str(caught.value) == (
        f"{address!r} is no address of a Ray cluster: --cluster host:port, such as 10.0.0.5:6379, as "
        "`ray start --head` prints it"
    )


def test_an_address_of_six_parts() -> None:
    """IPv6 stands in brackets."""
    assert (Existing("[::1]:6379").host, Existing("[::1]:6379").port) == ("::1", 6379)


def test_nothing_listens() -> None:
    """Said at once, in the system's words."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    began = time.monotonic()
    assert refused(address) == (
        f"{address}: Connection refused. Does the cluster's head run, and can this machine reach it? "
        "`ray start --head` prints its address; the port is 6379 unless chosen"
    )
    assert time.monotonic() - began < 2


def test_something_else_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray would try on; after some time the launch gives up."""
    monkeypatch.setattr(module, "TRIAL_S", 4)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert refused(address) == (
            f"{address} does not answer as a Ray cluster does within 4 s. Is this the port of the cluster's head "
            "(6379 unless chosen), and not its dashboard's or that of Ray's client mode?"
        )


@pytest.mark.parametrize("token", ["wrong", "none", "off"])
def test_a_token_that_is_refused(
    two_nodes: RayCluster, token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong one, one that is not there, or authentication not turned on."""
    path = tmp_path / "token"
    if token == "wrong":
        path.write_text("a" * 64)
    use(two_nodes.environment | {"RAY_AUTH_TOKEN_PATH": str(path)}, monkeypatch)
    if token == "off":
        monkeypatch.delenv("RAY_AUTH_MODE")
    assert refused(two_nodes.address) == (
        f"{two_nodes.address}: the cluster wants its token, which this process does not have. `export "
        "RAY_AUTH_MODE=token`, and RAY_AUTH_TOKEN_PATH to the file with that token (~/.ray/auth_token unless set), "
        "then launch again"
    )


def test_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are named."""
    python = ".".join(map(str, sys.version_info[:3]))
    with RayCluster.running(version="2.1.0") as cluster:
        use(cluster.environment, monkeypatch)
        assert refused(cluster.address) == (
            f"{cluster.address}: the cluster runs Ray 2.1.0, Python {python}, and this process Ray "
            f"{metadata.version('ray')}, Python {python}: install here what the cluster has"
        )


def test_no_node_of_it_on_this_machine(two_nodes: RayCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that lets this machine join; nodes of another cluster are no help."""
    with RayCluster.running() as cluster:
        for raylet in cluster.processes("raylet"):
            raylet.kill()
            raylet.wait(10)
        use(cluster.environment, monkeypatch)
        assert refused(cluster.address) == (
            f"{cluster.address}: no Ray node of this cluster runs on this machine ({socket.gethostname()}). Launch "
            "on a node of the cluster, or let this machine join it: `ray start "
            f"--address={cluster.address} --num-cpus=0`"
        )


def test_a_pack_is_never_spread(two_nodes: RayCluster) -> None:
    """Two cores fit on the second node; three are on no node, though the cluster has them."""
    code = """
with connected(2): print("two fit")
try:
    with connected(3): print("three fit")
except ClusterError as error:
    print(error)
"""
    message = (
        f"a pack wants 3 CPUs and 0 GPUs, and no node of the Ray cluster {two_nodes.address} has them (the "
        "largest: 2 CPUs, 0 GPUs; 1 CPUs, 0 GPUs). Launch with --cpus and --gpus that fit, or add such a node; a "
        "cluster that scales itself needs one to begin with"
    )
    assert run(two_nodes, code) == ["two fit", message]


def test_workers_import_the_snapshot(two_nodes: RayCluster, tmp_path: Path) -> None:
    """On every node code comes from `code_path`, though the launch stands in a folder that has other code of the
    same name; its working directory is as before."""
    live, snapshot = tmp_path / "live", tmp_path / 'it\'s a "path" – ü' / "code"
    for folder in (live, snapshot, snapshot / "modules"):
        folder.mkdir(parents=True)
        (folder / "which_code.py").write_text(f"name = {folder.name!r}")
    (snapshot / "modules" / "own_code.py").write_text("name = 'own'")
    (live / "own_code.py").write_text("name = 'live'")
    code = """
with connected(1, sys.argv[2]):
    import ray

    @ray.remote(num_cpus=1, scheduling_strategy="SPREAD")
    def look():
        import own_code, time, which_code
        time.sleep(1)
        return which_code.name, own_code.name, ray.get_runtime_context().get_node_id()

    found = ray.get([look.remote() for _ in range(3)])
    print(sorted({names[:2] for names in found}), len({names[2] for names in found}), os.getcwd())
"""
    path = f"{snapshot}:{snapshot / 'modules'}"
    assert run(two_nodes, code, path, cwd=live) == [f"[('code', 'own')] 2 {live}"]


def test_a_path_that_ray_would_change() -> None:
    """Ray expands variables in PYTHONPATH."""
    with pytest.raises(ClusterError) as caught:
        Existing("host:6379", Path("/runs/$HOME/code"))
    assert str(caught.value) == (
        "/runs/$HOME/code: Ray would expand the $ in this path; launch with another --run-dir"
    )


SWEEP = """
name: existing
trainer: edited:train
axes: {x: [1, 2, 3, 4, 5, 6], seed: 2}
solved: {metric: accuracy, at_least: 0.5}
pack: {size: 2}
"""


def test_a_sweep_on_two_nodes(two_nodes: RayCluster, tmp_path: Path) -> None:
    """Every trial once, by the code of the launch, though it was edited before the workers began."""
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    (tmp_path / "edited.py").write_text("def train(config, report): report(1, accuracy=1.0)\n")
    code = """
from pathlib import Path
from orchestrator import Run
from orchestrator.launch import launch
from orchestrator.sweep import load_sweep

folder, connect = Path(sys.argv[2]), Existing.connected

def edit_and_connect(*arguments):
    (folder / "edited.py").write_text("def train(config, report): report(1, accuracy=0.0)")
    return connect(*arguments)

Existing.connected = edit_and_connect
launch(load_sweep(folder / "sweep.yaml"), folder / "run", cluster=Existing(sys.argv[1]), is_quiet=True)
run = Run(folder / "run")
rows = run.trials().collect()
print(run.verify().is_whole, rows.height, set(rows["status"]))
"""
    assert run(two_nodes, code, tmp_path, cwd=tmp_path)[-1] == "True 12 {'solved'}"
