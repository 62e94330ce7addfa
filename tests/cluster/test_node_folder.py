"""How a job and the workers of its node tell each other."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from cluster.node_folder import NodeFolder, Presence


def test_a_worker_finds_the_folder_in_its_environment(tmp_path: Path) -> None:
    """And Ray's agents, when they name themselves, leave their environment as it is, or none would find them."""
    environment = NodeFolder(tmp_path).environment()
    assert {"ORCHESTRATOR_NODE_FOLDER": str(tmp_path), "SPT_NOENV": "1"} == environment
    assert Presence(tmp_path) == Presence.from_environment(environment)


def test_a_worker_is_asked_to_leave(tmp_path: Path) -> None:
    """Once, for all workers of the node."""
    presence = Presence(tmp_path)
    assert not presence.is_asked_to_leave
    NodeFolder(tmp_path).ask_to_leave()
    NodeFolder(tmp_path).ask_to_leave()
    assert presence.is_asked_to_leave


def test_a_busy_worker_is_known_until_it_is_free(tmp_path: Path) -> None:
    """Saying either twice changes nothing."""
    node, presence = NodeFolder(tmp_path), Presence(tmp_path)
    assert [] == node.busy_processes()
    presence.busy()
    presence.busy()
    assert [os.getpid()] == node.busy_processes()
    presence.free()
    presence.free()
    assert [] == node.busy_processes()


def test_a_dead_worker_has_nothing_to_store(tmp_path: Path) -> None:
    """Its mark goes, lest another process that gets its number be taken for it."""
    process = subprocess.Popen(["true"])
    process.wait()
    mark = tmp_path / f"busy-{process.pid}"
    mark.touch()
    assert [] == NodeFolder(tmp_path).busy_processes()
    assert not mark.exists()


def test_where_nobody_is_told_to_leave_nothing_happens() -> None:
    """A worker on this machine has no folder."""
    presence = Presence.from_environment({})
    presence.busy()
    presence.free()
    assert not presence.is_asked_to_leave
