"""Rows on the terminal or in a file."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import polars as pl

from orchestrator.errors import QueryError
from orchestrator.publish import replace


def write_rows(rows: pl.DataFrame, form: str, out: Path | None) -> None:
    """Print rows as `table`, `csv`, `json` or `parquet`, or write them to `out` (whole or not at all)."""
    content = render(rows, form)
    if out is not None:
        replace(out, content)
    elif form == "parquet" and sys.stdout.isatty():
        raise QueryError("parquet is no text: say where to put it with -o FILE")
    else:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()


def render(rows: pl.DataFrame, form: str) -> bytes:
    """The rows as bytes of that form; text ends with a line break."""
    if form == "table":
        return f"{_table(rows)}\n".encode()
    if form == "csv":
        return rows.write_csv().encode()
    if form == "json":
        return (rows.write_json() + "\n").encode()
    buffer = io.BytesIO()
    rows.write_parquet(buffer)
    return buffer.getvalue()


def _table(rows: pl.DataFrame) -> str:
    """For eyes: six digits, nothing cut off, a dash for what is missing."""
    floats = [name for name, dtype in rows.schema.items() if dtype.is_float()]
    short = rows.with_columns(
        pl.Series(name, [None if value is None else f"{value:.6g}" for value in rows[name]], pl.String)
        for name in floats
    )
    whole = (
        short.with_columns(pl.all().cast(pl.String, strict=False).fill_null("-"))
        if _is_flat(short)
        else short
    )
    with pl.Config(
        tbl_rows=-1,
        tbl_cols=-1,
        tbl_width_chars=10_000,
        fmt_str_lengths=10_000,
        tbl_hide_column_data_types=True,
        tbl_hide_dataframe_shape=True,
        tbl_formatting="UTF8_BORDERS_ONLY",
    ):
        return str(whole)


def _is_flat(rows: pl.DataFrame) -> bool:
    return not any(dtype.is_nested() for dtype in rows.dtypes)
