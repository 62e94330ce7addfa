"""The profile of a SLURM site, as YAML: the whole of it, or every mistake in it at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any

from cluster.profile import Profile
from orchestrator.errors import KeyPath, SweepError
from orchestrator.section import Fault, check
from orchestrator.yaml_file import MAX_INT, read_yaml

_JOBS: Mapping[str, Mapping[str, Any]] = {
    "worker": {"time_limit_min": MAX_INT, "max": MAX_INT},
    "driver": {},
}
"""Where jobs are described, and values of their required keys that are never at fault."""


def load_profile(path: Path | str) -> Profile:
    """The profile of a file. Raises SweepError. Keys at the top with nothing behind them are as if left out."""
    document = read_yaml(path)
    data = {key: value for key, value in document.data.items() if value is not None}
    profile, _ = check(Profile, data)
    if profile is None:
        raise SweepError([document.mistake(f.path, f.message, f.allowed, f.nearest) for f in _faults(data)])
    assert isinstance(profile, Profile)
    return profile


def _faults(data: Mapping[str, Any]) -> list[Fault]:
    """All of them. A dataclass checks its values against each other only when each one alone is right, so what
    is at fault is taken away until nothing more comes up.
    """
    found: dict[KeyPath, Fault] = {}
    while new := [fault for fault in check(Profile, data)[1] if fault.path not in found]:
        found |= {fault.path: fault for fault in new}
        data = _sound(data, new)
    return list(found.values())


def _sound(data: Mapping[str, Any], faults: Iterable[Fault]) -> dict[str, Any]:
    """The data without the values at fault, required ones replaced."""
    kept = _without(data, {fault.path for fault in faults}, ())
    return {**kept, **{kind: {**required, **kept.get(kind, {})} for kind, required in _JOBS.items()}}


def _without(value: Any, paths: Set[KeyPath], here: KeyPath) -> Any:
    """The value without what stands at the paths; a list keeps its length."""
    if isinstance(value, list):
        return ["" if (*here, i) in paths else item for i, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    return {k: _without(v, paths, (*here, k)) for k, v in value.items() if (*here, k) not in paths}
