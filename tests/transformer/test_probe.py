"""How the room of a pack is found."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.base import Resources
from trainers.transformer import probe
from trainers.transformer.config import Model, Train
from trainers.transformer.model import PackedTransformer
from trainers.transformer.probe import best, room_for
from trainers.transformer.room import Room

MODEL = PackedTransformer(Model(width=16, depth=1, heads=2), 11, 7, 1)
TRAIN = Train(steps=1000, batch_size=16)


def device(idle_until: int, memory: float = math.inf) -> Callable[[Room], float | None]:
    """A device on which a step costs the same up to so many slots, and memory suffices for so many whole slots."""

    def measure(room: Room) -> float | None:
        if room.slots / room.parts > memory:
            return None
        return max(1.0, room.slots / idle_until) / room.slots

    return measure


@given(idle_until=st.integers(0, 12), first=st.integers(0, 12))
def test_slots_double_until_a_trial_step_gets_no_cheaper(idle_until: int, first: int) -> None:
    """From any first guess: the fewest slots that keep the device busy, or the guess where it is busy already."""
    room, cost = best(device(2**idle_until), Room(2**first), 4096, 64)
    assert (room.slots, cost) == (max(2**first, 2**idle_until), 2.0**-idle_until)


def test_fewer_slots_where_they_are_cheaper() -> None:
    """Where more slots leave the caches, they are halved until that is so no longer."""
    room, _ = best(lambda room: 1.0 if room.slots <= 2 else 2.0, Room(8), 4096, 64)
    assert room == Room(8), "8 and 4 cost the same: nothing says that 2 would be better"
    room, _ = best(lambda room: float(room.slots), Room(8), 4096, 64)
    assert room == Room(1)


def test_fewer_threads_where_they_are_cheaper() -> None:
    """Threads are halved as long as that pays."""
    room, _ = best(lambda room: 1.0 + room.threads, Room(8, threads=4), 4096, 64)
    assert room == Room(8, threads=1)


def test_memory_bounds_the_slots_then_the_batch() -> None:
    """Where memory does not suffice, slots are halved, then the batch is cut; if nothing fits, the first guess goes
    back to whoever trains."""
    assert best(device(1024, memory=20), Room(32), 4096, 64)[0] == Room(16)
    assert best(device(1024, memory=0.25), Room(32), 4096, 64)[0] == Room(1, parts=4)
    assert best(device(1024, memory=0), Room(32), 4096, 64) == (Room(32), None)


def test_slots_that_are_asked_for_are_given() -> None:
    """Nothing is measured then; there are never more slots than trials."""
    assert room_for(MODEL, TRAIN, Resources(threads=2, slots=5), 9, 10**9) == Room(5, threads=2)
    assert room_for(MODEL, TRAIN, Resources(threads=2, slots=5), 3, 10**9) == Room(3, threads=2)


@pytest.fixture
def measurements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Room]:
    """An empty cache; what is measured, on a device that 64 slots keep busy."""
    asked: list[Room] = []

    def measure(room: Room) -> float | None:
        asked.append(room)
        return device(64)(room)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(probe, "measured", lambda *_: measure)
    return asked


def test_a_short_pack_is_not_measured_for(measurements: list[Room]) -> None:
    """It would be over before the measurement."""
    assert room_for(MODEL, TRAIN, Resources(), 100, 9_999) == Room(8)
    assert measurements == []


def test_a_shape_is_measured_once(measurements: list[Room]) -> None:
    """What one process has found all others use; fewer trials get fewer slots."""
    assert room_for(MODEL, TRAIN, Resources(), 100, 10_000) == Room(64)
    assert [room.slots for room in measurements] == [8, 16, 32, 64, 128]
    assert room_for(MODEL, TRAIN, Resources(), 20, 10_000) == Room(20)
    assert len(measurements) == 5
    other = PackedTransformer(Model(width=32, depth=1, heads=2), 11, 7, 1)
    room_for(other, TRAIN, Resources(), 20, 10_000)
    assert len(measurements) == 10


def test_a_damaged_or_unwritable_cache_is_as_none(
    measurements: list[Room], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged file is written anew; where nothing can be written, every pack measures for itself."""
    room_for(MODEL, TRAIN, Resources(), 100, 10_000)
    (file,) = tmp_path.rglob("*.json")
    file.write_text("{")
    for _ in range(2):
        assert room_for(MODEL, TRAIN, Resources(), 100, 10_000) == Room(64)
    assert len(measurements) == 10
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert room_for(MODEL, TRAIN, Resources(), 100, 10_000) == Room(64)
    assert len(measurements) == 15


def test_the_real_thing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured on this machine: some room, within bounds."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    room = room_for(MODEL, TRAIN, Resources(threads=2), 16, 10_000)
    assert 1 <= room.slots <= 16
    assert room.threads in (1, 2)
    assert (room.parts, room.is_compiled) == (1, False)
