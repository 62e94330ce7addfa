"""What the tests of the composition task share: its tasks, its data as tuples, and a brute-force reference."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor

from trainers.base import STREAMS
from trainers.tasks.composition import Composition
from trainers.tasks.composition_data import CompositionData

torch.set_num_threads(1)

INF = math.inf
BATCH = 8
BLOCK = 10


def composition(**values: Any) -> Composition:
    return Composition(**{"n": 3, "k": 2, "data_size": 20, "eval_size": 16, **values})


def seeds(seed: int = 0, **streams: int) -> dict[str, int]:
    return {stream: streams.get(stream, seed) for stream in STREAMS}


def filled(*tasks: Composition, first_seed: int = 0, steps: int = 100, batch: int = BATCH) -> CompositionData:
    """A pack with one slot for each task, with seeds first_seed, first_seed + 1, ..."""
    data = CompositionData(tasks, len(tasks), batch, BLOCK, "cpu")
    for slot, task in enumerate(tasks):
        assert task.impossible(batch) is None
        data.put(slot, task, seeds(first_seed + slot), steps)
    return data


def at(*step: int) -> Tensor:
    return torch.tensor(step)


def pool(data: CompositionData, slot: int = 0) -> list[list[tuple[int, ...]]]:
    """The examples of a slot's pool as tuples of tokens, stratum by stratum."""
    task = data.tasks[slot]
    assert task is not None
    tokens = iter([tuple(row) for row in data.rows.pool[slot].tolist()])
    return [list(itertools.islice(tokens, size)) for size in task.pool_sizes]


def held_out(data: CompositionData, slot: int = 0) -> list[list[tuple[int, ...]]]:
    """The held-out inputs of a slot as tuples of tokens, stratum by stratum."""
    tokens = iter([tuple(row) for row in data.evaluation()[0][slot, data.task.eval_size :].tolist()])
    sizes = [data.task.held_out_size(r) for r in range(1, data.task.k + 1)]
    return [list(itertools.islice(tokens, size)) for size in sizes]


def batches(data: CompositionData, step: Tensor, n_steps: int) -> tuple[Tensor, Tensor]:
    """All batches of a block: tokens `[n_steps, S, B, T]` and targets `[n_steps, S, B, Q]`."""
    data.prepare(step, n_steps)
    tokens, targets = zip(*(data.batch(torch.tensor([j])) for j in range(n_steps)), strict=True)
    return torch.stack(tokens), torch.stack(targets)


def hops_of(task: Composition, tokens: Tensor) -> Tensor:
    """The number of hops that each input `[..., T]` asks for."""
    return tokens[..., -2 if task.readout == "query" else 0] - task.n - task.k + 1


def brute_force(task: Composition, tokens: list[int], hidden: list[list[int]]) -> list[int]:
    """The answers to one input, from the definition f = sigma_k . pi_k ... sigma_1 . pi_1, value by value."""
    n, k = task.n, task.k
    if task.readout == "all":
        hop_token, *values = tokens
        questions = [(i, j) for i in range(k) for j in range(n)]
    else:
        *values, start, hop_token, x = tokens
        questions = [(start - n, x)]
    sigma = [values[j * n : (j + 1) * n] for j in range(k)]
    answers = []
    for table, value in questions:
        for _ in range(hop_token - n - k + 1):
            value = sigma[table][hidden[table][value]]
            table = 0 if table == k - 1 else table + 1
        answers.append(value)
    return answers
