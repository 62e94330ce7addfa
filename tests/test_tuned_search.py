"""Sweeps with tuned settings, from the file to the answer, on a surface whose best setting is known."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from typer.testing import CliRunner

from orchestrator import Run
from orchestrator.cli import app
from orchestrator.driver import Driver
from orchestrator.errors import QueryError
from orchestrator.inline import Inline
from orchestrator.launch import Interrupted, launch
from orchestrator.reconcile import describe, reconcile
from orchestrator.report import status_lines, verdict_lines
from orchestrator.sweep import load_sweep
from orchestrator.tuned_spec import SEEDS

FUNCTION = """\
import math
import random

trainer_version = "1"


def train(config, report):
    luck = random.Random(repr(sorted((key, repr(value)) for key, value in config.items())))
    best = -2.5 - 0.5 * config["k"]
    away = abs(math.log10(config["optim"]["lr"]) - best) + (config["rule"] == "sgd")
    octaves = math.log2(config["data_size"]) - 6 - config["k"] - 4 * away
    if luck.random() < 1 / (1 + math.exp(-max(-50.0, min(50.0, octaves / 0.1)))):
        report(round(100 * (1 + 5 * away)), accuracy=1.0)
    else:
        report(1000, accuracy=max(0.0, 0.9 - away))
"""
"""The best rate is 10^-3 at k = 1 and 10^-3.5 at k = 2; with it half of the trials solve at 2^(6 + k)."""
SWEEP: dict[str, Any] = {
    "name": "tuned",
    "trainer": "tunable:train",
    "axes": {"k": [1, 2], "data_size": {"log2": [5, 13], "points": 9}, "seed": 2},
    "search": {"kind": "threshold"},
    "tuned": {"optim.lr": {"log10": [-5, -1]}, "rule": ["adam", "sgd"], "trials": 10},
    "solved": {"metric": "accuracy", "at_least": 1},
    "pack": {"size": 4},
}
GRID = {"kind": "grid", "along": "data_size"}


class Lab:
    """A sweep and its run directory."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.file, self.run_dir = folder / "sweep.yaml", folder / "run"
        (folder / "tunable.py").write_text(FUNCTION)

    def write(self, **changes: Any) -> Path:
        self.file.write_text(yaml.safe_dump({**SWEEP, **changes}))
        return self.file

    def launch(self, **changes: Any) -> Run:
        launch(load_sweep(self.write(**changes)), self.run_dir, cluster=Inline(), is_quiet=True)
        return Run(self.run_dir)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "tunable", raising=False)
    return Lab(tmp_path)


def tuning(run: Run) -> pl.DataFrame:
    return run.trials().filter(pl.col("seed") >= SEEDS).collect()


def ids(rows: pl.DataFrame) -> set[str]:
    return set(rows["trial_id"])


def test_settings_are_found_and_thresholds_use_fresh_seeds(lab: Lab) -> None:
    """Near the best rate of each curve, at the right end; no trial that tuned is in a threshold."""
    run = lab.launch()
    found = run.tuned()
    assert ["adam", "adam"] == found["rule"].to_list()
    for best, lr in zip((-3, -3.5), found["optim.lr"], strict=True):
        assert pytest.approx(best, abs=0.4) == math.log10(lr)
    assert [2.0**13] * 2 == found["tuned_at"].to_list()
    scored = run.wanted_trials().collect()
    assert 20 == tuning(run).height
    assert not ids(scored) & ids(tuning(run))
    assert ids(run.trials().collect()) == ids(scored) | ids(tuning(run))
    assert scored["seed"].max() < 100
    rates = scored.select("k", "optim.lr", "rule").unique().sort("k")
    assert found.select("k", "optim.lr", "rule").rows() == rates.rows()
    rows = run.thresholds().sort("k")
    assert scored.height == rows["trials"].sum()
    for k, low, high in rows.select("k", "low", "high").iter_rows():
        away = abs(math.log10(found.filter(k=k)["optim.lr"][0]) - (-2.5 - 0.5 * k))
        assert low <= 2 ** (6 + k + 4 * away) <= high
    assert "everything is there exactly once" == list(verdict_lines(run.verify()))[-1]


def test_a_grid_is_tuned_too(lab: Lab) -> None:
    """All of its cells run with the settings of their curve; launching again does nothing."""
    run = lab.launch(search=GRID)
    scored = run.wanted_trials().collect()
    assert (2 * 9 * 2, 20) == (scored.height, tuning(run).height)
    assert 2 == scored.select("k", "optim.lr", "rule").unique().height
    assert 18 == run.thresholds()["finished"][0]
    assert 36 + 20 == len(run.trials().collect())
    again = lab.launch(search=GRID)
    assert 36 + 20 == len(again.trials().collect())
    assert "2 of 2 curves are tuned" == again.search.progress().note
    summary = json.loads((lab.run_dir / "search.json").read_text())
    assert run.tuned()["optim.lr"].to_list() == [row["tuned"]["optim.lr"] for row in summary]
    assert [(1.0, 8192), (2.0, 8192)] == [(row["k"], row["tuned_at"]) for row in summary]


def test_without_a_searched_axis_each_cell_is_tuned(lab: Lab) -> None:
    """Its settings are its own."""
    run = lab.launch(search={"kind": "grid"}, axes={"k": [1, 2], "data_size": [4096], "seed": 2})
    assert ["k", "optim.lr", "rule"] == run.tuned().columns[:3]
    run = lab.launch(
        search={"kind": "grid", "along": "k"}, axes={"k": [1, 2], "data_size": [4096], "seed": 2}
    )
    assert 1 == run.tuned().height
    assert [1.0] == run.tuned()["tuned_at"].to_list()


@pytest.mark.parametrize("search", [SWEEP["search"], GRID])
def test_stopping_and_going_on_asks_the_same(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, search: dict[str, Any]
) -> None:
    """Stopped after every pack, a sweep ends with the trials of one that never was."""
    whole = ids(lab.launch(search=search).trials().collect())
    other, n_stops = Lab(tmp_path / "other"), 0
    ended = Driver.ended

    def end_and_stop(self: Driver, pack_id: str) -> None:
        ended(self, pack_id)
        self.stop()

    monkeypatch.setattr(Driver, "ended", end_and_stop)
    while True:
        try:
            run = other.launch(search=search)
        except Interrupted:
            n_stops += 1
        else:
            break
    assert n_stops > 10
    assert whole == ids(run.trials().collect())


def test_what_a_launch_would_do(lab: Lab) -> None:
    """How many trials are there to tune, and where; nothing is written."""
    sweep = load_sweep(lab.write(search=GRID))
    text = describe(sweep, lab.run_dir, reconcile(sweep, lab.run_dir, Inline())).splitlines()
    assert "wanted   about 56 trials (0 of 2 curves are tuned)" == text[4]
    assert "         among them 10 of each curve that tune optim.lr, rule, at data_size = 8192" == text[5]
    assert "to run   about 56 trials in at least 14 packs of at most 4" == text[-1]
    assert not lab.run_dir.exists()


def test_how_far_it_is(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """`status`, `verify` and `tuned` say it while it runs."""
    monkeypatch.setattr(Driver, "ended", lambda self, _pack_id: self.stop())
    with pytest.raises(Interrupted):
        lab.launch()
    run = Run(lab.run_dir)
    assert "search   0 of 2 curves are tuned; 0 of 2 curves are done" in list(status_lines(run))
    unfinished = "the search is not finished: 0 of 2 curves are tuned; 0 of 2 curves are done"
    assert unfinished in list(verdict_lines(run.verify()))
    expected = {
        "optim.lr": None,
        "tuning_trials": 10,
        "ended": 4,
        "best": None,
        "note": "more trials to come",
    }
    assert expected == {name: run.tuned()[name][0] for name in expected}
    assert 0 == run.wanted_trials().collect().height


def test_a_longer_other_axis_tunes_the_new_curves_only(lab: Lab) -> None:
    """What was frozen stays."""
    before = lab.launch()
    old_rows, old = ids(before.trials().collect()), before.tuned()
    run = lab.launch(axes={**SWEEP["axes"], "k": [1, 2, 3]})
    assert old.rows() == run.tuned().head(2).rows()
    assert old_rows <= ids(run.trials().collect())
    assert [1.0] * 10 + [2.0] * 10 + [3.0] * 10 == sorted(tuning(run)["k"])


def test_more_tuning_trials_go_on_from_those_before(lab: Lab) -> None:
    """They are added. Rows with settings that are no longer the best stay, and count no more."""
    run = lab.launch()
    first, stored = tuning(run), ids(run.trials().collect())
    run = lab.launch(tuned={**SWEEP["tuned"], "trials": 40})
    assert ids(first) < ids(tuning(run))
    assert 80 == tuning(run).height
    assert stored <= ids(run.trials().collect())
    counted = run.wanted_trials().collect()
    assert run.tuned().select("k", "optim.lr", "rule").rows() == sorted(
        counted.select("k", "optim.lr", "rule").unique().rows()
    )
    back = lab.launch()
    assert 20 == back.tuned()["ended"].sum()
    assert stored == ids(back.wanted_trials().collect()) | ids(first)


def test_a_wider_range_keeps_what_was_tried(lab: Lab) -> None:
    """Tuning trials inside it are its own; of a narrower one only those that it holds."""
    first = tuning(lab.launch())
    run = lab.launch(tuned={**SWEEP["tuned"], "optim.lr": {"log10": [-6, 0]}})
    assert ids(first) == ids(tuning(run))
    run = lab.launch(tuned={**SWEEP["tuned"], "optim.lr": {"log10": [-4, -2]}})
    inside = first.filter(pl.col("optim.lr").is_between(1e-4, 1e-2))
    assert ids(inside) < set(run.tuning_trials()["trial_id"])
    assert 20 == run.tuned()["ended"].sum()


def test_a_range_that_ends_too_early_is_said(lab: Lab) -> None:
    """In `status` and `tuned`, with what to do."""
    run = lab.launch(search=GRID, tuned={"optim.lr": {"log10": [-6, -4]}, "rule": ["adam", "sgd"]})
    assert {"optim.lr is at the end of its range: widen it"} == set(run.tuned()["note"])
    line = "warning  optim.lr is at the end of its range on 2 of 2 curves: widen it (`orchestrator tuned`)"
    assert line in list(status_lines(run))


def test_where_nothing_solves_the_best_score_is_taken(lab: Lab) -> None:
    """And it is said."""
    run = lab.launch(search=GRID, axes={"k": [1], "data_size": [2, 4], "seed": 1})
    trials = run.tuning_trials()
    assert {"unsolved"} == set(trials["status"])
    assert trials["score"].max() == trials.filter("is_frozen")["score"][0]
    note, best = run.tuned().select("note", "best").row(0)
    assert note.startswith("nothing solved")
    assert best.startswith("unsolved, score 0.")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [8192.0, 8192.0]),
        ({"tuned": {**SWEEP["tuned"], "at": 3000}}, [3000.0, 3000.0]),
        ({"where": "k = 1 OR data_size < 1000"}, [8192.0, 512.0]),
        ({"search": {**GRID, "control": True}}, [math.inf, math.inf]),
        ({"search": {**GRID, "control": True}, "where": "data_size < 1000"}, [512.0, 512.0]),
        ({"search": {"kind": "threshold", "direction": "decreasing"}}, [32.0, 32.0]),
    ],
)
def test_where_settings_are_tuned(lab: Lab, changes: dict[str, Any], expected: list[float]) -> None:
    """At the control, or where solving is likelier, or as the sweep says; of a curve that has no such cell, at the
    nearest that it has."""
    run = lab.launch(**{"search": GRID, **changes})
    assert expected == run.tuned()["tuned_at"].to_list()
    at = tuning(run).select("k", "data_size").unique().sort("k")
    assert expected == at["data_size"].to_list()


def test_the_metric_may_be_a_loss(lab: Lab) -> None:
    """Then the smaller score is the better one."""
    text = FUNCTION.replace("accuracy=max(0.0, 0.9 - away)", "loss=away").replace("accuracy=1.0", "loss=0.0")
    (lab.file.parent / "tunable.py").write_text(text)
    run = lab.launch(search=GRID, solved={"metric": "loss", "at_most": -1})
    trials = run.tuning_trials()
    assert 2 == trials.filter("is_frozen").height
    best = trials.group_by("k").agg(pl.col("score").min()).sort("k")["score"]
    assert best.to_list() == trials.filter("is_frozen").sort("k")["score"].to_list()


def test_settings_have_columns_of_their_own(lab: Lab) -> None:
    """In the files, for every row and any reader; a sweep that begins to tune a field fills them in for older rows.
    For analyses they are no axes."""
    fixed = {"tuned": None, "optim": {"lr": 0.001}, "search": GRID}
    lab.launch(**fixed, axes={**SWEEP["axes"], "rule": ["adam"]})
    run = lab.launch(search=GRID)
    raw = pl.scan_parquet(lab.run_dir / "trials" / "*.parquet", missing_columns="insert").collect()
    assert (pl.Float64(), pl.String()) == (raw.schema["optim.lr"], raw.schema["rule"])
    assert raw.filter(pl.col("seed") >= SEEDS)["optim.lr"].null_count() == 0
    assert 0 == run.trials().collect()["optim.lr"].null_count()
    assert {"k", "data_size", "seed"} == {axis.name for axis in run.sweep.axes}
    assert ["k"] == [name for name in run.thresholds().columns if name in ("k", "optim.lr", "rule")]
    rows = run.query(f"SELECT count(*) AS n FROM trials WHERE seed >= {SEEDS} AND rule = 'sgd'")
    assert 0 < rows["n"][0] < 20


def test_the_command_line(lab: Lab) -> None:
    """One row per curve, or per tuning trial, in any form."""
    run = lab.launch(search=GRID)
    done = CliRunner().invoke(app, ["tuned", str(lab.run_dir), "--format", "csv"])
    assert (0, run.tuned().write_csv()) == (done.exit_code, done.stdout)
    done = CliRunner().invoke(app, ["tuned", str(lab.run_dir), "--trials", "--format", "csv"])
    assert (0, run.tuning_trials().write_csv()) == (done.exit_code, done.stdout)
    assert 20 == run.tuning_trials().height


def test_failed_tuning_trials_run_again(lab: Lab) -> None:
    """If one of them is the best then, its settings are taken."""
    broken = FUNCTION.replace("    best =", "    if config['seed'] == 2**31 + 7: raise OSError\n    best =")
    (lab.file.parent / "tunable.py").write_text(broken)
    run = lab.launch(search=GRID)
    failed = run.tuning_trials().filter(status="failed")
    assert [7, 7] == failed["number"].to_list()
    (lab.file.parent / "tunable.py").write_text(FUNCTION)
    sys.modules.pop("tunable")
    launch(load_sweep(lab.file), lab.run_dir, cluster=Inline(), is_quiet=True, retry_failed=True)
    again = Run(lab.run_dir)
    assert 0 == again.tuning_trials().filter(status="failed").height
    assert ids(run.tuning_trials()) == ids(again.tuning_trials())
    assert "everything is there exactly once" == list(verdict_lines(again.verify()))[-1]


def test_nothing_is_tuned(lab: Lab) -> None:
    """Then there is nothing to print."""
    run = lab.launch(tuned=None, search=GRID, optim={"lr": 0.001}, axes={**SWEEP["axes"], "rule": ["adam"]})
    with pytest.raises(QueryError) as error:
        run.tuned()
    message = "nothing is tuned here: the sweep has no `tuned: {train.lr: {log10: [-4, -2]}}`"
    assert message == str(error.value)
