"""What jobs are told, and what they are called."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

from cluster.order import Order, job_prefix


def test_jobs_of_a_run_are_called_by_its_name_and_place() -> None:
    """So two runs of one name are never taken for each other; 8 digits of the path's SHA-256."""
    assert "sweep-704e1951" == job_prefix("sweep", Path("/runs/a"))
    assert "sweep-96e31d82" == job_prefix("sweep", Path("/runs/b"))


def test_names_of_the_two_kinds_of_jobs(order: Order) -> None:
    """The same for every launch of the run."""
    prefix = job_prefix("sweep", order.run)
    later = replace(order, launch=2)
    assert (f"{prefix}-driver", f"{prefix}-worker") == (order.driver_name, order.worker_name)
    assert (order.driver_name, order.worker_name) == (later.driver_name, later.worker_name)


def test_a_run_is_the_same_by_any_path(tmp_path: Path) -> None:
    """A launch through a link finds the jobs of one without."""
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    assert job_prefix("sweep", tmp_path / "run") == job_prefix("sweep", tmp_path / "link")


def test_its_files(order: Order) -> None:
    """All below `cluster` in the run directory."""
    folder = order.run / "cluster"
    assert (folder, folder / "jobs", folder / "secret" / "token") == (order.folder, order.jobs, order.token)


def test_it_travels(order: Order) -> None:
    """submitit pickles it."""
    assert order == pickle.loads(pickle.dumps(order))
