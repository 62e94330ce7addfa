"""The columns of the store, and their types. Types come from the field, never from the values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import polars as pl

from orchestrator.sweep import Sweep
from orchestrator.trial import Trial

_TIME = pl.Datetime("us", "UTC")
_TYPES: Mapping[type, Any] = {int: pl.Int64, float: pl.Float64, str: pl.String}

Columns = dict[str, Any]
"""Column names and polars types."""

IDENTITY: Columns = {"trial_id": pl.String, "pack_id": pl.String}
RESULT: Columns = {
    "status": pl.String,
    "score": pl.Float64,
    "best_score": pl.Float64,
    "best_step": pl.Int64,
    "solved_at_step": pl.Int64,
    "stopped_by": pl.String,
    "steps": pl.Int64,
    "budget": pl.Int64,
    "examples_seen": pl.Int64,
}
PROVENANCE: Columns = {
    "train_s": pl.Float64,
    "error": pl.String,
    "device": pl.String,
    "code_version": pl.String,
    "started_at": _TIME,
    "ended_at": _TIME,
    "config": pl.String,
}
UNSTABLE = ("train_s", "started_at", "ended_at", "device", "pack_id", "code_version")
"""Columns of a trial that may differ when it is run again; all others are the same bit for bit."""

CURVE: Columns = {"trial_id": pl.String, "step": pl.Int64, "examples_seen": pl.Int64}


def trials_schema(sweep: Sweep, trials: Iterable[Trial]) -> pl.Schema:
    """Columns of `trials/*.parquet` for these trials of the sweep."""
    columns: dict[str, type] = {}
    for config in _one_of_each_shape(sweep, trials):
        columns |= sweep.trainer.columns(config)
    declared = {name: _TYPES[kind] for name, kind in columns.items()}
    places = {name: dtype for name, (dtype, _) in sweep.place_columns.items()}
    return pl.Schema({**IDENTITY, **places, **RESULT, **declared, **PROVENANCE})


def curves_schema(sweep: Sweep, trials: Iterable[Trial]) -> pl.Schema:
    """Columns of `curves/*.parquet` for these trials, as far as their trainer declares its metrics."""
    names: dict[str, None] = {}
    for config in _one_of_each_shape(sweep, trials):
        names |= dict.fromkeys(sweep.trainer.metrics(config))
    return with_metrics(pl.Schema(CURVE), list(names))


def with_metrics(schema: pl.Schema, metrics: Sequence[str]) -> pl.Schema:
    """The schema with a Float64 column for each metric that it lacks."""
    columns: Columns = {**schema, **{name: pl.Float64 for name in metrics if name not in schema}}
    return pl.Schema(columns)


def _one_of_each_shape(sweep: Sweep, trials: Iterable[Trial]) -> list[Mapping[str, Any]]:
    return list({sweep.trainer.shape(trial.config): trial.config for trial in trials}.values())
