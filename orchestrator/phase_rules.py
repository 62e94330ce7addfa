"""The rules of `phases:`, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from orchestrator.axes_spec import SEED
from orchestrator.errors import QueryError, SweepError
from orchestrator.expression import EXAMPLES, expression_faults
from orchestrator.section import Fault
from orchestrator.sweep_file import read_top_level
from orchestrator.yaml_file import read_yaml

if TYPE_CHECKING:
    from orchestrator.run import Run
    from orchestrator.sweep import Sweep

OTHER = "other"
"""The phase of trials that no rule matches."""
MAX_PHASES = 12
"""So many colours can be told apart."""

Rules = Mapping[str, str]
"""Phase -> condition in SQL; the first that is true counts."""


def phase_faults(sweep: Sweep, rules: Rules, metrics: Iterable[str] | None) -> list[Fault]:
    """What is wrong with these rules for this sweep. `metrics`: all that its trials report; None if that is not
    known before they do."""
    if not rules:
        return []
    faults = _stop_faults(sweep)
    if OTHER in rules:
        faults.append(
            Fault(("phases", OTHER), "is what trials are called that no rule matches", "another name")
        )
    if len(rules) > MAX_PHASES:
        faults.append(Fault(("phases",), f"{len(rules)} phases cannot be told apart", f"up to {MAX_PHASES}"))
    for name, condition in rules.items():
        if not name.strip() or not name.isprintable():
            faults.append(Fault(("phases", name), "is no name", "text in one line"))
        columns = None if metrics is None else rule_columns(sweep, metrics)
        unknown = "{name} is no metric of this task, and no axis"
        faults += expression_faults(("phases", name), condition, "condition", columns, unknown)
    return faults


def rule_columns(sweep: Sweep, metrics: Iterable[str]) -> dict[str, Any]:
    """What a rule may use: metrics, and axes but the seed. A metric hides an axis of its name."""
    axes = {name: dtype for name, dtype in sweep.axis_dtypes.items() if name != SEED}
    measured = dict.fromkeys(metrics, pl.Float64())
    return {**measured, **{name: dtype for name, dtype in axes.items() if name not in measured}}


def _stop_faults(sweep: Sweep) -> list[Fault]:
    """Trials that end once they are solved show no later phase, neither at the last nor at the best step, and at
    a given one only those are left that have not solved."""
    if sweep.stop == "never" or sweep.solved is None:
        return []
    message = (
        "needs stop: never. With stop: solved a trial ends once it is solved, so that its last step, its best "
        "one and any later one say nothing of what it would have become"
    )
    return [Fault(("phases",), message)]


def checked_rules(run: Run, sweep_file: Path | str | None = None) -> Rules:
    """The rules for the trials of a run: those it was launched with last, or those of a sweep file, of which only
    `phases` is looked at. Checked with what the trials report. Raises SweepError; QueryError if there are none.
    """
    document = run.sweep.document if sweep_file is None else read_yaml(sweep_file)
    file, _, faults = read_top_level(document.data, is_free=run.sweep.is_function)
    rules = file.phases or {}
    wrong = [fault for fault in faults if fault.path[:1] == ("phases",)]
    wrong = wrong or phase_faults(run.sweep, rules, run.metrics)
    if wrong:
        raise SweepError([document.mistake(f.path, f.message, f.allowed, f.nearest) for f in wrong])
    if not rules:
        raise QueryError(
            f"{document.file}: has no rules, such as `phases: {{memorised: {EXAMPLES['condition']}}}`"
        )
    return rules
