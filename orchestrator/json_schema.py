"""The JSON Schema of a sweep file, for editors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from orchestrator.sweep_file import SweepFile

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_INFINITY = {"enum": ["inf", "-inf"], "description": "Infinity, as the sweep file spells it."}


def sweep_schema(sections: Mapping[str, type], tasks: Mapping[str, type]) -> dict[str, Any]:
    """The schema of a sweep of the transformer, with its sections; other trainers' sections are free.

    `sections`: as they are where no task is named; `tasks`: the task section for each name.
    """
    schema = SweepFile.model_json_schema()
    schema.pop("additionalProperties")
    definitions = schema.setdefault("$defs", {})
    anything: dict[str, Any] = dict.fromkeys(schema["properties"], True)
    typed = {}
    for kind in (*sections.values(), *tasks.values()):
        part = TypeAdapter(kind).json_schema(ref_template="#/$defs/{model}")
        definitions |= {key: _section(value) for key, value in part.pop("$defs", {}).items()}
        definitions[kind.__name__] = _section(part)
    for name, kind in sections.items():
        typed[name] = _reference(kind) if name != "task" else _by_name(kind, tasks)
    is_transformer = {"properties": {"trainer": {"const": "transformer"}}}
    return {
        "$schema": _DIALECT,
        **_with_infinity(schema),
        "if": is_transformer,
        "then": {"properties": anything | typed, "additionalProperties": False},
        "else": {"properties": anything, "additionalProperties": {"type": "object"}},
    }


def _reference(kind: type) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{kind.__name__}"}


def _by_name(unnamed: type, tasks: Mapping[str, type]) -> dict[str, Any]:
    """The section of the task that `name` says."""
    choices = [
        {
            "if": {"required": ["name"], "properties": {"name": {"const": name}}},
            "then": _reference(kind),
        }
        for name, kind in tasks.items()
    ]
    without = {"if": {"not": {"required": ["name"]}}, "then": _reference(unnamed)}
    return {"type": "object", "properties": {"name": {"enum": list(tasks)}}, "allOf": [*choices, without]}


def _section(schema: dict[str, Any]) -> dict[str, Any]:
    """A section's schema: no key beside its fields; none is required, since an axis may set it."""
    schema = {key: value for key, value in schema.items() if key != "required"}
    return {**schema, "additionalProperties": False} if "properties" in schema else schema


def _with_infinity(schema: Any) -> Any:
    """Numbers may be `inf`, which JSON has no number for; infinite defaults are left out."""
    if isinstance(schema, list):
        return [_with_infinity(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: _with_infinity(item) for key, item in schema.items() if not _is_infinite(key, item)}
    if inner.get("type") != "number":
        return inner
    number = {
        key: inner.pop(key) for key in list(inner) if key == "type" or key.endswith(("imum", "Minimum"))
    }
    return {**inner, "anyOf": [number, _INFINITY]}


def _is_infinite(key: str, value: object) -> bool:
    return key == "default" and isinstance(value, float) and math.isinf(value)
