"""The composition task: its declaration."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
from composition_reference import BATCH, INF, composition
from pydantic import TypeAdapter, ValidationError

from trainers.tasks import TASKS, load_task
from trainers.tasks.composition import Composition
from trainers.tasks.mixture import Mixture, Zipf

SHARE = "must be at least 0 and below 1 (at 1 the hard token is never trained)"


def test_declaration_needs_no_torch() -> None:
    """Planning a sweep imports the declaration of a task, and with it neither torch nor anything slow."""
    code = (
        "import sys; from trainers.tasks import TASKS, load_task;"
        "task = load_task('composition')(n=4, k=2, data_size=64);"
        "task.impossible(8), task.describe(), task.shape(), task.metrics(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tasks_are_found_by_name() -> None:
    """A task's name gives its class; any other name is answered with the names there are and the nearest."""
    assert Composition is load_task("composition")
    names = ", ".join(sorted(TASKS))
    for wrong, hint in [("compositon", "; did you mean 'composition'?"), ("xyz", "")]:
        with pytest.raises(ValueError) as error:
            load_task(wrong)
        assert f"no task is called {wrong!r}; allowed: {names}{hint}" == str(error.value)


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
    assert (15, 10, range(14, 15)) == (query.sequence_length, query.vocab_size, query.answers)
    assert (13, 10, range(1, 13)) == (every.sequence_length, every.vocab_size, every.answers)
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
