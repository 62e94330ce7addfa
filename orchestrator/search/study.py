"""The tuning of one curve: which settings are tried next, and which are the best in the end."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from orchestrator.search.suggest import Values, rounds, suggest
from orchestrator.trial import Ending
from orchestrator.tuned_spec import Tuning

Standing = tuple[int, float]
"""The smaller, the better."""


@dataclass
class Sample:
    """A tuning trial."""

    number: int
    trial_id: str
    values: Values
    ending: Ending | None = None


def standing(ending: Ending, *, is_less_better: bool) -> Standing:
    """Solved trials come first, those of few steps before others; then unsolved ones, the better score before the
    worse (or none); then diverged and failed ones."""
    if ending.status == "failed":
        return 2, 0.0
    if ending.has_solved:
        return 0, math.inf if ending.solved_at_step is None else float(ending.solved_at_step)
    if ending.status == "diverged":
        return 2, 0.0
    if ending.score is None or math.isnan(ending.score):
        return 1, math.inf
    return 1, ending.score if is_less_better else -ending.score


class Study:
    """A pure function of the trials that it was told, in whatever order."""

    def __init__(self, tuning: Tuning, key: str, *, is_less_better: bool) -> None:
        """`key`: what its random numbers come from. `is_less_better`: of the score."""
        self._tuning, self._key, self._is_less_better = tuning, key, is_less_better
        self._samples: dict[str, Sample] = {}
        self._rounds = list(rounds(len(tuning.fields), tuning.trials))

    def know(self, trial_id: str, number: int, values: Values) -> None:
        """A trial of its own, asked for by itself or stored. Two may have the same number, if the sweep has
        changed in between; both count."""
        if trial_id not in self._samples:
            self._samples[trial_id] = Sample(number, trial_id, values)
            self.__dict__.pop("best", None)

    def end(self, trial_id: str, ending: Ending) -> None:
        """How one that it knows has ended; only the first word counts."""
        sample = self._samples[trial_id]
        if sample.ending is None:
            sample.ending = ending
            self.__dict__.pop("best", None)

    @property
    def samples(self) -> list[Sample]:
        """By number."""
        return sorted(self._samples.values(), key=lambda sample: (sample.number, sample.trial_id))

    @property
    def n_wanted(self) -> int:
        """Trials in the end."""
        return max(self._tuning.trials, len(self._samples))

    @cached_property
    def best(self) -> Sample | None:
        """The best trial, the middle one of equal ones; None until all have ended."""
        ended = self._ended(self._tuning.trials)
        if len({sample.number for sample, _ in ended}) < self._tuning.trials:
            return None
        best = min(place for _, place in ended)
        return self._middle([sample for sample, place in ended if place == best])

    def _middle(self, equal: list[Sample]) -> Sample:
        """Of equally good trials the one nearest to their mean: it is the least likely to be the last good one."""
        units = [[field.unit(s.values[field.name]) for field in self._tuning.fields] for s in equal]
        mean = [math.fsum(column) / len(equal) for column in zip(*units, strict=True)]
        away = [math.dist(unit, mean) for unit in units]
        return equal[away.index(min(away))]

    @property
    def n_best(self) -> int:
        """Trials that ended as well as the best."""
        if self.best is None or self.best.ending is None:
            return 0
        best = standing(self.best.ending, is_less_better=self._is_less_better)
        return sum(place == best for _, place in self._ended(self._tuning.trials))

    def due(self) -> list[tuple[int, Values]]:
        """Numbers and settings of the trials to be asked for now: those of the first round that has not ended."""
        known = {sample.number for sample in self._samples.values()}
        ended = {sample.number for sample in self._samples.values() if sample.ending is not None}
        which = next((numbers for numbers in self._rounds if not ended.issuperset(numbers)), range(0))
        if known.issuperset(which):
            return []
        values = suggest(self._tuning.fields, self._key, which, self._ranked(which.start))
        return [(i, chosen) for i, chosen in zip(which, values, strict=True) if i not in known]

    def _ended(self, before: int) -> list[tuple[Sample, Standing]]:
        """Trials of smaller numbers that have ended."""
        return [
            (sample, standing(sample.ending, is_less_better=self._is_less_better))
            for sample in self.samples
            if sample.ending is not None and sample.number < before
        ]

    def _ranked(self, before: int) -> Sequence[tuple[Values, int]]:
        ended = self._ended(before)
        order = _ranks(place for _, place in ended)
        return [(sample.values, order[place]) for sample, place in ended]


def _ranks(standings: Iterable[Standing]) -> dict[Standing, int]:
    """0 is the best; equal ones share a rank."""
    return {place: rank for rank, place in enumerate(sorted(set(standings)))}
