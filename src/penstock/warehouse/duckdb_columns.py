"""The columns of a dataset's tables in DuckDB: made, added and widened, in a transaction of the caller's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import duckdb

from penstock.warehouse.base import LOADED_AT, OBJECT, REJECTED_SUFFIX, RESCUED, ROW
from penstock.warehouse.duckdb_tables import described, has_table, quoted
from penstock.warehouse.widening import TEXT, nested, widening


def prepare(
    connection: duckdb.DuckDBPyConnection,
    dataset: str,
    schema_columns: Sequence[tuple[str, str]],
    originals: Mapping[str, str],
) -> dict[str, str]:
    """Make the dataset's tables what the schema needs; returns name and type of the columns of its table."""
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
            changed |= _widen(connection, table, quoted(name), there, kind)
    return described(connection, dataset) if changed else columns


def _widen(connection: duckdb.DuckDBPyConnection, table: str, column: str, there: str, wanted: str) -> bool:
    found = widening(there, wanted)
    if found is None:
        return False
    kind = found.kind
    if found.within is not None:
        beyond = f"SELECT 1 FROM {table} WHERE {column} NOT BETWEEN -{found.within} AND {found.within} LIMIT 1"
        kind = TEXT if connection.execute(beyond).fetchone() else kind
    value = f"to_json({column})" if kind == TEXT and nested(there) else column
    connection.execute(f"ALTER TABLE {table} ALTER COLUMN {column} SET DATA TYPE {kind} USING CAST({value} AS {kind})")
    return True


def _comment(
    connection: duckdb.DuckDBPyConnection, table: str, names: Sequence[str], originals: Mapping[str, str]
) -> None:
    for name in names:
        original = originals.get(name, name)
        if original != name:
            text = original.replace("'", "''")
            connection.execute(f"COMMENT ON COLUMN {table}.{quoted(name)} IS '{text}'")
