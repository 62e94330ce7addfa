"""What a job does with a node that isn't what it asked for; with a real SLURM: tests/slurm."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from cluster.base import Demand
from cluster.job_record import read_records
from cluster.order import Order

RUN = "import pickle, sys; from cluster.node import run_worker; run_worker(pickle.load(open(sys.argv[1], 'rb')))"


def test_a_worker_without_room_for_a_pack_says_so(tmp_path: Path, order: Order) -> None:
    """Where SLURM gives no GPU, no pack would ever come; it leaves at once instead of holding the node."""
    wanting = replace(order, demand=Demand(1.0, 1.0))
    wanting.jobs.mkdir(parents=True)
    (tmp_path / "order").write_bytes(pickle.dumps(wanting))
    job = {"SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "4", "CUDA_VISIBLE_DEVICES": "NoDevFiles"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, tmp_path / "order"],
        env=os.environ | job,
        capture_output=True,
        check=False,
    )
    assert 1 == done.returncode
    (record,) = read_records(wanting.jobs)
    assert (
        "ClusterError: SLURM gave this job 4 CPUs and 0 GPUs, and a pack wants 1 and 1: "
        "see what the site makes of `worker` in the profile"
    ) == record.reason
