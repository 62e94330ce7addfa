"""Sparse parity."""

from __future__ import annotations

import math

import pytest
import torch
from small_tasks import batches, filled

from trainers.tasks.parity import Parity
from trainers.tasks.pools import Request


def test_the_example_of_the_docstring() -> None:
    """The worked example is what is made."""
    task = Parity(n=5, k=2, data_size=8)
    index = torch.tensor([0b00110, 0b10011])  # the first bit is the lowest
    zeros = torch.zeros_like(index)
    tokens, targets = task.examples(Request(0, index, zeros, torch.tensor([[0, 1, 0, 0, 1]]), zeros))
    assert [[0, 1, 1, 0, 0, 2], [1, 1, 0, 0, 1, 2]] == tokens.tolist()
    assert [[1], [0]] == targets.tolist()


@pytest.mark.parametrize("data_size", [60, math.inf])
@pytest.mark.parametrize(("n", "k"), [(9, 1), (9, 3), (9, 9), (60, 30)])
def test_answers_equal_brute_force(n: int, k: int, data_size: float) -> None:
    """Every target is the sum of the hidden bits mod 2, of k bits that are fixed for a trial."""
    tasks = [Parity(n=n, k=k, data_size=data_size, eval_size=32)] * 2
    data = filled(*tasks)
    tokens, targets = batches(data, [0, 5], 3)
    for slot, hidden in enumerate(data.hidden.tolist()):
        assert k == sum(hidden)
        inputs = tokens[:, slot].flatten(0, 1).tolist() + data.evaluation()[0][slot].tolist()
        answers = targets[:, slot].flatten().tolist() + data.evaluation()[1][slot].flatten().tolist()
        checked = [(x, y) for x, y in zip(inputs, answers, strict=True) if y != -100]
        assert len(checked) >= 24 + 32
        for (*bits, end), answer in checked:
            assert 2 == end
            assert answer == sum(bit for bit, counts in zip(bits, hidden, strict=True) if counts) % 2
    assert k in (1, n) or data.hidden[0].tolist() != data.hidden[1].tolist()


def test_cells_that_cannot_exist() -> None:
    """More hidden bits than bits, and pools that leave nothing to evaluate."""
    assert "there are only n = 3 bits, and k is 4" == Parity(n=3, k=4, data_size=2).impossible(8)
    full = "the pool (5) and the evaluation set (4) do not fit into the 8 examples that there are"
    assert [None, full] == [Parity(n=3, k=3, data_size=size).impossible(8) for size in (4, 5)]
    wrong = (
        "n must be from 1 to 60, not 61; k must be 1 or more, not 0; data_size must be a whole number from 1"
    )
    with pytest.raises(ValueError, match=wrong):
        Parity(n=61, k=0, data_size=0.5)
