"""What SLURM's environment says that a job may use."""

from __future__ import annotations

import pytest

from cluster.allocation import Allocation

JOB = {"SLURM_JOB_ID": "12", "SLURMD_NODENAME": "n1", "SLURM_CPUS_ON_NODE": "8"}


def test_a_job_and_a_task_of_an_array() -> None:
    """A task is named as squeue names it, not by the number of its own that it has as well."""
    assert Allocation(job_id="12", node="n1", cpus=8, gpus=0) == Allocation.from_environment(JOB)
    task = JOB | {"SLURM_ARRAY_JOB_ID": "10", "SLURM_ARRAY_TASK_ID": "2"}
    assert Allocation(job_id="10_2", node="n1", cpus=8, gpus=0) == Allocation.from_environment(task)


@pytest.mark.parametrize(
    ("variables", "gpus"),
    [
        ({}, 0),
        ({"SLURM_GPUS_ON_NODE": "4"}, 4),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, 2),
        ({"CUDA_VISIBLE_DEVICES": "GPU-1a2b,MIG-3c4d"}, 2),
        ({"CUDA_VISIBLE_DEVICES": "2", "SLURM_GPUS_ON_NODE": "4"}, 1),
        ({"CUDA_VISIBLE_DEVICES": "", "SLURM_GPUS_ON_NODE": "4"}, 0),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, 0),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, 0),
    ],
)
def test_gpus_are_those_that_the_job_sees(variables: dict[str, str], gpus: int) -> None:
    """Programs see what CUDA_VISIBLE_DEVICES names, whatever was allocated."""
    assert gpus == Allocation.from_environment(JOB | variables).gpus
