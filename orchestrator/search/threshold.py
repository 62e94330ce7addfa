"""Which trials to run next so that every curve's threshold is known to a precision: a pure function of the
outcomes so far, in any order, whether told at once or one by one.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from orchestrator.axis import Array
from orchestrator.posterior import STEP, Belief, Outcome, Posterior, Sign, Tables, either, tables
from orchestrator.search.placement import audit, neighbours, next_split, steps_of
from orchestrator.search.suspicion import Doubt, doubt

Reason = Literal["precise", "max_trials", "trials", "above", "below", "lapse", "outside", "non-monotone"]
SURE = 0.995
"""Probability of a curve having no threshold inside its range at which nothing more is asked of it. Higher than
that of an interval, since it is looked at after every trial: thresholds just inside would be missed."""
FINEST = 1 / 48
"""Step of the grid of t below which it is not refined, whatever the precision: time and memory grow with it."""
LEAST_PENDING = 3
"""Trials that a curve may have pending however close to its precision it is."""
PENDING_IN_DOUBT = 4


class Tried(NamedTuple):
    """A trial of a curve that has ended. A curve tries a seed once per candidate."""

    candidate: int
    seed: int
    solved: bool


@dataclass(frozen=True)
class CurveSpace:
    """What may be asked of one curve."""

    candidates: Array  # [X], positions, increasing
    cost: Array | None = None  # [X], relative; None: all the same
    place: tuple[float, ...] = ()
    """Coordinates among the other axes, 0..1 each, by which curves are neighbours."""
    direction: Literal[1, -1] | None = 1
    """Whether solving becomes more (1) or less (-1) likely along positions; None: not known."""


@dataclass(frozen=True)
class Rules:
    """When a search is done."""

    precision: float = 0.5
    """Full width of the 95 % interval, in units of position."""
    max_trials: int = 60
    """Per curve."""
    trials: int | None = None
    """Of all curves together."""
    audit: float = 0.125
    """Share of the trials that look at the whole axis."""
    seed: int = 0


@dataclass(frozen=True)
class Verdict:
    """What a curve's own trials say. In positions; None where unknown or outside of the candidates."""

    threshold: float | None
    """Posterior median."""
    low: float | None
    high: float | None
    censored: Literal["above", "below"] | None
    below: float
    """Probability that the threshold lies below the candidates; likewise `above`."""
    above: float
    never: float
    """That p never reaches 0.5."""
    rising: float
    """That solving becomes more likely along positions."""
    width: float
    lapse: float
    tau: float | None
    trials: int
    reason: Reason | None
    """Why the search asks nothing more of this curve; None while it does."""


@dataclass
class _Curve:
    """A curve's trials so far and what follows from them; a cache, rebuilt where trials were taken back."""

    space: CurveSpace
    tables: Tables
    told: frozenset[Tried] = frozenset()
    posteriors: dict[Sign, Posterior] = field(default_factory=dict)
    beliefs: dict[Sign, Belief] = field(default_factory=dict)
    doubt: Doubt | None = None
    verdicts: dict[bool, Verdict] = field(default_factory=dict)
    """By whether the sweep's trials are spent."""

    def __post_init__(self) -> None:
        self._rebuild()

    def tell(self, told: frozenset[Tried], n_curves: int) -> None:
        if told == self.told:
            return
        new, before = told - self.told, self.told
        self.told = told
        self.verdicts = {}
        if before <= told and len({trial.seed for trial in told}) == len(told):
            for trial in new:
                for posterior in self.posteriors.values():
                    posterior.add(float(self.space.candidates[trial.candidate]), trial.solved)
            self._believe()
        else:
            self._rebuild()
        self.doubt = doubt([(trial.candidate, trial.solved) for trial in told], self.sign, n_curves)

    def _rebuild(self) -> None:
        places = self.space.candidates
        trials = [Outcome(float(places[c]), solved, seed) for c, seed, solved in sorted(self.told)]
        direction = self.space.direction
        signs: tuple[Sign, ...] = (1, -1) if direction is None else (direction,)
        self.posteriors = {sign: Posterior.of(self.tables, trials, sign) for sign in signs}
        self._believe()

    def _believe(self) -> None:
        self.beliefs = {sign: posterior.belief() for sign, posterior in self.posteriors.items()}

    @property
    def belief(self) -> Belief:
        """In both directions, if it is not known which."""
        one, *others = self.beliefs.values()
        return either(one, others[0]) if others else one

    @property
    def sign(self) -> Sign:
        """The likelier direction, in which to place trials."""
        return max(self.beliefs, key=lambda sign: self.beliefs[sign].log_evidence)

    def verdict(self, rules: Rules, is_over: bool) -> Verdict:
        if is_over not in self.verdicts:
            self.verdicts[is_over] = self._verdict(rules, is_over)
        return self.verdicts[is_over]

    def _verdict(self, rules: Rules, is_over: bool) -> Verdict:
        first, last = float(self.space.candidates[0]), float(self.space.candidates[-1])
        belief = self.belief
        low, high = belief.interval()
        middle = belief.quantile(0.5)
        never = sum(belief.never)
        below = belief.below(first) - belief.never[0]
        above = 1 - belief.below(last) - belief.never[1]
        censored: Literal["above", "below"] | None = (
            "below" if middle < first else "above" if middle > last else None
        )
        return Verdict(
            threshold=None if censored else middle,
            low=min(low, last) if low >= first else None,
            high=max(high, first) if high <= last else None,
            censored=censored,
            below=below,
            above=above,
            never=never,
            rising=belief.rising,
            width=belief.width,
            lapse=belief.lapse,
            tau=belief.tau,
            trials=len(self.told),
            reason=self._reason(rules, is_over, high - low, below, above, never),
        )

    def _reason(
        self, rules: Rules, is_over: bool, width: float, below: float, above: float, never: float
    ) -> Reason | None:
        if self.doubt is not None and self.doubt.is_proven:
            return "non-monotone"
        if self.doubt is None:
            if width <= rules.precision:
                return "precise"
            outside = _outside(below, above, never, self.sign)
            if outside is not None:
                return outside
            if self.space.direction is None and below + above + never >= SURE:
                return "outside"
        if len(self.told) >= rules.max_trials:
            return "max_trials"
        return "trials" if is_over else None


def _outside(below: float, above: float, never: float, sign: Sign) -> Reason | None:
    """Why there is no threshold within the candidates. One that is never reached is hard to tell from one far
    on the side where more solve, so the two count together, under the name of the likelier.
    """
    sides: dict[Reason, float] = {"above": above, "below": below}
    harder: Reason = "above" if sign > 0 else "below"
    if sides[harder] + never >= SURE:
        return harder if sides[harder] >= never else "lapse"
    easier: Reason = "below" if sign > 0 else "above"
    return easier if sides[easier] >= SURE else None


class Policy:
    """Decides for all curves of a sweep. What it keeps between calls only saves time."""

    def __init__(self, curves: Sequence[CurveSpace], rules: Rules) -> None:
        self.rules = rules
        low = min(float(curve.candidates[0]) for curve in curves)
        high = max(float(curve.candidates[-1]) for curve in curves)
        grid = tables(low, high, max(min(STEP, rules.precision / 6), FINEST))
        self._t = grid.t
        self._curves = [_Curve(curve, grid) for curve in curves]
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
        asked: list[tuple[int, int]] = []
        while len(asked) < room:
            queue = max(queues, key=lambda queue: queue.urgency)
            if queue.urgency <= 0:
                break
            asked.append((queue.index, queue.take()))
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
        curve: _Curve,
        verdict: Verdict,
        below: Array,
        pending: list[int],
        rules: Rules,
        phase: float,
    ) -> None:
        self.index, self._curve, self._below, self._pending = index, curve, below, pending
        self._rules, self._phase = rules, phase
        self._cost = np.ones(len(below)) if curve.space.cost is None else curve.space.cost
        low, high = curve.belief.quantile(0.025), curve.belief.quantile(0.975)
        t = curve.tables.t
        self._width = min(high, float(t[-1])) - max(low, float(t[0]))
        done = verdict.trials
        needed = math.ceil((done + 2) * ((self._width / rules.precision) ** 2 - 1))
        self._most = min(max(needed, LEAST_PENDING), rules.max_trials - done)
        self._done = done
        self._next()

    def _next(self) -> None:
        self._best, gain = next_split(self._below, self._pending, self._done, self._cost)
        self.urgency = gain * self._width if len(self._pending) < self._most else 0.0

    def take(self) -> int:
        candidate = self._special()
        if candidate is None:
            candidate = self._best
        self._pending.append(candidate)
        self._next()
        return candidate

    def _special(self) -> int | None:
        """An audit, or a trial that settles a doubt, in place of the next one near the threshold."""
        n_candidates = len(self._below)
        number = len(self._curve.told) + len(self._pending)
        at_end = n_candidates - 1 if self._curve.sign > 0 else 0
        audited = audit(number, self._rules.audit, self._phase, n_candidates, at_end=at_end)
        doubtful = self._curve.doubt
        if audited is not None or doubtful is None:
            return audited
        return doubtful.candidate(self._pending) if len(self._pending) < PENDING_IN_DOUBT else None


def _padded(places: list[tuple[float, ...]]) -> Array:
    width = max(1, *(len(place) for place in places)) if places else 1
    return np.array([[*place, *([0.0] * (width - len(place)))] for place in places])
