"""kill -9 between any two writes: launching again always ends with the rows of an undisturbed run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from rows import assert_same

CHILD = Path(__file__).parent / "child.py"

FUNCTION = """\
def train(config, report):
    if config["x"] == 2:
        raise RuntimeError("never works")
    for step in range(1, 3):
        report(step, accuracy=config["x"] * step / 4, loss=0.1 * config["seed"])
"""
SWEEPS = {
    "function": """\
name: crash
trainer: crashing:train
axes: {x: [1, 2, 3], seed: 2}
solved: {metric: accuracy, at_least: 0.9}
pack: {size: 4}
""",
    "transformer": """\
name: crash
task: {name: composition, n: 4, eval_size: 16}
model: {width: 8, heads: 2, depth: 1}
train: {steps: 6, batch_size: 4, eval_every: 2}
axes: {k: [1, 2], data_size: [8, 16], seed: 2}
search: {control: false}
pack: {size: 3, slots: 2}
""",
}


def launch(sweep: Path, run_dir: Path, kill_at: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, CHILD, sweep, run_dir, str(kill_at)], capture_output=True, text=True, check=False
    )


def moments(kind: str, n_calls: int) -> list[int]:
    """Every moment for the quick sweep; for the one that imports torch a spread of them."""
    return list(range(2 * n_calls)) if kind == "function" else list(range(0, 2 * n_calls, 9))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", SWEEPS)
def test_killed_between_any_two_writes(kind: str, tmp_path: Path) -> None:
    """Wherever the process dies, the next launch stores every trial once, with the same bits."""
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(SWEEPS[kind])
    (tmp_path / "crashing.py").write_text(FUNCTION)
    undisturbed = launch(sweep, tmp_path / "undisturbed", -1)
    assert undisturbed.returncode == 0, undisturbed.stderr
    for moment in moments(kind, int(undisturbed.stdout)):
        run_dir = tmp_path / f"killed-at-{moment}"
        assert launch(sweep, run_dir, moment).returncode == -9
        again = launch(sweep, run_dir, -1)
        assert again.returncode == 0, again.stderr
        assert_same(tmp_path / "undisturbed", run_dir)
