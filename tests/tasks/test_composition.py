"""The composition task: its declaration, and the examples that it makes."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from trainers import random
from trainers.base import STREAMS
from trainers.tasks import load_task
from trainers.tasks.composition import Composition
from trainers.tasks.composition_data import CompositionData, empty_rows
from trainers.tasks.composition_inputs import (
    draw_ranks,
    encode,
    enumerate_inputs,
    fingerprint,
    split_factorial,
    unrank,
)
from trainers.tasks.mixture import Mixture, Zipf

torch.set_num_threads(1)

INF = math.inf
BATCH = 8
BLOCK = 10
SHARE = "must be at least 0 and below 1 (at 1 the hard token is never trained)"


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
    tokens, targets = zip(*(data.batch(j) for j in range(n_steps)), strict=True)
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


# The declaration


def test_declaration_needs_no_torch() -> None:
    """Planning a sweep imports the declaration of a task, and with it neither torch nor anything slow."""
    code = (
        "import sys; from trainers.tasks import load_task;"
        "task = load_task('composition')(n=4, k=2, data_size=64);"
        "task.impossible(8), task.describe(), task.shape(), task.metrics(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tasks_are_found_by_name() -> None:
    """A task's name gives its class; any other name is answered with the names there are and the nearest."""
    assert Composition is load_task("composition")
    with pytest.raises(ValueError) as error:
        load_task("compositon")
    assert "no task is called 'compositon'; allowed: composition; did you mean 'composition'?" == str(
        error.value
    )
    with pytest.raises(ValueError) as error:
        load_task("xyz")
    assert "no task is called 'xyz'; allowed: composition" == str(error.value)


def test_sections_are_validated_from_outside() -> None:
    """Pydantic reads the section of a sweep file, nested ones and lists included, and refuses the rest."""
    adapter = TypeAdapter(Composition)
    text = """{"n": 4, "k": 3, "data_size": Infinity, "easy_fraction": 0.5,
               "mixture": {"hops": [1, 2], "weights": {"zipf": 1.0}, "count": "hard"}}"""
    mixture = Mixture(hops=(1, 2), weights=Zipf(1.0), count="hard")
    expected = Composition(n=4, k=3, data_size=INF, easy_fraction=0.5, mixture=mixture)
    assert expected == adapter.validate_json(text)
    for wrong in ('"n": 4.5', '"n": "4"', '"cyclic": 1', '"mixture": {"hop": "all"}', '"depth": 2'):
        with pytest.raises(ValidationError):
            adapter.validate_json(
                f'{{"n": 4, "k": 3, "data_size": 8, {wrong}}}'.replace('"n": 4, ', "", '"n"' in wrong)
            )


def test_sizes_of_the_input() -> None:
    """Sequence length, vocabulary and number of answers, of both readouts."""
    query, every = composition(n=4, k=3), composition(n=4, k=3, cyclic=True, readout="all")
    assert (15, 10, 1) == (query.sequence_length, query.vocab_size, query.n_answers)
    assert (13, 10, 12) == (every.sequence_length, every.vocab_size, every.n_answers)
    assert [{}, {"attention": "full"}] == [query.requires(), every.requires()]


def test_size_of_the_space() -> None:
    """Inputs of a stratum, as counted by hand; half of a small space is held out."""
    assert [96] == [composition(n=4, k=1).space(1)]
    assert [600, 72_000] == [composition(n=5, k=k).space(k) for k in (1, 2)]
    anywhere = composition(n=3, k=2, cyclic=True, easy_start="any")
    prefix = composition(n=3, k=2, cyclic=True)
    every = composition(n=3, k=2, cyclic=True, readout="all")
    assert [[216, 216], [108, 216], [36, 36]] == [
        [t.space(r) for r in (1, 2)] for t in (anywhere, prefix, every)
    ]
    assert [48, 300, 512] == [
        Composition(n=n, k=k, data_size=8).held_out_size(k) for n, k in [(4, 1), (5, 1), (5, 2)]
    ]


def test_trials_of_one_pack_may_differ_in_what_keeps_tensors_alike() -> None:
    """Pool, mixture, curriculum and sampling are no part of the shape; sizes, readout and starts are."""
    same = [
        composition(data_size=INF),
        composition(easy_fraction="uniform"),
        composition(sampling="epochs"),
        composition(curriculum="staged", easy_fraction=0.5, mixture=Mixture(weights=Zipf(1.0))),
    ]
    assert {composition().shape()} == {task.shape() for task in same}
    other = [composition(n=4), composition(k=3), composition(eval_size=8), composition(cyclic=True)]
    assert 5 == len({task.shape() for task in [composition(), *other]})


@pytest.mark.parametrize(
    ("expected", "values"),
    [
        ((0, 0, 10), {"data_size": 10}),
        ((2, 1, 7), {"data_size": 10, "easy_fraction": 0.3}),
        ((2, 1, 2), {"data_size": 5, "easy_fraction": 0.5}),
        ((5, 5, 10), {"data_size": 10, "easy_fraction": 0.5, "mixture": Mixture(count="hard")}),
        ((4, 3, 3), {"data_size": 10, "easy_fraction": "uniform"}),
        ((10, 10, 10), {"data_size": 10, "easy_fraction": "uniform", "mixture": Mixture(count="hard")}),
        ((0, 5, 5), {"data_size": 10, "easy_fraction": 0.5, "mixture": Mixture(hops=(2,))}),
        ((4, 2, 6), {"data_size": 12, "easy_fraction": 0.5, "mixture": Mixture(weights=Zipf(1.0))}),
        (
            (1, 3, 4),
            {"data_size": 8, "easy_fraction": 0.5, "mixture": Mixture(hops=(2, 1), weights=(3.0, 1.0))},
        ),
    ],
)
def test_pool_sizes(expected: tuple[int, ...], values: dict[str, Any]) -> None:
    """Examples of 1, 2 and 3 hops in the pool, as the mixture says."""
    task = composition(k=3, **values)
    assert expected == task.pool_sizes
    n_hard, n_easy = expected[-1], sum(expected[:-1])
    assert {"n_total": n_hard + n_easy, "n_hard": n_hard, "n_easy": n_easy} == task.describe()
    assert pytest.approx([size / sum(expected) for size in expected]) == list(task.batch_shares)


def test_shares_of_a_batch() -> None:
    """An infinite pool has the shares of the weights; `batch_easy_fraction` replaces the easy share alone."""
    infinite = composition(k=3, data_size=INF, easy_fraction=0.4, mixture=Mixture(weights=Zipf(1.0)))
    assert pytest.approx([0.8 / 3, 0.4 / 3, 0.6]) == list(infinite.batch_shares)
    assert {"n_total": INF, "n_hard": INF, "n_easy": INF} == infinite.describe()
    assert {"n_total": INF, "n_hard": INF, "n_easy": 0.0} == composition(data_size=INF).describe()
    assert (0.0, 1.0) == composition(data_size=INF).batch_shares
    task = composition(k=3, data_size=10, easy_fraction=0.3, batch_easy_fraction=0.9)
    assert pytest.approx([0.6, 0.3, 0.1]) == list(task.batch_shares)


@pytest.mark.parametrize(
    ("message", "values"),
    [
        ("n must be from 2 to 20, not 1", {"n": 1}),
        ("n must be from 2 to 20, not 21", {"n": 21}),
        ("k must be 1 or more, not 0", {"k": 0}),
        ("data_size must be a whole number from 1 up, or inf, not 0", {"data_size": 0}),
        ("data_size must be a whole number from 1 up, or inf, not 1.5", {"data_size": 1.5}),
        ("data_size must be a whole number from 1 up, or inf, not nan", {"data_size": math.nan}),
        ("data_size must be a whole number from 1 up, or inf, not -inf", {"data_size": -INF}),
        (
            f"easy_fraction {SHARE} or 'uniform', not 1.0",
            {"easy_fraction": 1.0},
        ),
        (
            f"batch_easy_fraction {SHARE}, not 1.0",
            {"batch_easy_fraction": 1.0},
        ),
        ("eval_size must be 1 or more, not 0", {"eval_size": 0}),
        ("easy_start: any needs cyclic: true", {"easy_start": "any"}),
        ("readout: all needs cyclic: true", {"readout": "all"}),
        (
            "readout: all asks for every start: leave easy_start at prefix",
            {"readout": "all", "cyclic": True, "easy_start": "any"},
        ),
        (
            "batch_easy_fraction needs sampling: replacement (a pass visits each example once)",
            {"sampling": "epochs", "batch_easy_fraction": 0.5},
        ),
        (
            "curriculum: staged needs sampling: replacement (a pass visits each example once)",
            {"sampling": "epochs", "curriculum": "staged"},
        ),
        (
            "easy_fraction: uniform gives equal weights: leave mixture.weights at uniform",
            {"easy_fraction": "uniform", "mixture": Mixture(weights=Zipf(1.0))},
        ),
        ("n must be from 2 to 20, not 0; k must be 1 or more, not 0", {"n": 0, "k": 0}),
    ],
)
def test_mistakes_are_all_named(message: str, values: dict[str, Any]) -> None:
    """Each value that makes no sense is named in words for the sweep's author, with what is allowed."""
    with pytest.raises(ValueError) as error:
        composition(**values)
    assert message == str(error.value)


@pytest.mark.parametrize(
    ("reason", "values"),
    [
        (None, {"n": 4, "k": 1, "data_size": 48, "eval_size": 512}),
        (
            "the pool (49) and the evaluation set (48) do not fit into the 96 inputs of r = 1 with n = 4",
            {"n": 4, "k": 1, "data_size": 49, "eval_size": 512},
        ),
        (
            "the pool (93) and the evaluation set (16) do not fit into the 108 inputs of r = 1 with n = 3",
            {"easy_fraction": 0.5, "data_size": 186, "cyclic": True},
        ),
        (None, {"k": 1, "data_size": 2, "easy_fraction": "uniform"}),
        (
            "k = 1 has nothing easier, and easy_fraction is 0.5",
            {"k": 1, "data_size": INF, "easy_fraction": 0.5},
        ),
        (
            "mixture.hops has 3, but easy examples have fewer hops than k = 3",
            {"k": 3, "data_size": INF, "easy_fraction": 0.5, "mixture": Mixture(hops=(1, 3))},
        ),
        (None, {"k": 3, "mixture": Mixture(hops=(1, 3))}),
        ("batch_easy_fraction is 0.5, but the pool has no easy example", {"batch_easy_fraction": 0.5}),
        ("no hard example among 1 at easy_fraction 0.5", {"data_size": 1, "easy_fraction": 0.5}),
        (
            "a batch of 8 is larger than the pool of 7, and sampling is epochs",
            {"data_size": 7, "sampling": "epochs"},
        ),
        (None, {"data_size": 7}),
        (None, {"data_size": INF, "sampling": "epochs"}),
    ],
)
def test_cells_that_cannot_exist(reason: str | None, values: dict[str, Any]) -> None:
    """A cell without a pool, without easy examples or without a pass is impossible, and says why."""
    assert reason == composition(**values).impossible(BATCH)


# Inputs


def test_the_example_of_the_docstring() -> None:
    """The worked example is what is made: both readouts, hard and easy."""
    hidden = torch.tensor([[[1, 2, 0], [0, 2, 1]]])
    ranks = [list(itertools.permutations(range(3))).index(p) for p in [(1, 0, 2), (2, 1, 0)]]
    digits = torch.tensor([[*ranks, 0, 0]]).T
    hard, easy = (encode(composition(), digits, r, hidden, 0) for r in (2, 1))
    every = encode(composition(cyclic=True, readout="all"), digits[:2], 2, hidden, 0)
    assert ([[1, 0, 2, 2, 1, 0, 3, 6, 0]], [[2]]) == (hard[0].tolist(), hard[1].tolist())
    assert ([[1, 0, 2, 2, 1, 0, 3, 5, 0]], [[0]]) == (easy[0].tolist(), easy[1].tolist())
    assert ([[6, 1, 0, 2, 2, 1, 0]], [[2, 1, 0, 1, 0, 2]]) == (every[0].tolist(), every[1].tolist())


@pytest.mark.parametrize("n", [2, 3, 5])
def test_ranks_are_lexicographic(n: int) -> None:
    """Rank and permutation correspond as in the dictionary order of `itertools.permutations`."""
    expected = [list(p) for p in itertools.permutations(range(n))]
    assert expected == unrank(torch.arange(len(expected)), n).tolist()


def test_ranks_of_the_largest_permutations() -> None:
    """At n = 20 ranks still fit: the last one is the reversed order; random ones are permutations."""
    assert list(reversed(range(20))) == unrank(torch.tensor(math.factorial(20) - 1), 20).tolist()
    assert [math.factorial(n) for n in range(2, 21)] == [math.prod(split_factorial(n)) for n in range(2, 21)]
    drawn = unrank(draw_ranks(1, 20, torch.arange(1000), 0), 20)
    assert torch.equal(torch.arange(20).expand(1000, 20), drawn.sort(-1)[0])
    assert pytest.approx([9.5] * 20, abs=1.0) == drawn.double().mean(0).tolist()


@pytest.mark.parametrize(
    "values",
    [
        {"n": 2, "k": 1},
        {"n": 4, "k": 1},
        {"n": 3, "k": 2},
        {"n": 2, "k": 3, "cyclic": True},
        {"n": 2, "k": 1, "cyclic": True, "readout": "all"},
        {"n": 4, "k": 1, "cyclic": True, "readout": "all"},
        {"n": 3, "k": 2, "cyclic": True, "readout": "all"},
    ],
)
def test_enumeration_holds_each_input_once(values: dict[str, Any]) -> None:
    """The keyed order of a stratum is a permutation of all its inputs, which its fingerprints tell apart."""
    task = composition(**values)
    r = task.k
    everything = sorted(itertools.product(*(range(radix) for radix in task.radices(r))))
    orders = []
    for key in (0, 1):
        digits = enumerate_inputs(task, r, key, torch.arange(task.space(r)))
        orders.append([tuple(column) for column in digits.T.tolist()])
        assert everything == sorted(orders[-1])
        assert task.space(r) == len(set(fingerprint(digits, r).tolist()))
    assert task.space(r) < 20 or orders[0] != orders[1]


@pytest.mark.parametrize(
    "values",
    [
        {"n": 2, "k": 1},
        {"n": 3, "k": 1},
        {"n": 2, "k": 2},
        {"n": 3, "k": 1, "cyclic": True, "readout": "all"},
    ],
)
def test_small_pools_are_uniformly_random_subsets(values: dict[str, Any]) -> None:
    """Over seeds, two places of the order hold all ordered pairs of inputs equally often (5 sigma)."""
    task, n_keys = composition(**values), 20_000
    space = task.space(task.k)
    keys = torch.tensor([random.key(seed, "subset") for seed in range(n_keys)]).unsqueeze(1)
    digits = enumerate_inputs(task, task.k, keys, torch.arange(space))  # [D, keys, space]
    rank = torch.zeros_like(digits[0])
    for digit, radix in zip(digits, task.radices(task.k), strict=True):
        rank = rank * radix + digit
    expected, freedom = n_keys / (space * (space - 1)), space * (space - 1) - 1
    for first, second in [(0, 1), (1, 2), (0, space - 1), (space // 2 - 1, space // 2)]:
        counts = torch.bincount(rank[:, first] * space + rank[:, second], minlength=space**2).double()
        off_diagonal = counts[~torch.eye(space, dtype=torch.bool).flatten()]
        assert n_keys == int(off_diagonal.sum())
        chi_square = float(((off_diagonal - expected) ** 2 / expected).sum())
        assert abs(chi_square - freedom) < 5 * math.sqrt(2 * freedom)


# Pools and evaluation sets

READOUTS: list[dict[str, Any]] = [
    {"n": 4, "k": 3},
    {"n": 4, "k": 3, "cyclic": True},
    {"n": 4, "k": 3, "cyclic": True, "easy_start": "any"},
    {"n": 4, "k": 3, "cyclic": True, "readout": "all"},
    {"n": 7, "k": 1},
]


@pytest.mark.parametrize("data_size", [60, INF])
@pytest.mark.parametrize("values", READOUTS)
def test_answers_equal_brute_force(values: dict[str, Any], data_size: float) -> None:
    """Every target, in batches and evaluation sets, is what the definition of f gives, value by value."""
    task = composition(**values, data_size=data_size, easy_fraction="uniform")
    data = filled(task, task, first_seed=5)
    tokens, targets = batches(data, at(0, 3), 3)
    evaluation = data.evaluation()
    for slot in (0, 1):
        hidden = data.rows.hidden[slot].tolist()
        inputs = tokens[:, slot].flatten(0, 1).tolist() + evaluation[0][slot].tolist()
        answers = targets[:, slot].flatten(0, 1).tolist() + evaluation[1][slot].tolist()
        checked = [(x, y) for x, y in zip(inputs, answers, strict=True) if y[0] != -100]
        assert len(checked) >= 24 + sum(task.held_out_size(r) for r in range(1, task.k + 1))
        assert [brute_force(task, x, hidden) for x, _ in checked] == [y for _, y in checked]


@pytest.mark.parametrize("data_size", [200, INF])
def test_starts_and_hops(data_size: float) -> None:
    """Hard cyclic examples begin anywhere, easy ones with table 1 or anywhere; all others with table 1."""
    found = {}
    for cyclic, easy_start in [(False, "prefix"), (True, "prefix"), (True, "any")]:
        task = composition(
            n=4, k=3, cyclic=cyclic, easy_start=easy_start, data_size=data_size, easy_fraction="uniform"
        )
        tokens = batches(filled(task, batch=50), at(0), BLOCK)[0].flatten(0, 2)
        hops, starts = hops_of(task, tokens), tokens[:, -3] - task.n
        found[cyclic, easy_start] = {r: sorted(set(starts[hops == r].tolist())) for r in (1, 2, 3)}
    assert {
        (False, "prefix"): {1: [0], 2: [0], 3: [0]},
        (True, "prefix"): {1: [0], 2: [0], 3: [0, 1, 2]},
        (True, "any"): {1: [0, 1, 2], 2: [0, 1, 2], 3: [0, 1, 2]},
    } == found


MIXTURES: list[dict[str, Any]] = [
    {},
    {"easy_fraction": 0.3},
    {"easy_fraction": "uniform"},
    {"easy_fraction": 0.7, "mixture": Mixture(weights=Zipf(1.0))},
    {"easy_fraction": 0.5, "mixture": Mixture(hops="powers_of_two", count="hard")},
    {"easy_fraction": 0.5, "mixture": Mixture(hops=(2, 1), weights=(3.0, 1.0))},
]


@pytest.mark.parametrize("values", MIXTURES)
def test_pools_are_nested(values: dict[str, Any]) -> None:
    """The pool of one data seed is a prefix, stratum by stratum, of every larger pool."""
    sizes = [2, 3, 4, 5, 7, 10, 20, 21, 22, 50, 400, 401]
    tasks = [composition(n=4, k=3, data_size=size, **values) for size in sizes]
    data = CompositionData(tasks, 1, BATCH, BLOCK, "cpu")
    pools = []
    for task in tasks:
        data.put(0, task, seeds(3), 100)
        pools.append(pool(data))
    for smaller, larger in itertools.pairwise(pools):
        assert smaller == [large[: len(small)] for small, large in zip(smaller, larger, strict=True)]
    assert [list(task.pool_sizes) for task in tasks] == [[len(set(stratum)) for stratum in p] for p in pools]


def test_strata_are_the_same_in_every_mixture() -> None:
    """Two mixtures of one data seed share, stratum by stratum, as many examples as the smaller has."""
    data = CompositionData([composition(n=4, k=3, data_size=300)], 2, BATCH, BLOCK, "cpu")
    for slot, fraction in enumerate((0.2, 0.6)):
        data.put(slot, composition(n=4, k=3, data_size=300, easy_fraction=fraction), seeds(3), 100)
    for a, b in zip(pool(data, 0), pool(data, 1), strict=True):
        assert a[: len(b)] == b[: len(a)]


@pytest.mark.parametrize(
    "values",
    [
        {"n": 2, "k": 1, "data_size": 2},
        {"n": 4, "k": 1, "data_size": 48, "eval_size": 512},
        {"n": 3, "k": 2, "data_size": 180, "easy_fraction": 0.5},
        {"n": 4, "k": 1, "data_size": 12, "cyclic": True, "readout": "all", "eval_size": 512},
        {"n": 10, "k": 6, "data_size": 2000, "easy_fraction": "uniform", "eval_size": 512},
        {"n": 20, "k": 12, "data_size": 500, "easy_fraction": 0.5, "cyclic": True, "readout": "all"},
    ],
)
def test_held_out_inputs_are_in_no_pool(values: dict[str, Any]) -> None:
    """Held-out inputs and pool have none in common and none twice, in tiny, full and huge spaces."""
    data = filled(composition(**values))
    for r, (kept, trained) in enumerate(zip(held_out(data), pool(data), strict=True), 1):
        assert data.task.held_out_size(r) + data.task.pool_sizes[r - 1] == len({*kept, *trained})
    length = data.task.sequence_length
    assert {length} == {len(row) for stratum in pool(data) for row in stratum}


def test_a_pool_that_fills_its_space() -> None:
    """n=4, k=1: 48 inputs held out and a pool of 48 are all 96 inputs, each once."""
    data = filled(Composition(n=4, k=1, data_size=48))
    everything = {(*p, 4, 5, x) for p in itertools.permutations(range(4)) for x in range(4)}
    assert everything == {*held_out(data)[0], *pool(data)[0]}


def test_fresh_examples_are_uniform_and_never_held_out() -> None:
    """An infinite pool draws every input that is not held out equally often (5 sigma), and no other."""
    task = composition(n=3, k=1, data_size=INF, eval_size=512)
    data = filled(task, batch=450)
    tokens = batches(data, at(0), BLOCK)[0].flatten(0, 2).tolist()
    counts = Counter(map(tuple, tokens))
    everything = {(*p, 3, 4, x) for p in itertools.permutations(range(3)) for x in range(3)}
    assert everything - set(held_out(data)[0]) == set(counts)
    chi_square = sum((count - 500) ** 2 / 500 for count in counts.values())
    assert abs(chi_square - 8) < 5 * math.sqrt(16)


def test_fresh_examples_are_new_in_every_batch() -> None:
    """In a space of 10^40 inputs no example of an infinite pool comes twice, within or across blocks."""
    data = filled(composition(n=10, k=6, data_size=INF, easy_fraction=0.5))
    tokens = torch.cat([batches(data, at(step), BLOCK)[0].flatten(0, 2) for step in (0, BLOCK)])
    assert 2 * BLOCK * BATCH == len({tuple(row) for row in tokens.tolist()})


def test_large_pools_are_made_in_chunks() -> None:
    """A pool of several chunks has no example twice, and begins with the pool of one chunk."""
    size = 2 * random.CHUNK + 5
    small, large = (filled(composition(n=5, k=3, data_size=n)) for n in (100, size))
    tokens = large.rows.pool[0]
    assert size == len({bytes(row) for row in tokens.tolist()})
    assert torch.equal(small.rows.pool[0], tokens[:100])


@pytest.mark.parametrize(("expected", "k"), [(torch.uint8, 127), (torch.int16, 128)])
def test_pools_take_a_byte_a_token_where_that_is_enough(expected: torch.dtype, k: int) -> None:
    """Tokens up to 255 are kept in bytes, more in two; the largest token arrives unharmed."""
    task = composition(n=2, k=k, eval_size=1)
    rows = empty_rows(task, 1, 4, "cpu")
    hidden = torch.arange(2).expand(1, k, 2)
    tokens, _ = encode(task, torch.zeros((k + 2, 4), dtype=torch.int64), k, hidden, 0)
    assert task.vocab_size - 1 == tokens.max()
    rows.pool[0] = tokens.to(rows.pool.dtype)
    assert rows.pool.dtype == expected and torch.equal(tokens, rows.pool[0].long())


def test_the_train_set_is_a_part_of_the_pool() -> None:
    """The set `train` is distinct examples of the pool: all of a small one, none of an infinite one."""
    tasks = [composition(data_size=size, easy_fraction=0.5) for size in (5, 16, 100)]
    data = filled(*tasks, composition(data_size=INF))
    tokens, targets = data.evaluation()
    for slot, expected in enumerate([5, 16, 16]):
        train = {tuple(row) for row in tokens[slot, :expected].tolist()}
        assert expected == len(train) and train <= set(itertools.chain(*pool(data, slot)))
        assert [False] * expected + [True] * (16 - expected) == (targets[slot, :16, 0] == -100).tolist()
    assert (targets[3, :16] == -100).all() and (targets[:, 16:] >= 0).all()


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
    hops = torch.stack([hops_of(tasks[0], data.batch(j)[0]) for j in range(BLOCK)])  # [n, S, B]
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
