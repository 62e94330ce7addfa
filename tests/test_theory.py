"""Curves from theory: those of a sweep, what is wrong with them, and where they run."""

from __future__ import annotations

import itertools
import json
import math
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import orchestrator.sweep
from orchestrator import Run
from orchestrator.axis import AxisInfo
from orchestrator.errors import SweepError
from orchestrator.inline import Inline
from orchestrator.launch import launch
from orchestrator.layout import Layout, Panels
from orchestrator.ruler import Ruler
from orchestrator.sweep import load_stored_sweep, load_sweep
from orchestrator.theory import Theory, overlays_of, theory_rows
from tests.toy_trainer import ToyTrainer
from trainers.base import Overlay
from trainers.tasks.composition import Composition

K = AxisInfo("k", "linear", (1, 2, 3, 4, 8))
DEPTH = AxisInfo("depth", "linear", (1, 2, 3))
SIZE = AxisInfo("data_size", "log2", (16.0, 32.0, 64.0, math.inf))
KIND = AxisInfo("kind", "category", ("a", "b"))
LOG = Overlay("depth", "log2(k) + 1")
START = "name: toy\ntask: {n: 4}\ntrain: {steps: 100}\n"

Point = tuple[float, float]


def rows(
    overlay: Overlay, x: AxisInfo, y: AxisInfo, facets: Sequence[AxisInfo] = (), **fixed: object
) -> list[dict[str, Any]]:
    panels = Panels.of(facets)
    return theory_rows(Theory([overlay], fixed), Layout.of(Ruler.of(x), Ruler.of(y), panels), panels)


def line(overlay: Overlay, x: AxisInfo, y: AxisInfo, **fixed: object) -> list[Point]:
    return [(row["px"], row["py"]) for row in rows(overlay, x, y, **fixed)]


def pieces(overlay: Overlay, x: AxisInfo, y: AxisInfo) -> list[tuple[Point, Point]]:
    """The ends of each piece."""
    found = itertools.groupby(rows(overlay, x, y), lambda row: row["piece"])
    lists = [[(row["px"], row["py"]) for row in piece] for _, piece in found]
    return [(piece[0], piece[-1]) for piece in lists]


def near(*points: Point) -> list[Any]:
    return [pytest.approx(point, abs=1e-6) for point in points]


# -- where they run ---------------------------------------------------------------------------------------------


def test_a_curve_runs_as_far_as_the_values_of_its_axis() -> None:
    """Exactly through the places of an axis' own values; k of 8 needs a depth of 4, beyond the last."""
    points = line(LOG, K, DEPTH)
    assert near((0, 0), (3, 2)) == [points[0], points[-1]]
    assert {(1, 1), (2, math.log2(3))} <= {(round(x, 12), y) for x, y in points}
    assert points == sorted(points)


@pytest.mark.parametrize(("x", "y"), [(K, DEPTH), (SIZE, K), (SIZE, DEPTH)])
def test_swapped_axes_swap_the_curve(x: AxisInfo, y: AxisInfo) -> None:
    """What goes across in one map goes up in the other."""
    overlay = Overlay(y.name, f"1 + {x.name} / 30")
    assert line(overlay, x, y)
    assert line(overlay, x, y) == [(px, py) for py, px in line(overlay, y, x)]


def test_curves_are_drawn_on_the_scales_of_the_axes() -> None:
    """2^(k + 3) is straight where sizes are; infinity has no place on it."""
    short = AxisInfo("k", "linear", (1, 2, 3))
    points = line(Overlay("data_size", "pow(2, k + 3)"), short, SIZE)
    assert near(*((x, x) for x, _ in points)) == points
    assert near((0, 0), (2, 2)) == [points[0], points[-1]]


def test_facets_and_lone_values_are_known() -> None:
    """Every panel has the curve of its own value, under its name; a panel outside the axis has none."""
    overlay = Overlay("depth", "k - shift")
    found = rows(overlay, SIZE, DEPTH, [K], shift=1)
    ends = {row["across"]: row["py"] for row in found}
    assert {"k = 2": 0, "k = 3": 1, "k = 4": 2} == ends
    assert {"depth = k - shift"} == {row["theory"] for row in found}


def test_what_depends_on_an_axis_that_is_not_shown_is_not_drawn() -> None:
    """Nor what is no value of an axis of the map, or would need categories as numbers."""
    assert [] == rows(Overlay("depth", "k + width"), K, DEPTH)
    assert [] == rows(Overlay("width", "k"), K, DEPTH)
    assert [] == rows(Overlay("depth", "kind"), KIND, DEPTH)


def test_a_constant_is_a_line_across_the_map() -> None:
    """Also over categories; over an axis of one value, across its cell."""
    assert near((-0.5, 1), (1.5, 1)) == line(Overlay("depth", "2"), KIND, DEPTH)
    lone = AxisInfo("k", "linear", (2,))
    assert near((-0.5, 1), (0.5, 1)) == line(LOG, lone, DEPTH)


def test_a_curve_that_leaves_and_comes_back_is_in_pieces() -> None:
    """Cut where it crosses the ends of the axis, and where it is not a number."""
    parabola = Overlay("depth", "1 + pow(k - 3, 2)")
    wide = AxisInfo("k", "linear", (1, 2, 3, 4, 5))
    root = math.sqrt(2)
    ends = (pytest.approx((2 - root, 2), abs=0.01), pytest.approx((2 + root, 2), abs=0.01))
    assert [ends] == pieces(parabola, wide, DEPTH)
    valley = Overlay("depth", "4 - pow(k - 3, 2)")
    assert [
        (pytest.approx((2 - math.sqrt(3), 0), abs=0.01), pytest.approx((1, 2), abs=0.01)),
        (pytest.approx((3, 2), abs=0.01), pytest.approx((2 + math.sqrt(3), 0), abs=0.01)),
    ] == pieces(valley, wide, DEPTH)
    gap = Overlay("depth", "CASE WHEN k BETWEEN 2 AND 4 THEN NULL ELSE 2 END")
    assert [(0, 1), (3, 4)] == [(round(a[0]), round(b[0])) for a, b in pieces(gap, wide, DEPTH)]


@given(slope=st.floats(-4, 4), offset=st.floats(-20, 20))
def test_no_curve_leaves_the_map(slope: float, offset: float) -> None:
    """And every point of it is on the curve."""
    for px, py in line(Overlay("depth", f"({slope}) * k + ({offset})"), K, DEPTH):
        assert -1e-9 <= py <= 2 + 1e-9
        k = float(Ruler.of(K).axis.from_scale(_inverse(Ruler.of(K), px)))
        assert py + 1 == pytest.approx(slope * k + offset, abs=0.1)


def _inverse(ruler: Ruler, place: float) -> float:
    """The position on the scale at a place."""
    below = min(int(place), len(ruler.values) - 2)
    low, high = (float(str(ruler.values[i])) for i in (below, below + 1))
    return low + (place - below) * (high - low)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("log2(k) + 1", 3.0),
        ("ln(k) / ln(2)", 2.0),
        ("log10(k * 25)", 2.0),
        ("log(k, 2)", 2.0),
        ("sqrt(k)", 2.0),
        ("pow(k, 2) / 8", 2.0),
        ("exp(0) * cbrt(2 * k)", 2.0),
        ("k / 3", 4 / 3),
        ("pow(2, k - 3)", 2.0),
        ("ceil(k / 3) + floor(0.5)", 2.0),
        ("greatest(1, least(k, 2))", 2.0),
        ("CASE WHEN k > 3 THEN 3 ELSE 1 END", 3.0),
        ("abs(-k) - mod(k, 3)", 3.0),
    ],
)
def test_the_functions_of_sql(expression: str, value: float) -> None:
    """What theory is written with; numbers of an axis are no integers, so that nothing is cut off or overflows."""
    assert [pytest.approx(value - 1)] * 2 == [
        y for _, y in line(Overlay("depth", expression), KIND, DEPTH, k=4)
    ]


# -- those of a sweep -------------------------------------------------------------------------------------------


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The transformer is the toy trainer; sweep files are named as seen from their folder."""
    monkeypatch.setattr(orchestrator.sweep, "load_trainer", lambda name: ToyTrainer())
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("toy")
def test_all_mistakes_in_overlays_come_at_once() -> None:
    """Axes that are none, or no numbers; unknown names; syntax, types and aggregates."""
    Path("s.yaml").write_text(f"""{START}axes: {{k: [1, 2], width: [8], model.attention: [causal], seed: 2}}
overlay:
  depht: k + 1
  model.attention: k
  k: log2(witdh) + k
  width: foo(k)
""")
    with pytest.raises(SweepError) as caught:
        load_sweep("s.yaml")
    assert """\
s.yaml:6: overlay.depht: 'depht' is no axis of numbers
    allowed: k, width
s.yaml:7: overlay.model.attention: 'model.attention' is no axis of numbers
    allowed: k, width
s.yaml:8: overlay.k: no other axis of numbers is called 'witdh'
    allowed: width
    nearest: width
s.yaml:8: overlay.k: no other axis of numbers is called 'k'
    allowed: width
s.yaml:9: overlay.width: not a number: unsupported function 'foo'
    allowed: SQL over k""" == str(caught.value)


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("max(k)", "not a number of one cell: it looks at others\n    allowed: log2(k) + 1"),
        ("k > 1", "not a number: it has another type\n    allowed: log2(k) + 1"),
        ("k +", "not a number: unable to parse 'k +' as Expr\n    allowed: SQL over k"),
    ],
)
def test_one_mistake(expression: str, expected: str) -> None:
    """An overlay is a number for each place on the other axes."""
    Path("s.yaml").write_text(f"{START}axes: {{k: [1], width: [8]}}\noverlay: {{width: '{expression}'}}\n")
    with pytest.raises(SweepError) as caught:
        load_sweep("s.yaml")
    assert f"s.yaml:5: overlay.width: {expected}" == str(caught.value)


DECLARED = Overlay("width", "8 * k")
REFERENCE = Overlay("width", "8 * k", is_reference=True)


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("cyclic", "overlay", "expected"),
    [
        ("[false]", "", [DECLARED]),
        ("[false, true]", "", [REFERENCE]),
        ("[true]", "overlay: {}", []),
        ("[true]", "overlay: {k: width / 4}", [Overlay("k", "width / 4")]),
        ("[true]", "overlay: {width: 8*k}", [Overlay("width", "8*k", is_reference=True)]),
        ("[false]", "overlay: {width: 8*k}", [Overlay("width", "8*k")]),
    ],
)
def test_what_a_sweep_says_replaces_what_the_task_declares(
    cyclic: str, overlay: str, expected: list[Overlay]
) -> None:
    """And survives in the run directory. What is a reference for some trials is one in the whole figure, whoever
    writes it down.
    """
    axes = f"axes: {{k: [1, 2], width: [8, 16], task.cyclic: {cyclic}}}"
    Path("s.yaml").write_text(f"{START}{axes}\n{overlay}\n")
    sweep = load_sweep("s.yaml")
    Path("stored.yaml").write_text(sweep.to_yaml())
    assert expected == overlays_of(sweep) == overlays_of(load_stored_sweep("stored.yaml"))


@pytest.mark.parametrize(
    ("readout", "is_reference"), [({"readout": "query"}, True), ({"readout": "all", "cyclic": True}, False)]
)
def test_composition_declares_the_construction(readout: dict[str, Any], is_reference: bool) -> None:
    """Depth log2(k) + 1 is the paper's for the readout at all positions only."""
    task = Composition(n=3, k=2, data_size=10.0, **readout)
    assert (Overlay("depth", "log2(k) + 1", is_reference=is_reference),) == task.overlays()


# -- on a figure ------------------------------------------------------------------------------------------------

FUNCTION = """\
trainer_version = "1"

def train(config, report):
    report(1, accuracy=config["depth"] / config["k"])
"""


def launched(folder: Path, overlay: dict[str, str] | None) -> Run:
    """A run over k, depth and width."""
    module = f"user_{uuid.uuid4().hex[:8]}"
    (folder / f"{module}.py").write_text(FUNCTION)
    axes = {"k": [1, 2, 3], "depth": [1, 2], "width": [1, 2]}
    sweep = {"name": "s", "trainer": f"{module}:train", "axes": axes, "overlay": overlay}
    (folder / "sweep.yaml").write_text(json.dumps(sweep))
    launch(load_sweep(folder / "sweep.yaml"), folder / "run", cluster=Inline(), is_quiet=True)
    return Run(folder / "run")


def drawn(run: Run, facets: Sequence[str]) -> tuple[set[str], str]:
    """The names of the curves on the diagram, and its subtitle."""
    spec = run.plot("k", "depth", facets, "accuracy").to_dict()
    (data,) = spec["datasets"].values()
    names = {row["theory"] for row in data if row["layer"] == "theory"}
    return names, " ".join(spec["title"]["subtitle"])


def test_a_figure_says_what_it_does_not_draw(tmp_path: Path) -> None:
    """A curve that depends on an axis over which trials are averaged has no place on the map."""
    run = launched(tmp_path, {"depth": "log2(k) + 1", "k": "depth * width"})
    words = "12 trials; mean over width; not drawn, as it depends on width: k = depth * width"
    assert ({"depth = log2(k) + 1"}, words) == drawn(run, [])
    assert ({"depth = log2(k) + 1", "k = depth * width"}, "12 trials") == drawn(run, ["width"])


def test_a_user_function_has_no_overlay_unless_given(tmp_path: Path) -> None:
    """Though its axes may be called k and depth."""
    assert (set(), "12 trials; mean over width") == drawn(launched(tmp_path, None), [])
