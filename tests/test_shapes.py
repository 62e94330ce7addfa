"""Packs of a threshold search whose curves have several shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from orchestrator.driver import Driver
from orchestrator.packs import OpenPack
from orchestrator.schema import IDENTITY, PROVENANCE, RESULT
from orchestrator.search.adaptive import ThresholdSearch
from orchestrator.search.base import ShapeOf
from orchestrator.store import Store
from orchestrator.sweep import Sweep, load_sweep
from orchestrator.trial import Ending, Trial
from orchestrator.worker import PackProgress, WorkOrder
from trainers.base import Resources

SWEEP: dict[str, Any] = {
    "name": "shapes",
    "trainer": "trainers.surface:train",
    "axes": {"k": [1, 2], "depth": [1, 2, 3, 4], "data_size": {"log2": [6, 14], "points": 9}, "seed": 2},
    "search": {"kind": "threshold", "precision": 1, "max_trials": 20},
    "solved": {"metric": "accuracy", "at_least": 1},
}
SIZE = 6


def endings(trials: Iterable[Trial]) -> dict[str, Ending]:
    """More than 2**(7 + k) examples solve."""
    return {
        t.trial_id: Ending("solved" if math.log2(t.config["data_size"]) > 7 + t.config["k"] else "unsolved")
        for t in trials
    }


class Packs:
    """A driver and the packs that it has begun, without workers."""

    def __init__(self, folder: Path, shape_of: ShapeOf, **changes: Any) -> None:
        (folder / "sweep.yaml").write_text(yaml.safe_dump({**SWEEP, **changes}))
        self.sweep: Sweep = load_sweep(folder / "sweep.yaml")
        self.shape_of, self.store = shape_of, Store.create(folder / "run")
        self.search = ThresholdSearch(self.sweep.space, self.sweep.search)
        schema = pl.Schema({**IDENTITY, **RESULT, **PROVENANCE})
        order = WorkOrder(
            self.store.path, "t", (), self.store.next_epoch(), Resources(), {}, schema, {}, "test"
        )
        self.driver = Driver(self.store, self.search, shape_of, SIZE, order)

    def begin(self) -> list[Trial]:
        """The trials of the next pack; none, if nothing is to be begun."""
        pack_id = self.driver.next_pack()
        return [] if pack_id is None else list(OpenPack(self.store, pack_id).load().trials)

    def end(self, trials: list[Trial]) -> None:
        """All of a pack's trials have ended."""
        pack_id = next(
            p for p in self.driver.running if OpenPack(self.store, p).load().trials[0] == trials[0]
        )
        self.driver.progressed(PackProgress(len(trials), endings(trials), True))
        self.driver.ended(pack_id)

    def shapes(self, trials: list[Trial]) -> set[str]:
        return set(map(self.shape_of, trials))


def depth(trial: Trial) -> str:
    return str(trial.config["depth"])


def test_each_place_is_given_a_full_pack_of_another_shape(tmp_path: Path) -> None:
    """Four packs at once, four depths, though the most urgent trials of all curves have every depth."""
    packs = Packs(tmp_path, depth)
    begun = [packs.begin() for _ in range(4)]
    assert [SIZE] * 4 == [len(trials) for trials in begun]
    assert [{"1"}, {"2"}, {"3"}, {"4"}] == sorted((packs.shapes(trials) for trials in begun), key=min)


def test_nothing_waits_that_was_decided_before(tmp_path: Path) -> None:
    """What is asked for runs at once; what doesn't fit into the pack is decided anew when the next one begins."""
    packs = Packs(tmp_path, depth)
    first = packs.begin()
    assert not packs.driver.queue
    assert packs.search._curve_of.keys() == {trial.trial_id for trial in first}


@pytest.mark.parametrize(
    ("shape_of", "changes"),
    [
        (depth, {}),
        (lambda trial: "one", {}),
        (lambda trial: str(trial.config["data_size"] > 2**9), {}),
        (
            lambda trial: str(trial.config["k"]),
            {
                "axes": {"k": list(range(1, 13)), "data_size": [300, 1000]},
                "search": {"kind": "threshold", "along": "k", "max_trials": 20},
            },
        ),
    ],
    ids=["across curves", "one", "along curves", "the searched axis"],
)
def test_it_ends_with_packs_of_one_shape(
    shape_of: Callable[[Trial], str], changes: dict[str, Any], tmp_path: Path
) -> None:
    """Two places: packs are of one shape and of at most six trials, no trial runs twice, every curve is done."""
    packs, running, ran = Packs(tmp_path, shape_of, **changes), [], []
    while True:
        while len(running) < 2 and (trials := packs.begin()):
            assert 1 == len(packs.shapes(trials))
            assert len(trials) <= SIZE
            running.append(trials)
            ran += [trial.trial_id for trial in trials]
        if not running:
            break
        packs.end(running.pop(0))
    assert packs.driver.is_finished
    assert len(ran) == len(set(ran))
    assert None not in packs.search.reasons()


def test_stopped_after_every_pack_it_runs_the_same(tmp_path: Path) -> None:
    """A driver that forgets what it had in mind begins the packs of one that never stopped."""
    whole = Packs(tmp_path, depth)
    told: list[list[Trial]] = []
    while trials := whole.begin():
        (tmp_path / str(len(told))).mkdir()
        again = Packs(tmp_path / str(len(told)), depth)
        for trial in [trial for earlier in told for trial in earlier]:
            assert again.search.wants(trial)
        for earlier in told:
            again.driver.progressed(PackProgress(0, endings(earlier), True))
        assert trials == again.begin()
        whole.end(trials)
        told.append(trials)
    assert len(told) > 8
