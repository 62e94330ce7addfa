"""Sweep files that are right: what they mean, trial by trial."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import polars as pl
import pytest

import orchestrator.sweep
from orchestrator.axes_spec import ROW_COLUMNS
from orchestrator.axis import AxisInfo
from orchestrator.errors import SweepError
from orchestrator.schema import IDENTITY, PROVENANCE, RESULT
from orchestrator.sweep import Sweep, json_schema, load_stored_sweep, load_sweep
from orchestrator.yaml_file import parse_yaml
from tests.toy_trainer import ToyTrainer

TOY = """
name: toy
task: {n: 4}
train: {steps: 100}
"""
FUNCTION = """
name: mine
trainer: my_trainer:train
"""


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The transformer is the toy trainer."""
    monkeypatch.setattr(orchestrator.sweep, "load_trainer", lambda name: ToyTrainer())


@pytest.fixture
def function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's module, my_trainer, beside the sweep file, which needs another one there."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    for module in ("my_trainer", "my_helper"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    (tmp_path / "my_helper.py").write_text("answer = 42\n")
    path = tmp_path / "my_trainer.py"
    path.write_text("import my_helper\ntrainer_version = 'v7'\ndef train(config, report): ...\n")
    return path


def load(folder: Path, text: str, *overrides: str) -> Sweep:
    (folder / "sweep.yaml").write_text(text)
    return load_sweep(folder / "sweep.yaml", overrides)


def columns(sweep: Sweep) -> list[dict[str, Any]]:
    return [dict(trial.axes) for trial in sweep.plan().trials]


@pytest.mark.usefixtures("toy")
def test_the_smallest_sweep_is_one_trial_with_all_defaults(tmp_path: Path) -> None:
    """A config is complete: trainer, version, every default, seed, streams, rule and stop."""
    (trial,) = load(tmp_path, TOY).plan().trials
    expected = {
        "trainer": "transformer",
        "trainer_version": "toy 1",
        "task": {
            "name": "toy",
            "n": 4,
            "k": 2,
            "data_size": math.inf,
            "easy_fraction": 0.0,
            "batch_easy_fraction": None,
            "cyclic": False,
            "mixture": {"hops": "all", "count": "total"},
        },
        "model": {"width": 64, "heads": 4, "attention": "causal"},
        "train": {"steps": 100, "lr": 0.001, "betas": [0.9, 0.98]},
        "seed": 0,
        "seeds": {"task": 0, "data": 0, "init": 0, "order": 0, "eval": 0},
        "solved": {"metric": "test_accuracy", "at_least": 0.95, "consecutive": 2},
        "stop": "solved",
    }
    assert expected == trial.config
    assert {"seed": 0} == trial.axes


@pytest.mark.usefixtures("toy")
def test_the_seed_varies_fastest_then_the_last_axis(tmp_path: Path) -> None:
    """The order of trials follows the file, wherever `seed` stands in it."""
    sweep = load(tmp_path, TOY + "axes: {seed: 2, k: [3, 2], width: [8, 16]}")
    order = [(k, width, seed) for k in (3, 2) for width in (8, 16) for seed in (0, 1)]
    assert [{"k": k, "width": w, "seed": s} for k, w, s in order] == columns(sweep)
    found = [
        (t.config["task"]["k"], t.config["model"]["width"], t.config["seed"]) for t in sweep.plan().trials
    ]
    assert order == found


@pytest.mark.usefixtures("toy")
def test_every_kind_of_axis_values(tmp_path: Path) -> None:
    """Lists, ranges of three scales, counts of seeds; whole fields are rounded and given once."""
    text = """
axes:
  k: {linear: [1, 3], points: 9}
  data_size: {log2: [1, 3], points: 5}
  train.lr: {log10: [-3, -1], points: 3}
  task.cyclic: [true, false]
  task.mixture: [{hops: [1]}, {count: hard}]
  task.batch_easy_fraction: [null, 0.5]
  model.attention: [causal]
  seeds.init: [5]
  seed: [3, 1]
where: k = 2
"""
    sweep = load(tmp_path, TOY + text)
    expected = (
        AxisInfo("k", "linear", (1, 2, 3)),
        AxisInfo("data_size", "log2", (2.0, 3.0, 4.0, 6.0, 8.0, math.inf)),
        AxisInfo("train.lr", "log10", (0.001, 0.01, 0.1)),
        AxisInfo("task.cyclic", "category", (True, False)),
        AxisInfo("task.mixture", "category", ('{"hops":[1]}', '{"count":"hard"}')),
        AxisInfo("task.batch_easy_fraction", "linear", (None, 0.5)),
        AxisInfo("model.attention", "category", ("causal",)),
        AxisInfo("seeds.init", "category", (5,)),
        AxisInfo("seed", "category", (3, 1)),
    )
    assert expected == sweep.axes
    assert {"task": 3, "data": 3, "init": 5, "order": 3, "eval": 3} == sweep.plan().trials[0].config["seeds"]
    assert {"hops": [1], "count": "total"} == sweep.plan().trials[0].config["task"]["mixture"]
    types = [pl.Int64(), pl.Float64(), pl.Float64(), pl.Boolean(), pl.String(), pl.Float64(), pl.String()]
    assert [*types, pl.Int64(), pl.Int64()] == list(sweep.axis_dtypes.values())


@pytest.mark.usefixtures("toy")
def test_a_column_type_comes_from_the_field_not_from_its_values(tmp_path: Path) -> None:
    """Whole numbers on a float axis give a float column, in the trial's place too."""
    sweep = load(tmp_path, TOY + "axes: {data_size: [4], easy_fraction: [0]}\nsearch: {control: false}")
    assert [("data_size", 4.0, float), ("easy_fraction", 0.0, float)] == [
        (name, value, type(value)) for name, value in columns(sweep)[0].items() if name != "seed"
    ]


@pytest.mark.usefixtures("toy")
def test_a_dotted_name_of_a_short_field_is_the_short_axis(tmp_path: Path) -> None:
    """`task.k` and `k` are one axis with one column, and give equal trials."""
    short, dotted = (load(tmp_path, TOY + f"axes: {{{name}: [2, 3]}}") for name in ("k", "task.k"))
    assert short == dotted
    assert short.plan() == dotted.plan()


@pytest.mark.usefixtures("toy")
def test_the_control_is_added_along_data_size_only(tmp_path: Path) -> None:
    """Curves along data_size get a cell at inf, once, unless turned off or another axis is searched."""

    def sizes(more: str) -> list[float]:
        return [place["data_size"] for place in columns(load(tmp_path, TOY + more))]

    assert [4, 8, math.inf] == sizes("axes: {data_size: [4, 8]}")
    assert [4, 8, math.inf] == sizes("axes: {task.data_size: [4, 8]}\nsearch: {along: task.data_size}")
    assert [math.inf, 4] == sizes("axes: {data_size: [inf, 4]}")
    assert [4, 8] == sizes("axes: {data_size: [4, 8]}\nsearch: {control: false}")
    assert [4, 4] == sizes("axes: {data_size: [4], width: [8, 16]}\nsearch: {along: width}")


@pytest.mark.usefixtures("toy")
def test_no_threshold_is_sought_without_an_axis_for_it(tmp_path: Path) -> None:
    """`along` is data_size if that is an axis, else none."""
    assert load(tmp_path, TOY + "axes: {k: [1, 2]}").search.along is None
    assert load(tmp_path, TOY + "axes: {data_size: [1, 2]}").search.along == "data_size"


@pytest.mark.usefixtures("toy")
def test_impossible_and_excluded_cells_are_dropped_and_counted(tmp_path: Path) -> None:
    """Cells are dropped by the task's rule, with the reason, or by `where`, where it is not true."""
    sweep = load(tmp_path, TOY + "axes: {k: [1, 2], easy_fraction: [0, 0.5], width: [8, 16], seed: 2}")
    reasons = [({"k": 1, "easy_fraction": 0.5, "width": w}, "k = 1 has nothing easier") for w in (8, 16)]
    assert (tuple(reasons), 0, 12) == (sweep.plan().impossible, 0, len(sweep.plan().trials))
    text = "axes: {k: [1, 2], train.lr: [0.1, 0.2], task.batch_easy_fraction: [null, 0.5]}\nwhere: "
    excluding = load(
        tmp_path, TOY + text + '\'k = 1 OR ("train.lr" < 0.15 AND "task.batch_easy_fraction" > 0)\''
    )
    assert (3, 5) == (excluding.plan().excluded, len(excluding.plan().trials))


@pytest.mark.usefixtures("toy")
def test_what_cannot_change_a_result_is_no_part_of_the_identity(tmp_path: Path) -> None:
    """Packs, words, the search and the order of keys leave the trials as they are; the rule does not."""
    more = "axes: {k: [2, 3]}\n"
    plain = load(tmp_path, TOY + more).plan().trials
    text = (
        "pack: {size: 3, cpus: 0.5}\nquestion: why\ncost: much\nsearch: {along: k}\nmodel: {heads: 4}\n"
        + more
    )
    assert plain == load(tmp_path, TOY + text).plan().trials
    ids = {t.trial_id for t in plain}
    assert not ids & {t.trial_id for t in load(tmp_path, TOY + more + "stop: never").plan().trials}
    rule = "solved: {metric: test_accuracy, at_least: 0.9}"
    assert not ids & {t.trial_id for t in load(tmp_path, TOY + more + rule).plan().trials}


@pytest.mark.usefixtures("toy")
def test_a_longer_axis_keeps_the_trials_of_a_shorter_one(tmp_path: Path) -> None:
    """Extending an axis, or turning a setting into one, keeps the ids of what is there."""
    short = {t.trial_id for t in load(tmp_path, TOY + "axes: {k: [2], seed: 2}").plan().trials}
    long = {
        t.trial_id for t in load(tmp_path, TOY + "axes: {seed: 3, k: [2, 3], width: [64, 8]}").plan().trials
    }
    assert short < long


@pytest.mark.usefixtures("toy")
def test_a_search_becomes_a_grid_on_the_command_line(tmp_path: Path) -> None:
    """What the file says of the threshold search goes with it; what the command line says of one is a mistake."""
    rules = "{kind: threshold, along: data_size, precision: 0.25, max_trials: 30}"
    text = TOY + f"axes: {{data_size: [4, 8]}}\nsearch: {rules}\n"
    search = load(tmp_path, text, "search.kind=grid").search
    assert ("grid", None, None) == (search.kind, search.precision, search.max_trials)
    with pytest.raises(SweepError) as caught:
        load(tmp_path, text, "search.kind=grid", "search.precision=0.5")
    assert "--set: search.precision: precision needs kind: threshold" in str(caught.value)


@pytest.mark.usefixtures("toy")
def test_overrides_from_the_command_line(tmp_path: Path) -> None:
    """`--set` reaches sections, axes and the top level."""
    sweep = load(
        tmp_path, TOY + "axes: {k: [2, 3]}", "model.width=32", "axes.k=[5]", "name=other", "where=k > 4"
    )
    assert ("other", "k > 4", [{"k": 5, "seed": 0}]) == (sweep.name, sweep.where, columns(sweep))
    assert 32 == sweep.plan().trials[0].config["model"]["width"]


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    "more",
    [
        "",
        "axes: {task.k: {linear: [1, 3], points: 3}, data_size: {log2: [2, 4], points: 3}, seed: [4, 2]}",
        "axes: {task.mixture.count: [hard], task.mixture.hops: [all, [1]]}\nseeds: {init: 9}",
        "axes: {data_size: [4], k: [1]}\nsearch: {along: k}\nsolved: {metric: test_loss, at_most: 1}",
        "question: 'no'\nexpected: |\n  two\n  é\npack: {size: 3}\naxes: {k: [1]}\nwhere: k = 1\nstop: never",
    ],
)
def test_the_stored_file_loads_as_an_equal_sweep(tmp_path: Path, more: str) -> None:
    """What `to_yaml` writes gives the same sweep and the same trials, read either way."""
    sweep = load(tmp_path, TOY + more)
    (tmp_path / "stored.yaml").write_text(sweep.to_yaml())
    for again in (load_stored_sweep(tmp_path / "stored.yaml"), load_sweep(tmp_path / "stored.yaml")):
        assert (sweep, sweep.plan(), sweep.to_yaml()) == (again, again.plan(), again.to_yaml())


@pytest.mark.usefixtures("toy")
def test_a_stored_sweep_keeps_the_version_and_defaults_it_was_launched_with(tmp_path: Path) -> None:
    """Newer code neither changes the wanted ids of a stored run, nor hides that it would now give others."""
    sweep = load(tmp_path, TOY)
    stored = tmp_path / "stored.yaml"
    stored.write_text(sweep.to_yaml().replace("toy 1", "toy 0"))
    assert "toy 0" == load_stored_sweep(stored).plan().trials[0].config["trainer_version"]
    assert "toy 1" == load_sweep(stored).plan().trials[0].config["trainer_version"]


@pytest.mark.usefixtures("function")
def test_a_function_gets_every_axis_at_the_top_level_and_its_sections_as_they_are(tmp_path: Path) -> None:
    """Axes have any names and values; a dotted one sets the nested value too; no rule unless given."""
    text = """
optim: {name: sgd, nested: {a: 1}}
task: {x: 1}
axes:
  width: [8]
  optim.nested.b: [2.5]
  made.up: [[1, 2]]
  data_size: {log2: [1, 2], points: 2}
"""
    sweep = load(tmp_path, FUNCTION + text)
    expected = {
        "trainer": "my_trainer:train",
        "trainer_version": "v7",
        "task": {"x": 1},
        "optim": {"name": "sgd", "nested": {"a": 1, "b": 2.5}},
        "made": {"up": [1, 2]},
        "width": 8,
        "optim.nested.b": 2.5,
        "made.up": [1, 2],
        "data_size": 2,
        "seed": 0,
        "seeds": {"task": 0, "data": 0, "init": 0, "order": 0, "eval": 0},
        "solved": None,
        "stop": "solved",
    }
    assert expected == sweep.plan().trials[0].config
    place = {"width": 8.0, "optim.nested.b": 2.5, "made.up": "[1,2]"}
    assert [{**place, "data_size": size, "seed": 0} for size in (2.0, 4.0)] == columns(sweep)
    assert ("optim", "nested", "b") == sweep.place_columns["optim.nested.b"][1]


@pytest.mark.usefixtures("function")
def test_columns_of_a_function_follow_its_values(tmp_path: Path) -> None:
    """Numbers are Float64, booleans Boolean, seeds Int64, all else text (JSON for lists and mappings)."""
    axes = "axes: {a: [1, 2.5, null], b: [true, false], c: [x, 1], d: [{y: inf}], seed: 2, seeds.data: [3]}"
    sweep = load(tmp_path, FUNCTION + axes)
    types = {
        "a": pl.Float64(),
        "b": pl.Boolean(),
        "c": pl.String(),
        "d": pl.String(),
        "seeds.data": pl.Int64(),
    }
    assert {**types, "seed": pl.Int64()} == sweep.axis_dtypes
    assert [("x", "1"), ('{"y":"Infinity"}',)] == [axis.values for axis in sweep.axes if axis.name in "cd"]


def test_reading_a_stored_run_never_imports_the_users_module(tmp_path: Path, function: Path) -> None:
    """The wanted trials are known after the module is gone, and its trainer can still say what it stores."""
    sweep = load(
        tmp_path, FUNCTION + "mine: {a: 1}\naxes: {x: [1, 2], seed: 2}\nsolved: {metric: m, at_most: 1}"
    )
    assert (str(tmp_path),) == sweep.import_paths
    (tmp_path / "stored.yaml").write_text(sweep.to_yaml())
    function.write_text("raise SystemExit('imported')")
    del sys.modules["my_trainer"]
    stored = load_stored_sweep(tmp_path / "stored.yaml")
    assert (sweep, sweep.plan()) == (stored, stored.plan())
    assert ([], {}) == (list(stored.trainer.metrics({})), dict(stored.trainer.columns({})))
    assert "my_trainer" not in sys.modules


def test_no_axis_can_take_the_name_of_a_column() -> None:
    """The names that axes may not have are those of the store's columns."""
    assert {*IDENTITY, *RESULT, *PROVENANCE} <= set(ROW_COLUMNS)


REAL = """
name: phase_diagram
task: {name: composition, n: 6}
model: {width: 64, heads: 4}
train: {steps: 8000, batch_size: 128, lr: 1e-3}
axes:
  k: [2, 3, 4, 5]
  depth: [1, 2, 3, 4]
  easy_fraction: [0.0, 0.25, 0.5]
  data_size: {log2: [6, 18], points: 25}
  seed: 5
search: {kind: grid, along: data_size}
solved: {metric: test_accuracy, at_least: 0.95}
"""


def test_the_flagship_is_planned_fast(tmp_path: Path) -> None:
    """More than six thousand different trials of the real transformer in under 5 s (0.4 s where tried)."""
    started = time.monotonic()
    trials = load(tmp_path, REAL).plan().trials
    assert 4 * 4 * 3 * 26 * 5 == len({trial.trial_id for trial in trials})
    assert time.monotonic() - started < 5


def test_the_schema_accepts_sweeps_and_refuses_slips() -> None:
    """The JSON Schema is valid, is JSON, and knows the transformer's sections and a user's freedom."""
    schema = json.loads(json.dumps(json_schema(), allow_nan=False))
    jsonschema.Draft202012Validator.check_schema(schema)

    def errors(text: str) -> list[str]:
        data = parse_yaml(text, "s.yaml").data
        return [".".join(map(str, e.path)) for e in jsonschema.Draft202012Validator(schema).iter_errors(data)]

    assert [] == errors(REAL)
    assert [] == errors("name: a\ntask: {data_size: 'inf'}\naxes: {seed: [1, 2]}")
    assert [] == errors("name: a\ntrainer: a.b:c\nmine: {x: 1}\ntask: {x: 1}")
    assert ["model"] == errors("name: a\nmodel: {widht: 1}")
    assert ["task.n"] == errors("name: a\ntask: {n: six}")
    assert [] == errors("name: a\ntask: {name: modular, p: 31}")
    assert ["task"] == errors("name: a\ntask: {name: modular, data_size: 31}")
    assert ["task.name"] == errors("name: a\ntask: {name: modlar}")
    assert [""] == errors("name: a\nmine: {x: 1}")
    assert ["stop"] == errors("name: a\nstop: maybe")


def test_every_field_of_the_file_has_a_description() -> None:
    """An editor can say what each key is for."""
    schema = json_schema()
    parts = [schema, *(schema["$defs"][name] for name in ("Seeds", "Search", "Solved", "PackSettings"))]
    assert [] == [
        key for part in parts for key, value in part["properties"].items() if "description" not in value
    ]
