"""Thresholds against k as a figure, and the way from the command line to it."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from orchestrator import Run
from orchestrator.axis import AxisInfo
from orchestrator.errors import QueryError
from orchestrator.inline import Inline
from orchestrator.launch import launch
from orchestrator.law_diagram import PLACES, in_sizes
from orchestrator.law_figure import law_figure
from orchestrator.overlay import BEYOND, CROSSING, THRESHOLD
from orchestrator.scaling import RESULTS
from orchestrator.sweep import load_sweep

K = AxisInfo("k", "linear", (2, 3, 4, 5))
SIZE = AxisInfo("data_size", "log2", (64.0, 128.0, 256.0, 1024.0, math.inf))
EASY = AxisInfo("easy_fraction", "linear", (0.0, 0.5))
CURVE = {"k": pl.Int64, "easy_fraction": pl.Float64, "censored": pl.String, "reason": pl.String}
CURVE |= {"monotone": pl.Boolean}
NUMBERS = ("threshold", "low", "high", "tested_low", "tested_high", "lower_crossing", "upper_crossing")


def curve(k: int, **values: Any) -> dict[str, Any]:
    known = {"k": k, "easy_fraction": 0.0, "tested_low": 64.0, "tested_high": 1024.0, "monotone": True}
    return dict.fromkeys((*CURVE, *NUMBERS)) | known | values


def laws(verdict: str, slope: float | None = 1.0, easy: float = 0.0) -> list[dict[str, Any]]:
    """One group: an exponential from 2^6 at k = 2, a power law, a constant."""
    group: dict[str, Any] = {"easy_fraction": easy, **dict.fromkeys(RESULTS)} | {"first": 2.0, "last": 5.0}
    group |= {"along": "data_size", "against": "k", "verdict": verdict, "intercept": 4.0}
    growing = {"slope": slope, "slope_low": 0.5, "slope_high": 1.25}
    if slope is None:
        group["intercept"] = growing["slope_low"] = growing["slope_high"] = None
    return [group | {"law": name} | growing for name in ("exponential", "power")] + [
        group | {"law": "constant"}
    ]


def drawn(
    curves: list[dict[str, Any]], of: list[dict[str, Any]], facets: tuple[AxisInfo, ...] = ()
) -> list[Any]:
    """The rows that the figure holds."""
    thresholds = pl.DataFrame(curves, schema=CURVE | dict.fromkeys(NUMBERS, pl.Float64))
    fitted = pl.DataFrame(of, schema={"easy_fraction": pl.Float64, **RESULTS})
    named = fitted if facets else fitted.drop("easy_fraction")
    chart: Any = law_figure(thresholds, named, x=K, y=SIZE, facets=facets, title="T", subtitle="S")
    (rows,) = chart.to_dict()["datasets"].values()
    return [{name: value for name, value in row.items() if name not in ("across", "down")} for row in rows]


def of_layer(rows: list[Any], *layers: str) -> list[Any]:
    return [row for row in rows if row["layer"] in layers]


def test_threshold_is_a_point_with_its_interval_in_octaves() -> None:
    """An end of the interval that is not known reaches as far as was tested."""
    rows = drawn([curve(2, threshold=128.0, low=64.0), curve(3, threshold=256.0, low=128.0, high=512.0)], [])
    assert [
        {"px": 2.0, "ink": "black", "layer": "interval", "py": 6.0, "top": 10.0},
        {"px": 2.0, "ink": "black", "layer": "mark", "angle": 0, "mark": THRESHOLD, "py": 7.0},
        {"px": 3.0, "ink": "black", "layer": "interval", "py": 7.0, "top": 9.0},
        {"px": 3.0, "ink": "black", "layer": "mark", "angle": 0, "mark": THRESHOLD, "py": 8.0},
    ] == rows


def test_censored_threshold_is_an_arrow_with_what_is_known() -> None:
    """Upwards from its lower bound, or downwards; grey where it is in no fit."""
    above = curve(4, censored="above", reason="data", low=256.0)
    unsolvable = curve(5, censored="above", reason="steps")
    rows = drawn([above, curve(2, censored="below"), unsolvable], [])
    assert [
        {"px": 4.0, "ink": "black", "layer": "interval", "py": 8.0, "top": 10.0},
        {"px": 4.0, "ink": "black", "layer": "mark", "angle": 0, "mark": BEYOND, "py": 10.0},
        {"px": 2.0, "ink": "black", "layer": "mark", "angle": 180, "mark": BEYOND, "py": 6.0},
        {"px": 5.0, "ink": "#9a9a9a", "layer": "mark", "angle": 0, "mark": BEYOND, "py": 10.0},
    ] == rows


def test_curve_that_turns_around_shows_its_crossings_in_grey() -> None:
    """It has no single threshold, so it is in no fit."""
    turned = curve(3, reason="non-monotone", monotone=False, lower_crossing=128.0, upper_crossing=512.0)
    rows = drawn([turned], [])
    assert [(CROSSING, 7.0, "#9a9a9a"), (CROSSING, 9.0, "#9a9a9a")] == [
        (row["mark"], row["py"], row["ink"]) for row in rows
    ]


def test_ticks_are_round_numbers() -> None:
    """1, 2 and 5 of a decade, whole octaves and their halves; whole powers where there are many."""
    rate, wide = AxisInfo("lr", "log10", (1e-4, 1e-1)), AxisInfo("n", "log2", (64.0, 2.0**20))
    for axis, low, high, labels in (
        (rate, 4e-4, 6e-3, ["0.0005", "0.001", "0.002", "0.005", "0.01"]),
        (SIZE, 128.0, 512.0, ["128", "181", "256", "362", "512", "724"]),
        (wide, 64.0, 2.0**20, ["2^6", "2^9", "2^12", "2^15", "2^18", "2^21"]),
    ):
        ends = {"threshold": low, "low": low, "high": high, "tested_low": low, "tested_high": high}
        table = pl.DataFrame([curve(2, **ends)], schema=CURVE | dict.fromkeys(NUMBERS, pl.Float64))
        fitted = pl.DataFrame(schema=RESULTS)
        chart: Any = law_figure(table, fitted, x=K, y=axis, facets=(), title="T", subtitle="S")
        expression = chart.to_dict()["layer"][0]["encoding"]["y"]["axis"]["labelExpr"]
        assert labels == json.loads(expression.split("]")[0] + "]")


def test_thresholds_in_hard_examples_are_drawn_with_all_their_marks_in_them() -> None:
    """Bounds as they are known, other marks between the trials; unknown where no trial has such a number."""
    rows = [{"k": k, "data_size": 2.0**i, "n_hard": 2.0**i / k} for k in (1, 2) for i in range(6, 11)]
    found = {"threshold": 256.0, "low": 128.0, "high": None, "tested_low": 64.0, "tested_high": 1024.0}
    hard = {"threshold_hard": 128.0, "low_hard": 64.0, "high_hard": None}
    turning = {"lower_crossing": 90.0, "upper_crossing": 512.0}
    curves = pl.DataFrame([{"k": k, "along": "data_size", **found, **hard, **turning} for k in (2, 3)])
    first, second = in_sizes(curves, pl.LazyFrame(rows), SIZE, "hard").iter_rows(named=True)
    assert [128.0, 64.0, None] == [first[end] for end in ("threshold", "low", "high")]
    assert [32.0, 512.0, 256.0] == [first[end] for end in ("tested_low", "tested_high", "upper_crossing")]
    assert 45.0 == pytest.approx(first["lower_crossing"])
    assert [None] * 4 == [second[end] for end in PLACES]


def test_both_laws_run_over_the_fitted_range() -> None:
    """The exponential is straight, the power law bends, and the constant shows only where it is the verdict."""
    rows = of_layer(drawn([], laws("inconclusive")), "law")
    assert {"exponential", "power"} == {row["law"] for row in rows}
    straight = [(row["px"], row["py"]) for row in rows if row["law"] == "exponential"]
    assert ((2.0, 6.0), (5.0, 9.0)) == (straight[0], straight[-1])
    bent = [(row["px"], row["py"]) for row in rows if row["law"] == "power"]
    assert (2.0, 5.0) == bent[0]
    assert (5.0, 4 + math.log2(5)) == pytest.approx(bent[-1])
    constant = of_layer(drawn([], laws("constant")), "law")
    assert {4.0} == {row["py"] for row in constant if row["law"] == "constant"}


def test_panel_says_its_verdict_and_the_slope_of_the_law_that_won() -> None:
    """Each panel its own; a group without laws has words only."""
    rows = drawn([], [*laws("exponential"), *laws("inconclusive", None, 0.5)], (EASY,))
    words = [row["words"] for row in of_layer(rows, "words")]
    assert [["exponential", "1 [0.5, 1.25]"], ["inconclusive"]] == words


FUNCTION = """\
trainer_version = "1"

def train(config, report):
    report(1, accuracy=float(config["size"] >= 3 * 2 ** (config["k"] * config["growth"])))
"""
SWEEP = """\
name: growth
trainer: {module}:train
axes: {{k: [1, 2, 3, 4, 5, 6], growth: [1, 2], size: {{log2: [0, 16], points: 33}}, seed: 3}}
search: {{along: size}}
solved: {{metric: accuracy, at_least: 0.5, consecutive: 1}}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("growth")
    (path / "growth_user.py").write_text(FUNCTION)
    (path / "sweep.yaml").write_text(SWEEP.format(module="growth_user"))
    launch(load_sweep(path / "sweep.yaml"), path / "run", cluster=Inline(), is_quiet=True)
    return path


def orchestrator(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "orchestrator.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


def test_scaling_of_a_run_in_every_form(folder: Path) -> None:
    """Words for eyes; rows for programs; the same numbers from Python."""
    text = orchestrator(folder, "scaling", "run", "--of", "threshold", "--against", "k")
    assert (0, "") == (text.returncode, text.stderr)
    lines = text.stdout.splitlines()
    assert "thresholds along size against k" == lines[0]
    assert ["growth 1: exponential", "growth 2: exponential"] == [x for x in lines if x.startswith("growth")]
    done = orchestrator(folder, "scaling", "run", "--against", "k", "--by", "growth", "--format", "json")
    rows = json.loads(done.stdout)
    assert Run(folder / "run").scaling("k").collect().to_dicts() == rows
    slopes = {
        row["growth"]: (row["slope_low"], row["slope_high"]) for row in rows if row["law"] == "exponential"
    }
    assert slopes[1][0] < 1 < slopes[1][1] < slopes[2][0] < 2 < slopes[2][1]


def test_figure_of_a_run_is_reached_by_its_value(folder: Path) -> None:
    """`plot --value threshold`: a panel per value of the other axes, in the run's figures unless said otherwise."""
    done = orchestrator(folder, "plot", "run", "--value", "threshold", "--x", "k")
    assert (0, "run/figures/thresholds.png\n") == (done.returncode, done.stdout), done.stderr
    assert (folder / "run/figures/thresholds.png").read_bytes().startswith(b"\x89PNG")
    chart: Any = Run(folder / "run").plot(value="threshold", out=folder / "figure.pdf")
    assert (folder / "figure.pdf").read_bytes().startswith(b"%PDF")
    spec = chart.to_dict()
    (rows,) = spec["datasets"].values()
    assert {"growth = 1", "growth = 2"} == {row["across"] for row in rows}
    assert ["1,188 trials; slope of an exponential: doublings per unit"] == spec["title"]["subtitle"]
    pooled: Any = Run(folder / "run").plot(value="threshold", facets=[])
    assert "one law for all growth" in " ".join(pooled.to_dict()["title"]["subtitle"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["scaling", "run", "--against", "noise"],
            "error: there is no axis 'noise'; the axes are k, growth, size",
        ),
        (["scaling", "run", "--against", "size"], "error: no growth of thresholds with 'size'"),
        (
            ["scaling", "run", "--against", "k", "--by", "size"],
            "error: no groups by 'size': the other axes are growth",
        ),
        (
            ["scaling", "run", "--against", "k", "--in", "hard"],
            "error: thresholds along 'size' are not known in n_hard",
        ),
        (
            ["plot", "run", "--value", "threshold", "--in", "hard"],
            "error: thresholds along 'size' are not known in n_hard",
        ),
        (["plot", "run", "--in", "hard"], "error: --in goes with the value threshold, not with solved"),
        (["scaling", "run", "--against", "k", "--of", "loss"], "'loss' is none of: threshold"),
        (
            ["plot", "run", "--value", "threshold", "--x", "size"],
            "error: no growth of thresholds with 'size'",
        ),
    ],
)
def test_a_mistake_is_a_message(folder: Path, arguments: list[str], message: str) -> None:
    """Exit code 2, what is wrong, and no traceback."""
    done = orchestrator(folder, *arguments)
    assert done.returncode == 2, done.stdout
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_run_without_trials_has_no_figure(folder: Path) -> None:
    """And says so."""
    shutil.copytree(folder / "run", folder / "empty")
    for path in (folder / "empty/trials").glob("*.parquet"):
        if len(pl.read_parquet(path)):
            path.unlink()
    with pytest.raises(QueryError, match="no trials yet: there are no thresholds to draw"):
        Run(folder / "empty").plot(value="threshold")
