"""Closing in on a trial that kills its workers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from cluster.base import Backlog
from orchestrator.driver import Driver
from orchestrator.errors import StoreError
from orchestrator.pack import Pack
from orchestrator.packs import Attempt, OpenPack, open_packs, suspects
from orchestrator.schema import IDENTITY, PROVENANCE, RESULT
from orchestrator.search.grid import Grid
from orchestrator.store import Store
from orchestrator.trial import Ending, Trial
from orchestrator.worker import PackProgress, WorkOrder
from trainers.base import Resources

TRIALS = [Trial({"x": x}, {"x": float(x)}) for x in range(8)]
IDS = [trial.trial_id for trial in TRIALS]
SCHEMA = pl.Schema({**IDENTITY, "x": pl.Float64, **RESULT, **PROVENANCE})


def driver(store: Store) -> Driver:
    """A new driver in charge, as a launch makes it."""
    order = WorkOrder(store.path, "t", (), store.next_epoch(), Resources(), {"x": ("x",)}, SCHEMA, {}, "test")
    return Driver(store, Grid(TRIALS), lambda trial: "one shape", 8, order)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path)


def die(current: Driver, active: Sequence[str] = (), error: str | None = None) -> list[str]:
    """Take up the next pack and die training `active` (all, if none is named); the ids of the pack's trials."""
    pack_id = current.next_pack()
    assert pack_id is not None
    files = OpenPack(current.store, pack_id)
    ids = [trial.trial_id for trial in files.load().trials]
    files.begin_attempt(current.order.epoch).update(active=tuple(active or ids), error=error)
    current.died(pack_id)
    return ids


def test_after_three_deaths_a_pack_is_halved(store: Store) -> None:
    """Three workers die on the whole pack; then its halves are tried, first the first one."""
    current = driver(store)
    assert [die(current) for _ in range(3)] == [IDS] * 3
    assert die(current) == IDS[:4]


def test_trials_that_were_not_training_go_on_apart(store: Store) -> None:
    """Only trials that were training at every death are suspects; the others get a pack of their own."""
    current = driver(store)
    for active in (IDS[:4], IDS[2:6], IDS[2:4]):
        die(current, active)
    innocent = [IDS[i] for i in (0, 1, 4, 5, 6, 7)]
    assert [die(current) for _ in range(3)] == [innocent] * 3


def test_a_lone_suspect_fails_with_the_last_error(store: Store) -> None:
    """The one trial that was training at three deaths becomes a failed row; the others go on."""
    current = driver(store)
    for _ in range(3):
        die(current, [IDS[5]], "CUDA error")
    assert die(current) == IDS[:5] + IDS[6:]
    rows = store.scan("trials").select("trial_id", "status", "error", "x").collect().rows()
    assert rows == [(IDS[5], "failed", "its worker died 3 times; last: CUDA error", 5.0)]
    assert current.tally.statuses == {IDS[5]: "failed"}


def test_everything_ends_even_if_every_worker_dies(store: Store) -> None:
    """However often workers die, the driver comes to an end with every trial failed."""
    current, n_deaths = driver(store), 0
    while not current.is_finished and n_deaths < 1000:
        if current.next_pack() is None:
            break
        current.queue.appendleft(OpenPack(store, current.running.pop()).load())
        die(current)
        n_deaths += 1
    assert store.statuses() == dict.fromkeys(IDS, "failed")
    assert list((store.path / "packs").iterdir()) == []


def test_deaths_count_across_launches(store: Store) -> None:
    """A trial that takes the driver along is found too: attempts are on disk."""
    for _ in range(3):
        die(driver(store))
    assert die(driver(store)) == IDS[:4]


def test_deaths_that_nobody_saw_are_nobodys_fault(store: Store) -> None:
    """Nine times the driver dies with its worker: the pack is simply tried again. At the tenth it is suspected."""
    for _ in range(9):
        current = driver(store)
        pack_id = current.next_pack()
        assert pack_id is not None
        OpenPack(store, pack_id).begin_attempt(current.order.epoch).update(active=tuple(IDS))
        assert [trial.trial_id for trial in OpenPack(store, pack_id).load().trials] == IDS
    OpenPack(store, pack_id).begin_attempt(9).update(active=tuple(IDS))
    assert die(driver(store)) == IDS[:4]


def test_damaged_files_of_a_pack(store: Store) -> None:
    """An attempt that holds nothing (it is not synced) is no attempt; a damaged intent is named."""
    current = driver(store)
    pack_id = current.next_pack()
    assert pack_id is not None
    files = OpenPack(store, pack_id)
    files.begin_attempt(1).path.write_bytes(b"")
    assert files.attempts() == []
    files.intent_path.write_text('{"trials": [')
    with pytest.raises(StoreError, match=r"json: damaged \(.*\)\. Delete it and launch again"):
        driver(store)


def test_a_driver_that_dies_while_splitting(store: Store) -> None:
    """If both the pack and its halves are on disk, the halves are what goes on."""
    current = driver(store)
    for _ in range(3):
        die(current)
    parent = current.queue[0]
    current.next_pack()
    OpenPack(store, parent.pack_id).write_intent(parent)  # as if it had not been taken away yet
    packs: list[Any] = [[t.trial_id for t in files.load().trials] for files in open_packs(store)]
    assert sorted(map(len, packs)) == [4, 4]


def test_looking_at_open_packs_changes_nothing(store: Store) -> None:
    """Whoever looks may not own the run: a pack that was being split goes with the next driver only."""
    current = driver(store)
    for _ in range(3):
        die(current)
    parent = OpenPack(store, current.queue[0].pack_id)
    current.next_pack()
    parent.write_intent(Pack(tuple(TRIALS)))
    halves = open_packs(store)
    assert 2 == len(halves)
    assert parent.intent_path.exists()
    assert [pack.pack_id for pack in halves] == [pack.pack_id for pack in driver(store).queue]
    assert not parent.intent_path.exists()


@pytest.mark.parametrize("moment", ["stat", "read_bytes"])
def test_packs_that_close_while_somebody_looks(
    store: Store, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are open no longer; the others are listed."""
    current = driver(store)
    current.pack_size = 4
    gone, other = (OpenPack(store, str(current.next_pack())) for _ in range(2))
    original = getattr(Path, moment)

    def closing(path: Path, *arguments: Any, **options: Any) -> Any:
        if path == gone.intent_path:
            path.unlink(missing_ok=True)
        return original(path, *arguments, **options)

    monkeypatch.setattr(Path, moment, closing)
    assert [other] == open_packs(store)


def test_progress_forgives_earlier_deaths(store: Store) -> None:
    """Attempts are forgotten once a worker gets anywhere."""
    current = driver(store)
    die(current)
    die(current)
    pack_id = current.next_pack()
    assert pack_id is not None
    attempt = OpenPack(store, pack_id).begin_attempt(current.order.epoch)
    OpenPack(store, pack_id).forget_attempts(but=attempt.path)
    assert len(OpenPack(store, pack_id).attempts()) == 1


def test_suspects_without_a_common_trial_are_all() -> None:
    """If no trial was there at every death, nobody is cleared."""
    attempts = [Attempt(1, "h", 1, (IDS[0],)), Attempt(1, "h", 2, (IDS[1],))]
    assert suspects(TRIALS, attempts) == TRIALS


@pytest.mark.parametrize(("live_nodes", "n_dead"), [(("n1", "n2"), 3), (("n2",), 0), ((), 0)])
def test_a_death_with_its_whole_node_is_not_the_trials_fault(
    store: Store, live_nodes: Sequence[str], n_dead: int
) -> None:
    """Three workers end on node n1: if it lives, trials are suspected; if it is gone, the pack goes on whole."""
    current = driver(store)
    for _ in range(3):
        pack_id = current.next_pack()
        assert pack_id is not None
        OpenPack(store, pack_id).begin_attempt(current.order.epoch, "n1").update(active=tuple(IDS))
        current.died(pack_id, live_nodes.__contains__)
    assert n_dead == sum(attempt.is_dead for attempt in OpenPack(store, pack_id).attempts())
    assert (IDS[:4] if n_dead else IDS) == die(current)


def test_workers_that_die_before_they_begin(store: Store) -> None:
    """They leave no attempt, so the driver writes one: nine times it is nobody's fault, at the tenth the pack is
    suspected, since it would go on like that for ever."""
    current = driver(store)
    for n in range(1, 10):
        pack_id = current.next_pack()
        assert pack_id is not None
        current.died(pack_id, ["n1"].__contains__)
        # The next one begins, and its node goes.
        OpenPack(store, pack_id).begin_attempt(current.order.epoch, "gone")
        assert n + 1 == len(OpenPack(store, pack_id).attempts())
    assert IDS[:4] == die(current)


def test_a_driver_with_time_to_stop(store: Store) -> None:
    """Begins nothing more; what runs is left after the time of grace, or at once if it is told again."""
    current = driver(store)
    running = current.next_pack()
    current.stop(grace_s=60)
    assert (None, True, False, False) == (
        current.next_pack(),
        current.is_stopping,
        current.stop_requested,
        current.is_finished,
    )
    current.stop()
    assert current.stop_requested
    current.stop(grace_s=60)
    assert current.stop_requested
    current.left(str(running))
    assert current.is_finished


def test_how_much_is_left(store: Store) -> None:
    """One pack until the search has been asked, or idle workers would leave while Tune starts; then what is queued
    and what runs; nothing at the end."""
    current = driver(store)
    current.pack_size = 3
    seen = [current.backlog()]
    packs = [current.next_pack()]
    seen.append(current.backlog())
    packs += [current.next_pack(), current.next_pack()]
    seen.append(current.backlog())
    current.died(str(packs[0]))
    seen.append(current.backlog())
    for pack_id in (current.next_pack(), *packs[1:]):
        current.ended(str(pack_id))
    current.progressed(PackProgress(1, dict.fromkeys(IDS, Ending("solved")), True))
    seen.append(current.backlog())
    assert [Backlog(0, 1, 0), Backlog(1, 2, 0), Backlog(3, 0, 0), Backlog(2, 1, 0), Backlog(0, 0, 8)] == seen


def test_what_an_earlier_driver_began_waits(store: Store) -> None:
    """Its packs are in the queue from the start."""
    assert driver(store).next_pack() is not None
    assert Backlog(0, 1, 0) == driver(store).backlog()
