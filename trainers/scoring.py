"""Whether a trial is solved, and how good it was: the same rule for every trainer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trainers.base import Config, Status


@dataclass
class Record:
    """The evaluations of one trial so far, and what follows from them.

    Solved means: `metric` reached the target at `consecutive` evaluations in a row (a single hit depends on
    how often one looks); `solved_at_step` is the step of the last of them.
    """

    curve: list[dict[str, float | int | None]] = field(default_factory=list)
    hits: int = 0
    score: float | None = None
    best_score: float | None = None
    best_step: int | None = None
    solved_at_step: int | None = None

    def add(
        self,
        rule: Mapping[str, Any] | None,
        step: int,
        examples_seen: int | None,
        metrics: Mapping[str, float],
    ) -> None:
        """Take in one evaluation; NaN metrics are stored as None. `rule` is the config's `solved`."""
        values = {name: None if math.isnan(value) else float(value) for name, value in metrics.items()}
        self.curve.append({"step": step, "examples_seen": examples_seen, **values})
        if rule is None:
            return
        self.score = values.get(rule["metric"])
        if self.score is None:
            self.hits = 0
            return
        sign = 1.0 if rule.get("at_least") is not None else -1.0
        target = rule["at_least"] if sign > 0 else rule["at_most"]
        if self.best_score is None or sign * self.score > sign * self.best_score:
            self.best_score, self.best_step = self.score, step
        self.hits = self.hits + 1 if sign * self.score >= sign * target else 0
        if self.solved_at_step is None and self.hits >= rule["consecutive"]:
            self.solved_at_step = step

    @property
    def has_diverged(self) -> bool:
        """The last evaluation has a loss (`loss`, `..._loss`) that is not a finite number."""
        last = self.curve[-1] if self.curve else {}
        losses = [value for name, value in last.items() if name == "loss" or name.endswith("_loss")]
        return any(value is None or not math.isfinite(value) for value in losses)

    def should_stop(self, config: Config) -> bool:
        """Solved, and the sweep wants no more of it than that."""
        return self.solved_at_step is not None and config["stop"] == "solved"

    @property
    def status(self) -> Status:
        return "unsolved" if self.solved_at_step is None else "solved"

    def values(self) -> dict[str, float | int | None]:
        """The columns of a trial's row that follow from its evaluations."""
        return {
            "score": self.score,
            "best_score": self.best_score,
            "best_step": self.best_step,
            "solved_at_step": self.solved_at_step,
        }
