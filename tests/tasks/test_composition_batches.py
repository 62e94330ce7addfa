"""The composition task: its batches, evaluation and metrics."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import Any

import pytest
import torch
from composition_reference import (
    BATCH,
    BLOCK,
    INF,
    at,
    batches,
    composition,
    filled,
    held_out,
    hops_of,
    pool,
    seeds,
)

from trainers.base import STREAMS
from trainers.tasks.composition_data import CompositionData
from trainers.tasks.mixture import Mixture

# Batches


def test_epochs_visit_each_example_once_per_pass() -> None:
    """Any N draws from the start of a pass on are the whole pool, and passes differ in order."""
    task = composition(data_size=20, easy_fraction=0.5, sampling="epochs")
    data = filled(task)
    blocks = [batches(data, at(step), n)[0] for step, n in [(0, 3), (3, 10), (13, 2)]]
    drawn = [tuple(row) for row in torch.cat(blocks).flatten(0, 2).tolist()]
    passes = [drawn[i : i + 20] for i in range(0, 120, 20)]
    assert [sorted(itertools.chain(*pool(data)))] * 6 == [sorted(p) for p in passes]
    assert 6 == len({tuple(p) for p in passes})


def test_examples_seen_are_counted() -> None:
    """`prepare` returns how many of the drawn examples are hard and easy, in every way of sampling."""
    values: list[dict[str, Any]] = [{}, {"sampling": "epochs"}, {"data_size": INF}, {"easy_fraction": 0.0}]
    tasks = [composition(**{"data_size": 30, "easy_fraction": 0.5, **v}) for v in values]
    data = filled(*tasks)
    seen = data.prepare(at(0, 5, 10, 15), BLOCK)
    hops = torch.stack(
        [hops_of(tasks[0], data.batch(torch.tensor([j]))[0]) for j in range(BLOCK)]
    )  # [n, S, B]
    assert [(hops == 2).sum((0, 2)).tolist(), (hops < 2).sum((0, 2)).tolist()] == [
        seen["hard_seen"].tolist(),
        seen["easy_seen"].tolist(),
    ]
    assert [80, 80, 80, 80] == (seen["hard_seen"] + seen["easy_seen"]).tolist()
    assert [torch.int64] * 2 == [seen["hard_seen"].dtype, seen["easy_seen"].dtype]


@pytest.mark.parametrize("data_size", [60, INF])
@pytest.mark.parametrize(
    ("expected", "values"),
    [
        ([0.0, 0.0, 1.0], {}),
        ([0.15, 0.15, 0.7], {"easy_fraction": 0.3}),
        ([1 / 3, 1 / 3, 1 / 3], {"easy_fraction": "uniform"}),
        ([0.4, 0.4, 0.2], {"easy_fraction": 0.3, "batch_easy_fraction": 0.8}),
        ([0.0, 0.0, 1.0], {"easy_fraction": 0.3, "batch_easy_fraction": 0.0}),
    ],
)
def test_fractions_of_batches(expected: list[float], values: dict[str, Any], data_size: float) -> None:
    """Hop lengths are drawn in the shares of the pool, or in those that `batch_easy_fraction` sets."""
    task = composition(k=3, data_size=data_size, **values)
    tokens = batches(filled(task, batch=400), at(0), BLOCK)[0]
    hops = hops_of(task, tokens)
    found = [float((hops == r).double().mean()) for r in (1, 2, 3)]
    assert pytest.approx(expected, abs=0.04) == found
    assert [share > 0 for share in expected] == [share > 0 for share in found]


def test_draws_with_replacement_are_uniform() -> None:
    """Each example of a pool is drawn equally often (5 sigma)."""
    data = filled(composition(data_size=20, easy_fraction=0.5), batch=2000)
    tokens = batches(data, at(0), BLOCK)[0].flatten(0, 2)
    counts = Counter(map(tuple, tokens.tolist()))
    assert set(itertools.chain(*pool(data))) == set(counts)
    chi_square = sum((count - 1000) ** 2 / 1000 for count in counts.values())
    assert abs(chi_square - 19) < 5 * math.sqrt(2 * 19)


@pytest.mark.parametrize("data_size", [400, INF])
def test_stages_grow(data_size: float) -> None:
    """Stages of equal length add hop lengths in growing order; earlier ones keep their relative weights."""
    mixture = Mixture(hops=(4, 1), weights=(1.0, 3.0))
    task = composition(k=5, data_size=data_size, easy_fraction=0.5, mixture=mixture, curriculum="staged")
    data = filled(task, steps=9, batch=2000)
    hops = hops_of(task, batches(data, at(0), 9)[0])[:, 0]  # [9, B]
    stages = [[1.0, 0.0, 0.0], [0.75, 0.25, 0.0], [0.375, 0.125, 0.5]]
    for step in range(9):
        found = [float((hops[step] == r).double().mean()) for r in (1, 4, 5)]
        assert pytest.approx(stages[step // 3], abs=0.05) == found
        assert 1 == sum(found)


def test_a_stage_does_not_wait_for_what_is_not_there() -> None:
    """Without easy examples a staged curriculum is the mixed one, bit for bit."""
    staged, mixed = (filled(composition(curriculum=c)) for c in ("staged", "mixed"))
    assert torch.equal(batches(staged, at(0), 5)[0], batches(mixed, at(0), 5)[0])


KINDS: list[dict[str, Any]] = [
    {"data_size": 25},
    {"data_size": INF, "easy_fraction": 0.5},
    {"data_size": 40, "easy_fraction": 0.5, "sampling": "epochs"},
    {"data_size": 60, "easy_fraction": "uniform", "curriculum": "staged"},
    {"data_size": INF, "easy_fraction": "uniform", "curriculum": "staged"},
]
STARTS: list[dict[str, Any]] = [{"cyclic": True, "readout": "all", "n": 4}, {"cyclic": True}, {}]


@pytest.mark.parametrize("starts", STARTS)
def test_slots_do_not_know_their_neighbours(starts: dict[str, Any]) -> None:
    """A slot among others, at a step of its own, has bit for bit the examples that it has alone."""
    tasks = [composition(**kind, **starts) for kind in KINDS]
    packed = filled(*tasks)
    steps = [0, 30, 7, 45, 95]
    tokens, targets = batches(packed, at(*steps), 4)
    for slot, task in enumerate(tasks):
        solo = filled(task, first_seed=slot)
        alone = batches(solo, at(steps[slot]), 4)
        assert torch.equal(alone[0][:, 0], tokens[:, slot]) and torch.equal(alone[1][:, 0], targets[:, slot])
        for mine, packs in zip(solo.evaluation(), packed.evaluation(), strict=True):
            assert torch.equal(mine[0], packs[slot])
        assert torch.equal(solo.rows.is_unseen[0], packed.rows.is_unseen[slot])


def test_blocks_may_be_cut_anywhere() -> None:
    """Ten steps in one block are the batches of four and six, so that a resumed trial goes on unchanged."""
    tasks = [composition(**kind) for kind in KINDS]
    whole = batches(filled(*tasks), at(20, 0, 3, 45, 60), 10)[0]
    data = filled(*tasks)
    parts = [batches(data, at(20, 0, 3, 45, 60), 4)[0], batches(data, at(24, 4, 7, 49, 64), 6)[0]]
    assert torch.equal(whole, torch.cat(parts))


def test_slots_are_kept_and_filled_again() -> None:
    """Slots that are kept, in a new order, draw on as before; a slot filled again equals a new one."""
    tasks = [composition(**kind) for kind in KINDS]
    data = filled(*tasks)
    expected = batches(filled(*tasks), at(0, 0, 0, 0, 0), 3)[0]
    expected_evaluation = data.evaluation()[0].clone()
    data.keep([3, 1])
    assert torch.equal(expected[:, [3, 1]], batches(data, at(0, 0), 3)[0])
    assert torch.equal(expected_evaluation[[3, 1]], data.evaluation()[0])
    data.put(1, tasks[0], seeds(0), 100)
    new = filled(tasks[0])
    assert torch.equal(expected[:, [3, 0]], batches(data, at(0, 0), 3)[0])
    for mine, fresh in zip(data.evaluation(), new.evaluation(), strict=True):
        assert torch.equal(fresh[0], mine[1])
    assert torch.equal(new.rows.is_unseen[0], data.rows.is_unseen[1])


def test_each_seed_moves_its_own_stream() -> None:
    """Each of the five seeds changes what it names and nothing else; the same seeds give the same bits."""
    task = composition(n=4, data_size=400, easy_fraction=0.5, eval_size=512)
    changed = {}
    for stream in ("none", *STREAMS):
        data = CompositionData([task], 2, BATCH, BLOCK, "cpu")
        data.put(0, task, seeds(), 100)
        data.put(1, task, seeds(**{stream: 1}), 100)
        data.prepare(at(0, 0), 2)
        parts = {
            "hidden": data.rows.hidden,
            "held out": data.evaluation()[0][:, task.eval_size :],
            "pool": data.rows.pool,
            "draws": data.index,
        }
        changed[stream] = [name for name, part in parts.items() if not torch.equal(part[0], part[1])]
    # Held-out inputs are taken out of the pool, so that another choice of them moves the pool too.
    assert {
        "none": [],
        "task": ["hidden"],
        "data": ["pool"],
        "init": [],
        "order": ["draws"],
        "eval": ["held out", "pool"],
    } == changed


# Metrics


def test_metrics_are_means_over_their_sets() -> None:
    """Each metric is the mean over its own examples, NaN without any; `test_accuracy` is that of r = k."""
    tasks = [composition(k=3, data_size=5), composition(k=3, data_size=40), composition(k=3, data_size=INF)]
    data = filled(*tasks)
    correct, loss = torch.zeros(3, 64, 1), torch.zeros(3, 64, 1)
    for i, accuracy in enumerate([1.0, 0.25, 0.5, 0.75]):
        correct[:, 16 * i : 16 * i + int(16 * accuracy)] = 1
        loss[:, 16 * i : 16 * i + 16] = i
    correct[0, 5:16], loss[0, 5:16] = 0, math.nan  # not examples: slot 0 has a pool of five
    metrics = data.metrics(correct, loss)
    assert sorted(tasks[0].metrics()) == sorted(metrics)
    assert {torch.float64} == {m.dtype for m in metrics.values()}
    expected = {
        "train_accuracy": [1.0, 1.0, math.nan],
        "train_loss": [0.0, 0.0, math.nan],
        "test_accuracy": [0.75] * 3,
        "test_loss": [3.0] * 3,
        "test_accuracy_r1": [0.25] * 3,
        "test_accuracy_r2": [0.5] * 3,
        "test_accuracy_r3": [0.75] * 3,
        "test_accuracy_r1_unseen": [0.25, 0.25, math.nan],
        "test_accuracy_r2_unseen": [0.5, 0.5, math.nan],
    }
    assert sorted(expected) == sorted(metrics)
    for name, values in expected.items():
        assert pytest.approx(values, nan_ok=True) == metrics[name].tolist(), name


@pytest.mark.parametrize("cyclic", [False, True])
def test_unseen_inputs_share_nothing_that_matters_with_the_pool(cyclic: bool) -> None:
    """An easy held-out input is unseen if no pool example of its r has the same start, x and tables used."""
    task = composition(
        n=3, k=3, data_size=60, easy_fraction=0.5, cyclic=cyclic, easy_start="any" if cyclic else "prefix"
    )
    data = filled(task)

    def relevant(row: tuple[int, ...], r: int) -> tuple[object, ...]:
        start = row[-3] - 3
        return start, row[-1], *(row[3 * ((start + h) % 3) : 3 * ((start + h) % 3) + 3] for h in range(r))

    expected = []
    for r, (kept, trained) in enumerate(zip(held_out(data), pool(data), strict=True), 1):
        known = {relevant(row, r) for row in trained}
        expected += [r < 3 and relevant(row, r) not in known for row in kept]
    assert expected == data.rows.is_unseen[0, 16:].tolist()
    assert 0 < sum(expected[:16]) < 16


def test_unseen_accuracy_counts_unseen_examples_alone() -> None:
    """`test_accuracy_r1_unseen` is 1 if just the unseen ones are right, and NaN where all are seen."""
    data = filled(
        composition(data_size=60, easy_fraction=0.5), composition(n=3, data_size=160, easy_fraction=0.5)
    )
    correct = data.rows.is_unseen.float().unsqueeze(2)
    unseen = data.metrics(correct, correct)["test_accuracy_r1_unseen"]
    assert 0 < float(correct[0].sum()) < 16
    assert [1.0, 0.0] == [float(unseen[0]), float(correct[1].sum())] and math.isnan(unseen[1])


def test_readout_all_has_no_unseen_accuracy() -> None:
    """With an answer at each position every input uses every table: the notion has no meaning, so NaN."""
    data = filled(composition(cyclic=True, readout="all", n=4, easy_fraction=0.5))
    ones = torch.ones(1, 48, 8)
    metrics = {name: float(m) for name, m in data.metrics(ones, ones).items()}
    assert math.isnan(metrics.pop("test_accuracy_r1_unseen"))
    assert {1.0} == set(metrics.values())
