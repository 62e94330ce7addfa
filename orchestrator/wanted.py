"""The search of a sweep, told what is stored: what is wanted, for launches and for readers alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import polars as pl

from orchestrator.axes_spec import SEED
from orchestrator.fits import Placed
from orchestrator.search.adaptive import ThresholdSearch
from orchestrator.search.base import Search
from orchestrator.search.grid import Grid
from orchestrator.search.study_space import StudySpace
from orchestrator.search.tuned import TunedSearch
from orchestrator.store import Store
from orchestrator.sweep import Sweep
from orchestrator.trial import Ending, Trial, from_canonical_json


def search_of(
    sweep: Sweep, store: Store | None = None, endings: Mapping[str, Ending] | None = None
) -> Search:
    """A search that was told all trials of a store (or of those only that are among the endings), and nothing of
    what is under way."""
    if endings is None:
        endings = {} if store is None else store.endings()
    search = _new_search(sweep)
    if not isinstance(search, Grid):
        for trial in [] if store is None or not endings else _stored(store):
            search.wants(trial)  # from now on it knows the id
    search.tell(endings)
    return search


def threshold_search(search: Search) -> ThresholdSearch | None:
    """The search for thresholds that this one is, or tunes for."""
    inner = search.inner if isinstance(search, TunedSearch) else search
    return inner if isinstance(inner, ThresholdSearch) else None


def summary(search: Search) -> list[dict[str, Any]]:
    """One mapping per curve: its axes, what a search for thresholds has found there, and its tuned settings."""
    thresholds = threshold_search(search)
    found = None if thresholds is None else thresholds.summary()
    if not isinstance(search, TunedSearch):
        return found or []
    tuned = search.summary()
    return tuned if found is None else [a | b for a, b in zip(found, tuned, strict=True)]


def _new_search(sweep: Sweep) -> Search:
    return _untuned(sweep) if sweep.tuned is None else TunedSearch(StudySpace(sweep), lambda: _untuned(sweep))


def _untuned(sweep: Sweep) -> Search:
    """Of a sweep that tunes: what it asks of nominal settings."""
    if sweep.search.kind == "grid":
        return Grid(sweep.plan().trials)
    return ThresholdSearch(sweep.space, sweep.search)


def _stored(store: Store) -> Iterator[Trial]:
    with store.naming_damage():
        configs = store.scan("trials").select("config").collect()["config"]
    return (Trial(from_canonical_json(config)) for config in configs)


def wanted_rows(search: Search, sweep: Sweep, trials: pl.LazyFrame) -> pl.LazyFrame:
    """Rows of the trials that the search wants, without those that only tune settings."""
    if isinstance(search, Grid):
        ids = [trial.trial_id for trial in sweep.plan().trials]
    else:
        counts = search.scores if isinstance(search, TunedSearch) else search.knows
        ids = [trial_id for trial_id in trials.select("trial_id").collect()["trial_id"] if counts(trial_id)]
    wanted = pl.LazyFrame({"trial_id": ids}, schema={"trial_id": pl.String})
    return trials.join(wanted, on="trial_id", how="semi", maintain_order="left")


Place = tuple[object, ...]
"""Of a curve on the other axes (`curve_keys`)."""


def curve_keys(sweep: Sweep, along: str) -> list[str]:
    """The axes that tell curves along one of them apart."""
    return [axis.name for axis in sweep.axes if axis.name not in (along, SEED)]


def search_ended(search: Search, sweep: Sweep, along: str) -> dict[Place, str | None] | None:
    """Why a threshold search asks nothing more of each curve; None: no search along this axis placed the trials."""
    thresholds = threshold_search(search)
    if thresholds is None or along != sweep.search.along:
        return None
    keys = curve_keys(sweep, along)
    places = [tuple(curve.axes[key] for key in keys) for curve in thresholds.space.curves]
    return dict(zip(places, thresholds.reasons(), strict=True))


def placed(search: Search, sweep: Sweep, along: str) -> Placed | None:
    """What a threshold search along this axis knows of its trials; None if there is none."""
    ended, thresholds = search_ended(search, sweep, along), threshold_search(search)
    if ended is None or thresholds is None:
        return None
    return Placed({place for place, why in ended.items() if why == "non-monotone"}, thresholds.grid)
