"""One SLURM for all tests in this folder, and the undisturbed runs that others are compared with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from runs import Lab, undisturbed_run
from slurm_cluster import SlurmCluster, missing_programs


@pytest.fixture(scope="session")
def slurm() -> Iterator[SlurmCluster]:
    """A running cluster; its `env()` is for the processes that a test starts."""
    missing = missing_programs()
    if missing:
        pytest.skip(f"SLURM needs {', '.join(missing)}")
    with SlurmCluster.running() as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def _restored(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test finds an empty queue and four living nodes, unless it shares jobs with others of its class."""
    is_shared = "shared_lab" in request.fixturenames
    cluster = request.getfixturevalue("slurm") if "slurm" in request.fixturenames and not is_shared else None
    yield
    if cluster is not None:
        cluster.restore()


@pytest.fixture
def lab(slurm: SlurmCluster, tmp_path: Path) -> Iterator[Lab]:
    """Sweeps and a shell on the login node; afterwards nothing is left of what was launched."""
    with Lab.opened(slurm, tmp_path) as lab:
        yield lab


@pytest.fixture(scope="class")
def shared_lab(slurm: SlurmCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The same for all tests of a class."""
    with Lab.opened(slurm, tmp_path_factory.mktemp("lab")) as lab:
        yield lab


@pytest.fixture(scope="session")
def held_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the sweep `held` ends in if nothing happens to it."""
    return undisturbed_run(tmp_path_factory.mktemp("held"), "held")


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the sweep `trained` ends in if nothing happens to it."""
    return undisturbed_run(tmp_path_factory.mktemp("trained"), "trained")
