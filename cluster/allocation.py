"""What SLURM gave to this job, read from its environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Allocation:
    """The share of a node that a job may use; Ray would take the whole node."""

    job_id: str
    """`12`, or `15_3` in an array."""
    node: str
    cpus: int
    gpus: int

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Allocation:
        array, task = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
        return cls(
            job_id=f"{array}_{task}" if array and task else environ["SLURM_JOB_ID"],
            node=environ.get("SLURMD_NODENAME", "unknown"),
            cpus=int(environ["SLURM_CPUS_ON_NODE"]),
            gpus=_gpus(environ),
        )


def _gpus(environ: Mapping[str, str]) -> int:
    """GPUs that this job sees; SLURM_GPUS_ON_NODE alone isn't set by every configuration."""
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name not in ("", "-1", "NoDevFiles")])
    return int(environ.get("SLURM_GPUS_ON_NODE", "0"))
