"""What a trial costs beside its training: `orchestrator launch` against Ray Tune, in one run.

    python tests/benchmarks/overhead.py [--trials 1000] [--default-trials 40]

The same trivial function (trivial.py) on the same machine: through `launch` (Ray, packs); under Ray Tune as its
defaults are, few trials and extrapolated linearly; under Ray Tune tuned (actors reused, no loggers, no
checkpoint at end). Every contestant runs in a process of its own and is timed from start to end of its runs,
without the imports and Ray's start, which are printed apart.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def run_launch(n_trials: int) -> dict[str, float]:
    """Our own launch."""
    import polars as pl

    from orchestrator.launch import launch
    from orchestrator.store import Store
    from orchestrator.sweep import load_sweep

    with tempfile.TemporaryDirectory() as folder:
        sweep_file = Path(folder) / "sweep.yaml"
        sweep_file.write_text(
            textwrap.dedent(f"""\
                name: overhead
                trainer: trivial:train
                axes: {{x: {list(range(n_trials))}}}
                solved: {{metric: accuracy, at_least: 1}}
                """)
        )
        began = time.perf_counter()
        launch(load_sweep(sweep_file), Path(folder) / "run", is_quiet=True)
        total_s = time.perf_counter() - began
        rows = Store(Path(folder) / "run").scan("trials").select(pl.len(), pl.col("error").count()).collect()
        assert rows.row(0) == (n_trials, 0), rows
    return {"total_s": total_s}


def run_tune(n_trials: int, *, is_tuned: bool) -> dict[str, float]:
    """Ray Tune with a class trainable that does what the function does."""
    if is_tuned:
        os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    import ray
    from ray import tune
    from trivial import train

    class Trivial(tune.Trainable):  # type: ignore[misc]
        def step(self) -> dict[str, Any]:
            result: dict[str, Any] = {"done": True}
            train(self.config, lambda step, **metrics: result.update(metrics))
            return result

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            return True

    began = time.perf_counter()
    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    options: dict[str, Any] = {"reuse_actors": False, "raise_on_failed_trial": True}
    if is_tuned:
        options |= {"reuse_actors": True, "checkpoint_config": tune.CheckpointConfig(checkpoint_at_end=False)}
    with tempfile.TemporaryDirectory() as folder:
        analysis = tune.run(
            Trivial,
            config={"x": tune.grid_search(list(range(n_trials)))},
            storage_path=folder,
            verbose=0,
            **options,
        )
        finished = [trial for trial in analysis.trials if trial.status == "TERMINATED"]
        assert len(finished) == n_trials, f"Tune finished {len(finished)} of {n_trials} trials"
    ray.shutdown()
    return {"total_s": time.perf_counter() - began}


def in_new_process(contestant: str, n_trials: int) -> float:
    """Seconds, Ray's start included, imports of Python not."""
    command = [sys.executable, __file__, "--contestant", contestant, "--trials", str(n_trials)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{contestant} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result["total_s"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--default-trials", type=int, default=40)
    parser.add_argument("--contestant", choices=("launch", "tune", "tuned"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contestant:
        sys.path.insert(0, str(HERE))
        os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
        if arguments.contestant == "launch":
            result = run_launch(arguments.trials)
        else:
            result = run_tune(arguments.trials, is_tuned=arguments.contestant == "tuned")
        print(json.dumps(result))
        return
    counts = {"launch": arguments.trials, "tuned": arguments.trials, "tune": arguments.default_trials}
    # What a contestant spends before its first trial is taken off by a second run with few trials.
    per_trial = {}
    print(f"{'':>28}  trials  total s  start s  ms per trial  launch is faster by")
    titles = {
        "launch": "orchestrator launch",
        "tuned": "Ray Tune, tuned",
        "tune": "Ray Tune, as its defaults are",
    }
    for contestant, n_trials in counts.items():
        total_s, start_s = in_new_process(contestant, n_trials), in_new_process(contestant, 2)
        per_trial[contestant] = (total_s - start_s) / (n_trials - 2) * 1e3
        ratio = per_trial[contestant] / per_trial["launch"]
        print(
            f"{titles[contestant]:>28}  {n_trials:6d}  {total_s:7.1f}  {start_s:7.1f}  "
            f"{per_trial[contestant]:12.2f}  {ratio:19.1f}",
            flush=True,
        )
    whole = per_trial["tune"] * arguments.trials / 1e3
    print(
        f"Ray Tune's defaults, extrapolated from {counts['tune']} trials to {arguments.trials}: {whole:.0f} s"
    )


if __name__ == "__main__":
    main()
