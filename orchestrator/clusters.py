"""What `--cluster` names."""

from __future__ import annotations

from pathlib import Path

from cluster.base import Cluster
from cluster.errors import ClusterError
from cluster.existing import Existing
from cluster.local import Local
from cluster.site import Site
from orchestrator.inline import Inline
from orchestrator.profile_file import load_profile


def named_cluster(name: str) -> Cluster | Inline | Site:
    """`local`, `inline`, the profile of a SLURM site (a .yaml file), or `host:port` of a Ray cluster.

    Raises ClusterError for anything else, SweepError for a profile with mistakes.
    """
    if name == "local":
        return Local()
    if name == "inline":
        return Inline()
    if name.endswith((".yaml", ".yml")):
        return Site(Path(name).stem, load_profile(Path(name)))
    if ":" in name:
        return Existing(name)
    raise ClusterError(
        f"{name!r} is no cluster: local, inline, a profile (such as cluster/profiles/slurm-cpu.yaml), "
        "or host:port of a Ray cluster"
    )
