"""Resolved configs for tests, small enough to train in a moment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from trainers.base import STREAMS, TrialSpec
from trainers.tasks.composition import Composition
from trainers.transformer.config import Model, Train


def config(
    *,
    seed: int = 0,
    task: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    train: dict[str, Any] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """A trial of 2-fold composition of 4 elements."""
    return {
        "trainer": "transformer",
        "trainer_version": "test",
        "task": asdict(Composition(**{"n": 4, "k": 2, "data_size": 512.0, "eval_size": 64, **(task or {})})),
        "model": asdict(Model(**{"width": 16, "depth": 2, "heads": 2, **(model or {})})),
        "train": asdict(
            Train(**{"steps": 60, "batch_size": 16, "eval_every": 10, "lr": 3e-3, **(train or {})})
        ),
        "seed": seed,
        "seeds": dict.fromkeys(STREAMS, seed),
        "solved": {"metric": "test_accuracy", "at_least": 0.95, "consecutive": 2},
        "stop": "solved",
        **changes,
    }


def specs(*configs: dict[str, Any]) -> list[TrialSpec]:
    """Trials named by their place."""
    return [TrialSpec(f"trial-{i}", config) for i, config in enumerate(configs)]


def learns(config: dict[str, Any], report: Callable[..., None]) -> None:
    """A user's function that reports what the transformer does, without training anything."""
    for step in (1, 2):
        report(step, test_accuracy=0.5, test_loss=1.0)
