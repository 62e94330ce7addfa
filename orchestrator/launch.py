"""Launching is reconciling: wanted trials minus stored trials is what runs.

The only place that wires sweep, search, store, trainer and cluster together. A first launch, a resumed one,
an extended axis and a finished sweep are the same few lines.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import polars as pl

from orchestrator.driver import Driver, Tally
from orchestrator.errors import OrchestratorError, StoreError, SweepError
from orchestrator.lock import launch_lock
from orchestrator.pack import make_packs
from orchestrator.packs import OpenPack
from orchestrator.progress import watching
from orchestrator.provenance import code_version, record_launch
from orchestrator.publish import replace
from orchestrator.schema import curves_schema, trials_schema
from orchestrator.search.grid import Grid
from orchestrator.store import Store
from orchestrator.sweep import Plan, Sweep
from orchestrator.trial import Trial
from orchestrator.worker import WorkOrder
from orchestrator.yaml_file import read_yaml
from trainers.base import Resources

CPU_PACK_SIZE = 16
GPU_PACK_SIZE = 512
FUNCTION_PACK_SIZE = 64
PACKS_PER_WORKER = 4
"""At least so many, where there are trials enough."""


EXIT_INTERRUPTED = 130


class Interrupted(OrchestratorError):
    """The user stopped the launch; everything finished is stored."""


@dataclass(frozen=True)
class Reconciliation:
    """What a launch would do."""

    plan: Plan
    statuses: dict[str, str]
    """Of the wanted trials that are stored, by id."""
    n_packs: int

    @property
    def to_run(self) -> list[Trial]:
        return [trial for trial in self.plan.trials if trial.trial_id not in self.statuses]


def reconcile(sweep: Sweep, run_dir: Path, *, retry_failed: bool = False) -> Reconciliation:
    """Compare what the sweep wants with what its run directory holds (which need not exist)."""
    plan = sweep.plan()
    stored = Store(run_dir).statuses() if run_dir.is_dir() else {}
    if retry_failed:
        stored = {trial_id: status for trial_id, status in stored.items() if status != "failed"}
    statuses = {t.trial_id: stored[t.trial_id] for t in plan.trials if t.trial_id in stored}
    to_run = [trial for trial in plan.trials if trial.trial_id not in statuses]
    packs = make_packs(to_run, lambda trial: sweep.trainer.shape(trial.config), pack_size(sweep))
    return Reconciliation(plan, statuses, len(packs))


def describe(sweep: Sweep, run_dir: Path, found: Reconciliation) -> str:
    """The plan, for people."""
    plan = found.plan
    lines = [f"{sweep.name}: {sweep.question}" if sweep.question else sweep.name]
    lines += [f"  {axis.name}: {_values(axis.values)}" for axis in sweep.axes]
    lines.append(f"wanted   {len(plan.trials)} trials")
    if plan.impossible:
        reasons = Counter(reason for _, reason in plan.impossible)
        lines.append(f"dropped  {len(plan.impossible)} cells that cannot exist")
        lines += [f"           {count} x {reason}" for reason, count in reasons.most_common(5)]
        if len(reasons) > 5:
            lines.append(
                f"           {sum(reasons.values()) - sum(c for _, c in reasons.most_common(5))} x others"
            )
    if plan.excluded:
        lines.append(f"dropped  {plan.excluded} cells by `where`")
    by_status = ", ".join(f"{count} {status}" for status, count in Counter(found.statuses.values()).items())
    lines.append(f"stored   {len(found.statuses)} in {run_dir}" + (f" ({by_status})" if by_status else ""))
    packs = f"{found.n_packs} pack{'' if found.n_packs == 1 else 's'} of at most {pack_size(sweep)}"
    lines.append(f"to run   {len(found.to_run)} trials in {packs}")
    budget = sum(
        trial.config.get("train", {}).get("steps", 0) for trial in found.to_run if not sweep.is_function
    )
    if budget:
        lines.append(f"         at most {budget:,} trial-steps")
    return "\n".join(lines)


def launch(
    sweep: Sweep, run_dir: Path, *, cluster: str = "local", retry_failed: bool = False, is_quiet: bool = False
) -> Tally:
    """Run what is wanted and not stored. Returns when every wanted trial is stored.

    Raises Interrupted after Ctrl-C, StoreError if the directory is held by another launch or cannot be
    written. Whatever happens, launching again goes on from there.
    """
    store = Store.create(run_dir.absolute())
    with launch_lock(store.path):
        _refuse_another_sweep(store, sweep)
        _clean_up(store)
        _set_aside_damaged(store)
        if retry_failed:
            _forget_failed(store, sweep)
        driver = _prepare(store, sweep, cluster)
        with watching(is_quiet) as show, _stop_on_signals(driver):
            if not driver.is_finished:
                _run(driver, sweep, cluster, lambda: show(driver.tally))
    if driver.failure:
        raise driver.failure
    if driver.stop_requested:
        raise Interrupted(
            f"stopped; {len(driver.tally.statuses)} of {driver.tally.wanted} trials are stored. "
            "Launch again to go on."
        )
    return driver.tally


def pack_size(sweep: Sweep) -> int:
    """How many trials a pack queues: enough packs for this machine's workers to share a small sweep. Counted
    from all wanted trials, so that a restart makes the same packs."""
    if sweep.pack.size is not None:
        return sweep.pack.size
    largest = (
        FUNCTION_PACK_SIZE if not sweep.trainer.fuses else GPU_PACK_SIZE if sweep.pack.gpus else CPU_PACK_SIZE
    )
    workers = max(1, int(len(os.sched_getaffinity(0)) / sweep.pack.cpus))
    return max(1, min(largest, len(sweep.plan().trials) // (PACKS_PER_WORKER * workers)))


def _prepare(store: Store, sweep: Sweep, cluster: str) -> Driver:
    """Write down what is about to happen, and who is in charge of it."""
    trials = sweep.plan().trials
    schemas = trials_schema(sweep, trials), curves_schema(sweep, trials)
    store.publish_schema("trials", schemas[0])  # or refuse, before anything else changes
    if sweep.trainer.metrics(trials[0].config):
        store.publish_schema("curves", schemas[1])
    replace(store.path / "sweep.yaml", sweep.to_yaml().encode())
    record_launch(store.path / "provenance.json", cluster)
    resources = Resources(
        device="cuda" if sweep.pack.gpus else "cpu",
        threads=max(1, int(sweep.pack.cpus)),
        slots=sweep.pack.slots,
    )
    order = WorkOrder(
        run_dir=store.path,
        trainer=sweep.trainer_name,
        import_paths=sweep.import_paths,
        axis_paths={name: sweep.axis_path(name) for name in sweep.axis_dtypes},
        epoch=store.next_epoch(),
        resources=resources,
        trials_schema=schemas[0],
        curves_schema=schemas[1],
        code_version=code_version(),
    )
    return Driver(
        store, Grid(trials), trials, lambda t: sweep.trainer.shape(t.config), pack_size(sweep), order
    )


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


def _run(driver: Driver, sweep: Sweep, cluster: str, watch: Callable[[], None]) -> None:
    if cluster == "inline":
        from orchestrator.inline import run_inline

        run_inline(driver, watch)
    else:
        from cluster.local import local_ray
        from orchestrator.tune import run_tune

        # Ray takes SIGTERM for itself when it starts, so the handlers are set again.
        with local_ray(sweep.pack.cpus, sweep.pack.gpus), _stop_on_signals(driver):
            run_tune(driver, watch, cpus=sweep.pack.cpus, gpus=sweep.pack.gpus)


@contextmanager
def _stop_on_signals(driver: Driver) -> Iterator[None]:
    """The first Ctrl-C, SIGTERM or SIGHUP asks the driver to stop, a second one ends the process at once."""

    def request(_signum: int, _frame: FrameType | None) -> None:
        if driver.stop_requested:
            print("stopped at once; launch again to go on", file=sys.stderr, flush=True)
            os._exit(EXIT_INTERRUPTED)
        print(
            "\nstopping when the running evaluations or trials end (again: at once)",
            file=sys.stderr,
            flush=True,
        )
        driver.stop_requested = True

    heard = [
        s for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(s) != signal.SIG_IGN
    ]
    previous = {number: signal.signal(number, request) for number in heard}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _forget_failed(store: Store, sweep: Sweep) -> None:
    """Take away the rows of failed trials that the sweep wants, so that they run again. Failed trials have
    files of their own; what their packs' workers did before does not count against the new attempt."""
    wanted = {trial.trial_id for trial in sweep.plan().trials}
    for path in sorted((store.path / "trials").glob("*.parquet")):
        try:
            rows = pl.read_parquet(path, columns=["trial_id", "status"])
        except pl.exceptions.PolarsError:
            continue
        if rows.height and set(rows["status"]) == {"failed"} and wanted & set(rows["trial_id"]):
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
    host = socket.gethostname()
    for path in store.path.glob("**/*.tmp.*"):
        _, _, owner = path.name.rpartition(".tmp.")
        owner_host, _, pid = owner.rpartition(".")
        stale = time.time() - path.stat().st_mtime > 24 * 3600
        if stale or (owner_host == host and not Path(f"/proc/{pid}").exists()):
            path.unlink(missing_ok=True)
    for folder in (store.path / "checkpoints").iterdir():
        if not OpenPack(store, folder.name).intent_path.exists():
            shutil.rmtree(folder, ignore_errors=True)


def _values(values: tuple[object, ...]) -> str:
    texts = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    return (
        ", ".join(texts)
        if len(texts) <= 8
        else f"{', '.join(texts[:3])}, ... {texts[-1]} ({len(texts)} values)"
    )
