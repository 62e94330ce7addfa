"""Ray on this machine: started for one launch, gone with it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from cluster.errors import ClusterError

_ENVIRONMENT = {
    # After a kill -9 of Ray's control process everything else ends within seconds, not after a minute.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}
_OBJECT_STORE_BYTES = 100 * 1024**2
"""Packs travel through the run directory; Ray's object store holds next to nothing."""


@contextmanager
def local_ray(cpus: float = 1.0, gpus: float = 0.0) -> Iterator[None]:
    """A Ray of our own, whatever RAY_ADDRESS says and whoever else runs one on this machine. It may use the
    cores that this process may use (its affinity, which schedulers and containers set) and every GPU.

    Raises ClusterError if not even one worker that takes `cpus` and `gpus` fits: Ray would wait for ever.
    """
    os.environ.update(_ENVIRONMENT)
    import ray

    ray.init(
        address="local",
        num_cpus=len(os.sched_getaffinity(0)),
        include_dashboard=False,
        object_store_memory=_OBJECT_STORE_BYTES,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    try:
        resources = ray.cluster_resources()
        for name, wanted in (("CPU", cpus), ("GPU", gpus)):
            found = resources.get(name, 0.0)
            if wanted > found:
                raise ClusterError(
                    f"a pack wants {wanted:g} {name}s and this machine has {found:g}: "
                    f"launch with --{name.lower()}s {found:g}, or on another machine"
                )
        yield
    finally:
        ray.shutdown()
