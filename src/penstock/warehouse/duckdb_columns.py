"""The columns of a dataset's tables in DuckDB: made, added and widened, in a transaction of the caller's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import duckdb

from penstock.quoting import quoted
from penstock.warehouse.base import LOADED_AT, OBJECT, REJECTED_SUFFIX, RESCUED, ROW, LoadPart, Write
from penstock.warehouse.duckdb_tables import described, has_table
from penstock.warehouse.merging import refuse_texts
from penstock.warehouse.rows import beyond
from penstock.widening import JSON, TEXT, bound, nested, widening


def prepare(
    connection: duckdb.DuckDBPyConnection,
    dataset: str,
    schema_columns: Sequence[tuple[str, str]],
    originals: Mapping[str, str],
    parts: Sequence[LoadPart],
    write: Write,
) -> dict[str, str]:
    """Make the dataset's tables what the parts need; returns name and type of the columns of its table.

    Raises DoesNotFit where a column by which rows are merged would be compared otherwise.
    """
    table, rejected = quoted(dataset), quoted(dataset + REJECTED_SUFFIX)
    made = not has_table(connection, dataset)
    if made:
        own = "".join(f"{quoted(name)} {kind}, " for name, kind in schema_columns)
        connection.execute(
            f"CREATE TABLE {table} ({own}{OBJECT} VARCHAR, {ROW} BIGINT, {LOADED_AT} TIMESTAMPTZ, {RESCUED} VARCHAR)"
        )
        _comment(connection, table, [name for name, _ in schema_columns], originals)
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {rejected} ({OBJECT} VARCHAR, {ROW} BIGINT, line BIGINT, reason VARCHAR, "
        f"raw VARCHAR, {LOADED_AT} TIMESTAMPTZ, column_name VARCHAR, check_name VARCHAR)"
    )
    if "check_name" not in described(connection, dataset + REJECTED_SUFFIX):
        for name in ("column_name", "check_name"):
            connection.execute(f"ALTER TABLE {rejected} ADD COLUMN IF NOT EXISTS {name} VARCHAR")
    columns = described(connection, dataset)
    if made:
        return columns
    types = {name.lower(): kind for name, kind in columns.items()}
    changed = False
    for name, kind in schema_columns:
        there = types.get(name.lower())
        if there is None:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {quoted(name)} {kind}")
            _comment(connection, table, [name], originals)
            changed = True
        else:
            changed |= _widen(connection, dataset, name, there, kind, parts, write)
    return described(connection, dataset) if changed else columns


def _widen(
    connection: duckdb.DuckDBPyConnection,
    dataset: str,
    name: str,
    there: str,
    wanted: str,
    parts: Sequence[LoadPart],
    write: Write,
) -> bool:
    table, column = quoted(dataset), quoted(name)
    found = widening(there, wanted)
    kind = found.kind if found is not None else there
    if found is not None and found.within is not None:
        outside = f"SELECT 1 FROM {table} WHERE {column} NOT BETWEEN -{found.within} AND {found.within} LIMIT 1"
        kind = TEXT if connection.execute(outside).fetchone() else kind
    if beyond([part.rows for part in parts], name, bound(kind, wanted)):
        kind = TEXT
    refuse_texts(dataset, write, name, there, wanted, kind)
    if kind == there:
        return False
    value = f"to_json({column})" if kind in (TEXT, JSON) and nested(there) else column
    connection.execute(f"ALTER TABLE {table} ALTER COLUMN {column} SET DATA TYPE {kind} USING CAST({value} AS {kind})")
    return True


def _comment(
    connection: duckdb.DuckDBPyConnection, table: str, names: Sequence[str], originals: Mapping[str, str]
) -> None:
    for name in names:
        original = originals.get(name, name)
        if original != name:
            text = original.replace("\0", "\ufffd").replace("'", "''")
            connection.execute(f"COMMENT ON COLUMN {table}.{quoted(name)} IS '{text}'")
