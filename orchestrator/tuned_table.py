"""What tuning has come to: the settings of each curve, and how the trials went that chose them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from orchestrator.axes_spec import column_value
from orchestrator.search.study import Sample, Study
from orchestrator.search.suggest import Values
from orchestrator.search.tuned import TunedSearch
from orchestrator.sweep import Sweep
from orchestrator.trial import Ending
from orchestrator.tuned_spec import TunedField, Tuning

AT_END = 0.1
"""Share of a range, at either side, that counts as its end."""


def tuned_table(search: TunedSearch, sweep: Sweep) -> pl.DataFrame:
    """One row per curve: its axes, its settings (null until they are known), and

    - `tuned_at`: where on the searched axis they are tuned.
    - `tuning_trials`: how many that takes; `ended` and `solved`: of those.
    - `best`: how the best of them ended.
    - `note`: what to look at.

    A column whose name an axis has already gets an underscore.
    """
    rows = [
        {**curve.axes, **_columns(search.space.tuning, None if best is None else best.values)}
        | _renamed({"tuned_at": curve.at, **_counts(study), "note": note}, sweep)
        for curve, study, best, note in _curves(search)
    ]
    counts = dict.fromkeys(("tuning_trials", "ended", "solved"), pl.Int64)
    texts = dict.fromkeys(("best", "note"), pl.String)
    own = {"tuned_at": pl.Float64, **counts, **texts}
    return pl.DataFrame(rows, schema=_schema(search, sweep, own), orient="row")


def tuning_trials(search: TunedSearch, sweep: Sweep) -> pl.DataFrame:
    """One row per tuning trial: the axes of its curve, its `number`, settings, `trial_id`, `status` (null while it
    runs), `score`, `solved_at_step`, and whether its settings were taken: `is_frozen`."""
    rows = []
    for curve, study, best, _ in _curves(search):
        for sample in study.samples:
            end = sample.ending or Ending("")
            own = {
                "number": sample.number,
                "trial_id": sample.trial_id,
                "status": end.status or None,
                "score": end.score,
                "solved_at_step": end.solved_at_step,
                "is_frozen": sample is best,
            }
            settings = _columns(search.space.tuning, sample.values)
            rows.append({**curve.axes, **settings, **_renamed(own, sweep)})
    own_schema = {
        "number": pl.Int64,
        "trial_id": pl.String,
        "status": pl.String,
        "score": pl.Float64,
        "solved_at_step": pl.Int64,
        "is_frozen": pl.Boolean,
    }
    return pl.DataFrame(rows, schema=_schema(search, sweep, own_schema), orient="row")


def end_warnings(search: TunedSearch) -> Iterator[str]:
    """Settings that lie at an end of their range, with the number of curves."""
    found: Counter[str] = Counter()
    for values in search.frozen():
        found.update(field.name for field in _at_end(search.space.tuning, values))
    for name, count in found.items():
        yield f"{name} is at the end of its range on {count} of {len(search.studies)} curves: widen it"


def _curves(search: TunedSearch) -> Iterator[tuple[Any, Study, Sample | None, str | None]]:
    for curve, study in zip(search.space.curves, search.studies, strict=True):
        yield curve, study, study.best, _note(search.space.tuning, study)


def _counts(study: Study) -> dict[str, Any]:
    endings = [sample.ending for sample in study.samples if sample.ending is not None]
    return {
        "tuning_trials": study.n_wanted,
        "ended": len(endings),
        "solved": sum(ending.outcome is True for ending in endings),
        "best": None if study.best is None else _how(study.best),
    }


def _how(best: Sample) -> str:
    end = best.ending
    assert end is not None, "the best has ended"
    if end.outcome:
        return "solved" if end.solved_at_step is None else f"solved at step {end.solved_at_step}"
    is_scored = end.outcome is not None and end.status != "diverged" and end.score is not None
    return f"{end.status}, score {end.score:.4g}" if is_scored else end.status


def _note(tuning: Tuning, study: Study) -> str | None:
    if study.best is None:
        return "more trials to come"
    notes = [
        f"{field.name} is at the end of its range: widen it" for field in _at_end(tuning, study.best.values)
    ]
    if study.best.ending is not None and study.best.ending.outcome is not True:
        notes.insert(0, "nothing solved")
    elif study.n_best > 1:
        notes.insert(0, f"{study.n_best} did equally well, the middle one is taken: tune elsewhere (`at`)")
    return "; ".join(notes) or None


def _at_end(tuning: Tuning, values: Values | None) -> list[TunedField]:
    """Settings with a range, at an end of it."""
    if values is None:
        return []
    ranges = [field for field in tuning.fields if field.scale is not None]
    return [field for field in ranges if not AT_END < field.unit(values[field.name]) < 1 - AT_END]


def _columns(tuning: Tuning, values: Values | None) -> dict[str, Any]:
    """The settings as columns hold them."""
    if values is None:
        return {field.name: None for field in tuning.fields}
    return {field.name: column_value(values[field.name], field.dtype) for field in tuning.fields}


def _renamed(own: Mapping[str, Any], sweep: Sweep) -> dict[str, Any]:
    return {f"{name}_" if name in sweep.place_columns else name: value for name, value in own.items()}


def _schema(search: TunedSearch, sweep: Sweep, own: Mapping[str, Any]) -> dict[str, Any]:
    along = None if search.space.along is None else search.space.along.name
    axes = {name: dtype for name, dtype in sweep.axis_dtypes.items() if name not in (along, "seed")}
    return {**axes, **{f.name: f.dtype for f in search.space.tuning.fields}, **_renamed(own, sweep)}
