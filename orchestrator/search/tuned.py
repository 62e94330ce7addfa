"""A search whose nuisance settings are tuned first: each curve's by trials of its own, and then frozen."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from orchestrator.search.base import Progress, Search, ShapeOf
from orchestrator.search.study import Study
from orchestrator.search.study_space import Spot, StudySpace
from orchestrator.search.suggest import Values
from orchestrator.trial import Ending, Trial, canonical_json

AT_ONCE = 256
"""Tuning trials that are asked for at once, if there are so many: packs of every shape are full then, and Optuna
has an answer within a second."""


class TunedSearch:
    """Asks for tuning trials of all curves, and once each has its settings for what another search asks. That one
    knows nothing of it: its trials have nominal values of what is tuned, those that run the frozen ones.

    A pure function of the trials that are stored and under way. A trial with other settings than its curve's is
    not wanted, but remembered: settings may only come to be known later.
    """

    def __init__(self, space: StudySpace, make_inner: Callable[[], Search]) -> None:
        """`make_inner`: another search of the same, which was told nothing."""
        self.space, self._make_inner = space, make_inner
        self.inner = make_inner()
        self.studies = [
            Study(space.tuning, curve.key, is_less_better=space.is_less_better) for curve in space.curves
        ]
        self._tuning: dict[str, int] = {}
        """Trials that tune, by id, with their curve."""
        self._others: list[dict[str, tuple[str, Trial]]] = [{} for _ in self.studies]
        """Trials of each curve that don't, by id, with their settings as text."""
        self._curve_of: dict[str, int] = {}
        """Of the same trials."""
        self._frozen: list[str | None] = [None for _ in self.studies]
        """The settings of each curve as text, as far as they are known."""
        self._nominal: dict[str, str] = {}
        """Trials with the settings of their curve: the ids by which the inner search knows them."""
        self._endings: dict[str, Ending] = {}
        self._begun: set[str] = set()
        """Trials that don't tune and are under way, or were."""

    def wants(self, trial: Trial) -> bool:
        """Also remembers it."""
        trial_id = trial.trial_id
        if trial_id not in self._tuning and trial_id not in self._curve_of:
            spot = self.space.spot(trial.config)
            if spot is None:
                return False
            self._remember(trial, spot)
        return self.knows(trial_id)

    def knows(self, trial_id: str) -> bool:
        return trial_id in self._tuning or self.scores(trial_id)

    def scores(self, trial_id: str) -> bool:
        """Whether it has seen this trial, and analyses are to count it: it has its curve's settings."""
        return trial_id in self._nominal and self.inner.knows(self._nominal[trial_id])

    def tell(self, endings: Mapping[str, Ending]) -> None:
        for trial_id in endings.keys() & (self._tuning.keys() | self._curve_of.keys()):
            self._endings.setdefault(trial_id, endings[trial_id])
            if trial_id in self._tuning:
                self.studies[self._tuning[trial_id]].end(trial_id, endings[trial_id])
        self._freeze()
        known = endings.keys() & self._nominal.keys()
        self.inner.tell({self._nominal[trial_id]: self._endings[trial_id] for trial_id in known})

    def adopt(self, trials: Iterable[Trial]) -> None:
        for trial in filter(self.wants, trials):
            if trial.trial_id not in self._tuning:
                self._begun.add(trial.trial_id)
                self.inner.adopt([self.space.nominal(trial)])

    def ask(self, n: int, shape_of: ShapeOf | None = None) -> Sequence[Trial]:
        due = self._due(n)
        if due or None in self._frozen:
            return due
        shape_as_run = None if shape_of is None else (lambda trial: shape_of(self._with_settings(trial)))
        return [self._as_run(trial) for trial in self.inner.ask(n, shape_as_run)]

    @property
    def is_finished(self) -> bool:
        return None not in self._frozen and self.inner.is_finished

    def progress(self) -> Progress:
        n_tuned = sum(text is not None for text in self._frozen)
        inner = self.inner.progress()
        note = f"{n_tuned} of {len(self.studies)} curves are tuned"
        expected = sum(study.n_wanted for study in self.studies) + inner.expected
        return Progress(expected, f"{note}; {inner.note}" if inner.note else note)

    def frozen(self) -> list[Values | None]:
        """The settings of each curve of the space; None: not known yet."""
        best = [study.best for study in self.studies]
        return [None if sample is None else sample.values for sample in best]

    def summary(self) -> list[dict[str, Any]]:
        """One mapping per curve: its axes, where it is tuned, and its settings (null: not known yet)."""
        return [
            {**curve.axes, "tuned_at": "inf" if curve.at == math.inf else curve.at, "tuned": values}
            for curve, values in zip(self.space.curves, self.frozen(), strict=True)
        ]

    def _due(self, n: int) -> list[Trial]:
        """Tuning trials to run now, whole rounds of some curves."""
        asked: list[Trial] = []
        for i, study in enumerate(self.studies):
            if len(asked) >= max(n, AT_ONCE):
                break
            for number, values in study.due() if self._frozen[i] is None else []:
                trial = self.space.tuning_trial(i, number, values)
                self._remember(trial, Spot(i, number, values))
                asked.append(trial)
        return asked

    def _as_run(self, trial: Trial) -> Trial:
        """What the inner search asked for, with the settings of its curve; also remembers it."""
        scored = self._with_settings(trial)
        self._begun.add(scored.trial_id)
        self._remember(scored, Spot(self.space.curve_of(trial), None, self.space.tuning.get(scored.config)))
        return scored

    def _with_settings(self, trial: Trial) -> Trial:
        best = self.studies[self.space.curve_of(trial)].best
        assert best is not None, "nothing is scored before it is tuned"
        return self.space.scored(trial, best.values)

    def _remember(self, trial: Trial, spot: Spot) -> None:
        if spot.number is not None:
            self._tuning[trial.trial_id] = spot.curve
            self.studies[spot.curve].know(trial.trial_id, spot.number, spot.values)
            return
        self._curve_of[trial.trial_id] = spot.curve
        self._others[spot.curve][trial.trial_id] = canonical_json(spot.values), trial
        self._pass_on(trial.trial_id)

    def _freeze(self) -> None:
        """Find out which curves have their settings, and pass on what is known of these. If those of a curve have
        changed (a second trial of some number turned up), all is passed on anew."""
        texts = [None if values is None else canonical_json(values) for values in self.frozen()]
        news = [i for i, (old, new) in enumerate(zip(self._frozen, texts, strict=True)) if old != new]
        if any(self._frozen[i] is not None for i in news):
            self.inner, self._nominal, news = self._make_inner(), {}, list(range(len(texts)))
        self._frozen = texts
        for i in news:
            for trial_id in self._others[i]:
                self._pass_on(trial_id)

    def _pass_on(self, trial_id: str) -> None:
        """To the inner search: a trial with the settings of its curve, and what became of it."""
        curve = self._curve_of[trial_id]
        text, trial = self._others[curve][trial_id]
        if text != self._frozen[curve]:
            return
        nominal = self.space.nominal(trial)
        if self.inner.wants(nominal):
            self._nominal[trial_id] = nominal.trial_id
            if trial_id in self._endings:
                self.inner.tell({nominal.trial_id: self._endings[trial_id]})
            elif trial_id in self._begun:
                self.inner.adopt([nominal])
