"""SQL expressions that a sweep file holds, and what is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import polars as pl

from orchestrator.errors import KeyPath
from orchestrator.section import Fault, nearest

Kind = Literal["condition", "number"]

EXAMPLES: Mapping[Kind, str] = {
    "condition": "train_accuracy >= 0.99 AND test_accuracy < 0.5",
    "number": "log2(k) + 1",
}
_OTHER_ROWS = ("Agg", "Len", "Over", "Window", "Explode", "SubPlan", "Correlation", "Quantile")
"""Nodes of polars' expressions that look at more than the row at hand."""


def expression_faults(
    path: KeyPath, text: str, kind: Kind, columns: Mapping[str, Any] | None, unknown: str
) -> list[Fault]:
    """What is wrong with one expression; it may be of use for each row by itself only.

    `columns`: names and types of what it may use; None if they are not known yet. `unknown`: what is said of
    any other name, with `{name}` in it.
    """
    try:
        expression = pl.sql_expr(text)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        return [Fault(path, f"not a {kind}: {_first_line(error)}", _allowed(kind, columns))]
    if expression.meta.has_multiple_outputs():
        return [Fault(path, f"not a {kind}: it is several", EXAMPLES[kind])]
    if _looks_elsewhere(json.loads(expression.meta.serialize(format="json"))):
        return [Fault(path, f"not a {kind} of one {_ROWS[kind]}: it looks at others", EXAMPLES[kind])]
    if columns is None:
        return []
    strangers = [name for name in names_in(text) if name not in columns]
    return [
        Fault(path, unknown.format(name=repr(name)), column_list(columns), nearest(name, columns))
        for name in strangers
    ] or _type_faults(path, expression, kind, columns)


_ROWS: Mapping[Kind, str] = {"condition": "trial", "number": "cell"}


def _type_faults(path: KeyPath, expression: pl.Expr, kind: Kind, columns: Mapping[str, Any]) -> list[Fault]:
    try:
        dtype = pl.DataFrame(schema=columns).select(expression).to_series().dtype
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        return [Fault(path, f"not a {kind}: {_first_line(error)}", _allowed(kind, columns))]
    if kind == "condition" and dtype != pl.Boolean:
        return [Fault(path, "not a condition: it is not true or false for each trial", EXAMPLES[kind])]
    if kind == "number" and not dtype.is_numeric():
        return [Fault(path, "not a number: it has another type", EXAMPLES[kind])]
    return []


def names_in(text: str) -> list[str]:
    """The columns that an expression uses, each once, in order."""
    return list(dict.fromkeys(pl.sql_expr(text).meta.root_names()))


def column_list(names: Iterable[str]) -> str:
    """Names as SQL has them, with commas."""
    return ", ".join(name if name.isidentifier() else f'"{name}"' for name in names)


def _allowed(kind: Kind, columns: Mapping[str, Any] | None) -> str:
    return EXAMPLES[kind] if columns is None else f"SQL over {column_list(columns)}"


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0]


def _looks_elsewhere(node: Any) -> bool:
    """Whether a polars expression, as JSON, has a node that is no function of its row; names and values of
    the author's are not looked at."""
    if isinstance(node, dict):
        return any(
            key in _OTHER_ROWS or (key not in ("Column", "Literal") and _looks_elsewhere(value))
            for key, value in node.items()
        )
    if isinstance(node, list):
        return any(_looks_elsewhere(item) for item in node)
    return node in _OTHER_ROWS
