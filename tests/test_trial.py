"""Trials and their identity."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.trial import Trial, canonical_json

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.sampled_from(["Infinity", "-Infinity", "'Infinity", "1", "null"])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
CONFIG = {"b": 1, "a": {"y": math.inf, "x": [1.0, 0.5, None, True, "é"]}}


def _reversed_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _reversed_keys(item) for key, item in reversed(value.items())}
    return [_reversed_keys(item) for item in value] if isinstance(value, list) else value


def _as_floats(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_floats(item) for item in value]
    return float(value) if type(value) is int and abs(value) <= 2**53 else value


def _distinct(value: Any) -> Any:
    """A form that is equal exactly for equal configs: Python's == takes True for 1."""
    if isinstance(value, dict):
        return ("mapping", frozenset((key, _distinct(item)) for key, item in value.items()))
    if isinstance(value, list):
        return ("list", *map(_distinct, value))
    return (isinstance(value, bool), value)


def test_canonical_json_is_sorted_dense_and_writes_whole_floats_as_integers() -> None:
    """Canonical JSON is one exact text."""
    assert '{"a":{"x":[1,0.5,null,true,"\\u00e9"],"y":"Infinity"},"b":1}' == canonical_json(CONFIG)


def test_the_id_is_the_first_20_digits_of_the_hash_of_the_config() -> None:
    """The id of a given config never changes, in no version of this project."""
    assert "cfae9e4dfb57df82ee21" == Trial(CONFIG).trial_id


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_key_order_and_number_type_do_not_change_the_id(value: Any) -> None:
    """Equal configs have equal ids: key order and 1 against 1.0 do not matter."""
    assert Trial({"v": value}).trial_id == Trial({"v": _as_floats(_reversed_keys(value))}).trial_id


@settings(max_examples=500, deadline=None)
@given(VALUES, VALUES)
def test_different_values_have_different_ids(a: Any, b: Any) -> None:
    """Any changed value changes the id, and canonical JSON is JSON for every value."""
    assert (_distinct(a) == _distinct(b)) == (canonical_json(a) == canonical_json(b))
    json.loads(canonical_json(a), parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("a", "b"), [(math.inf, "Infinity"), (-math.inf, math.inf), (True, 1), (0, False), ("1", 1), ([], {})]
)
def test_look_alikes_differ(a: object, b: object) -> None:
    """Infinity is no text, true is no number, a list is no mapping."""
    assert canonical_json(a) != canonical_json(b)


def test_minus_zero_is_zero() -> None:
    """-0.0 and 0 are the same value."""
    assert "0" == canonical_json(-0.0)


@pytest.mark.parametrize("seed", ["0", "1", "random"])
def test_another_process_gives_the_same_id(seed: str) -> None:
    """The id does not depend on the process or its hash seed."""
    code = f"from math import inf; from orchestrator.trial import Trial; print(Trial({CONFIG!r}).trial_id)"
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert Trial(CONFIG).trial_id == done.stdout.strip()


def test_nan_is_refused() -> None:
    """NaN equals nothing, so it has no identity."""
    with pytest.raises(ValueError, match="a config cannot hold NaN: it equals nothing, not even itself"):
        canonical_json({"a": [math.nan]})


@pytest.mark.parametrize("value", [{1: 2}, {"a": {1, 2}}, {"a": b"x"}, object()])
def test_what_is_no_json_is_refused(value: object) -> None:
    """Only JSON values have an identity."""
    with pytest.raises(TypeError):
        canonical_json(value)


def test_the_axes_are_no_part_of_the_identity() -> None:
    """A sweep that gains an axis finds its old trials again."""
    assert Trial(CONFIG).trial_id == Trial(CONFIG, {"k": 2}).trial_id
