"""Every trial of the axes' cross product."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from orchestrator.search.base import Progress, ShapeOf
from orchestrator.trial import Ending, Trial


class Grid:
    """Asks for all trials at once, in the sweep's order."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        self._ids = {trial.trial_id for trial in trials}
        self._open = {trial.trial_id: trial for trial in trials}
        self._adopted: set[str] = set()

    def wants(self, trial: Trial) -> bool:
        return trial.trial_id in self._ids

    def knows(self, trial_id: str) -> bool:
        return trial_id in self._ids

    def tell(self, endings: Mapping[str, Ending]) -> None:
        for trial_id in self._open.keys() & endings.keys():
            del self._open[trial_id]

    def adopt(self, trials: Iterable[Trial]) -> None:
        self._adopted |= {trial.trial_id for trial in trials}

    def ask(self, n: int, shape_of: ShapeOf | None = None) -> Sequence[Trial]:
        trials, self._open = self._open, {}
        return [trial for trial_id, trial in trials.items() if trial_id not in self._adopted]

    @property
    def is_finished(self) -> bool:
        return not self._open

    def progress(self) -> Progress:
        return Progress(len(self._ids))
