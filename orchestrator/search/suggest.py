"""Which settings to try next: an even spread first, then what Optuna's TPE makes of the trials before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from orchestrator.tuned_spec import TunedField

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FIRST = 6
"""Trials of the first round, with up to two settings to tune; two more with each further one."""
LATER = 2
"""Trials of a later round, at least; a third of those before it, if that is more."""

Values = dict[str, Any]
"""A value for each setting, by name."""


def rounds(n_fields: int, trials: int) -> Iterator[range]:
    """The numbers of the trials of each round. More trials only continue them: what a round holds, and in which
    order, never depends on `trials`."""
    start, size = 0, _first(n_fields)
    while start < trials:
        yield range(start, min(start + size, trials))
        start += size
        size = max(LATER, start // 3)


def _first(n_fields: int) -> int:
    return FIRST + 2 * max(0, n_fields - 2)


def suggest(
    fields: Sequence[TunedField], key: str, which: range, earlier: Sequence[tuple[Values, int]]
) -> list[Values]:
    """The settings of a round. `earlier`: those of all rounds before, in a fixed order, with their ranks (0 is
    best, ties share one). A pure function; `key` is what its random numbers come from."""
    if which.start == 0:
        return _spread(fields, key)[: which.stop]
    return _tpe(fields, f"{key} {which.start}", len(which), earlier)


def _spread(fields: Sequence[TunedField], key: str) -> list[Values]:
    """A Latin hypercube: each range in as many strata as there are trials, each stratum once."""
    n = _first(len(fields))
    strata = {f.name: sorted(range(n), key=lambda i, f=f: _hash(f"{key} {f.name} {i}")) for f in fields}  # type: ignore[misc]
    return [{f.name: f.value((strata[f.name][i] + 0.5) / n) for f in fields} for i in range(n)]


def _tpe(
    fields: Sequence[TunedField], key: str, n: int, earlier: Sequence[tuple[Values, int]]
) -> list[Values]:
    """Ranges are told to Optuna as places from 0 to 1, lists as choices; only the order of ranks counts there."""
    import optuna

    distributions = {f.name: _distribution(f) for f in fields}
    with _silent():
        sampler = optuna.samplers.TPESampler(seed=_hash(key) % 2**32, n_startup_trials=1, constant_liar=True)
        study = optuna.create_study(sampler=sampler)
        for values, rank in earlier:
            places = {f.name: _place(f, values[f.name]) for f in fields}
            study.add_trial(optuna.trial.create_trial(params=places, distributions=distributions, value=rank))
        asked = [study.ask(distributions).params for _ in range(n)]
    return [{f.name: _value(f, params[f.name]) for f in fields} for params in asked]


def _distribution(field: TunedField) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if field.scale is None:
        return CategoricalDistribution(range(len(field.values)))
    return FloatDistribution(0.0, 1.0)


def _place(field: TunedField, value: Any) -> float:
    unit = field.unit(value)
    return int(unit * len(field.values)) if field.scale is None else unit


def _value(field: TunedField, place: float) -> Any:
    return field.values[int(place)] if field.scale is None else field.value(place)


@contextmanager
def _silent() -> Iterator[None]:
    """Optuna tells of every study it makes; its verbosity is the process', so it is put back."""
    from optuna import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.WARNING)
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _hash(text: str) -> int:
    """The same in any process."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
