"""Where a sweep is tuned: its curves, and the trials on them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from orchestrator.axes_spec import SEED, Axis
from orchestrator.plan import CellPlanner
from orchestrator.search.curve_key import CurveKey
from orchestrator.search.suggest import Values
from orchestrator.sections import Cell, moved, reach
from orchestrator.trial import Trial
from orchestrator.tuned_spec import SEEDS

if TYPE_CHECKING:
    from orchestrator.sweep import Sweep


class Spot(NamedTuple):
    """Where a trial stands: on which curve, with which settings; `number` if it is there to tune them."""

    curve: int
    number: int | None
    values: Values


@dataclass(frozen=True)
class TunedCurve:
    """Cells that share their settings: those that differ only along the searched axis, or one alone."""

    axes: Mapping[str, Any]
    """Its place on the other axes."""
    at: Any
    """Where on the searched axis it is tuned, as a config holds it; None: there is none."""
    cell: Cell
    """The planner's, there."""
    key: str
    """What the configs of all its trials have in common."""


class StudySpace:
    """The curves of a sweep that tunes. Its searches know trials with nominal values of what is tuned."""

    def __init__(self, sweep: Sweep) -> None:
        assert sweep.tuned is not None
        self._sweep, self.tuning = sweep, sweep.tuned
        self.is_less_better = sweep.solved is not None and sweep.solved.at_most is not None
        self.along = next((axis for axis in sweep.varied if axis.name == sweep.search.along), None)
        varied = list(sweep.varied)
        if self.along is not None:
            ordered = replace(self.along, values=tuple(_by_nearness(self.along, self.tuning.at)))
            varied[varied.index(self.along)] = ordered
        self._planner = CellPlanner(replace(sweep, varied=tuple(varied)))
        names = [axis.name for axis in self._planner.axes]
        self._column = None if self.along is None else names.index(self.along.name)
        along = [] if self.along is None else [self.along.name]
        self._key = CurveKey(sweep, [*along, *(field.name for field in self.tuning.fields)])

    @cached_property
    def curves(self) -> tuple[TunedCurve, ...]:
        """Those that the sweep's search has, in its order."""
        return tuple(filter(None, map(self._curve, self._groups())))

    def tuning_trial(self, curve: int, number: int, values: Values) -> Trial:
        return self._with(self._planner.trial(self.curves[curve].cell, SEEDS + number), values)

    def scored(self, trial: Trial, values: Values) -> Trial:
        """A trial of the search with the settings of its curve."""
        return self._with(trial, values)

    def nominal(self, trial: Trial) -> Trial:
        """The same trial as the search knows it."""
        return self._with(trial, self.tuning.nominal)

    def curve_of(self, trial: Trial) -> int:
        """Of a trial of the search."""
        return self._by_key[self._key(trial.config)]

    def spot(self, config: Mapping[str, Any]) -> Spot | None:
        """Where a trial stands, whenever it was asked for; None if it is on none of the curves, or a tuning trial
        that would be none now."""
        curve, seed = self._by_key.get(self._key(config)), config.get(SEED)
        if curve is None or not isinstance(seed, int):
            return None
        if self.tuning.is_free and not all(field.name in config for field in self.tuning.fields):
            return None  # a user's function was given the settings in another way
        values = self.tuning.get(config)
        if seed < SEEDS:
            return Spot(curve, None, values)
        is_at = self.along is None or reach(config, self.along.path) == self.curves[curve].at
        is_within = all(field.holds(values[field.name]) for field in self.tuning.fields)
        is_one = is_at and is_within and seed - SEEDS < self.tuning.trials
        return Spot(curve, seed - SEEDS, values) if is_one else None

    def _with(self, trial: Trial, values: Values) -> Trial:
        return Trial(self.tuning.set(trial.config, values), trial.axes)

    @cached_property
    def _by_key(self) -> dict[str, int]:
        return {curve.key: i for i, curve in enumerate(self.curves)}

    def _groups(self) -> Iterator[list[Cell]]:
        """The cells of each curve, the nearest to where it is to be tuned first."""
        sizes = [len(axis.values) for axis in self._planner.axes]
        at = self._column
        if at is None:
            yield from ([cell] for cell in itertools.product(*map(range, sizes)))
            return
        kept = None
        if self._sweep.search.kind == "threshold":
            kept = {moved(curve.cell, at, 0) for curve in self._sweep.space.curves}
        for cell in itertools.product(*(range(1 if i == at else n) for i, n in enumerate(sizes))):
            if kept is None or cell in kept:
                yield [moved(cell, at, i) for i in range(sizes[at])]

    def _curve(self, cells: list[Cell]) -> TunedCurve | None:
        possible = list(itertools.compress(cells, self._planner.possible(cells)))
        own = [cell for cell in possible if self._is_own(cell)]
        if not own:
            return None
        cell = possible[0]
        place = self._planner.place(cell)
        if self.along is not None:
            del place[self.along.name]
        return TunedCurve(place, self._value(cell), cell, self._key(self._planner.config(cell)))

    def _value(self, cell: Cell) -> Any:
        at = self._column
        return None if at is None else self._planner.axes[at].values[cell[at]]

    def _is_own(self, cell: Cell) -> bool:
        """Whether the sweep's axis has its value, too."""
        return self.along is None or self._value(cell) in self.along.values


def _by_nearness(axis: Axis, at: Any) -> Sequence[Any]:
    """The axis' values and `at`, the nearest to it first; other values than numbers last."""
    values = [value for value in axis.values if value != at]
    column = [x if isinstance(x, (int, float)) else math.nan for x in values]
    with np.errstate(invalid="ignore"):
        positions = axis.info.to_scale(np.array([at, *column], dtype=np.float64))
        away = np.abs(np.clip(positions, -1e300, 1e300) - np.clip(positions[0], -1e300, 1e300))
    # From infinity all are equally far: the largest is the nearest then.
    order = sorted(range(len(values)), key=lambda i: (math.isnan(away[i + 1]), away[i + 1], -column[i]))
    return [at, *(values[i] for i in order)]
