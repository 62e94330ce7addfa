"""Packs: grouping by shape, and their ids."""

from __future__ import annotations

import pytest

from orchestrator.pack import Pack, make_packs, pack_id
from orchestrator.trial import Trial

TRIALS = [Trial({"shape": shape, "seed": seed}) for seed, shape in enumerate("abaabcaa")]


def _shape(trial: Trial) -> str:
    return str(trial.config["shape"])


def test_packs_hold_one_shape_in_the_order_of_first_appearance() -> None:
    """Shapes and trials keep their order, and a shape's trials are cut into packs of the size."""
    packs = make_packs(TRIALS, _shape, 2)
    assert [[0, 2], [3, 6], [7], [1, 4], [5]] == [
        [trial.config["seed"] for trial in pack.trials] for pack in packs
    ]


def test_no_trials_make_no_packs() -> None:
    """Nothing to run is no pack."""
    assert [] == make_packs([], _shape, 4)


def test_a_pack_of_no_trials_is_refused() -> None:
    """The size is at least one."""
    with pytest.raises(ValueError, match="a pack holds at least one trial, not 0"):
        make_packs(TRIALS, _shape, 0)


def test_the_pack_id_depends_on_the_order_of_the_trials() -> None:
    """Equal queues have equal ids; another order is another pack."""
    forward, backward = Pack(tuple(TRIALS)), Pack(tuple(reversed(TRIALS)))
    assert forward.pack_id == Pack(tuple(Trial(dict(t.config)) for t in TRIALS)).pack_id
    assert forward.pack_id != backward.pack_id


def test_the_pack_id_has_16_hex_digits_and_never_changes() -> None:
    """The id of given trials is the same in every version of this project."""
    assert "7e18f737311b2dc3" == pack_id(["a", "b"])
    assert pack_id(["ab"]) != pack_id(["a", "b"])
