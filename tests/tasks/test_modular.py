"""Modular addition."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch
from small_tasks import batches, filled

from trainers.tasks.modular import Modular
from trainers.tasks.pools import Request


def test_the_example_of_the_docstring() -> None:
    """The worked example is what is made."""
    index = torch.tensor([3 + 7 * 5, 0 + 7 * 6])
    tokens, targets = Modular(p=7, fraction=0.5).examples(
        Request(0, index, index, torch.zeros(1, 0), index * 0)
    )
    assert ([[3, 5, 7], [0, 6, 7]], [[1], [6]]) == (tokens.tolist(), targets.tolist())


def pairs(tokens: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    return [(a, b) for a, b, _ in tokens]


def test_answers_equal_brute_force() -> None:
    """A pass over the pool holds the share of all pairs that was asked for, each with its sum; with what is held
    out, which does not depend on the share, these are all pairs."""
    task, less = Modular(p=11, fraction=0.75, eval_size=30), Modular(p=11, fraction=0.3, eval_size=30)
    data, other = filled(task, batch=13), filled(less, batch=13)
    tokens, targets = (x.flatten(0, 2).tolist() for x in batches(data, [0], 7))
    assert 91 == task.kinds()[0].pool == len(set(pairs(tokens)))
    assert [[(a + b) % 11] for a, b in pairs(tokens)] == targets
    held_out = pairs(data.evaluation()[0][0, 30:].tolist())
    assert {*itertools.product(range(11), range(11))} == {*held_out, *pairs(tokens)}
    assert held_out == pairs(other.evaluation()[0][0, 30:].tolist())
    assert pairs(other.pool[0].tolist()) == pairs(data.pool[0, :36].tolist())


def test_shares_that_make_no_sense() -> None:
    """Shares outside (0, 1) are mistakes; a share that leaves too little to evaluate, a cell that cannot be."""
    for wrong in (0.0, 1.0):
        with pytest.raises(ValueError) as error:
            Modular(fraction=wrong)
        assert f"fraction must be above 0 and below 1, not {wrong:g}" == str(error.value)
    full = "the pool (8939) and the evaluation set (512) do not fit into the 9409 examples that there are"
    assert [None, full] == [Modular(fraction=fraction).impossible(512) for fraction in (0.94, 0.95)]
