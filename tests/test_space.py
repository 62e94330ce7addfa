"""What a threshold search may ask, against the slow way: every candidate of every cell is validated by itself."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from orchestrator.search.space import Space, candidates
from orchestrator.section import check
from orchestrator.sections import with_value
from orchestrator.sweep import Sweep, load_sweep
from trainers.plain import from_plain
from trainers.tasks import load_task
from trainers.transformer import Transformer, task_of

TASK = {"name": "composition", "n": 4, "eval_size": 64}
SWEEP: dict[str, Any] = {
    "name": "s",
    "task": TASK,
    "model": {"heads": 2},
    "train": {"steps": 100, "batch_size": 16, "eval_every": 50},
    "search": {"kind": "threshold", "along": "data_size"},
}
KINDS = Transformer().sections({"task": TASK})
SIZES = {"log2": [0, 14], "points": 3}
SWEEPS: dict[str, dict[str, Any]] = {
    "pools that do not fit": {
        "task": {**TASK, "easy_fraction": 0.3},
        "axes": {"k": [1, 2, 3], "depth": [1, 2], "data_size": SIZES},
    },
    "sizes below a batch": {
        "task": {**TASK, "k": 2, "sampling": "epochs"},
        "axes": {"easy_fraction": [0.0, 0.5, 0.9], "data_size": SIZES},
    },
    "where": {
        "where": "k > 1 AND (k = 2 OR data_size > 100)",
        "axes": {"k": [1, 2, 3], "data_size": SIZES},
    },
    "mistakes between values": {
        "task": {**TASK, "k": 2, "data_size": 256},
        "axes": {"width": [8, 64]},
        "search": {"kind": "threshold", "along": "width"},
    },
    "hops": {"axes": {"task.mixture.hops": ["all", [1], [2]], "k": [1, 2, 3], "data_size": [32, 256]}},
}


def sweep_of(folder: Path, **changes: Any) -> Sweep:
    (folder / "s.yaml").write_text(yaml.safe_dump({**SWEEP, **changes}))
    return load_sweep(folder / "s.yaml")


def is_possible(sweep: Sweep, values: dict[str, Any]) -> bool:
    """Whether the cell at these values of the axes exists and is no mistake; nothing is remembered."""
    sections: dict[str, Any] = {name: dict(section) for name, section in sweep.sections.items()}
    for axis in sweep.varied:
        if axis.name in values:
            sections = with_value(sections, axis.path, values[axis.name])
    task, model, train = (check(KINDS[name], sections[name])[0] for name in ("task", "model", "train"))
    if None in (task, model, train):
        return False
    assert not task.requires()
    if sweep.where is not None:
        row = pl.DataFrame({name: [value] for name, value in values.items()})
        if not row.select(pl.sql_expr(sweep.where)).item():
            return False
    return task.impossible(train.batch_size) is None


@pytest.mark.parametrize("changes", SWEEPS.values(), ids=SWEEPS)
def test_what_may_be_asked(changes: dict[str, Any], tmp_path: Path) -> None:
    """All candidates that exist and are no mistakes, for every curve that has two of them."""
    sweep = sweep_of(tmp_path, **changes)
    along = next(axis for axis in sweep.varied if axis.name == sweep.search.along)
    others = [axis for axis in sweep.varied if axis is not along and axis.name != "seed"]
    expected, n_left_out = [], 0
    for place in itertools.product(*(axis.values for axis in others)):
        values = dict(zip([axis.name for axis in others], place, strict=True))
        found = tuple(x for x in candidates(along) if is_possible(sweep, {**values, along.name: x}))
        n_left_out += len(candidates(along)) - len(found)
        if len(found) > 1:
            expected.append(found)
    assert expected == [curve.values for curve in Space(sweep).curves]
    assert expected
    assert n_left_out > 0


def test_sections_are_told_apart_by_type() -> None:
    """What is remembered of a section is not taken for that of an equal number of another type."""
    config = {"task": {"name": "composition", "n": 4, "k": 2, "data_size": 256.0}}
    for size in (256.0, 256, float("inf")):
        section = {**config["task"], "data_size": size}
        task = task_of({"task": section})
        assert from_plain(load_task("composition"), section) == task
        assert type(size) is type(task.data_size)  # type: ignore[attr-defined]
        assert task is task_of({"task": dict(section)})
