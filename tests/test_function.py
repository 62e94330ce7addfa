"""A user's function as a trainer."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainers.base import Outcome, Resources, TrialSpec
from trainers.function import FunctionTrainer, _own_modules, run_trial

RULE = {"metric": "accuracy", "at_least": 0.9, "consecutive": 1}
Report = Callable[..., None]


def trial(**config: Any) -> TrialSpec:
    return TrialSpec("t", {"solved": RULE, "stop": "solved", **config})


def learns(config: dict[str, Any], report: Report) -> None:
    for step in range(1, 6):
        report(step * 10, examples_seen=step, accuracy=step / 5, loss=1.0 - step / 5)


def test_what_is_reported_is_the_curve() -> None:
    """Metrics, steps and examples of every report are stored; the last score counts."""
    outcome = run_trial(learns, trial(stop="never"))
    assert (outcome.status, outcome.values["score"], outcome.values["solved_at_step"]) == ("solved", 1.0, 50)
    assert (outcome.values["stopped_by"], outcome.values["steps"]) == ("returned", 50)
    assert len(outcome.curve) == 5
    assert outcome.curve[0] == {"step": 10, "examples_seen": 1, "accuracy": 0.2, "loss": 0.8}


def test_solved_trials_stop_where_the_sweep_says_so() -> None:
    """With `stop: solved` the function ends at the report that solves it, even through `except Exception`."""
    reached = []

    def stubborn(config: dict[str, Any], report: Report) -> None:
        for step in range(1, 6):
            try:
                report(step, accuracy=step / 2)
                reached.append(step)
            except Exception:
                reached.append(-1)

    outcome = run_trial(stubborn, trial())
    assert (outcome.status, outcome.values["stopped_by"], reached) == ("solved", "solved", [1])


@pytest.mark.parametrize("error", [RuntimeError("no luck"), SystemExit(3), KeyboardInterrupt("mine")])
def test_an_exception_is_a_failed_row(error: BaseException) -> None:
    """What the function raises ends up in the error column: where, and what."""

    def fails(config: dict[str, Any], report: Report) -> None:
        report(1, accuracy=0.5)
        raise error

    outcome = run_trial(fails, trial())
    assert (outcome.status, outcome.values["stopped_by"], len(outcome.curve)) == ("failed", "error", 1)
    assert outcome.error is not None
    assert "in fails" in outcome.error
    assert outcome.error.splitlines()[-1] == f"{type(error).__name__}: {error}"


@pytest.mark.parametrize(("first", "second"), [(5, 5), (5, 4), (1, 1.7)])
def test_steps_must_grow(first: float, second: float) -> None:
    """An evaluation that comes twice, or goes back, is the function's mistake, and named."""

    def goes_back(config: dict[str, Any], report: Report) -> None:
        report(first, accuracy=0.1)
        report(second, accuracy=1.0)

    outcome = run_trial(goes_back, trial())
    assert outcome.error is not None
    assert outcome.error.endswith(
        f"ValueError: steps are whole numbers that grow, not {second} after {first}"
    )


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_means_diverged(loss: float) -> None:
    """At the last evaluation; one that recovers has not diverged."""

    def reports(*losses: float) -> Callable[..., None]:
        def function(config: dict[str, Any], report: Report) -> None:
            for step, value in enumerate(losses, 1):
                report(step, train_loss=value)

        return function

    assert run_trial(reports(1.0, loss), trial()).status == "diverged"
    assert run_trial(reports(loss, 1.0), trial()).status == "unsolved"


def test_a_fork_that_returns_is_no_second_worker() -> None:
    """A child process of the function's that comes back ends there."""
    seen = []

    def forks(config: dict[str, Any], report: Report) -> None:
        child = os.fork()
        if child:
            seen.append(os.waitpid(child, 0)[1])
            report(1, accuracy=1.0)

    assert run_trial(forks, trial()).status == "solved"
    assert seen == [0]


def test_version_of_a_decorated_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module that the sweep names is hashed, wherever a decorator's wrapper comes from."""
    monkeypatch.syspath_prepend(str(tmp_path))
    wrapper = "def deco(f):\n    def inner(config, report): f(config, report)\n    return inner\n"
    (tmp_path / "deco_lib.py").write_text(wrapper)
    versions = []
    for i, value in enumerate((0.0, 1.0)):
        (tmp_path / f"decorated_{i}.py").write_text(
            f"from deco_lib import deco\n@deco\ndef train(config, report): report(1, accuracy={value})\n"
        )
        versions.append(FunctionTrainer.load(f"decorated_{i}:train").version({}))
    assert versions[0] != versions[1]


def test_a_metric_must_be_a_number() -> None:
    """Reporting a text is the function's mistake, and named."""
    outcome = run_trial(lambda config, report: report(1, accuracy="high"), trial())
    assert outcome.error is not None
    assert outcome.error.endswith("ValueError: could not convert string to float: 'high'")


def test_a_function_cannot_change_the_next_trials_config() -> None:
    """Each call gets a copy of its own."""
    shared = {"layers": [1, 2]}

    def changes(config: dict[str, Any], report: Report) -> None:
        config["layers"].append(3)

    run_trial(changes, trial(**shared))
    assert shared == {"layers": [1, 2]}


def test_a_pack_runs_one_after_the_other() -> None:
    """Each advance is one trial, announced before it runs."""
    heard: list[Any] = []

    def noted(config: dict[str, Any], report: Report) -> None:
        heard.append(config["x"])

    specs = [TrialSpec(f"t{x}", {"solved": None, "stop": "never", "x": x}) for x in range(3)]
    training = FunctionTrainer("m:f", noted).start(
        specs, Resources(), None, lambda ids: heard.append(list(ids))
    )
    outcomes: list[Outcome] = []
    while not training.is_finished:
        outcomes += training.advance()
    assert heard == [["t0"], 0, ["t1"], 1, ["t2"], 2]
    assert [outcome.trial_id for outcome in outcomes] == ["t0", "t1", "t2"]


def test_version_is_declared_or_the_source_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`trainer_version` counts if there is one; otherwise any change of the module's source is a new version."""
    monkeypatch.syspath_prepend(str(tmp_path))
    versions = []
    for i, source in enumerate(["", "# changed\n", "trainer_version = '7'\n"]):
        (tmp_path / f"versioned_{i}.py").write_text(source + "def train(config, report): pass\n")
        versions.append(FunctionTrainer.load(f"versioned_{i}:train").version({}))
        del sys.modules[f"versioned_{i}"]
    assert versions[0] != versions[1]
    assert versions[2] == "7"


def test_version_covers_the_modules_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Editing a helper that the module imports, directly or not, is a new version too."""
    monkeypatch.syspath_prepend(str(tmp_path))
    versions = []
    for i, value in enumerate((1, 1, 2)):
        (tmp_path / f"deep_{i}.py").write_text(f"VALUE = {value}\n")
        (tmp_path / f"helper_{i}.py").write_text(f"from deep_{i} import VALUE\ndef help_(): return VALUE\n")
        (tmp_path / f"beside_{i}.py").write_text(
            f"from helper_{i} import help_\ndef train(config, report): help_()\n"
        )
        version = FunctionTrainer.load(f"beside_{i}:train").version({})
        names = [path.stem for path in _own_modules(sys.modules[f"beside_{i}"])]
        assert names == [f"beside_{i}", f"deep_{i}", f"helper_{i}"]
        versions.append(version)
    assert len(set(versions)) == 3


def test_version_covers_a_number_from_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`from numbers_beside import N`: a number does not tell which module it comes from, the import does."""
    monkeypatch.syspath_prepend(str(tmp_path))
    versions = []
    for n in (1, 2):
        (tmp_path / f"numbers_{n}.py").write_text(f"N = {n}\n")
        (tmp_path / f"counting_{n}.py").write_text(
            f"try:\n    from numbers_{n} import N\nexcept ImportError:\n    N = 0\n"
            "def train(config, report): import json\n"
        )
        versions.append(FunctionTrainer.load(f"counting_{n}:train").version({}))
        names = [path.stem for path in _own_modules(sys.modules[f"counting_{n}"])]
        assert names == [f"counting_{n}", f"numbers_{n}"]
    assert versions[0] != versions[1]


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("no_such_module:train", ImportError, "No module named 'no_such_module'"),
        ("math:no_such_function", AttributeError, "module 'math' has no attribute 'no_such_function'"),
        ("math:pi", AttributeError, "'pi' in 'math' cannot be called"),
        ("math", ImportError, "'math' does not have the form package.module:function"),
    ],
)
def test_what_cannot_be_loaded(name: str, error: type[Exception], message: str) -> None:
    """A wrong name says what is wrong with it."""
    with pytest.raises(error, match=message):
        FunctionTrainer.load(name)
