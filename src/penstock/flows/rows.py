"""What a flow may give as rows, and as bytes: as a Parquet file, or as an Arrow table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pa_parquet

from penstock.errors import PenstockError

# Penstock's own columns, which rows that were read from the warehouse may have.
_OWN = "_penstock_"


def as_table(rows: Any) -> pa.Table:
    """A table of: a pyarrow.Table, a DataFrame of pandas or polars, or a list of dicts. Raises PenstockError."""
    if isinstance(rows, pa.Table):
        return rows
    try:
        if type(rows).__module__.partition(".")[0] == "pandas":
            return _plain(pa.Table.from_pandas(rows, preserve_index=False))
        if hasattr(rows, "__arrow_c_stream__"):
            return _plain(pa.table(rows))
        if isinstance(rows, Sequence) and not isinstance(rows, str | bytes):
            return _of_dicts(rows)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise PenstockError(f"these rows make no table: {type(error).__name__}: {error}"[:300]) from error
    raise PenstockError(f"rows are a pyarrow.Table, a DataFrame, or a list of dicts, and not {type(rows).__qualname__}")


def _of_dicts(rows: Sequence[Any]) -> pa.Table:
    for row in rows:
        if not isinstance(row, dict):
            raise PenstockError(f"rows are a list of dicts, and this one holds {type(row).__qualname__}")
    # Arrow goes by the first row alone.
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: [row.get(name) for row in rows] for name in names})


def _plain(table: pa.Table) -> pa.Table:
    """Texts as texts: every library has a layout of its own for them, which do not go together."""
    for place, field in enumerate(table.schema):
        column = table.column(place)
        if pa.types.is_dictionary(field.type):
            chunks = [_text(chunk.dictionary).take(chunk.indices) for chunk in column.chunks]
            column = pa.chunked_array(chunks) if chunks else _text(pa.array([], field.type.value_type))
        table = table.set_column(place, field.name, _text(column))
    return table.replace_schema_metadata(None)


def _text(column: Any) -> Any:
    if pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        return column.cast(pa.string())
    return column


def put_together(tables: Sequence[pa.Table]) -> pa.Table:
    """One table of all their rows, without penstock's own columns. Raises PenstockError."""
    try:
        found = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise PenstockError(f"the rows of several load(…) do not fit together: {error}"[:300]) from error
    found = found.select([name for name in found.column_names if not name.startswith(_OWN)])
    # A column of nothing but None has no type: the table's would become text by it. Left out it is as empty.
    typed = [field.name for field in found.schema if not pa.types.is_null(field.type)]
    return found.select(typed) if typed else found


def write_parquet(rows: pa.Table, path: Path) -> None:
    """The rows as a file. Raises PenstockError for a type that has no place in a table."""
    try:
        pa_parquet.write_table(rows, path, compression="zstd")
    except (pa.ArrowException, ValueError) as error:
        raise PenstockError(f"these rows cannot be written: {error}"[:300]) from error
