"""Every trial of the axes' cross product."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from orchestrator.trial import Trial


class Grid:
    """Asks for all trials at once, in the sweep's order."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        self._open = {trial.trial_id: trial for trial in trials}

    def tell(self, statuses: Mapping[str, str]) -> None:
        for trial_id in self._open.keys() & statuses.keys():
            del self._open[trial_id]

    def ask(self, pending: Collection[str]) -> Sequence[Trial]:
        trials, self._open = self._open, {}
        return [trial for trial_id, trial in trials.items() if trial_id not in pending]

    @property
    def is_finished(self) -> bool:
        return not self._open
