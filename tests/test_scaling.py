"""What trials say about how thresholds grow, and how that is said."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest

from orchestrator.axis import AxisInfo
from orchestrator.scaling import RESULTS, scaling
from orchestrator.scaling_lines import scaling_lines

SIZES = [float(round(2**u)) for u in np.arange(5, 16.1, 0.5)]
SCHEMA = {
    "trial_id": pl.String,
    "k": pl.Int64,
    "easy_fraction": pl.Float64,
    "depth": pl.Int64,
    "data_size": pl.Float64,
    "seed": pl.Int64,
    "status": pl.String,
    "solved_at_step": pl.Int64,
    "steps": pl.Int64,
    "budget": pl.Int64,
    "n_total": pl.Float64,
    "n_hard": pl.Float64,
}
SEED = AxisInfo("seed", "category", (0, 1, 2))
Row = dict[str, Any]


def trial(k: int, size: float, seed: int, is_solved: bool, easy: float = 0.0, **others: Any) -> Row:
    row = {"k": k, "easy_fraction": easy, "depth": 1, "data_size": size, "seed": seed}
    row |= {"status": "solved" if is_solved else "unsolved", "solved_at_step": 700 if is_solved else None}
    row |= {"steps": 1500, "budget": 1500, "n_total": size, "n_hard": size * (1 - easy), **others}
    return row | {"trial_id": str(sorted(row.items(), key=str))}


def sharp(octaves: Callable[[int], float], ks: Sequence[int], easy: float = 0.0) -> list[Row]:
    """Curves that every one of three seeds solves from 2^octaves on."""
    return [
        trial(k, size, seed, math.log2(size) >= octaves(k), easy)
        for k in ks
        for size in SIZES
        for seed in range(3)
    ]


def axes(rows: Sequence[Row], *names: str) -> list[AxisInfo]:
    scales = {"data_size": "log2"}
    return [
        AxisInfo(name, scales.get(name, "linear"), tuple(sorted({row[name] for row in rows})))  # type: ignore[arg-type]
        for name in names
    ]


def found(rows: Sequence[Row], *names: str, against: str = "k", **options: Any) -> pl.DataFrame:
    """The laws of trials whose axes are `names`, k and data_size."""
    given = [*axes(rows, *names, "k", "data_size"), SEED]
    return scaling(pl.LazyFrame(rows, schema=SCHEMA), given, "data_size", against, **options).collect()


def exponential(k: int) -> float:
    return 6.25 + 1.8 * (k - 2)


def power(k: int) -> float:
    return 6.25 + 5 * math.log2(k / 2)


SIX = (2, 3, 4, 5, 6, 7)


def test_straight_line_in_k_is_an_exponential() -> None:
    """Six sharp curves, everything about them: parameters, likelihoods, verdict, reason, counts."""
    table = found(sharp(exponential, SIX))
    assert list(RESULTS) == table.columns
    law = table.row(0, named=True)
    slope, low, high = (law.pop(name) for name in ("slope", "slope_low", "slope_high"))
    assert low < 1.8 < high
    assert (1.8, 6.25 - 2 * 1.8) == (
        pytest.approx(slope, abs=0.1),
        pytest.approx(law.pop("intercept"), abs=0.5),
    )
    assert law.pop("scatter") < 0.25
    assert law.pop("log_likelihood") < 0
    assert law.pop("log_evidence") < law.pop("weight")
    reason = law.pop("reason")
    assert {
        "along": "data_size",
        "against": "k",
        "law": "exponential",
        "verdict": "exponential",
        "points": 6,
        "censored": 0,
        "left_out": 0,
        "trials": 6 * len(SIZES) * 3,
        "first": 2.0,
        "last": 7.0,
        "steps": 1500,
    } == law
    assert reason.startswith("Bayes factors ")
    assert reason.endswith(" over power, over 10,000 over constant, for k from 2 to 7")
    assert ["exponential", "power", "constant"] == table["law"].to_list()
    assert 1.0 == pytest.approx(table["weight"].sum())
    assert [None] * 3 == [table.row(2, named=True)[name] for name in ("slope", "slope_low", "slope_high")]


def test_straight_line_in_the_logarithm_of_k_is_a_power() -> None:
    """Its slope is the exponent, its intercept log2 of the threshold at k = 1."""
    law = found(sharp(power, SIX)).row(1, named=True)
    assert ("power", "power") == (law["law"], law["verdict"])
    assert law["slope_low"] < 5 < law["slope_high"]
    assert 1.25 == pytest.approx(law["intercept"], abs=0.4)


def test_thresholds_that_stay_are_constant() -> None:
    """Where all trials are sharp enough to say so."""
    law = found(sharp(lambda k: 9.25, SIX)).row(2, named=True)
    assert ("constant", "constant") == (law["law"], law["verdict"])
    assert 9.0 == pytest.approx(law["intercept"], abs=0.3)


def test_fewer_than_four_points_are_no_verdict() -> None:
    """Three values of k give parameters with wide intervals, and the reason why no more."""
    laws = found(sharp(exponential, (2, 3, 4)))
    assert {("inconclusive", "3 values of k with a threshold on the axis: a verdict needs 4")} == set(
        laws.select("verdict", "reason").iter_rows()
    )
    assert laws["slope_low"][0] < 1.8 < laws["slope_high"][0]
    assert laws["slope_low"][1] < 1.8 / math.log2(1.5) < laws["slope_high"][1]


def test_one_point_fixes_no_law() -> None:
    """There is a row per law all the same, without parameters."""
    laws = found(sharp(exponential, (2,)))
    assert [
        ("inconclusive", "1 value of k with a threshold on the axis: a verdict needs 4")
    ] * 3 == laws.select("verdict", "reason").rows()
    parameters = ("slope", "slope_low", "slope_high", "intercept", "scatter", "log_likelihood", "weight")
    assert all(laws[name].null_count() == 3 for name in parameters)


def test_laws_that_the_range_cannot_tell_apart_are_inconclusive() -> None:
    """Four values of k and few seeds: the reason says by how little the laws differ."""
    laws = found(sharp(lambda k: 7.25 + 0.8 * (k - 2), (2, 3, 4, 5)))
    assert {"inconclusive"} == set(laws["verdict"])
    begin, end = laws["reason"][0].split(" octaves for k from 2 to 5: Bayes factor ")
    assert float(begin.rsplit(" ", 1)[1]) < 0.3
    assert end.endswith(", a verdict needs 20")
    assert float(end.split(",")[0]) < 20


def test_curves_beyond_the_axis_count_with_what_their_trials_say() -> None:
    """Thresholds above the axis are no points, but a law must explain them; without data to blame they are not."""
    rows = sharp(exponential, SIX)
    seen = [row | {"trial_id": row["trial_id"] + "x"} for row in rows if row["data_size"] <= 2**13]
    laws = found(seen)
    assert (4, 2, 0) == laws.select("points", "censored", "left_out").row(0)
    assert "exponential" == laws["verdict"][0]
    control = [trial(k, math.inf, seed, False) for k in (6, 7) for seed in range(3)]
    unsolvable = found([*seen, *control])
    assert (4, 0, 2) == unsolvable.select("points", "censored", "left_out").row(0)
    assert (2.0, 5.0) == unsolvable.select("first", "last").row(0)
    assert unsolvable["weight"][0] < laws["weight"][0]


def test_curves_below_the_axis_count_too() -> None:
    """So do thresholds below it."""
    seen = [row for row in sharp(exponential, SIX) if row["data_size"] >= 2**9]
    laws = found(seen)
    assert (4, 2, 0) == laws.select("points", "censored", "left_out").row(0)
    assert laws["slope_low"][0] < 1.8 < laws["slope_high"][0]


def test_every_value_of_the_other_axes_has_laws_unless_grouped_otherwise() -> None:
    """Groups are sorted, keep the type of their axis, and `by` with nothing is one group for all."""
    rows = sharp(exponential, SIX) + sharp(power, SIX, easy=0.5)
    laws = found(rows, "easy_fraction")
    assert [0.0] * 3 + [0.5] * 3 == laws["easy_fraction"].to_list()
    assert ["exponential"] * 3 + ["power"] * 3 == laws["verdict"].to_list()
    pooled = found(rows, "easy_fraction", by=[])
    assert (3, 6, 12 * len(SIZES) * 3) == (len(pooled), pooled["points"][0], pooled["trials"][0])
    assert pooled["scatter"][0] > 0.3
    assert laws.rows() == found(rows, "easy_fraction", by=["easy_fraction"]).rows()


def test_order_of_rows_means_nothing() -> None:
    """The laws are a function of the set of trials."""
    rows = sharp(power, (2, 3, 4))
    shuffled = random.Random(1).sample(rows, len(rows))
    assert found(rows).rows() == found(shuffled).rows()


def test_hard_examples_shift_the_threshold_and_keep_the_exponent() -> None:
    """Half of the pool is easy: in n_hard thresholds are one octave lower."""
    rows = sharp(exponential, (2, 3, 4, 5), easy=0.5)
    plain, hard = found(rows), found(rows, counted="hard")
    assert plain["slope"][0] == pytest.approx(hard["slope"][0], abs=0.01)
    assert plain["intercept"][0] - 1 == pytest.approx(hard["intercept"][0], abs=0.05)
    assert plain.rows() == found(rows, counted="total").rows()


def test_curve_whose_hard_examples_are_not_known_is_left_out() -> None:
    """It has a threshold along the axis, and none in n_hard."""
    rows = [row | ({"n_hard": None} if row["k"] == 4 else {}) for row in sharp(exponential, (2, 3, 4))]
    assert (2, 0, 1) == found(rows, counted="hard").select("points", "censored", "left_out").row(0)


def test_along_a_linear_axis_laws_are_linear_and_logarithmic() -> None:
    """A depth of log2(k) + 1 is found as one layer per doubling; depth is in units, never in octaves."""
    rows = [
        trial(k, 64.0, seed, depth >= math.log2(k) + 0.7, depth=depth)
        for k in (2, 4, 8, 16, 32)
        for depth in range(1, 11)
        for seed in range(6)
    ]
    given = [*axes(rows, "k", "depth"), SEED]
    laws = scaling(pl.LazyFrame(rows, schema=SCHEMA), given, "depth", "k").collect()
    assert ["linear", "logarithmic", "constant"] == laws["law"].to_list()
    assert "logarithmic" == laws["verdict"][0]
    assert laws["slope_low"][1] < 1 < laws["slope_high"][1]


def test_axis_along_which_solving_becomes_rarer_has_laws_too() -> None:
    """The largest k that is solved grows by two for each layer."""
    rows = [
        trial(k, 64.0, seed, k <= 2 * depth + 2.5, depth=depth)
        for depth in (1, 2, 3, 4, 5)
        for k in range(1, 20)
        for seed in range(4)
    ]
    given = [*axes(rows, "k", "depth"), SEED]
    laws = scaling(pl.LazyFrame(rows, schema=SCHEMA), given, "k", "depth").collect()
    assert ("linear", "linear") == laws.select("law", "verdict").row(0)
    assert laws["slope_low"][0] < 2 < laws["slope_high"][0]
    assert 2.5 == pytest.approx(laws["intercept"][0], abs=1.0)


def test_slopes_along_decades_are_doublings_all_the_same() -> None:
    """An axis in decades has the exponents of one in octaves."""
    rows = sharp(power, (2, 3, 4, 5))
    trials = pl.LazyFrame(rows, schema=SCHEMA)
    k, size = axes(rows, "k", "data_size")
    decades = AxisInfo("data_size", "log10", size.values)
    in_octaves, in_decades = (
        scaling(trials, [k, axis, SEED], "data_size", "k").collect() for axis in (size, decades)
    )
    assert in_octaves["slope"][1] == pytest.approx(in_decades["slope"][1], abs=0.1)
    assert in_octaves["intercept"][1] == pytest.approx(in_decades["intercept"][1], abs=0.2)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([], {"against": "noise"}, "no growth of thresholds with 'noise': the numeric axes are k"),
        ([], {"against": "data_size"}, "no growth of thresholds with 'data_size': the numeric axes are k"),
        ([], {"by": ["depth"]}, "no groups by 'depth': the other axes are none"),
        (sharp(exponential, (0, 2)), {}, "a power law needs values above zero, and 'k' has 0"),
    ],
)
def test_question_without_an_answer_is_refused(
    rows: list[Row], options: dict[str, Any], message: str
) -> None:
    """With what would have one."""
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        found(rows or [trial(2, 64.0, 0, True)], **options)


def test_sizes_are_those_of_data() -> None:
    """Depth is not counted in hard examples."""
    rows = [trial(2, 64.0, 0, True, depth=depth) for depth in (1, 2)]
    given = [*axes(rows, "k", "depth"), SEED]
    with pytest.raises(ValueError, match="thresholds along 'depth' are not known in n_hard"):
        scaling(pl.LazyFrame(rows, schema=SCHEMA), given, "depth", "k", counted="hard")


def test_no_trials_are_no_groups() -> None:
    """An empty run has the columns and no rows."""
    empty = pl.LazyFrame([], schema=SCHEMA)
    given = [AxisInfo("k", "linear", (2, 3)), AxisInfo("data_size", "log2", (64.0, 128.0)), SEED]
    table = scaling(empty, given, "data_size", "k").collect()
    assert (0, list(RESULTS)) == (len(table), table.columns)
    assert [] == list(scaling_lines(table))


@pytest.mark.parametrize(("law", "grows"), [("exponential", exponential), ("power", power)])
def test_noisy_sweeps_are_named_rightly_or_not_at_all(law: str, grows: Callable[[int], float]) -> None:
    """Five seeds that share their luck, a wide transition, a lapse that grows with k."""
    rng = np.random.default_rng(11)
    rows = []
    for k in SIX:
        for seed in range(5):
            effect = 0.3 * rng.normal()
            for size in SIZES:
                away = (math.log2(size) - grows(k) - effect) / 0.25
                rate = (1 - 0.03 * (k - 2)) / (1 + math.exp(-away))
                rows.append(trial(k, size, seed, rng.random() < rate))
    laws = found(rows)
    assert {law} == set(laws["verdict"])
    of_law = laws.row(by_predicate=pl.col("law") == law, named=True)
    assert of_law["slope_low"] < {"exponential": 1.8, "power": 5.0}[law] < of_law["slope_high"]


LINES = """\
thresholds along data_size against k within 1,500 steps
slope: doublings of the threshold per unit of k; of a power law, the exponent
easy_fraction 0: exponential
    Bayes factors 577 over power, over 10,000 over constant, for k from 2 to 7
    6 values of k with a threshold on the axis; 0 censored, 0 left out; 414 trials
    law          slope [95 % interval]      intercept  scatter  log-likelihood    weight
    exponential  1.77 [1.65, 1.88]               2.79     0.12          -24.45     0.998
    power        4.78 [3.81, 5.69]               0.94     0.60          -32.91     0.002
    constant     -                              10.75     1.60          -46.83     0.000
easy_fraction 0.5: inconclusive
    1 value of k with a threshold on the axis: a verdict needs 4
    1 value of k with a threshold on the axis; 0 censored, 0 left out; 69 trials
"""
"""Golden: these numbers are a pure function of the trials."""


def test_lines_say_everything_that_matters() -> None:
    """A paragraph per group: verdict, reason, what it rests on, and the laws."""
    rows = sharp(exponential, SIX) + sharp(exponential, (2,), easy=0.5)
    assert LINES.splitlines() == list(scaling_lines(found(rows, "easy_fraction")))
