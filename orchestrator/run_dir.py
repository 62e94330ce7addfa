"""A run directory made ready for a launch: whose it is, what is damaged in it, what it is to hold."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import polars as pl

from cluster.files import is_left_behind
from orchestrator.errors import StoreError, SweepError
from orchestrator.packs import OpenPack
from orchestrator.publish import replace
from orchestrator.schema import curves_schema, trials_schema
from orchestrator.store import Store
from orchestrator.sweep import Sweep
from orchestrator.wanted import search_of
from orchestrator.yaml_file import read_yaml

ABANDONED_S = 24 * 3600


def make_ready(store: Store, sweep: Sweep, *, retry_failed: bool) -> None:
    """Put a held run directory in order for this sweep. Raises StoreError if it belongs to another one."""
    _refuse_another_sweep(store, sweep)
    _clean_up(store)
    _set_aside_damaged(store)
    if retry_failed:
        _forget_failed(store, sweep)


def write_sweep(store: Store, sweep: Sweep) -> tuple[pl.Schema, pl.Schema]:
    """Write down what is wanted. Returns the schemas of trials and curves, which are published."""
    trials = sweep.plan().trials
    schemas = trials_schema(sweep, trials), curves_schema(sweep, trials)
    store.publish_schema("trials", schemas[0])  # or refuse, before anything else changes
    if sweep.trainer.metrics(trials[0].config):
        store.publish_schema("curves", schemas[1])
    replace(store.path / "sweep.yaml", sweep.to_yaml().encode())
    return schemas


def _refuse_another_sweep(store: Store, sweep: Sweep) -> None:
    """A run directory belongs to one sweep; the sweep may change, but not become another."""
    try:
        stored = read_yaml(store.path / "sweep.yaml").data
    except SweepError:
        return  # none there yet, or damaged: it is written anew
    for key, mine in (("name", sweep.name), ("trainer", sweep.trainer_name)):
        if stored.get(key, mine) != mine:
            raise StoreError(
                f"{store.path}: holds the sweep {stored.get('name')!r} of trainer {stored.get('trainer')!r}, not "
                f"{sweep.name!r} of {sweep.trainer_name!r}. Launch this one with another --run-dir."
            )


def _forget_failed(store: Store, sweep: Sweep) -> None:
    """Take away the rows of failed trials that the sweep wants, so that they run again. Failed trials have
    files of their own; what their packs' workers did before does not count against the new attempt."""
    search = search_of(sweep, store)
    for path in sorted((store.path / "trials").glob("*.parquet")):
        try:
            rows = pl.read_parquet(path, columns=["trial_id", "status"])
        except pl.exceptions.PolarsError:
            continue
        if rows.height and set(rows["status"]) == {"failed"} and any(map(search.knows, rows["trial_id"])):
            (store.path / "curves" / path.name).unlink(missing_ok=True)
            path.unlink()
            OpenPack(store, path.name.split(".")[0]).forget_attempts()


def _set_aside_damaged(store: Store) -> None:
    """Damaged files keep readers from the others; what they held counts as not stored."""
    try:
        store.statuses()
        damaged = store.unreadable()
    except StoreError:
        damaged = store.damaged()
    for item in damaged:
        print(f"set aside: {store.set_aside(item)} ({item.reason}); what it held runs anew", flush=True)


def _clean_up(store: Store) -> None:
    """Remove what dead processes of this host left unfinished, and checkpoints of packs that are closed."""
    for path in _temporary_files(store.path):
        with suppress(FileNotFoundError):  # its process is at work
            if is_left_behind(path) or time.time() - path.stat().st_mtime > ABANDONED_S:
                path.unlink()
    for folder in (store.path / "checkpoints").iterdir():
        if not OpenPack(store, folder.name).intent_path.exists():
            shutil.rmtree(folder, ignore_errors=True)


def _temporary_files(run: Path) -> Iterator[Path]:
    """What is not in its place yet. In snapshots of code such names are the user's."""
    for folder, below, names in os.walk(run):
        if Path(folder) == run / "cluster" and "code" in below:
            below.remove("code")
        yield from (Path(folder, name) for name in names if ".tmp." in name)
