"""Which trials to run next so that every curve's threshold is known to a precision: a pure function of the
outcomes so far, in any order, whether told at once or one by one.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from heapq import heapify, heapreplace

import numpy as np

from orchestrator.axis import Array
from orchestrator.posterior import STEP, tables
from orchestrator.search.curve import CurveSpace, CurveState, Rules, Tried, Verdict
from orchestrator.search.placement import audit, is_audit, neighbours, next_split, steps_of

__all__ = ["CurveSpace", "Policy", "Rules", "Tried", "Verdict"]

FINEST = 1 / 48
"""Step of the grid of t below which it is not refined, whatever the precision: time and memory grow with it."""
LEAST_PENDING = 3
"""Trials that a curve may have pending however close to its precision it is."""
PENDING_IN_DOUBT = 4
LEAST_GAIN = 1e-9
"""Of a trial that is wanted though it says nothing of the threshold."""


class Policy:
    """Decides for all curves of a sweep. What it keeps between calls only saves time."""

    def __init__(self, curves: Sequence[CurveSpace], rules: Rules) -> None:
        self.rules = rules
        low = min(float(curve.candidates[0]) for curve in curves)
        high = max(float(curve.candidates[-1]) for curve in curves)
        self.grid = low, high, max(min(STEP, rules.precision / 6), FINEST)
        """Of thresholds: first and last position, and step."""
        grid = tables(*self.grid)
        self._t = grid.t
        self._curves = [CurveState(curve, grid) for curve in curves]
        self._known_steps: dict[bytes, Array] = {}
        self._place = _padded([curve.place for curve in curves])
        self._phases = np.random.default_rng(rules.seed).random(len(curves))

    def verdicts(self, told: Sequence[Iterable[Tried]]) -> list[Verdict]:
        """Of every curve, from all of its trials that have ended (`told[i]` of curve i)."""
        self._tell(told)
        limit = self.rules.trials
        is_over = limit is not None and sum(len(curve.told) for curve in self._curves) >= limit
        return [curve.verdict(self.rules, is_over) for curve in self._curves]

    def ask(
        self,
        told: Sequence[Iterable[Tried]],
        pending: Sequence[Collection[int]],
        n: int,
        closed: Collection[int] = (),
    ) -> list[tuple[int, int]]:
        """Up to n trials to run next, most urgent first: (curve, candidate) each; a candidate may come several
        times. `pending[i]`: candidates of curve i's trials that were asked for and have not ended. Nothing is asked
        of `closed` curves.
        """
        verdicts = self.verdicts(told)
        used = sum(len(curve.told) for curve in self._curves) + sum(map(len, pending))
        room = n if self.rules.trials is None else min(n, self.rules.trials - used)
        open_curves = [i for i, verdict in enumerate(verdicts) if verdict.reason is None and i not in closed]
        if not open_curves or room <= 0:
            return []
        below = self._placing(open_curves)
        queues = [
            _Queue(i, self._curves[i], verdicts[i], below[j], list(pending[i]), self.rules, self._phases[i])
            for j, i in enumerate(open_curves)
        ]
        urgent = [(-queue.urgency, j) for j, queue in enumerate(queues)]
        heapify(urgent)
        asked: list[tuple[int, int]] = []
        while len(asked) < room and urgent[0][0] < 0:
            queue = queues[urgent[0][1]]
            asked.append((queue.index, queue.take()))
            heapreplace(urgent, (-queue.urgency, urgent[0][1]))
        return asked

    def _tell(self, told: Sequence[Iterable[Tried]]) -> None:
        for curve, trials in zip(self._curves, told, strict=True):
            curve.tell(frozenset(trials), len(self._curves))

    def _placing(self, which: list[int]) -> list[Array]:
        """P(t < candidate) `[X]` for each of some curves, with what their neighbours suggest."""
        beliefs = [curve.beliefs[curve.sign] for curve in self._curves]
        mass = np.stack([belief.mass for belief in beliefs])
        weighed = mass * neighbours(mass, self._t, self._place)
        weighed *= mass.sum(1, keepdims=True) / weighed.sum(1, keepdims=True)
        return [
            beliefs[i].never[0] + weighed[i] @ self._steps(self._curves[i].space.candidates) for i in which
        ]

    def _steps(self, candidates: Array) -> Array:
        """Of curves with the same candidates once."""
        key = candidates.tobytes()
        if key not in self._known_steps:
            self._known_steps[key] = steps_of(self._t, candidates)
        return self._known_steps[key]


class _Queue:
    """What one open curve wants next, while a batch is filled."""

    def __init__(
        self,
        index: int,
        curve: CurveState,
        verdict: Verdict,
        below: Array,
        pending: list[int],
        rules: Rules,
        phase: float,
    ) -> None:
        self.index, self._curve, self._below, self._pending = index, curve, below, pending
        self._rules, self._phase = rules, phase
        self._cost = np.ones(len(below)) if curve.space.cost is None else curve.space.cost
        t = curve.tables.t  # a curve that likely never reaches 0.5 has both ends at infinity
        low, high = np.clip([curve.belief.quantile(0.025), curve.belief.quantile(0.975)], t[0], t[-1])
        self._width = max(float(high - low), curve.tables.step)
        done = verdict.trials
        needed = math.ceil((done + 2) * ((self._width / rules.precision) ** 2 - 1))
        self._most = min(max(needed, LEAST_PENDING), rules.max_trials - done)
        self._done = done
        self._is_known = curve.known(rules) is not None
        self._share = rules.audits(float(curve.space.candidates[-1] - curve.space.candidates[0]))
        self._next()

    def _next(self) -> None:
        self._best, gain = next_split(self._below, self._pending, self._done, self._cost)
        self.urgency = max(gain, LEAST_GAIN) * self._width if self._wants_more() else 0.0

    def _wants_more(self) -> bool:
        if self._is_known:  # all that lacks is to look at the whole axis
            is_checked = self._curve.is_checked(self._rules.check, self._pending)
            return not is_checked and self._done + len(self._pending) < self._rules.max_trials
        return len(self._pending) < self._most

    def take(self) -> int:
        candidate = self._special()
        if candidate is None:
            candidate = self._best
        self._pending.append(candidate)
        self._next()
        return candidate

    def _special(self) -> int | None:
        """An audit, or a trial that settles a doubt, in place of the next one near the threshold."""
        doubtful = self._curve.doubt
        if self._is_known or is_audit(len(self._curve.told) + len(self._pending), self._share):
            tried = [*(trial.candidate for trial in self._curve.told), *self._pending]
            at_end = len(self._below) - 1 if self._curve.sign > 0 else 0
            return audit(self._curve.space.candidates, tried, self._phase, at_end=at_end)
        if doubtful is None:
            return None
        return doubtful.candidate(self._pending) if len(self._pending) < PENDING_IN_DOUBT else None


def _padded(places: list[tuple[float, ...]]) -> Array:
    width = max(1, *(len(place) for place in places)) if places else 1
    return np.array([[*place, *([0.0] * (width - len(place)))] for place in places])
