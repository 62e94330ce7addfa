"""How jobs find each other through two small files."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.rendezvous import End, HeadState, Rendezvous, is_reachable, pauses

HEAD = HeadState(
    launch=2,
    epoch=5,
    job_id="12",
    host="n1",
    address="10.0.0.1:6379",
    running=3,
    waiting=4,
    stored=100,
    changed_at=1.5,
    note="é",
)


def test_the_newest_head_is_found(tmp_path: Path) -> None:
    """As its driver published it; nothing is beside the file."""
    rendezvous = Rendezvous(tmp_path)
    assert None is rendezvous.head()
    rendezvous.publish_head(HEAD)
    assert HEAD == rendezvous.head()
    gone = replace(HEAD, address=None)
    rendezvous.publish_head(gone)
    assert gone == rendezvous.head()
    assert [tmp_path / "head.json"] == list(tmp_path.iterdir())


@pytest.mark.parametrize("state", ["finished", "cancelled", "failed"])
def test_an_end_is_that_of_its_launch_and_of_earlier_ones(tmp_path: Path, state: str) -> None:
    """Jobs of an earlier launch have nothing to do then; those of a later one have."""
    rendezvous, end = Rendezvous(tmp_path), End(2, state, "why")  # type: ignore[arg-type]
    assert None is rendezvous.end(1)
    rendezvous.publish_end(end)
    assert [end, end, None] == [rendezvous.end(launch) for launch in (1, 2, 3)]


def test_a_launch_that_begins_ends_those_before_it(tmp_path: Path) -> None:
    """Its own jobs go on; those of earlier launches leave, and say why."""
    rendezvous = Rendezvous(tmp_path)
    rendezvous.publish_end(End(1, "finished"))
    rendezvous.begin(2)
    opened = End(2, "open")
    assert [opened, None, None] == [rendezvous.end(launch) for launch in (1, 2, 3)]
    assert "another launch has begun" == opened.why_leave(1)
    assert "the run is finished" == End(1, "finished").why_leave(1)


def test_launches_are_counted_by_what_the_files_say(tmp_path: Path) -> None:
    """Of whichever speaks of the newest."""
    rendezvous = Rendezvous(tmp_path)
    seen = [rendezvous.last_launch]
    rendezvous.publish_head(HEAD)
    seen.append(rendezvous.last_launch)
    rendezvous.begin(3)
    seen.append(rendezvous.last_launch)
    assert [0, 2, 3] == seen


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "{}",
        json.dumps({**asdict(HEAD), "colour": "red"}),
        json.dumps({"launch": 1, "state": "finished", "message": "", "colour": "red"}),
    ],
)
def test_a_file_that_is_not_whole_is_none(tmp_path: Path, content: str) -> None:
    """Or that another version wrote: its jobs go on waiting."""
    for name in ("head.json", "end.json"):
        (tmp_path / name).write_text(content)
    rendezvous = Rendezvous(tmp_path)
    assert (None, None) == (rendezvous.head(), rendezvous.end(1))


@given(first_s=st.floats(0.01, 10), factor=st.floats(1, 100), n=st.integers(1, 60))
def test_pauses_grow_to_the_longest_and_differ(first_s: float, factor: float, n: int) -> None:
    """Each lies between half of its length and the whole; lengths grow by a half up to the longest."""
    lengths = [min(first_s * factor, first_s * 1.5**i) for i in range(n)]
    found = list(islice(pauses(first_s, first_s * factor), n))
    assert all(
        0.499 * length <= pause <= 1.001 * length for pause, length in zip(found, lengths, strict=True)
    )
    assert len(set(found)) == n


def test_a_head_is_reachable_while_it_listens() -> None:
    """And once it doesn't, that is known at once."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert is_reachable(address)
    started = time.monotonic()
    assert not is_reachable(address)
    assert not is_reachable("no-such-host.invalid:6379")
    assert time.monotonic() - started < 5


def test_a_head_that_does_not_answer_is_given_up() -> None:
    """A host that drops what it is sent (its firewall, or it is off) costs no more than the timeout."""
    started = time.monotonic()
    assert not is_reachable("192.0.2.1:6379", timeout_s=0.2)
    assert time.monotonic() - started < 2
