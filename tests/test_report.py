"""What reports say of thresholds, to the letter."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from orchestrator import Run
from orchestrator.axis import AxisInfo
from orchestrator.errors import QueryError
from orchestrator.inline import Inline
from orchestrator.launch import launch
from orchestrator.report import status_lines, threshold_lines
from orchestrator.sweep import load_sweep
from orchestrator.thresholds import thresholds

SIZES = (256.0, 362.0, 512.0, 724.0, 1024.0, 1448.0)
SCHEMA = {"trial_id": pl.String, "seed": pl.Int64, "status": pl.String, "solved_at_step": pl.Int64}
SCHEMA |= {"steps": pl.Int64, "budget": pl.Int64, "n_total": pl.Float64, "n_hard": pl.Float64}

Solves = Callable[[float, int], bool]


def said(
    solves: Solves,
    *,
    axis: str = "data_size",
    values: Sequence[float] = SIZES,
    seeds: int = 4,
    control: str | None = "solved",
    failed: int = 0,
    share: float = 0.5,
) -> str:
    """The line of one curve."""
    cells = [(x, seed, "solved" if solves(x, seed) else "unsolved") for x in values for seed in range(seeds)]
    cells += [(math.inf, seed, control) for seed in range(3) if control is not None]
    cells += [(values[0], 100 + seed, "failed") for seed in range(failed)]
    rows = [
        {axis: x, "trial_id": f"{x} {seed}", "seed": seed, "status": status, "steps": 1500, "budget": 1500}
        | ({"n_total": x, "n_hard": x * share} if axis == "data_size" else {})
        for x, seed, status in cells
    ]
    info = AxisInfo(axis, "log2", (*values, math.inf))
    table = thresholds(pl.LazyFrame(rows, schema={axis: pl.Float64, **SCHEMA}), [info], axis).collect()
    run: Any = SimpleNamespace(thresholds=lambda: table, sweep=SimpleNamespace(axes=(info,)))
    title, line = threshold_lines(run)
    assert (
        title == f"thresholds along {axis}, where half of the seeds solve within 1,500 steps [95 % interval]"
    )
    return line.strip().removeprefix("all: ")


def never(_: float, __: int) -> bool:
    return False


def always(_: float, __: int) -> bool:
    return True


def half(x: float, _: int) -> bool:
    return x > 600


def test_threshold_with_its_interval_in_the_axis_and_in_hard_examples() -> None:
    """Sizes are given where they are not the axis' own values: n_total here is."""
    assert said(half) == "608.9 [506.7, 731.4]   n_hard 304.4 [253.4, 365.7]"
    assert said(half, share=1.0) == "608.9 [506.7, 731.4]"
    rows = said(half, share=3.0)
    assert rows == "608.9 [506.7, 731.4]   n_hard 1827 [1520, 2194]"


@pytest.mark.parametrize(
    ("control", "why"),
    [
        ("solved", "more data would solve it"),
        ("unsolved", "the step budget is too small for any data"),
        (None, "there is no control at inf to say why"),
    ],
)
def test_bound_from_below_says_why(control: str | None, why: str) -> None:
    """In examples of both kinds."""
    assert said(never, control=control) == f"above 1388 ({why})   n_hard above 693.9"


def test_bound_from_above() -> None:
    """A solved curve has its threshold below its first sizes."""
    assert said(always) == "below 265.7   n_hard below 132.8"


@pytest.mark.parametrize(
    ("solves", "line"),
    [
        (never, "nothing solved up to 362 (more data would solve it)"),
        (always, "everything solved from 256 on"),
    ],
)
def test_too_few_trials_for_a_bound_say_what_they_saw(solves: Solves, line: str) -> None:
    """Never `above -`."""
    assert said(solves, values=SIZES[:2], seeds=2) == line


@pytest.mark.parametrize(
    ("solves", "line"),
    [
        (never, "none (nothing solved from 256 to 1448, and nothing says on which side it would)"),
        (always, "none (everything solved from 256 to 1448, and nothing says on which side it would not)"),
    ],
)
def test_open_direction_is_said(solves: Solves, line: str) -> None:
    """Along an axis of which nothing is known."""
    assert said(solves, axis="lr") == line


def test_one_size_is_said() -> None:
    """A threshold needs two."""
    assert said(half, values=(724.0,)) == "none (tested at 724 only)"
    assert said(half, values=(724.0,), control=None, seeds=0, failed=1).startswith("none (no trials)")


def test_failed_trials_are_said_beyond_five_percent() -> None:
    """Of all trials of the curve, its control included."""
    assert "failed" not in said(half, failed=1)
    assert said(half, failed=3).endswith("   ! 3 of 30 trials failed")


FUNCTION = """\
trainer_version = "1"

def train(config, report):
    for step in range(1, 11 if config["x"] < 4 else 6):
        report(step, accuracy=config["x"] * step / 20)
"""


def launched(folder: Path, **sections: Any) -> Run:
    """A run of a function that ends by itself: after 5 steps where x is 4 or more, else after 10."""
    module = f"user_{uuid.uuid4().hex[:8]}"
    (folder / f"{module}.py").write_text(FUNCTION)
    sweep = {"name": "s", "trainer": f"{module}:train", "axes": {"x": [1, 2, 3, 4], "seed": 2}}
    sweep |= {"solved": {"metric": "accuracy", "at_least": 1}, "search": {"along": "x"}, **sections}
    (folder / "sweep.yaml").write_text(json.dumps(sweep))
    launch(load_sweep(folder / "sweep.yaml"), folder / "run", cluster=Inline(), is_quiet=True)
    return Run(folder / "run")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return launched(tmp_path_factory.mktemp("report"))


@pytest.mark.parametrize("at_steps", [1, 10])
def test_smaller_budget_is_answered_from_the_same_rows(run: Run, at_steps: int) -> None:
    """As far as every trial went."""
    assert run.thresholds(at_steps=at_steps)["steps"].to_list() == [at_steps]


@pytest.mark.parametrize(
    ("at_steps", "message"),
    [
        (0, "--at-steps is a number of steps, 1 or more, not 0"),
        (-3, "--at-steps is a number of steps, 1 or more, not -3"),
        (11, "--at-steps 11 is beyond what was trained: the smallest step budget is 10"),
    ],
)
def test_budget_that_was_not_trained_is_refused(run: Run, at_steps: int, message: str) -> None:
    """Beyond it solved trials would stay solved and the others be unknown: a false threshold."""
    with pytest.raises(QueryError) as raised:
        run.thresholds(at_steps=at_steps)
    assert str(raised.value) == message


def test_smallest_budget_of_all_counts(tmp_path: Path) -> None:
    """Where budgets differ a larger one than the smallest is refused; along budgets there is none to name."""
    run = launched(tmp_path, axes={"x": [1, 4], "train.steps": [8, 7], "seed": 1})
    with pytest.raises(QueryError, match=r"--at-steps 8 is beyond .* the smallest step budget is 7$"):
        run.thresholds(at_steps=8)
    with pytest.raises(QueryError, match=r"along train\.steps, which is the budget"):
        run.thresholds("train.steps", at_steps=7)


def test_a_misspelt_metric_is_said(tmp_path: Path) -> None:
    """A rule about a metric that nobody reports solves nothing; `status` says which was probably meant."""
    run = launched(tmp_path, solved={"metric": "acuracy", "at_least": 0.5})
    lines = list(status_lines(run))
    said = [line for line in lines if line.startswith("warning")]
    assert said == ["warning  no trial reports 'acuracy', which `solved` asks for; did you mean 'accuracy'?"]
