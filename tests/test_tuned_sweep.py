"""`tuned:` in a sweep file: what it means, and what is wrong with it."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import jsonschema
import polars as pl
import pytest

import orchestrator.sweep
from orchestrator.errors import SweepError
from orchestrator.search.study_space import StudySpace
from orchestrator.sweep import Sweep, json_schema, load_stored_sweep, load_sweep
from orchestrator.tuned_spec import SEEDS
from orchestrator.yaml_file import parse_yaml
from tests.toy_trainer import ToyTrainer
from trainers.base import load_trainer

START = "name: toy\ntask: {n: 4}\ntrain: {steps: 100}\n"
AXES = "axes: {k: [2, 3], data_size: {log2: [4, 10], points: 7}}\n"
VALUES = "a list, or {log10: [-4, -2]} (or log2, linear)"


@pytest.fixture(autouse=True)
def _toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The transformer is the toy trainer, and files are named as seen from their folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(orchestrator.sweep, "load_trainer", lambda name: ToyTrainer())


def load(text: str, *overrides: str) -> Sweep:
    Path("s.yaml").write_text(text)
    return load_sweep("s.yaml", overrides)


def mistakes(text: str) -> str:
    with pytest.raises(SweepError) as caught:
        load(text)
    return str(caught.value)


def lines(first: str, allowed: str | None = None, nearest: str | None = None) -> str:
    hints = {"allowed": allowed, "nearest": nearest}
    return "\n".join([first, *(f"    {name}: {hint}" for name, hint in hints.items() if hint is not None)])


def test_what_is_tuned() -> None:
    """Ranges and lists, short names and dotted ones, in the order of the file; nested values with all defaults."""
    text = """
tuned:
  train.lr: {log10: [-4, -2]}
  width: [64, 32]
  model.heads: {log2: [0.2, 1]}
  task.mixture: [{count: hard}, {hops: [1]}]
"""
    sweep = load(START + AXES + text)
    assert sweep.tuned is not None
    assert (8, math.inf) == (sweep.tuned.trials, sweep.tuned.at)
    values = {field.name: field.values for field in sweep.tuned.fields}
    mixtures = ({"hops": "all", "count": "hard"}, {"hops": [1], "count": "total"})
    expected = {
        "train.lr": (1e-4, 1e-2),
        "width": (64, 32),
        "model.heads": (1, 2),
        "task.mixture": mixtures,
    }
    assert expected == values
    nominal = {"train.lr": 0.001, "width": 64, "model.heads": 1, "task.mixture": mixtures[0]}
    assert nominal == sweep.tuned.nominal
    assert nominal == sweep.tuned.get(sweep.plan().trials[0].config)
    types = {
        "train.lr": pl.Float64(),
        "width": pl.Int64(),
        "model.heads": pl.Int64(),
        "task.mixture": pl.String(),
    }
    assert types == {name: sweep.place_columns[name][0] for name in types}
    assert ["k", "data_size", "seed"] == [axis.name for axis in sweep.axes]


@pytest.mark.parametrize(
    "more",
    [
        "tuned: {train.lr: {log10: [-4, -2]}}",
        "tuned: {train.lr: [0.1, 1], task.mixture.hops: [all, [1]], trials: 3, at: 100}",
        "search: {along: k}\ntuned: {task.mixture: [{hops: [1]}, {count: hard}], at: 3}",
        "search: {kind: threshold}\ntuned: {model.width: {linear: [4, 64]}, model.heads: [1, 2], at: inf}",
    ],
)
def test_the_stored_file_loads_as_an_equal_sweep(more: str) -> None:
    """What `to_yaml` writes gives the same sweep, read either way."""
    sweep = load(START + AXES + more.replace("{linear: [4, 64]}", "[4, 64]"))
    Path("stored.yaml").write_text(sweep.to_yaml())
    for again in (load_stored_sweep("stored.yaml"), load_sweep("stored.yaml")):
        assert (sweep, sweep.plan(), sweep.to_yaml()) == (again, again.plan(), again.to_yaml())


def test_a_trial_with_settings_is_the_trial_of_a_sweep_that_has_them_fixed() -> None:
    """Tuned fields are part of the trial's identity like any other; only the sweep's place for them differs."""
    tuned = load(START + AXES + "tuned: {train.lr: [0.5, 0.25], task.mixture: [{hops: all}, {hops: [1]}]}")
    fixed = load(
        START.replace("steps: 100", "steps: 100, lr: 0.25").replace("n: 4", "n: 4, mixture: {hops: [1]}")
        + AXES
    )
    space = StudySpace(tuned)
    values = {"train.lr": 0.25, "task.mixture": {"hops": [1], "count": "total"}}
    scored = [space.scored(trial, values) for trial in tuned.plan().trials]
    assert [t.trial_id for t in fixed.plan().trials] == [t.trial_id for t in scored]
    assert [t.trial_id for t in tuned.plan().trials] == [space.nominal(t).trial_id for t in scored]
    trial = space.tuning_trial(1, 3, values)
    assert (SEEDS + 3, 3, math.inf) == (
        trial.config["seed"],
        trial.config["task"]["k"],
        trial.axes["data_size"],
    )
    assert {"task", "data", "init", "order", "eval"} == trial.config["seeds"].keys()
    assert {SEEDS + 3} == set(trial.config["seeds"].values())
    assert (1, 3, values) == space.spot(trial.config)
    assert (0, None, values) == space.spot(scored[0].config)


def test_where_trials_stand() -> None:
    """Elsewhere on the axis, beyond the number of trials, or with settings that may not be tried they are none."""
    few = StudySpace(load(START + AXES + "tuned: {train.lr: [0.5, 0.25], trials: 2}"))
    values = {"train.lr": 0.25}
    assert few.spot(few.tuning_trial(0, 1, values).config) == (0, 1, values)
    assert few.spot(few.tuning_trial(0, 2, values).config) is None
    assert few.spot(few.tuning_trial(0, 1, {"train.lr": 0.3}).config) is None
    elsewhere = StudySpace(load(START + AXES + "tuned: {train.lr: [0.5, 0.25], trials: 2, at: 64}"))
    assert few.spot(elsewhere.tuning_trial(0, 1, values).config) is None
    other = StudySpace(load(START + AXES + "model: {width: 32}\ntuned: {train.lr: [0.5, 0.25]}"))
    assert few.spot(other.tuning_trial(0, 1, values).config) is None


def test_overrides_from_the_command_line() -> None:
    """A dotted name below `tuned` is one name."""
    sweep = load(START + AXES, "tuned.train.lr=[0.5, 0.25]", "tuned.trials=4")
    assert sweep.tuned is not None
    assert {"train.lr": [0.5, 0.25], "trials": 4, "at": math.inf} == sweep.tuned.spec


def test_all_mistakes_come_at_once() -> None:
    """Every problem of `tuned`, beside those of the rest."""
    text = """axes: {k: [2], width: [64], seed: [1, 3000000000]}
search: {along: k}
tuned:
  train.lrr: [1, 2]
  k: [2, 3]
  model.width: [32, 64]
  train.steps: [100, 200]
  seeds.init: [1, 2]
  train.lr: {log: [1, 2]}
  train.betas: [[0.9, 0.98]]
  model.heads: {linear: [1.1, 1.4]}
  task.n: {log2: [3, 2]}
  task.cyclic: 3
  task.data_size: [16, 16]
  trials: 0
  at: 5
stop: maybe
"""
    expected = [
        lines(
            "s.yaml:4: axes.seed[1]: 3000000000 is not allowed",
            "whole numbers below 2,000,000,000 (those from 2,147,483,648 on are for tuning)",
        ),
        lines("s.yaml:7: tuned.train.lrr: unknown field", "train.steps, train.lr, train.betas", "train.lr"),
        "s.yaml:8: tuned.k: sets the same field as the axis k",
        "s.yaml:9: tuned.model.width: sets the same field as the axis width",
        "s.yaml:10: tuned.train.steps: is the step budget, which thresholds are conditional on; it is not tuned",
        "s.yaml:11: tuned.seeds.init: is not tuned: the best of several seeds is luck",
        lines('s.yaml:12: tuned.train.lr: {"log": [1, 2]} is not allowed', VALUES, "log2"),
        lines("s.yaml:13: tuned.train.betas: leaves nothing to choose", "two values or more"),
        lines(
            "s.yaml:14: tuned.model.heads: leaves nothing to choose", "ends that differ, as whole numbers too"
        ),
        "s.yaml:15: tuned.task.n.log2: log2 needs the smaller end first, not [3.0, 2.0]",
        lines("s.yaml:16: tuned.task.cyclic: 3 is not allowed", VALUES),
        "s.yaml:17: tuned.task.data_size[1]: 16 is given twice",
        lines("s.yaml:18: tuned.trials: 0 is not allowed", "a whole number from 1 to 10,000"),
        lines("s.yaml:19: tuned.at: 5 is not allowed", "a whole number from 2 to 2"),
        lines("s.yaml:20: stop: 'maybe' is not allowed", "solved, never"),
    ]
    assert "\n".join(expected) == mistakes("name: toy\ntask: {n: 4}\ntrain: {steps: 100}\n" + text)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("tuned: 3", lines("s.yaml:5: tuned: 3 is not allowed", "a mapping, null")),
        (
            "tuned: {trials: 3}",
            lines("s.yaml:5: tuned: names nothing to tune", "a field with its values: train.lr: [...]"),
        ),
        ("tuned: {task.n: [4, 5]}", "s.yaml:2: task.n: tuned; remove it here or there"),
        (
            "tuned: {model.width: [64, 30], model.heads: [4, 8]}",
            "\n".join(
                [
                    "s.yaml:5: tuned.model.heads[0]: heads must divide width: 4 does not divide 30 (at width = 30)",
                    "s.yaml:5: tuned.model.heads[1]: heads must divide width: 8 does not divide 30 (at width = 30)",
                ]
            ),
        ),
        (
            "tuned: {train.lr: [0.1, fast]}",
            lines("s.yaml:5: tuned.train.lr[1]: 'fast' is not allowed", "a number"),
        ),
        (
            "tuned: {model.heads: {linear: [1, 3]}}",
            "s.yaml:5: tuned.model.heads: heads must divide width: 3 does not divide 64",
        ),
        (
            "tuned: {model.heads: {log2: [1, 4]}}",
            lines(
                "s.yaml:5: tuned.model.heads: heads must divide width: 6 does not divide 64; and 10 more of this "
                "range",
                "a list of those that go",
            ),
        ),
        (
            "tuned: {width: {log2: [0, 14]}}",
            lines("s.yaml:5: tuned.width: holds too many whole numbers", "up to 10,000"),
        ),
        (
            "tuned: {width: {linear: [1, 999]}, model.heads: {linear: [1, 99]}}",
            lines(
                "s.yaml:5: tuned: has 98,901 combinations of whole numbers and listed values, each of which must "
                "be valid",
                "up to 50,000: narrower ranges, or lists",
            ),
        ),
        (
            "tuned: {model.attention: [causal, full]}",
            "s.yaml:5: tuned.model.attention: full attention needs k: 2 (at k = 3)",
        ),
        (
            "tuned: {easy_fraction: [0, 0.5]}\nwhere: k < 3",
            None,
        ),
        (
            "tuned: {train.lr: {log10: [-4, -2], points: 3}}",
            lines("s.yaml:5: tuned.train.lr.points: unknown key", "log10"),
        ),
        (
            "tuned: {train.lr: [1, 2], lr: [3, 4]}",
            lines(
                "s.yaml:5: tuned.lr: unknown field",
                "k, data_size, easy_fraction, width, seed, or a dotted field such as seeds.init",
            ),
        ),
        (
            "tuned: {task.mixture: [{hops: [1]}, {count: hard}], task.mixture.count: [hard, total]}",
            "s.yaml:5: tuned.task.mixture.count: sets the same field as task.mixture",
        ),
        (
            "tuned: {train.lr: [1, 2], at: 70.5}",
            lines("s.yaml:5: tuned.at: 70.5 is not allowed", "a whole number from 16 to 1024, or inf"),
        ),
        (
            "tuned: {train.lr: [1, 2], at: 5000}",
            lines("s.yaml:5: tuned.at: 5000 is not allowed", "a whole number from 16 to 1024, or inf"),
        ),
    ],
)
def test_mistakes(more: str, expected: str | None) -> None:
    """Each with its place, what is allowed and the nearest match."""
    if expected is None:
        assert load(START + AXES + more)
    else:
        assert expected == mistakes(START + AXES + more)


def test_what_decides_which_cells_exist_is_no_nuisance() -> None:
    """A curve's cells must not depend on what is found for it."""
    text = START + "axes: {k: [1, 2]}\ntuned: {easy_fraction: [0, 0.5]}"
    message = "decides which cells exist (with 0.5: k = 1 has nothing easier); it can't be tuned (at k = 1)"
    assert f"s.yaml:5: tuned.easy_fraction: {message}" == mistakes(text)


def test_no_axis_to_tune_at() -> None:
    """`at` is a value on the searched axis."""
    text = START + "axes: {k: [1, 2]}\ntuned: {train.lr: [1, 2], at: 3}"
    expected = lines(
        "s.yaml:5: tuned.at: is a value on the searched axis, and there is none", "search: {along: AXIS}"
    )
    assert expected == mistakes(text)


def test_a_function_without_a_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing says then which of two settings is the better one."""
    monkeypatch.setattr(orchestrator.sweep, "load_trainer", load_trainer)
    text = "name: mine\ntrainer: trainers.surface:train\naxes: {k: [1]}\ntuned: {lr: [1, 2]}"
    expected = lines(
        "s.yaml:4: tuned: needs a rule by which one setting is better than another",
        "solved: {metric: accuracy, at_least: 0.9}",
    )
    assert expected == mistakes(text)


def test_the_schema_knows_it() -> None:
    """Ranges without points and lists, beside two numbers; slips are seen."""
    schema: dict[str, Any] = json.loads(json.dumps(json_schema(), allow_nan=False))
    validator = jsonschema.Draft202012Validator(schema)

    def errors(tuned: str) -> list[str]:
        data = parse_yaml(f"name: a\ntuned: {tuned}", "s.yaml").data
        return [".".join(map(str, e.path)) for e in validator.iter_errors(data)]

    assert [] == errors("{train.lr: {log10: [-4, -2]}, train.weight_decay: [0, 1], trials: 8, at: 4096}")
    assert [] == errors("{train.lr: {linear: [0, 1]}, at: inf}")
    assert ["tuned"] == errors("{train.lr: {log10: [-4, -2], points: 3}}")
    assert ["tuned"] == errors("{train.lr: {log: [-4, -2]}}")
    assert ["tuned.trials"] == errors("{train.lr: [1, 2], trials: 2.5}")
