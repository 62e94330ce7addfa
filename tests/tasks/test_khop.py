"""k-hop induction."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from small_tasks import batches, filled

from trainers.tasks.khop import KHop, answers_of, symbols_of


def brute_force(symbols: list[int], hops: int, none: int) -> list[int]:
    """The paper's definition: find(i) is the largest j <= i with x_(j-1) = x_i; the answer is x at find^hops(i)."""
    found = []
    for i in range(len(symbols)):
        at: int | None = i
        for _ in range(hops):
            places = [j for j in range(1, at + 1) if symbols[j - 1] == symbols[at]] if at is not None else []
            at = max(places, default=None)
        found.append(none if at is None else symbols[at])
    return found


def test_the_example_of_the_docstring() -> None:
    """The worked example is what is made, also by the definition."""
    x = [0, 1, 2, 0, 2, 1, 0]
    assert [[3, 3, 3, 3, 1, 3, 0]] == answers_of(torch.tensor([x]), 2, 3).tolist()
    assert [3, 3, 3, 3, 1, 3, 0] == brute_force(x, 2, 3)
    task = KHop(length=7, alphabet=3, k=2, data_size=10)
    assert (8, 6, range(1, 8)) == (task.sequence_length, task.vocab_size, task.answers)


def test_digits_are_all_sequences_without_equal_neighbours() -> None:
    """Every such sequence is spelled by one combination of digits."""
    bases = KHop(length=4, alphabet=3, k=1, data_size=1).bases
    digits = torch.cartesian_prod(*(torch.arange(base) for base in bases))
    sequences = {tuple(row) for row in symbols_of(digits, 3).tolist()}
    assert 24 == len(sequences) == len(digits)
    assert all(a != b for row in sequences for a, b in itertools.pairwise(row))


@pytest.mark.parametrize("data_size", [60, math.inf])
@pytest.mark.parametrize(
    "values",
    [
        {"length": 9, "alphabet": 3, "k": 1},
        {"length": 12, "alphabet": 3, "k": 3},
        {"length": 100, "alphabet": 4, "k": 8},
        {"length": 70, "alphabet": 5, "k": 4, "mixed": False},
    ],
)
def test_answers_equal_brute_force(values: dict[str, int], data_size: float) -> None:
    """Every target, in batches and evaluation sets, is what the definition gives, for every number of hops."""
    task = KHop(**values, data_size=data_size, eval_size=8)  # type: ignore[arg-type]
    data = filled(task)
    tokens, targets = (x.flatten(0, 2) for x in batches(data, [3], 4))
    inputs, answers = (
        [*x.tolist(), *y[0].tolist()] for x, y in zip((tokens, targets), data.evaluation(), strict=True)
    )
    seen = set()
    for (code, *symbols), answer in zip(inputs, answers, strict=True):
        if answer[0] != -100:
            seen.add(code - task.alphabet)
            assert brute_force(symbols, code - task.alphabet, task.alphabet) == answer
    assert set(task.hops) == seen


def test_the_pool_is_divided_among_the_hops() -> None:
    """Equal shares, the rest for k; all sizes add up to `data_size`."""
    sizes = [
        [kind.pool for kind in KHop(k=3, data_size=size, mixed=mixed).kinds()]
        for size, mixed in [(11.0, True), (11.0, False), (2.0, True), (math.inf, True)]
    ]
    assert [[3, 3, 5], [11], [0, 0, 2], [math.inf] * 3] == sizes


def test_accuracy_leaves_out_where_there_is_no_answer() -> None:
    """A model that always says "none" has no right answer, and one that knows the others has them all."""
    task = KHop(k=2, length=12, alphabet=3, data_size=20, eval_size=8)
    data = filled(task)
    is_none = (data.evaluation()[1] == 3).float()
    for correct, expected in [(is_none, 0.0), (1 - is_none, 1.0)]:
        metrics = data.metrics(correct, correct)
        names = ["train_accuracy", "test_accuracy", "test_accuracy_r1", "test_accuracy_r2"]
        assert [expected] * 4 == [float(metrics[name]) for name in names]
