"""Launching is reconciling. Most of it inline, with a function that trains in no time."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from cluster.base import Cluster
from cluster.local import Local
from orchestrator import Run
from orchestrator.errors import QueryError, StoreError
from orchestrator.inline import Inline
from orchestrator.launch import launch
from orchestrator.reconcile import reconcile
from orchestrator.store import Store
from orchestrator.sweep import load_sweep

SWEEP: dict[str, Any] = {
    "name": "small",
    "axes": {"x": [1, 2, 3], "seed": 2},
    "solved": {"metric": "accuracy", "at_least": 2},
    "pack": {"size": 4},
}
FUNCTION = """\
import os
from pathlib import Path

trainer_version = "1"

def train(config, report):
    log = Path(__file__).with_suffix(".log")
    with log.open("a") as file:
        print(config["x"], config["seed"], file=file)
    if config["x"] == 13 and not Path(__file__).with_suffix(".lucky").exists():
        raise RuntimeError("thirteen")
    if config["x"] == 666:
        os.kill(os.getpid(), 11)
    for step in (1, 2):
        report(step, accuracy=config["x"] * step / 2, loss=1 / step)
"""


INLINE = Inline()


class Sandbox:
    """A folder with a user's module and a sweep file; remembers nothing between launches but the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run_dir = folder, folder / "run"
        self.module = f"user_{uuid.uuid4().hex[:8]}"  # a name of its own: Python imports a name once
        (folder / f"{self.module}.py").write_text(FUNCTION)

    def write(self, changes: Mapping[str, Any]) -> Path:
        path = self.folder / "sweep.yaml"
        path.write_text(json.dumps({**SWEEP, "trainer": f"{self.module}:train", **changes}))
        return path

    def launch(self, cluster: Cluster | Inline = INLINE, retry_failed: bool = False, **changes: Any) -> Run:
        sweep = load_sweep(self.write(changes))
        launch(sweep, self.run_dir, cluster=cluster, retry_failed=retry_failed, is_quiet=True)
        return Run(self.run_dir)

    def calls(self) -> list[str]:
        """`x seed` of every call of the function since the last time this was asked."""
        log = self.folder / f"{self.module}.log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.write_text("")
        return lines


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    folder = tmp_path / 'it\'s a "folder" – ü'
    folder.mkdir()
    return Sandbox(folder)


def statuses(run: Run) -> dict[tuple[float, int], str]:
    rows = run.trials().sort("x", "seed").select("x", "seed", "status").collect()
    return {(x, seed): status for x, seed, status in rows.iter_rows()}


def test_every_wanted_trial_is_stored_once(sandbox: Sandbox) -> None:
    """A first launch runs every trial once and leaves nothing open."""
    run = sandbox.launch()
    assert sorted(sandbox.calls()) == ["1 0", "1 1", "2 0", "2 1", "3 0", "3 1"]
    assert statuses(run) == {
        (x, s): "solved" if x > 1 else "unsolved" for x in (1.0, 2.0, 3.0) for s in (0, 1)
    }
    assert run.verify().is_whole
    for folder in ("packs", "checkpoints"):
        assert list((run.path / folder).iterdir()) == []


def test_launching_a_finished_sweep_does_nothing(sandbox: Sandbox) -> None:
    """Reconciling twice runs nothing and writes no rows."""
    before = sorted((sandbox.launch().path / "trials").iterdir())
    sandbox.calls()
    assert sorted((sandbox.launch().path / "trials").iterdir()) == before
    assert sandbox.calls() == []


def test_extending_an_axis_runs_only_what_is_new(sandbox: Sandbox) -> None:
    """New values and new seeds run; what is stored does not run again."""
    sandbox.launch()
    sandbox.calls()
    run = sandbox.launch(axes={"x": [1, 2, 3, 4], "seed": 3})
    assert sorted(sandbox.calls()) == ["1 2", "2 2", "3 2", "4 0", "4 1", "4 2"]
    assert run.verify().is_whole
    assert len(statuses(run)) == 12


def test_a_gained_axis_finds_its_old_rows(tmp_path: Path) -> None:
    """When a setting becomes an axis, rows stored with that setting count, and show its value."""
    before = {
        "name": "gains",
        "task": {"name": "composition", "n": 4, "k": 2, "eval_size": 8},
        "model": {"width": 8, "heads": 2, "depth": 1},
        "train": {"steps": 2, "batch_size": 4, "eval_every": 2},
        "axes": {"data_size": [8, 16], "seed": 2},
    }
    after = {**before, "model": {"width": 8, "heads": 2}, "axes": {**before["axes"], "depth": [1, 2]}}  # type: ignore[dict-item]
    old, run = (launched(tmp_path, sweep) for sweep in (before, after))
    assert old.plan.trials[0].trial_id in {trial.trial_id for trial in run.plan.trials}
    rows = run.trials().select("data_size", "seed", "depth", "started_at").collect()
    assert sorted(rows.select("data_size", "seed", "depth").rows()) == sorted(
        (size, seed, depth) for size in (8.0, 16.0, math.inf) for seed in (0, 1) for depth in (1, 2)
    )
    assert (
        rows.filter(pl.col("depth") == 1)["started_at"].max()
        < rows.filter(pl.col("depth") == 2)["started_at"].min()
    )
    raw = pl.scan_parquet(str(run.path / "trials" / "*.parquet"), missing_columns="insert").collect()
    assert raw["depth"].null_count() == 6
    assert run.verify().is_whole


def test_an_axis_that_moves_while_a_pack_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pack that was begun when the sweep had another axis goes on under the sweep as it is now."""
    section: dict[str, Any] = {
        "name": "moves",
        "task": {"name": "composition", "n": 4, "k": 2, "eval_size": 8},
        "model": {"width": 8, "heads": 2, "depth": 1},
        "train": {"steps": 2, "batch_size": 4, "eval_every": 2},
        "axes": {"data_size": [8, 16]},
    }
    axis = {**section, "model": {"width": 8, "heads": 2}, "axes": {"data_size": [8, 16], "depth": [1]}}
    monkeypatch.setattr("orchestrator.inline.Worker", stop_at_once)
    with pytest.raises(SystemExit):
        launched(tmp_path, axis)
    assert len(list((tmp_path / "run" / "packs").iterdir())) == 1
    monkeypatch.undo()
    assert launched(tmp_path, section).verify().is_whole


def stop_at_once(order: object, pack_id: str) -> None:
    """In a worker's place: the launch ends with this pack open."""
    sys.exit(f"{pack_id} is left open")


def test_another_sweep_is_refused(sandbox: Sandbox) -> None:
    """A run directory belongs to one sweep."""
    sandbox.launch()
    with pytest.raises(StoreError, match=r"holds the sweep 'small' of trainer '.*', not 'other' of "):
        sandbox.launch(name="other")


def test_a_column_keeps_its_type(sandbox: Sandbox) -> None:
    """Texts on an axis that was stored as numbers would break every raw reader: refused, and nothing is lost."""
    sandbox.launch()
    with pytest.raises(StoreError, match=r"'x' is stored as Float64, and would become String"):
        sandbox.launch(axes={"x": [1, "a"], "seed": 2})
    assert sandbox.launch().verify().is_whole


def test_dropped_trials_do_not_run(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the sweep no longer asks for is not run, even if its pack was begun."""
    monkeypatch.setattr("orchestrator.inline.Worker", stop_at_once)
    with pytest.raises(SystemExit):
        sandbox.launch()
    monkeypatch.undo()
    run = sandbox.launch(axes={"x": [1, 3], "seed": 2})
    assert sorted(sandbox.calls()) == ["1 0", "1 1", "3 0", "3 1"]
    assert run.verify().is_whole


def test_finished_trials_are_published_behind_a_long_one(tmp_path: Path) -> None:
    """While one trial takes its time, those of its pack that ended before are already stored."""
    (tmp_path / "patient.py").write_text(
        "import time\n"
        "from pathlib import Path\n"
        "def train(config, report):\n"
        "    report(1, accuracy=1.0)\n"
        "    trials = Path(__file__).parent / 'run' / 'trials'\n"
        "    while config['x'] == 3 and len(list(trials.glob('*.parquet'))) < 2:\n"
        "        time.sleep(0.1)\n"
    )
    sweep = {"name": "patient", "trainer": "patient:train", "axes": {"x": [1, 2, 3]}, "pack": {"size": 3}}
    assert launched(tmp_path, sweep).verify().is_whole


def launched(folder: Path, sweep: Mapping[str, Any]) -> Run:
    (folder / "sweep.yaml").write_text(json.dumps(sweep))
    launch(load_sweep(folder / "sweep.yaml"), folder / "run", cluster=Inline(), is_quiet=True)
    return Run(folder / "run")


def test_the_plan_says_what_would_happen(sandbox: Sandbox) -> None:
    """Reconciling before a launch reads only; it counts wanted, stored and to run."""
    sweep = load_sweep(sandbox.write({}))
    found = reconcile(sweep, sandbox.run_dir, Inline())
    assert (len(found.plan.trials), len(found.statuses), found.n_to_run, found.n_packs) == (6, 0, 6, 2)
    assert not sandbox.run_dir.exists()
    sandbox.launch()
    assert (
        reconcile(load_sweep(sandbox.write({"axes": {"x": [1, 5]}})), sandbox.run_dir, Inline()).n_to_run == 1
    )


def test_a_failing_trial_is_a_row_and_the_sweep_goes_on(sandbox: Sandbox) -> None:
    """An exception makes a failed row with the traceback's last lines; launching again does not repeat it."""
    run = sandbox.launch(axes={"x": [1, 13, 2]})
    assert statuses(run) == {(1.0, 0): "unsolved", (2.0, 0): "solved", (13.0, 0): "failed"}
    (error,) = run.trials().filter(pl.col("status") == "failed").collect()["error"]
    assert error.splitlines()[-1] == "RuntimeError: thirteen"
    assert "in train" in error
    sandbox.calls()
    sandbox.launch(axes={"x": [1, 13, 2]})
    assert sandbox.calls() == []


def test_retry_runs_failed_trials_again(sandbox: Sandbox) -> None:
    """`--retry failed` takes away the failed rows and no others."""
    sandbox.launch(axes={"x": [1, 13, 2]})
    sandbox.calls()
    (sandbox.folder / f"{sandbox.module}.lucky").touch()
    run = sandbox.launch(axes={"x": [1, 13, 2]}, retry_failed=True)
    assert sandbox.calls() == ["13 0"]
    assert statuses(run)[13.0, 0] == "solved"
    assert run.verify().is_whole


@pytest.mark.slow
def test_a_trial_that_kills_its_worker_fails_alone(sandbox: Sandbox) -> None:
    """Three dead workers, then the trial is failed; its neighbours are stored as if nothing had happened."""
    run = sandbox.launch(Local(), axes={"x": [1, 666, 2, 3]})
    assert statuses(run) == {
        (1.0, 0): "unsolved",
        (2.0, 0): "solved",
        (3.0, 0): "solved",
        (666.0, 0): "failed",
    }
    assert sandbox.calls().count("666 0") == 3
    (error,) = run.trials().filter(pl.col("status") == "failed").collect()["error"]
    assert re.fullmatch(
        r"its worker died 3 times; last: the process ended without a word \(killed, crashed or out of memory\); "
        r"logs/worker-.*\.log may say more",
        error,
    )
    assert list((run.path / "logs").glob("worker-*.log"))
    assert run.verify().is_whole


@pytest.mark.slow
def test_a_mistake_in_the_engine_is_a_failed_row(tmp_path: Path) -> None:
    """What raises inside a worker, on whatever try, ends after three as a failed row with its traceback's end."""
    (tmp_path / "sitecustomize.py").write_text(
        "from trainers.transformer import engine\n"
        "def advance(self): raise RuntimeError('CUDA error: out of luck')\n"
        "engine.PackTraining.advance = advance\n"
    )
    sweep = {
        "name": "engine",
        "task": {"name": "composition", "n": 4, "k": 2, "eval_size": 8},
        "train": {"steps": 2, "batch_size": 4, "eval_every": 2},
        "axes": {"data_size": [8]},
        "search": {"control": False},
    }
    (tmp_path / "sweep.yaml").write_text(json.dumps(sweep))
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "orchestrator.cli", "launch", "sweep.yaml", "--run-dir", "run", "-q"]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=120)
    (row,) = Run(tmp_path / "run").trials().collect().iter_rows(named=True)
    assert row["status"] == "failed"
    assert row["error"].startswith("its worker died 3 times; last:")
    assert row["error"].endswith("RuntimeError: CUDA error: out of luck")


def test_a_damaged_file_is_set_aside_and_made_good(sandbox: Sandbox) -> None:
    """`verify` names a damaged file; the next launch moves it out of sight and runs what it held."""
    run = sandbox.launch()
    path = max((run.path / "trials").glob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-30])
    verdict = run.verify()
    assert [item.path for item in verdict.damaged] == [path]
    assert len(verdict.missing) in (2, 4)
    again = sandbox.launch()
    assert again.verify().is_whole
    assert path.with_name(f"{path.name}.damaged").exists()


def test_columns_have_the_types_of_their_fields(sandbox: Sandbox) -> None:
    """Numbers of a user's axis are Float64 whatever the values, texts String, seeds Int64."""
    run = sandbox.launch(axes={"x": [1, 2], "name": ["a", "b"], "flag": [True], "shape": [[1, 2]], "seed": 1})
    schema = run.trials().collect_schema()
    expected = {"x": pl.Float64, "name": pl.String, "flag": pl.Boolean, "shape": pl.String, "seed": pl.Int64}
    assert {name: schema[name] for name in expected} == expected


def test_a_superseded_worker_writes_no_more(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once another driver is in charge, a worker of the old one publishes nothing."""
    from orchestrator import worker

    original: Callable[..., Any] = worker.Worker._publish_part

    def after_a_takeover(self: worker.Worker, *arguments: Any) -> None:
        self.store.next_epoch()
        original(self, *arguments)

    monkeypatch.setattr(worker.Worker, "_publish_part", after_a_takeover)
    with pytest.raises(worker.Superseded, match="a newer launch is in charge"):
        sandbox.launch()
    assert Store(sandbox.run_dir).statuses() == {}
    monkeypatch.undo()
    assert sandbox.launch().verify().is_whole


def test_a_full_disk_ends_the_launch_with_a_message(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be stored is no trial's fault: the launch ends, and the next one goes on."""
    from orchestrator import store

    def full(path: Path, content: bytes) -> bool:
        raise StoreError(
            f"{path}: cannot be written: No space left on device. Nothing that is stored is lost"
        )

    sandbox.launch(axes={"x": [1]})
    monkeypatch.setattr(store, "publish_once", full)
    with pytest.raises(StoreError, match="No space left on device"):
        sandbox.launch()
    monkeypatch.undo()
    run = sandbox.launch()
    assert run.verify().is_whole
    assert set(statuses(run).values()) == {"solved", "unsolved"}


def test_reading_imports_nothing_of_the_users(sandbox: Sandbox) -> None:
    """`status`, `verify` and `query` work without the user's module."""
    sandbox.launch()
    (sandbox.folder / f"{sandbox.module}.py").unlink()
    sys.modules.pop(sandbox.module, None)
    run = Run(sandbox.run_dir)
    assert run.verify().is_whole
    assert run.query("SELECT count(*) AS n FROM trials WHERE status = 'solved'").rows() == [(4,)]
    assert sandbox.module not in sys.modules


def test_provenance_grows_with_each_launch(sandbox: Sandbox) -> None:
    """Every launch leaves its command, versions and host, and no environment."""
    sandbox.launch()
    sandbox.launch()
    launches = json.loads((sandbox.run_dir / "provenance.json").read_text())["launches"]
    assert len(launches) == 2
    assert set(launches[0]) == {
        "at",
        "command",
        "cluster",
        "host",
        "platform",
        "python",
        "code_version",
        "packages",
    }
    assert launches[0]["packages"]["polars"] == pl.__version__


@pytest.mark.parametrize(
    ("task", "train", "why"),
    [
        ({}, {"schedule": "cosine"}, "the learning rate falls along a cosine that ends at the step budget"),
        ({"curriculum": "staged"}, {}, "the stages of a staged curriculum divide the step budget"),
        ({}, {}, None),
    ],
)
def test_smaller_budgets_are_read_off_where_that_is_honest(
    task: dict[str, Any], train: dict[str, Any], why: str | None, tmp_path: Path
) -> None:
    """Where the budget shapes the training from the start, `--at-steps` is refused with the reason."""
    sweep = {
        "name": "budget",
        "task": {"name": "composition", "n": 4, "k": 2, "easy_fraction": 0.5, "eval_size": 8, **task},
        "model": {"width": 8, "heads": 2, "depth": 1},
        "train": {"steps": 4, "batch_size": 4, "eval_every": 2, **train},
        "axes": {"data_size": [8, 16]},
    }
    run = launched(tmp_path, sweep)
    if why is None:
        assert run.thresholds(at_steps=2)["steps"].to_list() == [2]
    else:
        with pytest.raises(QueryError, match=f"cannot be answered from these trials: {why}"):
            run.thresholds(at_steps=2)
