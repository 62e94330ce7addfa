"""What a launch would do: wanted trials minus stored trials, in packs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from cluster.base import Demand, Places
from orchestrator.pack import make_packs
from orchestrator.store import Store
from orchestrator.sweep import Plan, Sweep
from orchestrator.trial import Trial

CPU_PACK_SIZE = 16
GPU_PACK_SIZE = 512
FUNCTION_PACK_SIZE = 64
PACKS_PER_PLACE = 4
"""At least so many for each pack that runs at once, where there are trials enough."""


@dataclass(frozen=True)
class Packing:
    """How a sweep's trials are put into packs on some cluster."""

    demand: Demand
    """What one pack takes."""
    size: int
    """How many trials it queues at most."""


def packing(sweep: Sweep, cluster: Places) -> Packing:
    """Enough packs for the cluster's places to share a small sweep. Counted from all wanted trials, so that a
    restart makes the same packs. Raises ClusterError if the cluster has no place for a pack."""
    gpus = sweep.pack.gpus if sweep.pack.gpus is not None else float(cluster.has_gpus)
    demand = Demand(sweep.pack.cpus, gpus)
    places = max(1, cluster.places(demand))
    if sweep.pack.size is not None:
        return Packing(demand, sweep.pack.size)
    largest = FUNCTION_PACK_SIZE if not sweep.trainer.fuses else GPU_PACK_SIZE if gpus else CPU_PACK_SIZE
    shared = len(sweep.plan().trials) // (PACKS_PER_PLACE * places)
    return Packing(demand, max(1, min(largest, shared)))


@dataclass(frozen=True)
class Reconciliation:
    """What a launch would do."""

    plan: Plan
    statuses: dict[str, str]
    """Of the wanted trials that are stored, by id."""
    pack_size: int
    n_packs: int

    @property
    def to_run(self) -> list[Trial]:
        return [trial for trial in self.plan.trials if trial.trial_id not in self.statuses]


def reconcile(sweep: Sweep, run_dir: Path, cluster: Places, *, retry_failed: bool = False) -> Reconciliation:
    """Compare what the sweep wants with what its run directory holds (which need not exist)."""
    plan = sweep.plan()
    stored = Store(run_dir).statuses() if run_dir.is_dir() else {}
    if retry_failed:
        stored = {trial_id: status for trial_id, status in stored.items() if status != "failed"}
    statuses = {t.trial_id: stored[t.trial_id] for t in plan.trials if t.trial_id in stored}
    to_run = [trial for trial in plan.trials if trial.trial_id not in statuses]
    size = packing(sweep, cluster).size
    packs = make_packs(to_run, lambda trial: sweep.trainer.shape(trial.config), size)
    return Reconciliation(plan, statuses, size, len(packs))


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
    packs = f"{found.n_packs} pack{'' if found.n_packs == 1 else 's'} of at most {found.pack_size}"
    lines.append(f"to run   {len(found.to_run)} trials in {packs}")
    budget = sum(
        trial.config.get("train", {}).get("steps", 0) for trial in found.to_run if not sweep.is_function
    )
    if budget:
        lines.append(f"         at most {budget:,} trial-steps")
    return "\n".join(lines)


def _values(values: tuple[object, ...]) -> str:
    texts = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    return (
        ", ".join(texts)
        if len(texts) <= 8
        else f"{', '.join(texts[:3])}, ... {texts[-1]} ({len(texts)} values)"
    )
