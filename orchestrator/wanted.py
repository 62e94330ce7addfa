"""The search of a sweep, told what is stored: what is wanted, for launches and for readers alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import polars as pl

from orchestrator.search.adaptive import ThresholdSearch
from orchestrator.search.base import Search
from orchestrator.search.grid import Grid
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
    if sweep.search.kind == "grid":
        search: Search = Grid(sweep.plan().trials)
    else:
        search = ThresholdSearch(sweep.space, sweep.search)
        for trial in [] if store is None or not endings else _stored(store):
            search.wants(trial)  # from now on it knows the id
    search.tell(endings)
    return search


def _stored(store: Store) -> Iterator[Trial]:
    with store.naming_damage():
        configs = store.scan("trials").select("config").collect()["config"]
    return (Trial(from_canonical_json(config)) for config in configs)


def wanted_rows(search: Search, sweep: Sweep, trials: pl.LazyFrame) -> pl.LazyFrame:
    """Rows of the trials that the search wants."""
    if isinstance(search, Grid):
        ids = [trial.trial_id for trial in sweep.plan().trials]
    else:
        ids = [
            trial_id for trial_id in trials.select("trial_id").collect()["trial_id"] if search.knows(trial_id)
        ]
    wanted = pl.LazyFrame({"trial_id": ids}, schema={"trial_id": pl.String})
    return trials.join(wanted, on="trial_id", how="semi", maintain_order="left")
