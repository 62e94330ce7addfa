"""Word problems of groups."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from small_tasks import batches, filled

from trainers.tasks.group import Group, order_of, permutations_of, product_table
from trainers.tasks.pools import Request


def test_the_example_of_the_docstring() -> None:
    """The worked example is what is made, with both readouts."""
    index = torch.tensor([1 + 6 * 2 + 36 * 3])
    for readout, expected in [("all", [[1, 4, 0]]), ("last", [[0]])]:
        task = Group(group="S3", length=3, data_size=8, readout=readout)  # type: ignore[arg-type]
        tokens, targets = task.examples(Request(0, index, index, torch.zeros(1, 0), index * 0))
        assert ([[1, 2, 3]], expected) == (tokens.tolist(), targets.tolist())


@pytest.mark.parametrize("group", ["S2", "S3", "S4", "A3", "A4", "A5", "Z7", "Z60", "Z2^3", "Z2^6"])
def test_the_laws_of_a_group(group: str) -> None:
    """Products of all elements: element 0 is the unit, each row holds every element once, and brackets do not
    matter; cyclic groups and bits commute, the others do not."""
    table, order = product_table(group), order_of(group)
    everything = torch.arange(order)
    assert torch.equal(everything, table[0]) and torch.equal(everything, table[:, 0])
    assert torch.equal(everything.expand(order, order), table.sort(1)[0])
    assert torch.equal(table[table], table[:, table])  # (pq)r and p(qr)
    assert torch.equal(table, table.T) == (group.startswith("Z") or group in ("S2", "A3"))


@pytest.mark.parametrize("readout", ["all", "last"])
@pytest.mark.parametrize("data_size", [30, math.inf])
@pytest.mark.parametrize("group", ["S4", "A5", "Z10", "Z2^3"])
def test_answers_equal_brute_force(group: str, data_size: float, readout: str) -> None:
    """Every target is the product, of permutations applied one after the other, sums mod n, or bits."""
    task = Group(group=group, length=12, data_size=data_size, readout=readout, eval_size=8)  # type: ignore[arg-type]
    data = filled(task)
    tokens, targets = (x.flatten(0, 2) for x in batches(data, [3], 4))
    for word, answer in zip(tokens.tolist(), targets.tolist(), strict=True):
        if group.startswith("Z2"):
            products = list(itertools.accumulate(word, lambda a, b: a ^ b))
        elif group.startswith("Z"):
            products = [total % 10 for total in itertools.accumulate(word)]
        else:
            elements = permutations_of(group)
            products = [
                elements.index(apply_all([elements[g] for g in word[: i + 1]])) for i in range(len(word))
            ]
        assert (products if readout == "all" else products[-1:]) == answer


def apply_all(word: list[tuple[int, ...]]) -> tuple[int, ...]:
    """Where each thing goes: through the last permutation first."""
    places = range(len(word[0]))
    for permutation in reversed(word):
        places = [permutation[place] for place in places]  # type: ignore[assignment]
    return tuple(places)


def test_groups_that_are_none() -> None:
    """A name that stands for no group, or for one that is too large, is named with what is allowed."""
    known = "S2 .. S5, A3 .. A6, Zn or Z2^m, of 2 to 512 elements"
    for wrong in ("S6", "A7", "Z1", "Z513", "Z2^10", "D4", ""):
        with pytest.raises(ValueError) as error:
            Group(group=wrong, length=3, data_size=8)
        assert f"group must be one of {known}, not {wrong!r}" == str(error.value)
    orders = [order_of(group) for group in ("S5", "A5", "A6", "Z60", "Z2^6")]
    assert [120, 60, 360, 60, 64] == orders


def test_trials_of_one_pack_have_one_group() -> None:
    """Groups of one order are different shapes: their tables differ."""
    assert (
        Group(group="A5", length=3, data_size=8).shape() != Group(group="Z60", length=3, data_size=8).shape()
    )
