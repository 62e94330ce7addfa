"""Ray on this machine: started for one launch, gone with it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

_ENVIRONMENT = {
    # After a kill -9 of Ray's control process everything else ends within seconds, not after a minute.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
}
_OBJECT_STORE_BYTES = 100 * 1024**2
"""Packs travel through the run directory; Ray's object store holds next to nothing."""


@contextmanager
def local_ray(cpus: int | None = None) -> Iterator[None]:
    """A Ray of our own, whatever RAY_ADDRESS says and whoever else runs one on this machine.

    `cpus`: None takes what this process may use (its affinity, which schedulers and containers set).
    """
    os.environ.update(_ENVIRONMENT)
    import ray

    ray.init(
        address="local",
        num_cpus=cpus or len(os.sched_getaffinity(0)),
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    try:
        yield
    finally:
        ray.shutdown()
