"""What the DuckDB warehouse does with its tables, on a connection in a transaction of the caller's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

import duckdb
import pyarrow as pa

from penstock.errors import LeaseLost
from penstock.warehouse.base import (
    FENCES,
    LOADED_AT,
    MARKERS,
    OBJECT,
    REJECTED_SUFFIX,
    REPLACED,
    RESCUED,
    ROW,
    LoadPart,
)
from penstock.warehouse.rows import together

_NAMES = "(SELECT name FROM named)"

OWN_TABLES = f"""
CREATE TABLE IF NOT EXISTS {FENCES} (dataset VARCHAR, token BIGINT);
CREATE TABLE IF NOT EXISTS {MARKERS} (object VARCHAR, dataset VARCHAR, rows BIGINT, rejected BIGINT, token BIGINT,
    run VARCHAR, loaded_at TIMESTAMPTZ);
CREATE TABLE IF NOT EXISTS {REPLACED} (object VARCHAR, dataset VARCHAR, by_object VARCHAR);
"""


def take_token(connection: duckdb.DuckDBPyConnection, dataset: str, token: int) -> None:
    """Be the holder of `token` for the dataset. Raises LeaseLost when a greater one is there."""
    row = connection.execute(f"SELECT max(token) FROM {FENCES} WHERE dataset = ?", [dataset]).fetchone()
    there = row[0] if row else None
    if there is not None and there > token:
        raise LeaseLost(
            f"dataset {dataset}: token {there} is in the warehouse, this run holds {token}; it writes nothing",
            greater=there,
        )
    if there != token:
        connection.execute(f"DELETE FROM {FENCES} WHERE dataset = ?", [dataset])
        connection.execute(f"INSERT INTO {FENCES} VALUES (?, ?)", [dataset, token])


def markers(connection: duckdb.DuckDBPyConnection, names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Rows and rejected rows of those of `names` that have a marker."""
    if not has_table(connection, MARKERS):
        return {}
    with _registered(connection, names):
        found = connection.execute(f"SELECT object, rows, rejected FROM {MARKERS} WHERE object IN {_NAMES}").fetchall()
    return {row[0]: (row[1], row[2]) for row in found}


def has_table(connection: duckdb.DuckDBPyConnection, name: str) -> bool:
    """Whether the warehouse has a table of this name."""
    sql = (
        "SELECT 1 FROM duckdb_tables() WHERE table_name = ? AND schema_name = 'main' "
        "AND database_name = current_database()"
    )
    return connection.execute(sql, [name]).fetchone() is not None


def prepare(connection: duckdb.DuckDBPyConnection, dataset: str, schema_columns: Sequence[tuple[str, str]]) -> None:
    """Make the dataset's tables what the schema needs."""
    table, rejected = quoted(dataset), quoted(dataset + REJECTED_SUFFIX)
    if not has_table(connection, dataset):
        own = "".join(f"{quoted(name)} {kind}, " for name, kind in schema_columns)
        connection.execute(
            f"CREATE TABLE {table} ({own}{OBJECT} VARCHAR, {ROW} BIGINT, {LOADED_AT} TIMESTAMPTZ, {RESCUED} VARCHAR)"
        )
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {rejected} ({OBJECT} VARCHAR, {ROW} BIGINT, line BIGINT, reason VARCHAR, "
        f"raw VARCHAR, {LOADED_AT} TIMESTAMPTZ)"
    )
    there = dict(
        connection.execute(
            "SELECT lower(column_name), data_type FROM duckdb_columns() WHERE table_name = ? AND schema_name = 'main' "
            "AND database_name = current_database()",
            [dataset],
        ).fetchall()
    )
    for name, kind in schema_columns:
        if name.lower() not in there:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {quoted(name)} {kind}")
        elif there[name.lower()] == "BIGINT" and kind.upper() == "DOUBLE":
            connection.execute(f"ALTER TABLE {table} ALTER COLUMN {quoted(name)} SET DATA TYPE DOUBLE")


def replaced(connection: duckdb.DuckDBPyConnection, names: Sequence[str]) -> set[str]:
    """Those of `names` that a newer generation replaced."""
    with _registered(connection, names):
        return {
            row[0] for row in connection.execute(f"SELECT object FROM {REPLACED} WHERE object IN {_NAMES}").fetchall()
        }


def damaged(connection: duckdb.DuckDBPyConnection, dataset: str) -> list[str]:
    """Objects whose rows are not as many as their marker says, sorted."""
    found: set[str] = set()
    if not has_table(connection, MARKERS):
        return []
    for table, column in ((dataset, "rows"), (dataset + REJECTED_SUFFIX, "rejected")):
        there = quoted(table) if has_table(connection, table) else f"(SELECT NULL::VARCHAR AS {OBJECT} LIMIT 0)"
        totals = connection.execute(
            f"SELECT (SELECT count(*) FROM {there}), "
            f"(SELECT coalesce(sum({column}), 0) FROM {MARKERS} WHERE dataset = ?)",
            [dataset],
        ).fetchone()
        if totals is not None and totals[0] == totals[1]:
            continue
        sql = (
            f"SELECT coalesce(m.object, t.{OBJECT}) FROM (SELECT object, sum({column}) AS n FROM {MARKERS} "
            f"WHERE dataset = ? GROUP BY 1) m FULL JOIN (SELECT {OBJECT}, count(*) AS n FROM {there} GROUP BY 1) t "
            f"ON m.object = t.{OBJECT} WHERE coalesce(m.n, 0) <> coalesce(t.n, 0)"
        )
        found.update(row[0] for row in connection.execute(sql, [dataset]).fetchall())
    return sorted(found)


def replace(connection: duckdb.DuckDBPyConnection, dataset: str, part: LoadPart) -> None:
    """Take out what the part replaces, and remember it."""
    if not part.replaces:
        return
    names = list(part.replaces)
    remove(connection, dataset, names)
    with _registered(connection, names):
        connection.execute(f"INSERT INTO {REPLACED} SELECT name, ?, ? FROM named", [dataset, part.ref.name])


def remove(connection: duckdb.DuckDBPyConnection, dataset: str, names: Sequence[str]) -> None:
    """Take out the rows, rejected rows and markers of objects."""
    if not names:
        return
    with _registered(connection, names):
        for table, column in ((dataset, OBJECT), (dataset + REJECTED_SUFFIX, OBJECT), (MARKERS, "object")):
            connection.execute(f"DELETE FROM {quoted(table)} WHERE {column} IN {_NAMES}")


@contextmanager
def _registered(connection: duckdb.DuckDBPyConnection, names: Sequence[str]) -> Iterator[None]:
    # As a parameter each of the names costs DuckDB half a millisecond, since it looks for numpy every time.
    connection.register("named", pa.table({"name": pa.array(names, pa.string())}))
    try:
        yield
    finally:
        connection.unregister("named")


def insert(
    connection: duckdb.DuckDBPyConnection,
    dataset: str,
    schema_columns: Sequence[tuple[str, str]],
    parts: Sequence[LoadPart],
    now: datetime,
) -> None:
    """Add the parts' rows and rejected rows."""
    wanted = [name for name, _ in schema_columns]
    rows = together(parts, [part.rows for part in parts])
    if rows.num_rows:
        connection.register("arriving", rows)
        there = [name for name in wanted if name in rows.column_names]
        connection.execute(
            f"INSERT INTO {quoted(dataset)} BY NAME SELECT {''.join(quoted(name) + ', ' for name in there)}"
            f"{OBJECT}, {ROW}, CAST(? AS TIMESTAMPTZ) AS {LOADED_AT}, {RESCUED} FROM arriving",
            [now],
        )
        connection.unregister("arriving")
    rejected = together(parts, [part.rejected for part in parts])
    if rejected.num_rows:
        connection.register("arriving", rejected)
        connection.execute(
            f"INSERT INTO {quoted(dataset + REJECTED_SUFFIX)} BY NAME "
            f"SELECT {OBJECT}, {ROW}, line, reason, raw, CAST(? AS TIMESTAMPTZ) AS {LOADED_AT} FROM arriving",
            [now],
        )
        connection.unregister("arriving")


def mark(
    connection: duckdb.DuckDBPyConnection,
    dataset: str,
    parts: Sequence[LoadPart],
    token: int,
    run: str,
    now: datetime,
) -> None:
    """Add the parts' markers."""
    marks = pa.table(
        {
            "object": [part.ref.name for part in parts],
            "rows": [part.rows.num_rows for part in parts],
            "rejected": [part.rejected.num_rows for part in parts],
        }
    )
    connection.register("arriving", marks)
    connection.execute(
        f"INSERT INTO {MARKERS} SELECT object, ?, rows, rejected, ?, ?, CAST(? AS TIMESTAMPTZ) FROM arriving",
        [dataset, token, run, now],
    )
    connection.unregister("arriving")


def quoted(name: str) -> str:
    """An identifier, quoted."""
    return '"' + name.replace('"', '""') + '"'
