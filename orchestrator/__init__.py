"""Sweeps of small transformers: one YAML file in, a phase diagram out. Importing this stays fast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.run import Run

__all__ = ["Run"]


def __getattr__(name: str) -> Any:
    if name == "Run":
        from orchestrator.run import Run

        return Run
    raise AttributeError(f"module 'orchestrator' has no attribute {name!r}")
